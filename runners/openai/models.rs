//! Models of a server that somebody else started: given to it, loaded before the clock, and asked
//! for their memory.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use bench::units::Bytes as Size;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

use crate::body::put;
use crate::connection::{Target, exchange};
use crate::descriptor::{Create, Json, Load, Memory};
use crate::payload::{Ask, Payload};

/// How long a server may take to copy, convert or load a model.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a small question may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Uploads the model file where the server does not have it yet, and gives the name that it has
/// there: made from the file's own name, which stands for its content.
pub fn create(
    runtime: &Runtime,
    target: &Target,
    how: &Create,
    file: &Path,
) -> anyhow::Result<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let model = format!("bench-{stem}");
    let checksum = checksum(file)?;
    let upload = format!("{}{checksum}", how.upload);
    let there = runtime.block_on(exchange(target, &upload, Ask::Head, ANSWER));
    if !there.is_ok_and(|(status, _)| status == 200) {
        let payload = Payload::file(file)?;
        let answer = runtime.block_on(exchange(target, &upload, Ask::Upload(payload), PATIENCE));
        succeeded(target, &how.upload, answer)?;
    }
    let mut body = Value::Object(how.body.clone());
    put(&mut body, &how.model_at, Value::from(model.as_str()))?;
    let mut files = Json::new();
    files.insert(name, Value::from(checksum));
    put(&mut body, &how.files_at, Value::Object(files))?;
    post(runtime, target, &how.path, &body)?;
    Ok(model)
}

/// Has the model loaded, with a context of so many tokens.
pub fn load(
    runtime: &Runtime,
    target: &Target,
    how: &Load,
    model: &str,
    context: u32,
) -> anyhow::Result<()> {
    let mut body = Value::Object(how.body.clone());
    put(&mut body, &how.model_at, Value::from(model))?;
    if let Some(place) = &how.context_at {
        put(&mut body, place, Value::from(context))?;
    }
    post(runtime, target, &how.path, &body).map(drop)
}

/// The bytes of device memory that the server counts for the model; `None` where it lists no such
/// model, or none of its memory is a device's.
pub fn device_bytes(runtime: &Runtime, target: &Target, how: &Memory, model: &str) -> Option<Size> {
    let (status, body) = runtime.block_on(exchange(target, &how.path, Ask::Get, ANSWER)).ok()?;
    let answer: Value = serde_json::from_slice(&body).ok().filter(|_| status == 200)?;
    let models = answer.pointer(&how.list)?.as_array()?;
    // A name without a tag is that of the tag `latest`.
    let same = |name: &str| name == model || name.strip_suffix(":latest") == Some(model);
    let found = models.iter().find(|entry| entry[&how.name].as_str().is_some_and(same))?;
    found[&how.device_bytes].as_u64().filter(|&bytes| bytes > 0).map(Size)
}

fn post(runtime: &Runtime, target: &Target, path: &str, body: &Value) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(body).context("cannot write a request's body")?;
    let answer = runtime.block_on(exchange(target, path, Ask::Post(bytes.into()), PATIENCE));
    succeeded(target, path, answer)
}

fn succeeded(
    target: &Target,
    path: &str,
    answer: Result<(u16, Vec<u8>), bench::runner::protocol::ServedError>,
) -> anyhow::Result<()> {
    let (status, body) = answer.map_err(|error| anyhow::anyhow!("{}", error.reason))?;
    if !(200..300).contains(&status) {
        let words = target.redacted(String::from_utf8_lossy(&body).trim());
        bail!("{path} answers {status}: {words}");
    }
    Ok(())
}

/// `sha256:` and the file's checksum.
fn checksum(path: &Path) -> anyhow::Result<String> {
    let failed = || format!("cannot read '{}'", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut piece).with_context(failed)?;
        if length == 0 {
            break;
        }
        hash.update(&piece[..length]);
    }
    let digest: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{digest}"))
}
