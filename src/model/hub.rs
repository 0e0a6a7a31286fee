//! Downloads from a model hub: resumed, and kept only when size and SHA-256 are right.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use ureq::Agent;
use ureq::http::{HeaderMap, Response};

use super::synth::check_free;

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";
/// How often a connection may break without a byte in between.
const ATTEMPTS: u32 = 5;
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 8 << 20;

/// A file on the hub: `hub:owner/repo/path/file.gguf`, with `@revision` after the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// `owner/repo`.
    pub repo: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// The file's path in the repository.
    pub path: String,
}

impl FromStr for HubFile {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let wrong = || anyhow!("'{text}' is no file on a hub; write 'hub:owner/repo/file.gguf'");
        let mut parts = text.strip_prefix("hub:").ok_or_else(wrong)?.splitn(3, '/');
        let (Some(owner), Some(repo), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        let (repo, revision) = repo.split_once('@').unwrap_or((repo, "main"));
        // These become folders of the cache and parts of a URL.
        let plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        let whole = [owner, repo, revision].into_iter().chain(path.split('/')).all(plain);
        ensure!(
            whole,
            "'{text}' is no file on a hub: its parts may have letters, digits, '-', '_' and '.'"
        );
        Ok(Self {
            repo: format!("{owner}/{repo}"),
            revision: revision.to_owned(),
            path: path.to_owned(),
        })
    }
}

impl fmt::Display for HubFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.revision.as_str() {
            "main" => write!(f, "hub:{}/{}", self.repo, self.path),
            revision => write!(f, "hub:{}@{revision}/{}", self.repo, self.path),
        }
    }
}

impl HubFile {
    /// Where this file lies in `cache_dir` once it is downloaded.
    pub fn local_path(&self, cache_dir: &Path) -> PathBuf {
        let mut path = cache_dir.join("hub");
        path.extend(self.repo.split('/'));
        path.push(&self.revision);
        path.extend(self.path.split('/'));
        path
    }

    /// The files of all parts when this is one part of a split model, else this file.
    fn parts(&self) -> Vec<Self> {
        let split = || {
            let stem = self.path.strip_suffix(".gguf")?;
            let (rest, count) = stem.rsplit_once("-of-")?;
            let (stem, number) = rest.rsplit_once('-')?;
            let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
            let count = count.parse::<u32>().ok().filter(|_| digits(count) && digits(number))?;
            let part = |i: u32| format!("{stem}-{i:05}-of-{count:05}.gguf");
            Some((1..=count).map(|i| Self { path: part(i), ..self.clone() }).collect::<Vec<_>>())
        };
        split().filter(|parts| parts.contains(self)).unwrap_or_else(|| vec![self.clone()])
    }
}

/// A downloaded file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// Where it lies; of a split model the part that was asked for.
    pub path: PathBuf,
    /// Its SHA-256 in hexadecimal digits, as the hub states it and the content has it.
    pub sha256: String,
}

/// What a file on the hub should be.
#[derive(Clone, Debug)]
struct Expected {
    bytes: u64,
    sha256: String,
}

/// A model hub.
#[derive(Clone, Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    agent: Agent,
    /// How long to wait before a broken download goes on, times the attempt.
    pause: Duration,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` names, or Hugging Face, with the token of `HF_TOKEN` if any.
    pub fn from_env() -> Self {
        let value = |key| std::env::var(key).ok().filter(|v| !v.is_empty());
        let mut hub = Self::new(&value("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned()));
        hub.token = value("HF_TOKEN");
        hub.pause = Duration::from_secs(2);
        hub
    }

    /// The hub at this URL, asked without a token and again at once when a connection breaks.
    pub fn new(endpoint: &str) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(30)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: None,
            agent,
            pause: Duration::ZERO,
        }
    }

    /// Where `file` lies in `cache_dir`; it is downloaded, with all parts of a split model, unless it
    /// is there. `progress` is called with the bytes that are there and the bytes of the part.
    pub fn fetch(
        &self,
        file: &HubFile,
        cache_dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<Fetched> {
        let mut wanted = None;
        for part in file.parts() {
            let fetched =
                self.fetch_one(&part, cache_dir, progress).with_context(|| part.to_string())?;
            if part == *file {
                wanted = Some(fetched);
            }
        }
        wanted.context("a split model without the part that was asked for")
    }

    fn fetch_one(
        &self,
        file: &HubFile,
        cache_dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<Fetched> {
        let path = file.local_path(cache_dir);
        let receipt = beside(&path, ".sha256");
        if path.is_file()
            && let Ok(sha256) = fs::read_to_string(&receipt)
        {
            return Ok(Fetched { path, sha256: sha256.trim().to_owned() });
        }
        let expected = self.expected(file)?;
        let dir = path.parent().context("the cache has no folder")?;
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        // The name says what the content should be: another version is never mixed in.
        let part = beside(&path, &format!(".{}.part", &expected.sha256[..12]));
        let mut out = open_part(&part)?;
        let have = out.metadata()?.len().min(expected.bytes);
        check_free(dir, expected.bytes - have)?;
        self.download(file, &expected, &mut out, progress)?;
        out.sync_all().with_context(|| format!("{}", part.display()))?;
        fs::write(&receipt, format!("{}\n", expected.sha256))
            .with_context(|| format!("{}", receipt.display()))?;
        fs::rename(&part, &path).with_context(|| format!("{}", path.display()))?;
        Ok(Fetched { path, sha256: expected.sha256 })
    }

    /// Fills `out` up to the expected size and checks its content; what is wrong is emptied.
    fn download(
        &self,
        file: &HubFile,
        expected: &Expected,
        out: &mut File,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        let mut hash = Sha256::new();
        let mut have = rehash(out, &mut hash, expected.bytes)?;
        let mut failures = 0;
        while have < expected.bytes {
            let before = have;
            let step = self.transfer(file, expected, out, &mut hash, &mut have, progress);
            if let Err(error) = step {
                failures = if have > before { 0 } else { failures + 1 };
                let given_up = failures >= ATTEMPTS || error.is::<Final>();
                if given_up {
                    return Err(error.context(format!(
                        "{have} of {} bytes came; run it again to go on from there",
                        expected.bytes
                    )));
                }
                thread::sleep(self.pause * failures.max(1));
            }
        }
        let actual = hex(&hash.finalize());
        if actual != expected.sha256 {
            out.set_len(0).context("emptying a wrong download")?;
            bail!(
                "its SHA-256 is {actual} and should be {}; the download was thrown away, run it again",
                expected.sha256
            );
        }
        progress(expected.bytes, expected.bytes);
        Ok(())
    }

    /// One connection: asks for what is missing and appends what comes.
    fn transfer(
        &self,
        file: &HubFile,
        expected: &Expected,
        out: &mut File,
        hash: &mut Sha256,
        have: &mut u64,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        let mut request = self.agent.get(self.url(file));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if *have > 0 {
            request = request.header("range", format!("bytes={have}-"));
        }
        let response = request.call().context("asking the hub")?;
        match response.status().as_u16() {
            206 if range_start(response.headers()) == Some(*have) => {}
            // The whole file, because this server knows no ranges: from the beginning again.
            200 | 206 => {
                ensure!(response.status() == 200 || *have > 0, Final("an unasked range".into()));
                out.set_len(0)?;
                out.seek(SeekFrom::Start(0))?;
                *hash = Sha256::new();
                *have = 0;
                ensure!(response.status() == 200, "the hub sent another range than was asked for");
            }
            status if status >= 500 || status == 429 => bail!("the hub answers {status}"),
            status => return Err(refusal(status, file)),
        }
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        let mut buffer = vec![0; 1 << 18];
        let mut reported = *have;
        while *have < expected.bytes {
            let room = (expected.bytes - *have).min(buffer.len() as u64) as usize;
            let n = match body.read(&mut buffer[..room]) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e).context("reading from the hub"),
            };
            ensure!(n > 0, "the connection ended early");
            out.write_all(&buffer[..n]).map_err(|e| Final(format!("writing the file: {e}")))?;
            hash.update(&buffer[..n]);
            *have += n as u64;
            if *have - reported >= REPORT_EVERY {
                reported = *have;
                progress(*have, expected.bytes);
            }
        }
        Ok(())
    }

    fn url(&self, file: &HubFile) -> String {
        format!("{}/{}/resolve/{}/{}", self.endpoint, file.repo, file.revision, file.path)
    }

    /// Size and SHA-256 of `file`: from the headers before the hub redirects, else from its API.
    fn expected(&self, file: &HubFile) -> anyhow::Result<Expected> {
        let mut request = self.agent.head(self.url(file)).config().max_redirects(0).build();
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = request.call().with_context(|| format!("asking {}", self.endpoint))?;
        let status = response.status().as_u16();
        if !(200..400).contains(&status) {
            return Err(refusal(status, file));
        }
        if let Some(expected) = from_headers(&response) {
            return Ok(expected);
        }
        self.expected_by_api(file)
    }

    fn expected_by_api(&self, file: &HubFile) -> anyhow::Result<Expected> {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let url =
            format!("{}/api/models/{}/tree/{}/{folder}", self.endpoint, file.repo, file.revision);
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().context("asking the hub's API")?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(refusal(status, file));
        }
        let text = response.body_mut().read_to_string().context("the hub's list of files")?;
        let list: Vec<Listed> = serde_json::from_str(&text).context("the hub's list of files")?;
        let listed = list.into_iter().find(|l| l.path == file.path).ok_or_else(|| {
            anyhow!("the repository has no such file; look at {}/{}", self.endpoint, file.repo)
        })?;
        let sha256 = listed
            .lfs
            .and_then(|lfs| sha256_of(&lfs.oid))
            .context("the hub states no SHA-256 for it, so it cannot be checked")?;
        Ok(Expected { bytes: listed.size, sha256 })
    }
}

/// An entry of `/api/models/<repo>/tree/<revision>`.
#[derive(Deserialize)]
struct Listed {
    path: String,
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
}

/// An error after which trying again is of no use.
#[derive(Debug)]
struct Final(String);

impl fmt::Display for Final {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Final {}

fn refusal(status: u16, file: &HubFile) -> anyhow::Error {
    let reason = match status {
        401 | 403 => format!(
            "the hub refuses it ({status}): accept the model's terms on its page and set HF_TOKEN"
        ),
        404 => format!(
            "the hub has no file '{}' in '{}' at '{}' (404)",
            file.path, file.repo, file.revision
        ),
        _ => format!("the hub answers {status}"),
    };
    anyhow::Error::new(Final(reason))
}

/// What the hub says of a large file before it redirects to where the content lies.
fn from_headers<T>(response: &Response<T>) -> Option<Expected> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let sha256 = header("x-linked-etag").or_else(|| header("etag")).and_then(sha256_of)?;
    let size = header("x-linked-size").or_else(|| {
        // without a redirect this is the file's own length
        header("content-length").filter(|_| response.status() == 200)
    })?;
    Some(Expected { bytes: size.parse().ok()?, sha256 })
}

/// A SHA-256 in an `ETag` or object id: 64 hexadecimal digits, perhaps quoted or with a prefix.
fn sha256_of(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches("W/").trim_matches('"');
    let text = text.strip_prefix("sha256:").unwrap_or(text);
    (text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| text.to_ascii_lowercase())
}

/// The first byte of `Content-Range: bytes 100-199/200`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get("content-range")?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// `path` with something after its whole name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

fn open_part(part: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(part)
        .with_context(|| format!("{}", part.display()))?;
    file.try_lock().map_err(|_| {
        anyhow!("{} is being downloaded by another process; wait for it", part.display())
    })?;
    Ok(file)
}

/// Reads what an earlier run has left, and puts the file's position behind it.
fn rehash(file: &mut File, hash: &mut Sha256, most: u64) -> anyhow::Result<u64> {
    if file.metadata()?.len() > most {
        file.set_len(0)?;
    }
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = vec![0; 1 << 20];
    let mut have = 0;
    loop {
        let n = file.read(&mut buffer).context("reading the unfinished download")?;
        if n == 0 {
            return Ok(have);
        }
        hash.update(&buffer[..n]);
        have += n as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_file_is_read_from_its_word_and_cannot_leave_the_cache() {
        let file: HubFile = "hub:owner/repo/Q4/model.gguf".parse().unwrap();
        assert_eq!(file.repo, "owner/repo");
        assert_eq!(file.path, "Q4/model.gguf");
        assert_eq!(file.revision, "main");
        let file: HubFile = "hub:owner/repo@v1.0/model.gguf".parse().unwrap();
        assert_eq!(file.revision, "v1.0");
        assert_eq!(file.to_string(), "hub:owner/repo@v1.0/model.gguf");
        for wrong in ["owner/repo/f", "hub:owner/f", "hub:o/r/../../f", "hub:o/r//f", "hub:o/r/a b"]
        {
            assert!(wrong.parse::<HubFile>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_part_of_a_split_model_brings_the_others() {
        let file: HubFile = "hub:o/r/m-00002-of-00003.gguf".parse().unwrap();
        let parts: Vec<_> = file.parts().into_iter().map(|f| f.path).collect();
        assert_eq!(
            parts,
            ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]
        );
        let file: HubFile = "hub:o/r/m.gguf".parse().unwrap();
        assert_eq!(file.parts(), [file]);
    }

    #[test]
    fn a_sha256_is_told_from_other_tags() {
        let digits = "A".repeat(64);
        assert_eq!(sha256_of(&format!("\"{digits}\"")), Some("a".repeat(64)));
        assert_eq!(sha256_of("\"d41d8cd98f00b204e9800998ecf8427e\""), None);
    }
}
