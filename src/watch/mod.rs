//! Memory, power, clocks and throttling of a process tree while it runs.

mod device;
mod energy;
mod lap;
mod mark;
mod meter;
mod observed;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "portable reads the tree there"))]
#[cfg(target_os = "linux")]
mod port;
#[cfg(not(target_os = "linux"))]
#[path = "port_unknown.rs"]
mod port;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
mod process;
mod watcher;
mod window;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use device::{GpuObserved, MemoryBasis};
pub use energy::Boundary;
pub use lap::{IdlePower, Lap, idle_power};
pub use mark::{Mark, join_marks};
pub use meter::Metered;
pub use observed::{Observed, Resident};
pub use window::{Span, Spans, TrialEnergy, Window, idle_watts};

use observed::OTHERS_CORES;
use watcher::Watcher;

/// The window in which processes are seen to rest: CPU time is counted in hundredths of a second.
const SETTLING: Duration = Duration::from_millis(200);

/// A thread that samples process trees ten times a second, once while another has its turn, from
/// [`Watch::start`] to [`Watch::finish`]. End it while the processes live: what they did last would
/// be missed.
///
/// Where several trees are alive and take turns, tell each watch when its own tree's turn is, with
/// [`Watch::loaded`], [`Watch::trial_starts`] and [`Watch::trial_ends`]: between its turns neither
/// the CPU time of the others nor their memory on a GPU is put to its account.
#[derive(Debug)]
pub struct Watch {
    orders: Sender<Order>,
    thread: JoinHandle<Observed>,
}

enum Order {
    Lap(Sender<Lap>),
    Turn(Turn, Sender<()>),
    /// Watch this process too, which lives since before the watch.
    Also(u32),
    /// The memory that matters cannot be seen.
    Blind(String),
    /// The energy of these times of a trial, which started then.
    Meter(u32, Instant, Spans),
    Finish,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ours, while the model loads or warms up, or for good where nobody says otherwise.
    Loading,
    /// Ours, while the clock runs.
    Trial,
    /// Another's.
    Other,
}

impl Watch {
    /// Watches a process and its descendants. Returns when the first sample is taken; what a GPU
    /// has in use then is its baseline, so start before the model is loaded.
    pub fn start(pid: u32) -> Self {
        Self::start_trees(&[pid])
    }

    /// Watches several processes with their descendants, as of a server and its client; with none,
    /// the machine alone.
    pub fn start_trees(pids: &[u32]) -> Self {
        let roots = pids.to_vec();
        let (orders, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut watcher = Watcher::start(&roots);
            // The other end is gone only if this call was given up.
            let _ = ready.send(());
            watcher.run(&inbox);
            watcher.observed()
        });
        // An error here is a thread that has ended, which `finish` tells.
        let _ = started.recv();
        Self { orders, thread }
    }

    /// The model is loaded: what GPUs take from now on is another's, until a trial starts.
    pub fn loaded(&self) {
        self.turn(Turn::Other);
    }

    /// Watches the program that listens on this TCP port of this machine too, with its descendants.
    /// It was there before: its memory is what is resident in our samples, not its peak ever. Where
    /// it cannot be found, or is none of `programs`, memory is unknown.
    pub fn listener(&self, port: u16, programs: &[String]) {
        let order = match port::listener(port, programs) {
            Ok(pid) => Order::Also(pid),
            Err(why) => Order::Blind(why),
        };
        // An error here is a thread that has ended, which `finish` tells.
        let _ = self.orders.send(order);
    }

    /// The memory that matters cannot be seen, for this reason.
    pub fn blind(&self, why: &str) {
        let _ = self.orders.send(Order::Blind(why.to_owned()));
    }

    /// A trial starts that does not count: memory is put to our account, time and energy are not.
    pub fn warm_up_starts(&self) {
        self.turn(Turn::Loading);
    }

    /// A trial of the watched processes starts. Returns when a sample is taken.
    pub fn trial_starts(&self) {
        self.turn(Turn::Trial);
    }

    /// The trial is over. Returns when a sample is taken.
    pub fn trial_ends(&self) {
        self.turn(Turn::Other);
    }

    /// Asks for the energy of a trial that has ended: its number, when it started and the times of
    /// it that matter. [`Observed::energy`] has the answer, where a counter can be read.
    pub fn meter(&self, trial: u32, started: Instant, spans: Spans) {
        // An error here is a thread that has ended, which `finish` tells.
        let _ = self.orders.send(Order::Meter(trial, started, spans));
    }

    fn turn(&self, turn: Turn) {
        let (reply, answer) = mpsc::channel();
        // An error here is a thread that has ended, which `finish` tells.
        if self.orders.send(Order::Turn(turn, reply)).is_ok() {
            let _ = answer.recv();
        }
    }

    /// What was used since the start or since the last lap. Takes a sample; call it between trials,
    /// not within one. `None` where the watching thread has died.
    pub fn lap(&self) -> Option<Lap> {
        let (reply, answer) = mpsc::channel();
        self.orders.send(Order::Lap(reply)).ok()?;
        answer.recv().ok()
    }

    /// Waits until the processes use no more than a tenth of a core, at most `limit`. Where their
    /// CPU time cannot be read it waits for nothing.
    pub fn settle(&self, limit: Duration) {
        let start = Instant::now();
        self.lap();
        while start.elapsed() < limit {
            thread::sleep(SETTLING);
            let rests = self.lap().is_none_or(|lap| {
                lap.tree_cpu.is_none_or(|cpu| cpu.seconds() <= OTHERS_CORES * lap.time.seconds())
            });
            if rests {
                return;
            }
        }
    }

    /// Takes a last sample and ends.
    pub fn finish(self) -> Observed {
        // An error here is a thread that has ended.
        let _ = self.orders.send(Order::Finish);
        self.thread.join().unwrap_or_else(|_| {
            let why = "the watching thread ended early; please report this".to_owned();
            Observed { absent: BTreeMap::from([("watch".to_owned(), why)]), ..Observed::default() }
        })
    }
}
