//! Weights out of the page cache, for a cold load.

use std::path::{Path, PathBuf};

use crate::model::gguf;

/// Drops the model's files from the page cache; only the kernel's word for it is had.
#[cfg(target_os = "linux")]
pub fn evict(path: &Path) -> Result<(), String> {
    use rustix::fs::{Advice, fadvise};
    for path in files(path)? {
        let file =
            std::fs::File::open(path).map_err(|e| format!("cannot open the weights: {e}"))?;
        // Dirty pages stay: a file that was just written has to reach the disk first.
        file.sync_all().map_err(|e| format!("cannot sync the weights: {e}"))?;
        fadvise(&file, 0, None, Advice::DontNeed)
            .map_err(|e| format!("cannot drop the page cache: {e}"))?;
    }
    Ok(())
}

/// Drops nothing.
#[cfg(not(target_os = "linux"))]
pub fn evict(_: &Path) -> Result<(), String> {
    Err("only Linux can drop one file from the page cache".to_owned())
}

/// The files of a model: those of its folder, all parts of a split file, or the file itself.
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "only Linux drops files"))]
fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    if path.is_dir() {
        let files = std::fs::read_dir(path).map_err(|e| format!("cannot read the weights: {e}"))?;
        let paths = files.filter_map(|file| Some(file.ok()?.path()));
        return Ok(paths.filter(|path| path.is_file()).collect());
    }
    Ok(gguf::Header::read(path).map_or_else(|_| vec![path.to_owned()], |header| header.files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::Value;

    #[test]
    fn all_parts_of_a_split_file_are_the_models() {
        let folder = tempfile::tempdir().unwrap();
        let parts = [1, 2].map(|i| folder.path().join(format!("m-0000{i}-of-00002.gguf")));
        for (i, part) in parts.iter().enumerate() {
            let keys = [("split.no", i as u16), ("split.count", 2)];
            let keys = keys.map(|(key, value)| (key.to_owned(), Value::U16(value)));
            std::fs::write(part, gguf::encode(&keys, &[])).unwrap();
        }
        assert_eq!(files(&parts[0]).unwrap(), parts);
        let other = folder.path().join("weights.bin");
        assert_eq!(files(&other).unwrap(), [other]);
    }
}
