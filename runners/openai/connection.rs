//! One HTTP connection to a server, over TCP or TLS, HTTP/1.1 or 2, whose bytes are stamped at the
//! socket: below the encryption and before any parsing.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use anyhow::Context;
use bench::runner::protocol::{ServedError, ServedFault};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::payload::{Ask, Payload};

/// How long making a connection may take.
const CONNECT: Duration = Duration::from_secs(30);

/// The most of a body that is read where it is not a stream of events.
const LARGEST_BODY: usize = 1 << 20;

/// What is quoted of a server's words.
pub const QUOTED: usize = 1024;

/// Clock readings of one connection, shared with whoever waits for its bytes.
#[derive(Debug)]
pub struct Stamps {
    epoch: Instant,
    read_ns: AtomicU64,
    sent_ns: AtomicU64,
    armed: AtomicBool,
}

impl Stamps {
    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// When the last bytes were read, after `epoch`.
    pub fn read_since(&self, epoch: Instant) -> u64 {
        self.since(epoch, self.read_ns.load(Ordering::Relaxed))
    }

    /// When the first byte of the request was about to be written, after `epoch`.
    pub fn sent_since(&self, epoch: Instant) -> u64 {
        self.since(epoch, self.sent_ns.load(Ordering::Relaxed))
    }

    fn since(&self, epoch: Instant, ns: u64) -> u64 {
        let at = self.epoch + Duration::from_nanos(ns);
        at.saturating_duration_since(epoch).as_nanos() as u64
    }
}

/// A TCP stream that notes when it was read, and when a request's first byte was written.
struct Stamped {
    stream: TcpStream,
    stamps: Arc<Stamps>,
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_read(context, buffer);
        if poll.is_ready() {
            self.stamps.read_ns.store(self.stamps.now(), Ordering::Relaxed);
        }
        poll
    }
}

impl Stamped {
    fn before_write(&self) {
        if self.stamps.armed.swap(false, Ordering::Relaxed) {
            self.stamps.sent_ns.store(self.stamps.now(), Ordering::Relaxed);
        }
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.before_write();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.before_write();
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where a server is and what every request to it carries.
#[derive(Clone)]
pub struct Target {
    /// Scheme, host, port and the path before every endpoint.
    base: Uri,
    /// Headers of every request; values may be secret.
    headers: Vec<(String, String)>,
    /// What must not appear in any message.
    secret: Option<String>,
    tls: Arc<rustls::ClientConfig>,
}

impl Target {
    /// A target for `url`, with headers, one of which may hold `secret`, that also trusts the
    /// certificates of a PEM file.
    pub fn new(
        url: &str,
        headers: Vec<(String, String)>,
        secret: Option<String>,
        ca_file: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let base: Uri = url.trim_end_matches('/').parse().map_err(|error| {
            anyhow::anyhow!("'{url}' is no URL ({error}); write http://host:port")
        })?;
        if !matches!(base.scheme_str(), Some("http" | "https")) || base.host().is_none() {
            anyhow::bail!("'{url}' is no HTTP URL; write http://host:port or https://host");
        }
        let mut roots =
            rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(file) = ca_file {
            let named = || format!("the certificates of '{}'", file.display());
            let mut any = false;
            for certificate in CertificateDer::pem_file_iter(file).with_context(named)? {
                roots.add(certificate.with_context(named)?).with_context(named)?;
                any = true;
            }
            if !any {
                anyhow::bail!("{}: no certificate in it; is it in PEM form?", named());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { base, headers, secret, tls: Arc::new(tls) })
    }

    fn host(&self) -> &str {
        self.base.host().unwrap_or_default()
    }

    fn secure(&self) -> bool {
        self.base.scheme_str() == Some("https")
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.base.port_u16().unwrap_or(if self.secure() { 443 } else { 80 })
    }

    /// Whether the server is on this machine.
    pub fn is_local(&self) -> bool {
        let host = self.host().trim_start_matches('[').trim_end_matches(']');
        host == "localhost"
            || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// An error with the server's words in it, cut to 1 KiB and without the key.
    pub fn error(&self, kind: ServedFault, reason: impl AsRef<str>) -> ServedError {
        ServedError { kind, reason: self.redacted(reason.as_ref()) }
    }

    /// `text` cut to 1 KiB and without the key.
    pub fn redacted(&self, text: &str) -> String {
        let text = match self.secret.as_deref() {
            Some(secret) if !secret.is_empty() => text.replace(secret, "[key removed]"),
            _ => text.to_owned(),
        };
        let mut end = text.len().min(QUOTED);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        if end < text.len() { format!("{}…", &text[..end]) } else { text }
    }

    /// A request for `path`.
    pub fn request(&self, path: &str, ask: Ask, http2: bool) -> Request<Payload> {
        let prefix = self.base.path().trim_end_matches('/');
        let (method, kind, body) = match ask {
            Ask::Get => (Method::GET, None, Payload::Whole(None)),
            Ask::Head => (Method::HEAD, None, Payload::Whole(None)),
            Ask::Post(bytes) => (Method::POST, Some("application/json"), bytes.into()),
            Ask::Upload(file) => (Method::POST, Some("application/octet-stream"), file),
        };
        let mut request = Request::new(body);
        *request.method_mut() = method;
        let full = format!("{prefix}{path}");
        let uri = if http2 {
            let authority = self.base.authority().map_or("", |a| a.as_str());
            format!("https://{authority}{full}")
        } else {
            full
        };
        // The base was a URI and the path is checked with the descriptor.
        *request.uri_mut() = uri.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if !http2 && let Some(authority) = self.base.authority() {
            insert(headers, "host", authority.as_str());
        }
        insert(headers, "user-agent", concat!("bench/", env!("CARGO_PKG_VERSION")));
        insert(headers, "accept", "text/event-stream, application/x-ndjson, application/json");
        for (name, value) in &self.headers {
            insert(headers, name, value);
        }
        if let Some(kind) = kind {
            insert(headers, "content-type", kind);
        }
        request
    }
}

fn insert(headers: &mut hyper::HeaderMap, name: &str, value: &str) {
    if let (Ok(name), Ok(mut value)) =
        (name.parse::<hyper::header::HeaderName>(), value.parse::<hyper::header::HeaderValue>())
    {
        value.set_sensitive(name == "authorization" || name == "x-api-key");
        headers.insert(name, value);
    }
}

enum Sender {
    Http1(http1::SendRequest<Payload>),
    Http2(http2::SendRequest<Payload>),
}

/// An open connection that carries one request at a time.
pub struct Connection {
    sender: Sender,
    /// When its bytes came and went.
    pub stamps: Arc<Stamps>,
    /// Whether it has carried a request: the server may have closed it since.
    pub used: bool,
}

impl Connection {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, ServedError> {
        match tokio::time::timeout(CONNECT, Self::connect(target)).await {
            Ok(result) => result,
            Err(_) => Err(target.error(
                ServedFault::Connect,
                format!("no connection to {} within {} s", target.base, CONNECT.as_secs()),
            )),
        }
    }

    async fn connect(target: &Target) -> Result<Self, ServedError> {
        let host = target.host().trim_start_matches('[').trim_end_matches(']');
        let refused = |error: io::Error| {
            target.error(
                ServedFault::Connect,
                format!("cannot connect to {}:{}: {error}", target.host(), target.port()),
            )
        };
        let stream = TcpStream::connect((host, target.port())).await.map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        let stamps = Arc::new(Stamps {
            epoch: Instant::now(),
            read_ns: AtomicU64::new(0),
            sent_ns: AtomicU64::new(0),
            armed: AtomicBool::new(false),
        });
        let stream = Stamped { stream, stamps: Arc::clone(&stamps) };
        let sender = if target.secure() {
            let failed = |error: &dyn std::fmt::Display| {
                target.error(
                    ServedFault::Tls,
                    format!("no encrypted connection to {}: {error}", target.host()),
                )
            };
            let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
            let connector = TlsConnector::from(Arc::clone(&target.tls));
            let stream = connector.connect(name, stream).await.map_err(|error| failed(&error))?;
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            handshake(target, stream, http2).await?
        } else {
            handshake(target, stream, false).await?
        };
        Ok(Self { sender, stamps, used: false })
    }

    /// Whether another request can go over it.
    pub fn is_open(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => !sender.is_closed(),
            Sender::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request, noting when its first byte goes out, and waits for the response's head.
    pub async fn send(
        &mut self,
        target: &Target,
        path: &str,
        ask: Ask,
    ) -> hyper::Result<Response<Incoming>> {
        self.stamps.sent_ns.store(self.stamps.now(), Ordering::Relaxed);
        self.stamps.armed.store(true, Ordering::Relaxed);
        self.used = true;
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(target.request(path, ask, false)).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(target.request(path, ask, true)).await
            }
        }
    }
}

async fn handshake<S>(target: &Target, stream: S, http2: bool) -> Result<Sender, ServedError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| {
        target.error(ServedFault::Connect, format!("no HTTP with {}: {error}", target.host()))
    };
    let io = TokioIo::new(stream);
    // The connection's own errors reach the request that is under way.
    if http2 {
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), io).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Sender::Http2(sender))
    } else {
        let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Sender::Http1(sender))
    }
}

/// The status and the body (at most 1 MiB) of one exchange on a connection of its own.
pub async fn exchange(
    target: &Target,
    path: &str,
    ask: Ask,
    patience: Duration,
) -> Result<(u16, Vec<u8>), ServedError> {
    let work = async {
        let mut connection = Connection::open(target).await?;
        let response = connection.send(target, path, ask).await.map_err(|error| {
            target.error(ServedFault::Disconnected, format!("no answer from {path}: {error}"))
        })?;
        let status = response.status().as_u16();
        Ok((status, read_body(response.into_body()).await))
    };
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result,
        Err(_) => Err(target.error(
            ServedFault::TimedOut,
            format!("no answer from {path} within {} s", patience.as_secs()),
        )),
    }
}

/// As much of a body as comes, up to 1 MiB.
pub async fn read_body(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(data) = frame.data_ref() {
            let room = LARGEST_BODY - bytes.len();
            bytes.extend_from_slice(&data[..data.len().min(room)]);
            if bytes.len() == LARGEST_BODY {
                break;
            }
        }
    }
    bytes
}
