//! Where model files are kept on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use super::hf::CONFIG;
use crate::catalog::nearest;
use crate::units::Bytes;

/// The environment variable that names another folder.
pub const VARIABLE: &str = "BENCH_CACHE";

/// The folder in it of what is no model.
const RUNNERS: &str = "runners";

/// The folder of synthetic weights and downloads: `BENCH_CACHE`, or a folder of ours among the
/// user's caches.
pub fn dir() -> anyhow::Result<PathBuf> {
    match std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => directories::ProjectDirs::from("", "", "bench-llm")
            .map(|dirs| dirs.cache_dir().join("models"))
            .with_context(|| format!("no home folder; set {VARIABLE} to a folder for models")),
    }
}

/// The folder in `cache` of the runners that `bench setup` installs.
pub fn runners(cache: &Path) -> PathBuf {
    cache.join(RUNNERS)
}

/// A model in the cache: a file, or a folder with a `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path below the cache, with `/`.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Its size.
    pub bytes: Bytes,
}

/// The model files in `cache`, by name.
pub fn entries(cache: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut list = Vec::new();
    let mut folders = BTreeMap::<PathBuf, u64>::new();
    walk(cache, &mut |path, bytes| {
        if path.extension().is_some_and(|e| e == "gguf") {
            list.push(Entry { name: name_of(cache, path), path: path.to_owned(), bytes });
        } else if let Some(folder) = path.parent().filter(|dir| is_model(dir)) {
            *folders.entry(folder.to_owned()).or_default() += bytes.0;
        }
    })?;
    list.extend(folders.into_iter().map(|(path, bytes)| Entry {
        name: name_of(cache, &path),
        path,
        bytes: Bytes(bytes),
    }));
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Whether `folder` holds a whole model; one that is being made ends in `.tmp`.
fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG).is_file() && folder.extension().is_none_or(|ending| ending != "tmp")
}

/// What interrupted runs left in `cache`: unfinished downloads and weights, with their sizes.
pub fn leftovers(cache: &Path) -> anyhow::Result<Vec<(PathBuf, Bytes)>> {
    let mut list = Vec::new();
    walk(cache, &mut |path, bytes| {
        if path.extension().is_some_and(|e| e == "tmp" || e == "part") {
            list.push((path.to_owned(), bytes));
        }
    })?;
    Ok(list)
}

/// The entries that `word` means: one with this name, or those whose names begin with it.
pub fn find(cache: &Path, word: &str) -> anyhow::Result<Vec<Entry>> {
    let all = entries(cache)?;
    let same: Vec<_> = all.iter().filter(|e| e.name == word).cloned().collect();
    if !same.is_empty() {
        return Ok(same);
    }
    let begun: Vec<_> = all.iter().filter(|e| e.name.starts_with(word)).cloned().collect();
    ensure!(!word.is_empty(), "an empty name; `bench model list` shows the names");
    if !begun.is_empty() {
        return Ok(begun);
    }
    match nearest(word, all.iter().map(|e| e.name.as_str())).first() {
        Some(near) => bail!("no model '{word}' in the cache; did you mean '{near}'?"),
        None => bail!("no model '{word}' in the cache; `bench model list` shows what there is"),
    }
}

/// Removes a file from the cache, and folders that it leaves empty.
pub fn remove(cache: &Path, path: &Path) -> anyhow::Result<()> {
    ensure!(path.starts_with(cache), "{} is not in the cache", path.display());
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.with_context(|| format!("{}", path.display()))?;
    // what a download keeps beside it
    let _ = fs::remove_file(path.with_extension("gguf.sha256"));
    let mut folder = path.parent();
    while let Some(dir) = folder.filter(|dir| *dir != cache) {
        if fs::remove_dir(dir).is_err() {
            break; // not empty
        }
        folder = dir.parent();
    }
    Ok(())
}

fn name_of(cache: &Path, path: &Path) -> String {
    let below = path.strip_prefix(cache).unwrap_or(path);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

fn walk(dir: &Path, found: &mut dyn FnMut(&Path, Bytes)) -> anyhow::Result<()> {
    let list = match fs::read_dir(dir) {
        Ok(list) => list,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("{}", dir.display())),
    };
    for entry in list {
        let entry = entry.with_context(|| format!("{}", dir.display()))?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.path().extension().is_some_and(|e| e == "tmp") {
            found(&entry.path(), size_of(&entry.path())?);
        } else if kind.is_dir() && entry.file_name() != RUNNERS {
            walk(&entry.path(), found)?;
        } else if kind.is_file() {
            found(&entry.path(), Bytes(entry.metadata()?.len()));
        }
    }
    Ok(())
}

/// The size of a folder that is one thing: of all files in it.
fn size_of(dir: &Path) -> anyhow::Result<Bytes> {
    let mut bytes = 0;
    walk(dir, &mut |_, size| bytes += size.0)?;
    Ok(Bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_by_name_or_by_its_beginning_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path();
        fs::create_dir_all(cache.join("hub/a/b")).unwrap();
        for name in ["x-Q4_0.gguf", "x-Q8_0.gguf", "hub/a/b/m.gguf", ".making-1.tmp"] {
            fs::write(cache.join(name), b"1234").unwrap();
        }
        let names: Vec<_> = entries(cache).unwrap().into_iter().map(|e| e.name).collect();
        assert_eq!(names, ["hub/a/b/m.gguf", "x-Q4_0.gguf", "x-Q8_0.gguf"]);
        assert_eq!(find(cache, "x-").unwrap().len(), 2);
        assert_eq!(leftovers(cache).unwrap().len(), 1);
        let message = find(cache, "x_Q4_0.gguf").unwrap_err().to_string();
        assert!(message.contains("did you mean 'x-Q4_0.gguf'"), "{message}");
        remove(cache, &cache.join("hub/a/b/m.gguf")).unwrap();
        assert!(!cache.join("hub").exists(), "empty folders go too");
    }

    #[test]
    fn a_model_s_folder_is_one_entry_and_one_that_is_being_made_is_a_leftover() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["x-BF16-config-1", ".making-2.tmp"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
            for name in [CONFIG, "tokenizer.json"] {
                fs::write(dir.path().join(folder).join(name), b"1234").unwrap();
            }
        }
        let found = entries(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].bytes), ("x-BF16-config-1", Bytes(8)));
        let left = leftovers(dir.path()).unwrap();
        assert_eq!(left, [(dir.path().join(".making-2.tmp"), Bytes(8))]);
        for path in [&found[0].path, &left[0].0] {
            remove(dir.path(), path).unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_cache_that_does_not_exist_is_empty() {
        assert_eq!(entries(Path::new("/no/such/folder")).unwrap(), []);
    }
}
