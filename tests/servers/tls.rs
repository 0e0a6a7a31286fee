//! Encrypted connections, over HTTP/1.1 and HTTP/2, to a proxy before the mock server that has a
//! certificate of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::client::{SERVER, Setup, measures_the_truth, request, served, server};

/// The proxy: its address, its certificate in PEM form, and the requests that came over HTTP/2.
struct Proxy {
    url: String,
    certificate: String,
    over_http2: Arc<AtomicUsize>,
}

impl Proxy {
    fn start(protocol: &'static str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        tls.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let over_http2 = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&over_http2);
        let (address, bound) = std::sync::mpsc::channel::<SocketAddr>();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                address.send(listener.local_addr().unwrap()).unwrap();
                let acceptor = TlsAcceptor::from(Arc::new(tls));
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(connection(acceptor.clone(), stream, Arc::clone(&counter)));
                }
            });
        });
        let url = format!("https://{}", bound.recv().unwrap());
        Self { url, certificate: made.cert.pem(), over_http2 }
    }

    /// A client of a profile that trusts the certificate in `file`.
    fn client(&self, profile: &str, file: &std::path::Path) -> Setup {
        std::fs::write(file, &self.certificate).unwrap();
        server("openai-completions", profile)
            .option("url", format!("{}/{profile}", self.url))
            .env("BENCH_CA_FILE", file.display())
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, over_http2: Arc<AtomicUsize>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: Request<Incoming>| {
        if request.version() == Version::HTTP_2 {
            over_http2.fetch_add(1, Ordering::Relaxed);
        }
        forward(request)
    });
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    // A client that goes away is no failure of the proxy.
    if http2 {
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(stream, service).await;
    } else {
        let server = hyper::server::conn::http1::Builder::new();
        let _ = server.serve_connection(stream, service).await;
    }
}

/// Asks the mock the same, and streams its answer.
async fn forward(mut request: Request<Incoming>) -> hyper::Result<Response<Incoming>> {
    let address = SERVER.url("").trim_start_matches("http://").to_owned();
    let stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = request.uri().path().parse::<Uri>().unwrap();
    *request.uri_mut() = path;
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert("host", address.parse().unwrap());
    let mut response = sender.send_request(request).await?;
    response.headers_mut().remove("transfer-encoding");
    *response.version_mut() = Version::HTTP_2;
    Ok(response)
}

#[test]
fn encrypted_streams_are_measured_within_one_per_cent_over_both_versions_of_http() {
    let folder = tempfile::tempdir().unwrap();
    for (protocol, http2) in [("http/1.1", false), ("h2", true)] {
        let proxy = Proxy::start(protocol);
        let setup = proxy.client("ttft_ms=300,tpot_ms=20", &folder.path().join("ca.pem"));
        // The truth is looked up by the profile.
        let setup = Setup { profile: "ttft_ms=300,tpot_ms=20".to_owned(), ..setup };
        measures_the_truth(&setup);
        assert_eq!(proxy.over_http2.load(Ordering::Relaxed) > 0, http2, "{protocol}");
    }
}

#[test]
fn many_streams_over_http2_keep_their_own_stamps() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start("h2");
    let setup = proxy.client("ttft_ms=100,tpot_ms=5", &folder.path().join("ca.pem"));
    let samples = setup.start().samples(vec![request(20); 16]);
    for sample in samples {
        assert!(served(&sample).error.is_none());
        let ttft = sample.token_ns[0] - sample.sent_ns;
        assert!((95_000_000..200_000_000).contains(&ttft), "{ttft}");
    }
}

#[test]
fn a_descriptor_may_name_the_certificates_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start("http/1.1");
    std::fs::write(folder.path().join("our-ca.pem"), &proxy.certificate).unwrap();
    let text = include_str!("../../runners/openai/servers/openai-completions.toml");
    let descriptor = folder.path().join("ours.toml");
    std::fs::write(&descriptor, format!("ca_file = \"our-ca.pem\"\n{text}")).unwrap();
    let setup = server(descriptor.to_str().unwrap(), "")
        .option("url", format!("{}/ttft_ms=10,tpot_ms=1", proxy.url));
    assert!(served(&setup.start().sample()).error.is_none());
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_a_failure_with_its_reason() {
    let proxy = Proxy::start("h2");
    let failure = server("openai-completions", "").option("url", &proxy.url).start_failure();
    assert!(failure.contains("no encrypted connection"), "{failure}");
    assert!(failure.contains("UnknownIssuer"), "{failure}");
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate").unwrap();
    let setup = server("openai-completions", "").env("BENCH_CA_FILE", empty.display());
    let failure = setup.option("url", &proxy.url).start_failure();
    assert!(failure.contains("empty.pem") && failure.contains("PEM form"), "{failure}");
}
