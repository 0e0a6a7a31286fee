//! A server's process and its state: attached to or started, waited for, asked what it is.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bench::model::hf;
use bench::runner::{Fault, Model, Settings};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::connection::{Target, exchange};
use crate::descriptor::{Descriptor, Place, Start};
use crate::metrics::label;
use crate::payload::Ask;

/// The variable that names a PEM file with certificates to trust besides the public ones.
const CA_VARIABLE: &str = "BENCH_CA_FILE";

/// The first argument of this program where it starts a server: see [`become_server`].
pub const START: &str = "--start-server";

/// How long a small question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// How long a server may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(4);

/// A server that this program started; it ends with it.
pub struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            // A polite end lets a server take its workers with it.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let start = Instant::now();
            while start.elapsed() < FAREWELL {
                if !matches!(self.0.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The variable that holds a server's URL: `BENCH_LLAMA_SERVER_URL`.
pub fn url_variable(name: &str) -> String {
    let name = Descriptor::label(name).to_uppercase().replace(['-', '.'], "_");
    format!("BENCH_{name}_URL")
}

/// The variable in which a person states the version of a server that does not tell it.
fn version_variable(name: &str) -> String {
    url_variable(name).replace("_URL", "_VERSION")
}

/// The URL to attach to, where somebody names one.
pub fn named_url(name: &str, settings: &Settings) -> Option<String> {
    settings.options.get("url").cloned().or_else(|| std::env::var(url_variable(name)).ok())
}

/// A target with the descriptor's headers and the key from the environment.
pub fn target(descriptor: &Descriptor, url: &str) -> anyhow::Result<Target> {
    let mut headers: Vec<_> =
        descriptor.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut secret = None;
    if let Some(key) = &descriptor.key {
        match std::env::var(&key.environment) {
            Ok(value) if !value.trim().is_empty() => {
                let value = value.trim().to_owned();
                headers.push((key.header.clone(), format!("{}{value}", key.prefix)));
                secret = Some(value);
            }
            _ if key.optional => {}
            _ => bail!("no key: set the environment variable {}", key.environment),
        }
    }
    let ca_file = descriptor.ca_file.clone().or_else(|| {
        std::env::var_os(CA_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
    });
    Target::new(url, headers, secret, ca_file.as_deref())
}

/// A program on the search path.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = PathBuf::from(program);
    if path.components().count() > 1 {
        return path.is_file().then_some(path);
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Starts the server with the case's settings and waits until it answers.
pub fn start(
    runtime: &Runtime,
    descriptor: &Descriptor,
    start: &Start,
    model: &Model,
    settings: &Settings,
) -> anyhow::Result<(Started, Target)> {
    let port = free_port()?;
    let program = settings.options.get("program").unwrap_or(&start.command[0]);
    let arguments = arguments(start, model, settings, port)?;
    let own = std::env::current_exe().context("cannot find this program itself")?;
    let mut command = Command::new(own);
    command.arg(START).arg(program).args(&arguments).stdin(std::process::Stdio::null());
    let missing = start.environment.iter().filter(|(name, _)| std::env::var_os(name).is_none());
    command.envs(missing);
    // Standard output already leads to standard error, whose end the harness keeps.
    let child = command.spawn().with_context(|| format!("cannot start '{program}'"))?;
    let mut started = Started(child);
    let target = target(descriptor, &format!("http://127.0.0.1:{port}"))?;
    let begin = Instant::now();
    let limit = Duration::from_secs(start.ready_seconds);
    let path = descriptor.ready.as_ref().map_or("/", |ready| ready.path.as_str());
    loop {
        if let Some(status) = started.0.try_wait().context("cannot see whether it runs")? {
            bail!("'{program}' ended before it was ready ({status}); see its words above");
        }
        if let Ok((200, _)) = runtime.block_on(exchange(&target, path, Ask::Get, ANSWER)) {
            return Ok((started, target));
        }
        if begin.elapsed() > limit {
            bail!("'{program}' was not ready within {} s", limit.as_secs());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Becomes the server in these arguments, so that it ends when the client does, however that ends:
/// what is set here outlives the change of program.
#[cfg(unix)]
pub fn become_server(words: &[std::ffi::OsString]) -> anyhow::Error {
    use std::os::unix::process::CommandExt;
    #[cfg(target_os = "linux")]
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    let Some((program, arguments)) = words.split_first() else {
        return anyhow::anyhow!("{START} needs a program");
    };
    let error = Command::new(program).args(arguments).exec();
    anyhow::anyhow!("cannot start '{}': {error}", program.display())
}

/// Starts the server in these arguments, and lasts as long as it does.
#[cfg(not(unix))]
pub fn become_server(words: &[std::ffi::OsString]) -> anyhow::Error {
    let Some((program, arguments)) = words.split_first() else {
        return anyhow::anyhow!("{START} needs a program");
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) => anyhow::anyhow!("'{}' ended: {status}", program.display()),
        Err(error) => anyhow::anyhow!("cannot start '{}': {error}", program.display()),
    }
}

fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
    Ok(listener.local_addr().context("no free port")?.port())
}

/// The arguments of a start: those of every start, then those of the settings that are given.
fn arguments(
    start: &Start,
    model: &Model,
    settings: &Settings,
    port: u16,
) -> anyhow::Result<Vec<String>> {
    let slots = settings.slots.max(1);
    let slot_tokens = settings.slot_tokens.max(1);
    let values = [
        ("{model}", model.path.display().to_string()),
        ("{port}", port.to_string()),
        ("{slots}", slots.to_string()),
        ("{slot_tokens}", slot_tokens.to_string()),
        ("{context}", (u64::from(slots) * u64::from(slot_tokens)).to_string()),
    ];
    let mut arguments: Vec<String> = start.command[1..]
        .iter()
        .map(|word| values.iter().fold(word.clone(), |w, (name, value)| w.replace(name, value)))
        .collect();
    for (name, value) in given(settings) {
        let exact = start.settings.get(&format!("{name}={value}"));
        let Some(words) = exact.or_else(|| start.settings.get(name)) else {
            // The harness gives every engine a number of threads; not every server takes one.
            if name == "threads" {
                continue;
            }
            return Err(anyhow::Error::new(Fault::Unsupported)
                .context(format!("this server has no switch for '{name}'")));
        };
        arguments.extend(words.iter().map(|word| word.replace("{}", &value)));
    }
    if hf::lacks_weights(&model.path) {
        arguments.extend(start.without_weights.iter().cloned());
    }
    if let Some(more) = settings.options.get("args") {
        let more: Vec<String> =
            serde_json::from_str(more).context("the option args is no JSON list of texts")?;
        arguments.extend(more);
    }
    Ok(arguments)
}

/// The settings that a case gives, by name.
pub fn given(settings: &Settings) -> Vec<(&'static str, String)> {
    let on_off = |value: bool| if value { "on".to_owned() } else { "off".to_owned() };
    let list =
        |shares: &Vec<f32>| shares.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    [
        ("threads", settings.threads.map(|v| v.to_string())),
        ("gpu_layers", settings.gpu_layers.map(|v| v.to_string())),
        ("flash_attention", settings.flash_attention.map(on_off)),
        ("kv_type", settings.kv_type.clone()),
        ("batch_tokens", settings.batch_tokens.map(|v| v.to_string())),
        ("micro_batch", settings.micro_batch.map(|v| v.to_string())),
        ("mmap", settings.mmap.map(on_off)),
        ("split_mode", settings.split_mode.clone()),
        ("tensor_split", settings.tensor_split.as_ref().map(list)),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// The version of a server: from the running one (at `named`, where a person names it), from the
/// installed program, or as it is fixed.
pub fn version(
    runtime: &Runtime,
    name: &str,
    descriptor: &Descriptor,
    settings: &Settings,
) -> anyhow::Result<String> {
    let source = &descriptor.version;
    let named = named_url(name, settings);
    let named = named.as_deref();
    let url = named.or(descriptor.url.as_deref());
    if let (Some(path), Some(url)) = (&source.path, url) {
        let target = target(descriptor, url)?;
        // Whoever names a URL means that server, and no program that happens to be installed.
        match runtime.block_on(exchange(&target, path, Ask::Get, ANSWER)) {
            Ok((200, body)) => {
                let value: Value = serde_json::from_slice(&body).unwrap_or_default();
                let pointer = source.pointer.as_deref().unwrap_or("/version");
                if let Some(version) = value.pointer(pointer).and_then(Value::as_str) {
                    return Ok(version.to_owned());
                }
            }
            Ok((status, _)) if named.is_some() => {
                bail!("{url}{path} answers {status}; is it a {name} server?")
            }
            Err(error) if named.is_some() => bail!("{}", error.reason),
            _ => {}
        }
    }
    let mut refused = None;
    if let Some((program, arguments)) = source.command.split_first()
        && let Some(program) = on_path(&version_program(descriptor, program, settings))
    {
        let output = Command::new(&program)
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start '{}'", program.display()))?;
        // llama-server tells its version as an error; others warn of other things there.
        let told = [output.stdout, output.stderr];
        let told = told.iter().find(|text| !text.trim_ascii().is_empty());
        let text = String::from_utf8_lossy(told.map_or(&[], |text| text)).into_owned();
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let line = lines.iter().find(|line| line.contains("version")).or_else(|| lines.last());
        match line {
            Some(line) if output.status.success() => return Ok((*line).to_owned()),
            _ => refused = Some(lines.last().map_or_else(String::new, |line| (*line).to_owned())),
        }
    }
    if let Ok(stated) = std::env::var(version_variable(name))
        && !stated.trim().is_empty()
    {
        return Ok(format!("{} (as stated)", stated.trim()));
    }
    if let Some(fixed) = &source.fixed {
        return Ok(fixed.clone());
    }
    Err(match (refused, url, &source.path) {
        (Some(words), ..) => {
            anyhow::anyhow!("'{}' tells no version: {words}", source.command.join(" "))
        }
        // Nobody named a server: there may be none at the usual place.
        (None, Some(url), None) if named.is_some() || answers(runtime, descriptor, url) => {
            anyhow::anyhow!(
                "the server at {url} does not tell its version; state it in {}",
                version_variable(name)
            )
        }
        _ => anyhow::anyhow!(
            "no {name} server found: install or start it, or set {} to the URL of a running one",
            url_variable(name)
        )
        .context(Fault::NotInstalled),
    })
}

/// Whether some server answers at `url`.
fn answers(runtime: &Runtime, descriptor: &Descriptor, url: &str) -> bool {
    let path = descriptor.ready.as_ref().map_or("/", |ready| ready.path.as_str());
    let target = target(descriptor, url);
    target.is_ok_and(|t| runtime.block_on(exchange(&t, path, Ask::Get, ANSWER)).is_ok())
}

/// The program that tells the version. A scenario may name the server's program where it is not on
/// the search path: that itself, or what lies beside it.
fn version_program(descriptor: &Descriptor, program: &str, settings: &Settings) -> String {
    let Some(stated) = settings.options.get("program") else { return program.to_owned() };
    let started = descriptor.start.as_ref().and_then(|start| start.command.first());
    if started.is_some_and(|started| started == program) {
        return stated.clone();
    }
    let beside = Path::new(stated).with_file_name(program);
    if beside.is_file() { beside.display().to_string() } else { program.to_owned() }
}

/// A value of a JSON answer as text.
pub fn read(runtime: &Runtime, target: &Target, place: &Place) -> anyhow::Result<String> {
    let Place { path, pointer } = place;
    let (status, body) = runtime
        .block_on(exchange(target, path, Ask::Get, ANSWER))
        .map_err(|error| anyhow::anyhow!("{}", error.reason))?;
    let words = || target.redacted(String::from_utf8_lossy(&body).trim());
    if status != 200 {
        bail!("{path} answers {status}: {}", words());
    }
    let answer: Option<Value> = serde_json::from_slice(&body).ok();
    let value = answer.as_ref().and_then(|answer| plain(answer.pointer(pointer)?));
    value.with_context(|| {
        format!("{path} names no model; set the option model; it answers: {}", words())
    })
}

/// What the descriptor wants read back.
pub fn read_back(
    runtime: &Runtime,
    target: &Target,
    descriptor: &Descriptor,
) -> BTreeMap<String, String> {
    let mut effective = BTreeMap::new();
    for back in &descriptor.read {
        let Ok((200, body)) = runtime.block_on(exchange(target, &back.path, Ask::Get, ANSWER))
        else {
            continue;
        };
        let page = String::from_utf8_lossy(&body);
        for (name, place) in &back.labels {
            let value = place.split_once('/').and_then(|(metric, key)| label(&page, metric, key));
            effective.extend(value.map(|value| (name.clone(), value)));
        }
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else { continue };
        for (name, pointer) in &back.values {
            if let Some(value) = answer.pointer(pointer).and_then(plain) {
                effective.insert(name.clone(), without_folders(&value));
            }
        }
    }
    effective
}

/// A path without its folders, which can name a person; any other text as it is.
pub fn without_folders(text: &str) -> String {
    match Path::new(text).file_name() {
        Some(name) if text.starts_with('/') => name.to_string_lossy().into_owned(),
        _ => text.to_owned(),
    }
}

/// The variables that change how a started server works, as they are set.
pub fn environment(start: &Start) -> BTreeMap<String, String> {
    let set = |name: &String| {
        let value = std::env::var(name).ok().or_else(|| start.environment.get(name).cloned());
        Some((name.clone(), without_folders(&value?)))
    };
    start.environment.keys().chain(&start.variables).filter_map(set).collect()
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}
