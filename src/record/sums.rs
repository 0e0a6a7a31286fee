//! Checksums of a result folder's files, in the form that `sha256sum -c` reads.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

use super::write_whole;

/// The file that holds them.
pub const SUMS: &str = "SHA256SUMS";

/// Writes the checksums of all files of the folder.
pub fn write_sums(folder: &Path) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    let context = || format!("cannot read '{}'", folder.display());
    for entry in fs::read_dir(folder).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_ours = name != SUMS && !name.starts_with('.');
        if is_ours && entry.file_type().with_context(context)?.is_file() {
            lines.push(format!("{}  {name}\n", sum(&entry.path())?));
        }
    }
    lines.sort_by(|a, b| a[64..].cmp(&b[64..]));
    write_whole(&folder.join(SUMS), lines.concat().as_bytes())
}

/// The files that are not as they were when their checksums were written, each with what is wrong;
/// `None` where the folder has no checksums.
pub fn changed_files(folder: &Path) -> anyhow::Result<Option<Vec<(String, String)>>> {
    let path = folder.join(SUMS);
    if !path.exists() {
        return Ok(None);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read '{}'", path.display()))?;
    let mut changed = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let parts = line.split_once("  ").filter(|(sum, name)| {
            sum.len() == 64 && !name.is_empty() && !name.contains(['/', '\\'])
        });
        let Some((stated, name)) = parts else {
            bail!("{}:{number}: not a checksum and a file's name", path.display());
        };
        let file = folder.join(name);
        if !file.is_file() {
            changed.push((name.to_owned(), format!("it is missing; {SUMS} names it")));
        } else if sum(&file)? != stated.to_lowercase() {
            let wrong = format!("its content is not what {SUMS}:{number} was made from");
            changed.push((name.to_owned(), wrong));
        }
    }
    Ok(Some(changed))
}

fn sum(path: &Path) -> anyhow::Result<String> {
    let read = || -> std::io::Result<String> {
        let mut hash = Sha256::new();
        std::io::copy(&mut fs::File::open(path)?, &mut HashWriter(&mut hash))?;
        Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    read().with_context(|| format!("cannot read '{}'", path.display()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_lost_and_a_whole_file_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        assert_eq!(changed_files(folder.path()).unwrap(), None);
        write_sums(folder.path()).unwrap();
        assert_eq!(changed_files(folder.path()).unwrap(), Some(vec![]));
        fs::write(folder.path().join("a"), "other").unwrap();
        fs::remove_file(folder.path().join("b")).unwrap();
        let changed = changed_files(folder.path()).unwrap().unwrap();
        let names: Vec<_> = changed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a", "b"], "{changed:?}");
    }

    #[test]
    fn a_damaged_list_is_an_error_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        for bad in ["nonsense", "aa  b", &format!("{}  ../etc/passwd", "0".repeat(64))] {
            fs::write(folder.path().join(SUMS), format!("{bad}\n")).unwrap();
            let error = changed_files(folder.path()).unwrap_err().to_string();
            assert!(error.contains("SHA256SUMS:1:"), "{error}");
        }
    }
}
