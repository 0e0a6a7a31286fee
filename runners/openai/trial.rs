//! One trial against a server: every request at its time, every byte stamped, every failure an
//! outcome of its own.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bench::runner::Request;
use bench::runner::protocol::{Served, ServedError, ServedFault};
use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::{Response, StatusCode};
use tokio::sync::SetOnce;

use crate::arrivals::Arrivals;
use crate::connection::{Connection, Target, read_body};
use crate::payload::Ask;

/// Tokio's timer counts in milliseconds: the rest of a wait is spent yielding.
const TIMER: Duration = Duration::from_millis(2);

/// Bytes of ended streams that may wait for the trial's end to be parsed.
const UNPARSED: usize = 64 << 20;

/// How long a stream may stay open after it said that it is over.
const FAREWELL: Duration = Duration::from_secs(2);

/// Connections that are opened before the clock starts.
const READY_MADE: usize = 2048;

/// A connection that ends this soon after a request was closed while it was idle; later the server
/// may have worked on it.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Connections that wait for their next request.
#[derive(Default)]
pub struct Pool(Mutex<Vec<Connection>>);

impl Pool {
    fn take(&self) -> Option<Connection> {
        let mut idle = self.0.lock().ok()?;
        while let Some(connection) = idle.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn put(&self, connection: Connection) {
        if connection.is_open()
            && let Ok(mut idle) = self.0.lock()
        {
            idle.push(connection);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_ok_and(|idle| idle.is_empty())
    }

    /// Opens connections until `wanted` are idle, as far as the server lets it.
    pub async fn fill(&self, target: &Target, wanted: usize) {
        if let Ok(mut idle) = self.0.lock() {
            idle.retain(Connection::is_open);
        }
        let mut missing = wanted.min(READY_MADE);
        missing = missing.saturating_sub(self.0.lock().map_or(0, |idle| idle.len()));
        for _ in 0..missing {
            // A failure here is met again, and reported, by the request that needs the connection.
            let Ok(connection) = Connection::open(target).await else { return };
            self.put(connection);
        }
    }
}

/// What all requests of a trial share.
pub struct Trial {
    pub target: Target,
    pub path: String,
    pub pool: Arc<Pool>,
    pub epoch: Instant,
    /// How long a server may say nothing.
    pub silence: Duration,
    /// When what is still open is given up.
    pub until: Option<Instant>,
    /// Whether fewer tokens than asked for are a normal end.
    pub early_end_allowed: bool,
}

/// What became of one request.
#[derive(Debug)]
pub struct Outcome {
    pub intended_ns: u64,
    pub sent_ns: u64,
    pub token_ns: Vec<u64>,
    pub served: Served,
}

/// One response, not yet parsed.
struct Received {
    intended_ns: u64,
    sent_ns: u64,
    closed_ns: u64,
    arrivals: Arrivals,
    error: Option<ServedError>,
}

struct Shared {
    trial: Trial,
    /// Requests come by the clock, and no number of connections is known to suffice.
    is_open_loop: bool,
    requests: Vec<Planned>,
    ended: Vec<SetOnce<u64>>,
    unparsed: AtomicUsize,
}

struct Planned {
    body: Bytes,
    /// Tokens to generate.
    asked: usize,
    start_ns: u64,
    after: Option<usize>,
    think_ns: u64,
    latest_ns: Option<u64>,
}

/// Runs all requests; outcomes are in their order.
pub async fn run(trial: Trial, requests: &[Request], bodies: Vec<Bytes>) -> Vec<Outcome> {
    let planned = requests.iter().zip(bodies).map(|(request, body)| Planned {
        body,
        asked: request.output.len(),
        start_ns: request.start_ns,
        after: request.after.map(|after| after as usize).filter(|&after| after < requests.len()),
        think_ns: request.think_ns,
        latest_ns: request.latest_ns,
    });
    let is_late = |request: &Request| request.after.is_none() && request.start_ns > 0;
    let shared = Arc::new(Shared {
        is_open_loop: requests.iter().any(is_late),
        requests: planned.collect(),
        ended: requests.iter().map(|_| SetOnce::new()).collect(),
        unparsed: AtomicUsize::new(0),
        trial,
    });
    let tasks: Vec<_> = (0..requests.len())
        .map(|i| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let response = shared.one(i).await;
                let _ = shared.ended[i].set(shared.now());
                response
            })
        })
        .collect();
    let mut outcomes = Vec::with_capacity(tasks.len());
    let mut responses = Vec::with_capacity(tasks.len());
    for task in tasks {
        responses.push(task.await);
    }
    for (response, request) in responses.into_iter().zip(requests) {
        outcomes.push(match response {
            Ok(response) => shared.outcome(response, request),
            Err(error) => Outcome {
                intended_ns: request.start_ns,
                sent_ns: request.start_ns,
                token_ns: Vec::new(),
                served: Served {
                    error: Some(shared.trial.target.error(
                        ServedFault::Malformed,
                        format!("the client failed on this response: {error}"),
                    )),
                    ..Served::default()
                },
            },
        });
    }
    outcomes
}

impl Shared {
    fn now(&self) -> u64 {
        self.trial.epoch.elapsed().as_nanos() as u64
    }

    /// Waits for request `i`'s turn, and runs it.
    async fn one(&self, i: usize) -> Received {
        let planned = &self.requests[i];
        let mut intended_ns = planned.start_ns;
        if let Some(before) = planned.after {
            let end = *self.ended[before].wait().await;
            intended_ns = intended_ns.max(end + planned.think_ns);
        }
        let left_out = planned.latest_ns.is_some_and(|latest| intended_ns > latest);
        let mut response = Received {
            intended_ns,
            sent_ns: self.now(),
            closed_ns: 0,
            arrivals: Arrivals::new(planned.asked),
            error: None,
        };
        if left_out {
            response.error = Some(self.trial.target.error(
                ServedFault::NotStarted,
                "the trial's time was over before the request could start",
            ));
        } else if let Err(error) = self.in_time(planned, &mut response).await {
            response.error = Some(error);
        }
        if response.closed_ns == 0 {
            response.closed_ns = self.now();
        }
        let held = self.unparsed.fetch_add(response.arrivals.unparsed(), Ordering::Relaxed);
        if held > UNPARSED && response.error.is_none() {
            response.error = self.parsed(&mut response.arrivals).err();
        }
        response
    }

    /// A request from its start to its end, or to the end of the trial's time.
    async fn in_time(&self, planned: &Planned, into: &mut Received) -> Result<(), ServedError> {
        let start = self.trial.epoch + Duration::from_nanos(into.intended_ns);
        let until = self.trial.until;
        let over = |what: &str| {
            let words = format!("the trial's time was over before the {what}");
            self.trial.target.error(ServedFault::TimedOut, words)
        };
        if until.is_some_and(|until| until <= start.max(Instant::now())) {
            return Err(over("request could start"));
        }
        let work = async {
            wait_until(start).await;
            into.sent_ns = self.now();
            self.exchange(planned, into).await
        };
        let Some(until) = until else { return work.await };
        tokio::time::timeout_at(until.into(), work)
            .await
            .unwrap_or_else(|_| Err(over("answer was")))
    }

    async fn exchange(&self, planned: &Planned, into: &mut Received) -> Result<(), ServedError> {
        let target = &self.trial.target;
        let mut connection = match self.trial.pool.take() {
            Some(connection) => connection,
            None => Connection::open(target).await?,
        };
        if self.is_open_loop && self.trial.pool.is_empty() {
            // For the next one, so that its time has no handshake in it.
            let (pool, target) = (Arc::clone(&self.trial.pool), target.clone());
            tokio::spawn(async move { pool.fill(&target, 1).await });
        }
        let mut sent = None;
        let mut response = loop {
            let used = connection.used;
            let asked = Instant::now();
            let work = connection.send(target, &self.trial.path, Ask::Post(planned.body.clone()));
            let answer = tokio::time::timeout(self.trial.silence, work).await;
            // The clock starts with the first attempt.
            into.sent_ns =
                *sent.get_or_insert_with(|| connection.stamps.sent_since(self.trial.epoch));
            match answer {
                Ok(Ok(response)) => break response,
                // A server may close an idle connection at the moment when it is used again.
                Ok(Err(error))
                    if used
                        && (error.is_canceled()
                            || (error.is_closed() || error.is_incomplete_message())
                                && asked.elapsed() < AT_ONCE) =>
                {
                    connection = Connection::open(target).await?;
                }
                Ok(Err(error)) => {
                    let (kind, words) = explain(&error);
                    return Err(target.error(kind, format!("before any answer: {words}")));
                }
                Err(_) => return Err(self.silent()),
            }
        };
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        self.stream(response.body_mut(), &connection, into).await?;
        self.trial.pool.put(connection);
        Ok(())
    }

    /// Reads a stream to its end.
    async fn stream(
        &self,
        body: &mut Incoming,
        connection: &Connection,
        into: &mut Received,
    ) -> Result<(), ServedError> {
        let target = &self.trial.target;
        let stamps = Arc::clone(&connection.stamps);
        let epoch = self.trial.epoch;
        let mut last = Instant::now();
        let mut patience = self.trial.silence;
        // One timer for the whole stream: one for each read would cost more than the read.
        let mut timer = pin!(tokio::time::sleep(patience));
        loop {
            let next = std::future::poll_fn(|context| {
                if let Poll::Ready(frame) = std::pin::Pin::new(&mut *body).poll_frame(context) {
                    return Poll::Ready(Some(frame));
                }
                while timer.as_mut().poll(context).is_ready() {
                    if last.elapsed() >= patience {
                        return Poll::Ready(None);
                    }
                    timer.as_mut().reset((last + patience).into());
                }
                Poll::Pending
            });
            let frame = match next.await {
                Some(frame) => frame,
                None if patience == FAREWELL => return Ok(()),
                None => return Err(self.silent()),
            };
            match frame {
                None => {
                    into.closed_ns = self.now();
                    return Ok(());
                }
                Some(Ok(frame)) => {
                    let Some(data) = frame.data_ref() else { continue };
                    let read_ns = stamps.read_since(epoch);
                    last = Instant::now();
                    into.closed_ns = read_ns;
                    into.arrivals
                        .push(data, read_ns)
                        .map_err(|(kind, words)| target.error(kind, words))?;
                    if patience != FAREWELL && into.arrivals.says_done() {
                        patience = FAREWELL;
                        timer.as_mut().reset((last + patience).into());
                    }
                }
                Some(Err(error)) => {
                    let (kind, words) = explain(&error);
                    return Err(target.error(kind, format!("in mid-stream: {words}")));
                }
            }
        }
    }

    fn silent(&self) -> ServedError {
        let seconds = self.trial.silence.as_secs_f64();
        self.trial
            .target
            .error(ServedFault::TimedOut, format!("the server said nothing for {seconds} s"))
    }

    /// A response with a status other than 200, with the server's words.
    async fn refusal(&self, response: Response<Incoming>) -> ServedError {
        let status = response.status();
        let later = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let later = later.map(|after| format!(" (retry after {after} s)")).unwrap_or_default();
        let body = tokio::time::timeout(FAREWELL, read_body(response.into_body()));
        let body = body.await.unwrap_or_default();
        let words = String::from_utf8_lossy(&body);
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                ServedFault::RateLimited
            }
            _ => ServedFault::Status,
        };
        let target = &self.trial.target;
        target.error(kind, format!("{status}{later} from {}: {}", self.trial.path, words.trim()))
    }

    fn parsed(&self, arrivals: &mut Arrivals) -> Result<(), ServedError> {
        let target = &self.trial.target;
        arrivals.parse(true).map_err(|(kind, words)| target.error(kind, words))
    }

    /// The tokens and the rest of a response. What came before an error is kept.
    fn outcome(&self, mut response: Received, request: &Request) -> Outcome {
        let parsed = self.parsed(&mut response.arrivals).err();
        let events = response.arrivals.count();
        let (token_ns, mut served) = response.arrivals.finish(response.closed_ns);
        // The stream's own error explains a broken connection, not the other way round.
        let stream =
            parsed.filter(|error| response.error.is_none() || error.kind == ServedFault::Stream);
        served.error = stream.or(response.error);
        let asked = request.output.len();
        let got = served.output_tokens.map_or(token_ns.len(), |tokens| tokens as usize);
        if served.error.is_none()
            && (token_ns.is_empty() || got > asked || got < asked && !self.trial.early_end_allowed)
        {
            let why = served.finish.as_deref().unwrap_or("none given");
            let words = format!("{got} of {asked} tokens in {events} events; finish reason: {why}");
            served.error = Some(self.trial.target.error(ServedFault::EarlyEnd, words));
        }
        let Received { intended_ns, sent_ns, .. } = response;
        Outcome { intended_ns, sent_ns, token_ns, served }
    }
}

/// What kind of failure an error of the connection is, with all its reasons.
fn explain(error: &hyper::Error) -> (ServedFault, String) {
    use std::error::Error;
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    let kind = if error.is_parse() { ServedFault::Malformed } else { ServedFault::Disconnected };
    (kind, words)
}

/// Returns at `at`, to the microsecond where the processor is free.
async fn wait_until(at: Instant) {
    let now = Instant::now();
    if at > now + TIMER {
        tokio::time::sleep_until((at - TIMER).into()).await;
    }
    while Instant::now() < at {
        tokio::task::yield_now().await;
    }
}
