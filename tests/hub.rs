//! Downloads from a hub that breaks in every way a hub can break.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use bench::model::hub::{Fetched, Hub, HubFile};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How the server behaves.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Ends each connection after so many bytes of content.
    break_after: Option<usize>,
    /// Ignores `Range`.
    no_ranges: bool,
    /// States the hash of something else.
    wrong_hash: bool,
    /// States the hash only in the API, as for files that are not redirected.
    hash_in_api_only: bool,
    /// States no hash at all.
    no_hash: bool,
    /// Has no such file.
    missing: bool,
    /// Answers 503 to this many downloads first.
    busy: usize,
    /// Sends the content through a redirect to another path.
    redirect: bool,
}

struct Server {
    url: String,
    /// Each request's first line and its `Range`.
    requests: Arc<Mutex<Vec<String>>>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(|i| (i.wrapping_mul(2_654_435_761)).to_le_bytes()).collect()
}

fn serve(faults: Faults) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (seen, base) = (requests.clone(), url.clone());
    thread::spawn(move || {
        let mut busy = faults.busy;
        for stream in listener.incoming() {
            let _ = answer(stream.unwrap(), faults, &mut busy, &seen, &base);
        }
    });
    Server { url, requests }
}

fn answer(
    mut stream: TcpStream,
    faults: Faults,
    busy: &mut usize,
    seen: &Mutex<Vec<String>>,
    base: &str,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut range = None;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        let lower = line.to_lowercase();
        if let Some(value) = lower.strip_prefix("range: bytes=") {
            range = value.trim().trim_end_matches('-').parse::<usize>().ok();
        }
    }
    let first = first.trim().to_owned();
    seen.lock().unwrap().push(match range {
        Some(start) => format!("{first} from {start}"),
        None => first.clone(),
    });
    let all = content();
    let stated = if faults.wrong_hash { Sha256::digest(b"other") } else { Sha256::digest(&all) };
    let hash = hex(&stated);
    let mut send = |status: &str, headers: &str, body: &[u8]| {
        write!(stream, "HTTP/1.1 {status}\r\n{headers}connection: close\r\n\r\n")?;
        stream.write_all(body)
    };
    if faults.missing {
        return send("404 Not Found", "content-length: 0\r\n", b"");
    }
    if first.contains("/api/models/") {
        let lfs =
            if faults.no_hash { String::new() } else { format!(r#","lfs":{{"oid":"{hash}"}}"#) };
        let body = format!(r#"[{{"path":"m.gguf","size":{}{lfs}}}]"#, all.len());
        let headers =
            format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        return send("200 OK", &headers, body.as_bytes());
    }
    if first.starts_with("HEAD") {
        let headers = match faults.hash_in_api_only || faults.no_hash {
            true => format!("etag: \"abc\"\r\ncontent-length: {}\r\n", all.len()),
            false => format!(
                "x-linked-etag: \"{hash}\"\r\nx-linked-size: {}\r\nlocation: {base}/content\r\ncontent-length: 0\r\n",
                all.len()
            ),
        };
        return send(if faults.redirect { "302 Found" } else { "200 OK" }, &headers, b"");
    }
    if *busy > 0 {
        *busy -= 1;
        return send("503 Service Unavailable", "content-length: 0\r\n", b"");
    }
    if faults.redirect && first.contains("/resolve/") {
        return send(
            "302 Found",
            &format!("location: {base}/content\r\ncontent-length: 0\r\n"),
            b"",
        );
    }
    let start = range.filter(|_| !faults.no_ranges).unwrap_or(0);
    let rest = &all[start..];
    let mut headers = format!("content-length: {}\r\n", rest.len());
    let status = if start > 0 {
        headers += &format!("content-range: bytes {start}-{}/{}\r\n", all.len() - 1, all.len());
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let sent = faults.break_after.unwrap_or(rest.len()).min(rest.len());
    send(status, &headers, &rest[..sent])
}

fn fetch(server: &Server, cache: &Path) -> anyhow::Result<Fetched> {
    let file: HubFile = "hub:owner/repo/m.gguf".parse().unwrap();
    Hub::new(&server.url).fetch(&file, cache, &mut |_, _| {})
}

fn files_in(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => names.extend(files_in(&path)),
            false => names.push(path.file_name().unwrap().to_string_lossy().into_owned()),
        }
    }
    names.sort();
    names
}

#[test]
fn a_file_is_downloaded_once_and_then_taken_from_the_cache() {
    let (server, cache) =
        (serve(Faults { redirect: true, ..Faults::default() }), TempDir::new().unwrap());
    let fetched = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(&fetched.path).unwrap(), content());
    assert_eq!(fetched.sha256, hex(&Sha256::digest(content())));
    let asked = server.requests.lock().unwrap().len();
    assert_eq!(fetch(&server, cache.path()).unwrap(), fetched);
    assert_eq!(server.requests.lock().unwrap().len(), asked, "asked again");
    assert_eq!(files_in(cache.path()), ["m.gguf", "m.gguf.sha256"]);
}

#[test]
fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let faults = Faults { break_after: Some(500_000), ..Faults::default() };
    let (server, cache) = (serve(faults), TempDir::new().unwrap());
    let fetched = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), content());
    let requests = server.requests.lock().unwrap();
    assert!(requests.iter().any(|r| r.ends_with("from 500000")), "{requests:?}");
    assert!(requests.iter().any(|r| r.ends_with("from 1000000")), "{requests:?}");
}

#[test]
fn a_download_goes_on_after_the_program_was_ended() {
    let cache = TempDir::new().unwrap();
    let stuck = serve(Faults { break_after: Some(0), ..Faults::default() });
    let message = format!("{:#}", fetch(&stuck, cache.path()).unwrap_err());
    assert!(message.contains("run it again"), "{message}");
    // what an earlier run has left
    let dir = cache.path().join("hub/owner/repo/main");
    let part = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&part, &content()[..700_000]).unwrap();
    let server = serve(Faults::default());
    let fetched = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), content());
    assert!(server.requests.lock().unwrap().iter().any(|r| r.ends_with("from 700000")));
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_again() {
    let cache = TempDir::new().unwrap();
    let stuck = serve(Faults { break_after: Some(600_000), no_ranges: true, ..Faults::default() });
    assert!(fetch(&stuck, cache.path()).is_err());
    let server = serve(Faults { no_ranges: true, ..Faults::default() });
    let fetched = fetch(&server, cache.path()).unwrap();
    assert_eq!(std::fs::read(fetched.path).unwrap(), content());
}

#[test]
fn a_wrong_hash_leaves_nothing_behind_that_would_be_used() {
    let faults = Faults { wrong_hash: true, ..Faults::default() };
    let (server, cache) = (serve(faults), TempDir::new().unwrap());
    let message = format!("{:#}", fetch(&server, cache.path()).unwrap_err());
    assert!(message.contains("SHA-256") && message.contains("thrown away"), "{message}");
    assert!(!files_in(cache.path()).contains(&"m.gguf".to_owned()));
    // a left part that was wrong is not the beginning of the next download
    let server = serve(Faults::default());
    assert_eq!(std::fs::read(fetch(&server, cache.path()).unwrap().path).unwrap(), content());
}

#[test]
fn the_hash_may_come_from_the_api_and_must_come_from_somewhere() {
    let cache = TempDir::new().unwrap();
    let server = serve(Faults { hash_in_api_only: true, ..Faults::default() });
    assert!(fetch(&server, cache.path()).is_ok());
    let cache = TempDir::new().unwrap();
    let server = serve(Faults { no_hash: true, ..Faults::default() });
    let message = format!("{:#}", fetch(&server, cache.path()).unwrap_err());
    assert!(message.contains("no SHA-256"), "{message}");
}

#[test]
fn a_missing_file_is_an_error_with_its_name_at_once() {
    let (server, cache) =
        (serve(Faults { missing: true, ..Faults::default() }), TempDir::new().unwrap());
    let message = format!("{:#}", fetch(&server, cache.path()).unwrap_err());
    assert!(message.contains("m.gguf") && message.contains("404"), "{message}");
    assert_eq!(server.requests.lock().unwrap().len(), 1);
}

#[test]
fn a_busy_hub_is_asked_again() {
    let (server, cache) = (serve(Faults { busy: 2, ..Faults::default() }), TempDir::new().unwrap());
    assert!(fetch(&server, cache.path()).is_ok());
}
