//! A runner that is written in Python: put into a virtual environment of its own.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use super::Version;
use super::child::Child;
use super::locate::program_name;

/// The file that says that an environment is whole.
const DONE: &str = "installed";
/// How long the runner may take to import its libraries for the first time.
const HELLO: Duration = Duration::from_secs(300);
/// Lines of an installer's complaint that are shown.
const LAST_WORDS: usize = 6;

/// A runner's Python package, as it stands in this program.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// The engine's name.
    pub engine: &'static str,
    /// The module to start.
    pub module: &'static str,
    /// The least Python that its libraries run on.
    pub python: (u32, u32),
    /// Its files: path and text.
    pub files: &'static [(&'static str, &'static str)],
}

/// What the installation does, for whoever shows progress.
#[derive(Debug)]
pub enum Step<'a> {
    /// Makes a virtual environment with this Python.
    Environment(&'a Path),
    /// Fetches and installs the libraries; what the installer says.
    Libraries(&'a str),
    /// Starts the runner for the first time.
    Checking,
}

impl Package {
    /// What the installed runner says of itself; `None` where it is missing, broken or of another
    /// version of this program.
    pub fn installed(&self, runners: &Path) -> Option<Version> {
        let program = runners.join(program_name(self.engine));
        let same = fs::read_to_string(&program).is_ok_and(|text| text == self.program(runners));
        if !same || !self.home(runners).join(DONE).is_file() {
            return None;
        }
        receipt(&program).ok()
    }

    /// Installs the runner in `runners` and asks it for its version. What was there before stays in
    /// use until the new one works.
    pub fn install(
        &self,
        runners: &Path,
        python: Option<&Path>,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> anyhow::Result<Version> {
        ensure!(cfg!(unix), "{} runs on macOS and Linux only", self.engine);
        let python = find_python(self.python, python)?;
        let installed = self.try_install(runners, &python, progress);
        if installed.is_err() {
            // Half of it would only fill the disk.
            let _ = fs::remove_dir_all(self.home(runners));
        }
        installed
    }

    fn try_install(
        &self,
        runners: &Path,
        python: &Path,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> anyhow::Result<Version> {
        let home = self.home(runners);
        if home.exists() {
            fs::remove_dir_all(&home)
                .with_context(|| format!("cannot remove '{}'", home.display()))?;
        }
        let source = home.join("source");
        for (name, text) in self.files {
            let path = source.join(name);
            let folder = path.parent().unwrap_or(&source);
            fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .with_context(|| format!("cannot write '{}'", path.display()))?;
        }
        progress(Step::Environment(python));
        let environment = home.join("venv");
        run(python, &["-m".into(), "venv".into(), environment.clone().into()], &mut |_| {})?;
        let mut arguments: Vec<OsString> = ["-m", "pip", "install", "--disable-pip-version-check"]
            .iter()
            .chain(&["--no-input", "--progress-bar", "off"])
            .map(OsString::from)
            .collect();
        arguments.push(source.into());
        progress(Step::Libraries("starting"));
        run(&interpreter(&home), &arguments, &mut |line| progress(Step::Libraries(line)))
            .with_context(|| {
                format!(
                    "the libraries of {0} could not be installed; they come from PyPI, so check \
                     the network and type again: bench setup {0}",
                    self.engine
                )
            })?;
        progress(Step::Checking);
        let program = runners.join(program_name(self.engine));
        let draft = home.join("program");
        write_program(&draft, &self.program(runners))?;
        let version = receipt(&draft)?;
        fs::rename(&draft, &program)
            .with_context(|| format!("cannot write '{}'", program.display()))?;
        fs::write(home.join(DONE), "").with_context(|| format!("'{}'", home.display()))?;
        self.remove_others(&home);
        Ok(version)
    }

    /// The folder of this version of the runner.
    pub fn home(&self, runners: &Path) -> PathBuf {
        let mut hash = Sha256::new();
        for (name, text) in self.files {
            hash.update(format!("{name}\n{}\n{text}\n", text.len()));
        }
        let short: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
        runners.join(self.engine).join(short)
    }

    /// The program that starts the runner, and says how to mend it where its Python is gone.
    fn program(&self, runners: &Path) -> String {
        let python = interpreter(&self.home(runners));
        let python = python.display().to_string().replace('\'', "'\\''");
        let Self { engine, module, .. } = self;
        format!(
            "#!/bin/sh\n\
             # Written by `bench setup {engine}`.\n\
             python='{python}'\n\
             if ! \"$python\" -I -c 'import {module}' 2>/dev/null; then\n\
             \techo '{{\"event\":\"failed\",\"kind\":\"not-installed\",\"error\":\
             \"its Python environment is broken; type: bench setup {engine}\"}}'\n\
             \texit 1\n\
             fi\n\
             exec \"$python\" -I -m {module}\n"
        )
    }

    /// Removes other versions; one that is in use now may stay.
    fn remove_others(&self, home: &Path) {
        let Some(all) = home.parent().and_then(|parent| fs::read_dir(parent).ok()) else { return };
        for other in all.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path != home) {
            let _ = fs::remove_dir_all(other);
        }
    }
}

fn interpreter(home: &Path) -> PathBuf {
    home.join("venv").join("bin").join("python")
}

/// The version that a runner's program says.
fn receipt(program: &Path) -> anyhow::Result<Version> {
    let mut child = Child::start(program, &[])?;
    let hello = child.hello(HELLO);
    child.finish();
    hello.map(|(_, version)| version).map_err(|failure| anyhow::anyhow!("{failure}"))
}

/// The first Python that is new enough and can make virtual environments.
fn find_python(least: (u32, u32), wanted: Option<&Path>) -> anyhow::Result<PathBuf> {
    let names = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python3.10"];
    let candidates: Vec<PathBuf> = match wanted {
        Some(path) => vec![path.to_owned()],
        None => names.iter().map(PathBuf::from).collect(),
    };
    let mut reasons = Vec::new();
    for candidate in candidates {
        match check_python(&candidate, least) {
            Ok(()) => return Ok(candidate),
            Err(Some(reason)) => reasons.push(reason),
            Err(None) => {}
        }
    }
    let (major, minor) = least;
    match reasons.first() {
        Some(reason) => bail!("{reason}"),
        None => bail!(
            "Python {major}.{minor} or later is needed and none was found; type: {}",
            if cfg!(target_os = "macos") {
                "brew install python"
            } else {
                "sudo apt-get install python3 python3-venv"
            }
        ),
    }
}

/// Why this Python will not do; no reason where it does not exist.
fn check_python(python: &Path, (major, minor): (u32, u32)) -> Result<(), Option<String>> {
    let question =
        "import sys; print(sys.version_info[0], sys.version_info[1]); import venv, ensurepip";
    let answer = clean(Command::new(python).args(["-I", "-c", question])).output();
    let output = match answer {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(Some(format!("cannot start '{}': {error}", python.display()))),
        Ok(output) => output,
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version: Vec<u32> = text.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let name = python.display();
    match version[..] {
        [a, b] if (a, b) < (major, minor) => Err(Some(format!(
            "'{name}' is Python {a}.{b}, and {major}.{minor} or later is needed; install one, or \
             name it with --python"
        ))),
        [a, b] if !output.status.success() => Err(Some(format!(
            "'{name}' is Python {a}.{b} without what makes virtual environments; type: sudo \
             apt-get install python3-venv"
        ))),
        [_, _] => Ok(()),
        _ => Err(Some(format!("'{name}' is no Python; name one with --python"))),
    }
}

/// Without what the user's own environment would add.
fn clean(command: &mut Command) -> &mut Command {
    command.env_remove("PYTHONHOME").env_remove("PYTHONPATH").stdin(Stdio::null())
}

/// Runs a program to its end; `said` gets the lines that it prints.
fn run(program: &Path, arguments: &[OsString], said: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let name = || format!("'{}'", program.display());
    let mut complaints = tempfile::tempfile().context("cannot make a temporary file")?;
    let stderr = complaints.try_clone().context("cannot make a temporary file")?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(stderr);
    let mut child =
        clean(&mut command).spawn().with_context(|| format!("cannot start {}", name()))?;
    let mut last = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            said(line.trim());
            last.push(line);
        }
    }
    let status = child.wait().with_context(name)?;
    if status.success() {
        return Ok(());
    }
    let mut text = String::new();
    let _ = complaints.rewind().and_then(|()| complaints.read_to_string(&mut text));
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        lines = last.iter().map(String::as_str).collect();
    }
    // pip says what went wrong first, and at length what it thinks of it.
    let errors: Vec<&str> =
        lines.iter().map(|line| line.trim()).filter(|line| line.starts_with("ERROR: ")).collect();
    let lines = if errors.is_empty() { lines } else { errors };
    let shown = lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n  ");
    bail!("{} ended with {status}:\n  {shown}", name())
}

fn write_program(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write '{}'", path.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make '{}' a program", path.display()))?;
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const PACKAGE: Package =
        Package { engine: "x", module: "bench_x", python: (3, 8), files: &[("a/b.py", "1")] };

    #[test]
    fn another_source_is_another_folder_and_so_not_installed() {
        let runners = Path::new("/r");
        let changed = Package { files: &[("a/b.py", "2")], ..PACKAGE };
        assert_eq!(PACKAGE.home(runners), PACKAGE.home(runners));
        assert_ne!(PACKAGE.home(runners), changed.home(runners));
        assert_ne!(PACKAGE.program(runners), changed.program(runners));
    }

    #[test]
    fn a_program_whose_python_is_gone_says_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        // A path that a shell would take apart.
        let runners = folder.path().join("it's a folder");
        fs::create_dir_all(&runners).unwrap();
        let program = runners.join("program");
        write_program(&program, &PACKAGE.program(&runners)).unwrap();
        let reason = format!("{:#}", receipt(&program).unwrap_err());
        assert_eq!(reason, "its Python environment is broken; type: bench setup x");
        assert!(PACKAGE.installed(&runners).is_none());
    }

    #[test]
    fn a_program_that_is_no_python_is_refused() {
        let error = find_python((3, 8), Some(Path::new("true"))).unwrap_err().to_string();
        assert_eq!(error, "'true' is no Python; name one with --python");
        let error = find_python((3, 8), Some(Path::new("/no/python"))).unwrap_err().to_string();
        assert!(error.contains("Python 3.8 or later is needed and none was found"), "{error}");
    }
}
