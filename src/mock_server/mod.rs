//! A server of any dialect with exactly known timing, to measure clients with.

mod library;
pub mod profile;
pub mod script;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

pub use library::DEVICE_BYTES;
use library::Library;
use profile::{Failure, Profile};
use script::{Dialect, Script, Step, Then};

/// The largest request that is read.
const LARGEST_REQUEST: usize = 64 << 20;

/// A thread for each connection only waits for requests: it needs little.
const STACK: usize = 128 << 10;

/// How soon a full socket is tried again.
const AGAIN: Duration = Duration::from_micros(500);

/// Lateness of the mock itself: the difference between when bytes were due and when they were
/// handed to the system, in nanoseconds.
pub type Lateness = Arc<Mutex<Vec<u64>>>;

/// A running mock server. It ends with the process.
#[derive(Debug)]
pub struct MockServer {
    address: SocketAddr,
    lateness: Lateness,
}

impl MockServer {
    /// Listens on the loopback address; port 0 takes a free one.
    pub fn start(port: u16) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("cannot listen on port {port}"))?;
        let address = listener.local_addr().context("no local address")?;
        let lateness = Lateness::default();
        let (streams, due) = channel();
        let noted = Arc::clone(&lateness);
        std::thread::Builder::new()
            .name("mock-writer".to_owned())
            .spawn(move || write_streams(&due, &noted))
            .context("cannot start the writer")?;
        std::thread::Builder::new()
            .name("mock-accept".to_owned())
            .spawn(move || accept(&listener, &Shared { streams, library: Arc::default() }))
            .context("cannot start the acceptor")?;
        Ok(Self { address, lateness })
    }

    /// The URL of a server with this profile.
    pub fn url(&self, profile: &str) -> String {
        let slash = if profile.is_empty() { "" } else { "/" };
        format!("http://{}{slash}{profile}", self.address)
    }

    /// How late the mock's own writes were since the last call.
    pub fn take_lateness(&self) -> Vec<u64> {
        self.lateness.lock().map(|mut noted| std::mem::take(&mut *noted)).unwrap_or_default()
    }
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    streams: Sender<Stream>,
    library: Arc<Mutex<Library>>,
}

fn accept(listener: &TcpListener, shared: &Shared) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { continue };
        let shared = shared.clone();
        // Where no thread can be had, the connection is dropped, as a full server does.
        let _ = std::thread::Builder::new()
            .name("mock-reader".to_owned())
            .stack_size(STACK)
            .spawn(move || converse(&connection, &shared));
    }
}

/// A request: its path without the profile, its profile, body and key.
struct Asked {
    method: String,
    path: String,
    profile: anyhow::Result<Profile>,
    body: Vec<u8>,
    key: String,
}

/// Answers the requests of one connection until it ends.
fn converse(connection: &TcpStream, shared: &Shared) {
    let _ = connection.set_nodelay(true);
    let mut reader = BufReader::new(connection);
    while let Some(asked) = read_request(&mut reader) {
        let received = Instant::now();
        if answer(connection, shared, asked, received).is_none() {
            let _ = connection.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Answers one request; none where the connection is over.
fn answer(
    mut connection: &TcpStream,
    shared: &Shared,
    asked: Asked,
    received: Instant,
) -> Option<()> {
    let profile = match asked.profile {
        Ok(profile) => profile,
        Err(error) => {
            let body = json!({"error": {"message": format!("{error:#}")}}).to_string();
            return whole(connection, "400 Bad Request", &body);
        }
    };
    let mut library = shared.library.lock().ok()?;
    if let Some((status, body)) = library.answer(&asked.method, &asked.path, &asked.body) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        return whole(connection, &format!("{status} Mock"), &body);
    }
    if asked.path == "/metrics" {
        return whole(connection, "200 OK", &library.metrics());
    }
    drop(library);
    if asked.method != "POST" {
        return match small(&asked.path) {
            Some(value) => whole(connection, "200 OK", &value.to_string()),
            None => whole(connection, "404 Not Found", "{\"error\":\"no such path\"}"),
        };
    }
    let Some(dialect) = Dialect::of(&asked.path) else {
        return whole(connection, "404 Not Found", "{\"error\":\"no such path\"}");
    };
    let Ok(body) = serde_json::from_slice::<Value>(&asked.body) else {
        return whole(connection, "400 Bad Request", "{\"error\":\"the body is no JSON\"}");
    };
    if profile.fail == Some(Failure::NoAnswer) {
        return None;
    }
    if let Some(refusal) = script::refusal(&profile, &asked.key) {
        return connection.write_all(&refusal).ok();
    }
    let split = profile.split;
    let kind =
        if dialect == Dialect::Ollama { "application/x-ndjson" } else { "text/event-stream" };
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
    connection.write_all(head.as_bytes()).ok()?;
    let script = Script::new(profile, dialect, &body);
    if let Ok(mut library) = shared.library.lock() {
        library.count(script.profile(), script.tokens());
    }
    let (over, ended) = channel();
    let connection = connection.try_clone().ok()?;
    connection.set_nonblocking(true).ok()?;
    let stream = Stream { connection, script, received, split, over, next: None, left: Vec::new() };
    shared.streams.send(stream).ok()?;
    match ended.recv() {
        Ok(connection) => connection.set_nonblocking(false).ok(),
        Err(_) => None,
    }
}

fn whole(mut connection: &TcpStream, status: &str, body: &str) -> Option<()> {
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(response.as_bytes()).ok()
}

/// Small answers: what servers say of themselves.
fn small(path: &str) -> Option<Value> {
    Some(match path {
        "/health" => json!({"status": "ok"}),
        "/version" | "/api/version" => json!({"version": env!("CARGO_PKG_VERSION")}),
        "/v1/models" | "/api/v0/models" | "/api/v1/models" => {
            json!({"object": "list", "data": [{"id": "mock", "max_model_len": 8192}]})
        }
        "/props" => json!({
            "build_info": concat!("mock-", env!("CARGO_PKG_VERSION")), "total_slots": 512,
            "default_generation_settings": {"n_ctx": 8192},
        }),
        _ => return None,
    })
}

/// Reads a request; none at the connection's end, or where it is no HTTP.
fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.by_ref().take(65_536).read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    let mut key = String::new();
    loop {
        let mut header = String::new();
        reader.by_ref().take(65_536).read_line(&mut header).ok().filter(|&n| n > 0)?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" | "x-api-key" => value.trim().clone_into(&mut key),
            _ => {}
        }
    }
    if length > LARGEST_REQUEST {
        return None;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    // The profile is the first part of the path where that names no endpoint.
    let first = target.trim_start_matches('/').split('/').next().unwrap_or_default();
    let is_profile = first.contains('=') || first.parse::<Profile>().is_ok() && !first.is_empty();
    let (profile, path) = if is_profile {
        (first.parse(), target[1 + first.len()..].to_owned())
    } else {
        (Ok(Profile::default()), target)
    };
    Some(Asked { method, path, profile, body, key })
}

/// A response under way.
struct Stream {
    connection: TcpStream,
    script: Script,
    received: Instant,
    split: usize,
    /// Gives the connection back when the response is over; dropped where it is cut.
    over: Sender<TcpStream>,
    next: Option<Step>,
    /// Bytes that the socket had no room for.
    left: Vec<u8>,
}

/// When a stream is due again.
enum Next {
    At(Instant),
    Over,
    Cut,
    Hang,
}

/// Writes all streams from one thread, each event when it is due: a thread for each stream would
/// wake up later, and disturb the client more.
fn write_streams(arrivals: &Receiver<Stream>, lateness: &Lateness) {
    let mut streams: Vec<Option<Stream>> = Vec::new();
    let mut free = Vec::new();
    let mut due = BinaryHeap::new();
    let mut noted = Vec::new();
    loop {
        let arrived = match due.peek() {
            None => arrivals.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(&Reverse((at, _))) => {
                arrivals.recv_timeout(Instant::saturating_duration_since(&at, Instant::now()))
            }
        };
        match arrived {
            Ok(mut stream) => {
                stream.next = stream.script.next_step();
                let at = stream.due();
                let slot = free.pop().unwrap_or_else(|| {
                    streams.push(None);
                    streams.len() - 1
                });
                streams[slot] = Some(stream);
                due.push(Reverse((at, slot)));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        // New streams are taken between writes, however many are due.
        let now = Instant::now();
        while let Some(&Reverse((at, slot))) = due.peek() {
            if at > now {
                break;
            }
            due.pop();
            let Some(stream) = streams.get_mut(slot).and_then(Option::as_mut) else { continue };
            noted.push(Instant::now().saturating_duration_since(at).as_nanos() as u64);
            match stream.write_due() {
                Next::At(at) => due.push(Reverse((at, slot))),
                end => {
                    let Some(stream) = streams[slot].take() else { continue };
                    free.push(slot);
                    match end {
                        Next::Over => drop(stream.over.send(stream.connection)),
                        // A leaked socket says nothing, which is the point.
                        Next::Hang => std::mem::forget(stream),
                        _ => drop(stream.connection.shutdown(std::net::Shutdown::Both)),
                    }
                }
            }
        }
        if noted.len() > 1024 || due.is_empty() {
            if let Ok(mut all) = lateness.lock() {
                // What nobody takes does not grow for ever.
                if all.len() < 4_000_000 {
                    all.append(&mut noted);
                }
            }
            noted.clear();
        }
    }
}

impl Stream {
    fn due(&self) -> Instant {
        let after = self.next.as_ref().map_or(0, |step| step.at_ns);
        self.received + Duration::from_nanos(after)
    }

    /// Writes what is due, at once where several steps are.
    fn write_due(&mut self) -> Next {
        let now = self.received.elapsed().as_nanos() as u64;
        let mut then = Then::Go;
        let mut pieces = std::mem::take(&mut self.left);
        while then == Then::Go && pieces.len() < 1 << 20 {
            let Some(step) = self.next.take_if(|step| step.at_ns <= now) else { break };
            if !step.bytes.is_empty() {
                let piece = if self.split > 0 { self.split } else { step.bytes.len() };
                for bytes in step.bytes.chunks(piece) {
                    if self.split > 0 {
                        // Pieces for which the socket has no room wait together.
                        self.flush(&mut pieces);
                    }
                    let _ = write!(pieces, "{:x}\r\n", bytes.len());
                    pieces.extend_from_slice(bytes);
                    pieces.extend_from_slice(b"\r\n");
                }
            }
            then = step.then;
            match then {
                Then::Go => self.next = self.script.next_step(),
                Then::End => pieces.extend_from_slice(b"0\r\n\r\n"),
                Then::Repeat => self.next = Some(step),
                Then::Cut | Then::Hang => {}
            }
        }
        if !self.flush(&mut pieces) {
            return Next::Cut;
        }
        self.left = pieces;
        match then {
            _ if !self.left.is_empty() => {
                if then == Then::End {
                    // The end is written with what is left; an empty step brings it about.
                    let at_ns = self.received.elapsed().as_nanos() as u64;
                    self.next = Some(Step { at_ns, bytes: Vec::new(), then: Then::Go });
                }
                Next::At(Instant::now() + AGAIN)
            }
            Then::Go if self.next.is_none() => Next::Over,
            Then::Go => Next::At(self.due()),
            Then::Repeat => Next::At(Instant::now() + AGAIN),
            Then::End => Next::Over,
            Then::Cut => Next::Cut,
            Then::Hang => Next::Hang,
        }
    }

    /// Writes as much as the socket takes, keeping the rest; false where the client has gone.
    fn flush(&mut self, bytes: &mut Vec<u8>) -> bool {
        let mut written = 0;
        while written < bytes.len() {
            match self.connection.write(&bytes[written..]) {
                Ok(0) => return false,
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        bytes.drain(..written);
        true
    }
}
