//! A watch over cards whose driver is made up.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use super::*;

#[test]
fn a_moment_s_slow_down_is_no_mark_and_a_lasting_one_is() {
    let mut seen = Seen { samples: 100, ..Seen::default() };
    for _ in 0..4 {
        seen.throttle(ThrottleReasons::SW_POWER_CAP);
    }
    assert_eq!(seen.marks(), []);
    seen.throttle(ThrottleReasons::SW_POWER_CAP | ThrottleReasons::GPU_IDLE);
    assert_eq!(seen.marks(), [Mark::PowerLimited]);
    for _ in 0..9 {
        seen.throttle(ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_SLOWDOWN);
    }
    assert_eq!(seen.marks(), THROTTLES);
}

#[test]
fn what_another_engine_loads_between_our_turns_is_not_ours() {
    const GIB: u64 = 1 << 30;
    let mut seen = Seen { baseline: Some(GIB), ..Seen::default() };
    seen.grow(5 * GIB);
    seen.turn(false, true, Some(5 * GIB));
    // Another engine loads 8 GiB; then our trial makes a buffer of 1 GiB.
    for _ in 0..3 {
        seen.turn(true, false, Some(13 * GIB));
        seen.grow(14 * GIB);
        seen.turn(false, true, Some(13 * GIB));
    }
    assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), Some(Bytes(5 * GIB)));
}

#[test]
fn heat_while_loading_is_no_mark_of_the_trials() {
    let mut seen = Seen { samples: 10, ..Seen::default() };
    for _ in 0..10 {
        seen.throttle(ThrottleReasons::HW_THERMAL_SLOWDOWN);
    }
    seen.turn(true, false, None);
    assert_eq!(seen.marks(), []);
}

#[test]
fn a_desktop_s_few_mebibytes_are_not_ours() {
    let mut seen = Seen { growth: 8 << 20, ..Seen::default() };
    assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), None);
    seen.growth = 6 << 30;
    assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), Some(Bytes(6 << 30)));
    assert_eq!(seen.peak(MemoryBasis::Processes), None);
}

const GIB: u64 = 1 << 30;

/// What a made-up driver says of a card at the moment.
#[derive(Clone, Default)]
struct Says {
    uuid: &'static str,
    used: u64,
    processes: Vec<(u32, Option<Bytes>)>,
    millijoules: Option<u64>,
    /// Watts since a moment: the counter then moves every 50 ms.
    steady: Option<(Instant, u64)>,
    busy: bool,
    clock: u32,
    celsius: u32,
    throttling: Option<ThrottleReasons>,
}

/// A card that says what its test lets it say.
#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Says>>);

impl Fake {
    fn new(uuid: &'static str, used: u64) -> Self {
        Self(Rc::new(RefCell::new(Says { uuid, used, ..Says::default() })))
    }

    fn set(&self, change: impl FnOnce(&mut Says)) {
        change(&mut self.0.borrow_mut());
    }
}

impl Card for Fake {
    fn name(&self) -> Option<String> {
        Some("NVIDIA Fake".to_owned())
    }

    fn uuid(&self) -> Option<String> {
        Some(self.0.borrow().uuid.to_owned())
    }

    fn memory_used(&self) -> Option<Bytes> {
        Some(Bytes(self.0.borrow().used))
    }

    fn processes(&self) -> Vec<(u32, Option<Bytes>)> {
        self.0.borrow().processes.clone()
    }

    fn millijoules(&self) -> Option<u64> {
        let says = self.0.borrow();
        let since =
            |(start, watts): (Instant, u64)| start.elapsed().as_millis() as u64 / 50 * 50 * watts;
        says.steady.map(since).or(says.millijoules)
    }

    fn is_busy(&self) -> bool {
        self.0.borrow().busy
    }

    fn clock_mhz(&self) -> Option<u32> {
        Some(self.0.borrow().clock)
    }

    fn celsius(&self) -> Option<u32> {
        Some(self.0.borrow().celsius)
    }

    fn throttling(&self) -> Option<ThrottleReasons> {
        self.0.borrow().throttling
    }

    fn power_limit(&self) -> Option<Watts> {
        Some(Watts(700.0))
    }
}

/// A card that takes this power from now on, and is ours alone.
pub fn steady(watts: u64) -> Devices {
    let card = Fake::new("GPU-1", 0);
    card.set(|says| says.steady = Some((Instant::now(), watts)));
    let devices = watch(&[&card], None).expect("a card");
    card.set(|says| says.used = GIB);
    devices
}

fn watch(cards: &[&Fake], visible: Option<&str>) -> Result<Devices, String> {
    let boxed = |card: &&Fake| Box::new((*card).clone()) as Box<dyn Card>;
    Devices::of(cards.iter().map(boxed).collect(), visible)
}

#[test]
fn memory_is_that_of_our_processes_where_the_driver_lists_them() {
    let card = Fake::new("GPU-1", GIB);
    let mut devices = watch(&[&card], None).unwrap();
    // A process that also draws stands in both lists; another one came meanwhile.
    let ours = (42, Some(Bytes(6 * GIB)));
    let theirs = (7, Some(Bytes(9 * GIB)));
    card.set(|says| says.processes = vec![ours, theirs, ours, (43, None)]);
    card.set(|says| says.used = 17 * GIB);
    devices.read(&BTreeSet::from([42, 43]), true);
    card.set(|says| says.processes = vec![(42, Some(Bytes(5 * GIB)))]);
    devices.read(&BTreeSet::from([42, 43]), true);
    let seen = &devices.observed()[0];
    assert_eq!(seen.peak_memory, Some(Bytes(6 * GIB)));
    assert_eq!(seen.memory_basis.as_str(), "processes");
}

#[test]
fn in_another_name_space_memory_is_the_growth_of_the_card_and_says_so() {
    let card = Fake::new("GPU-1", 3 * GIB);
    let mut devices = watch(&[&card], None).unwrap();
    // The driver lists the process as the host knows it.
    card.set(|says| says.processes = vec![(31_337, Some(Bytes(6 * GIB)))]);
    card.set(|says| says.used = 9 * GIB);
    devices.read(&BTreeSet::from([42]), true);
    let seen = &devices.observed()[0];
    assert_eq!(seen.peak_memory, Some(Bytes(6 * GIB)), "without the 3 GiB of before");
    assert_eq!(seen.memory_basis.as_str(), "device-growth");
}

#[test]
fn each_card_has_its_own_memory_and_one_that_is_not_used_has_none() {
    let cards = ["GPU-1", "GPU-2", "GPU-3"].map(|uuid| Fake::new(uuid, 0));
    let mut devices = watch(&cards.each_ref(), None).unwrap();
    for (card, gib) in cards.iter().zip([20, 12, 0]) {
        card.set(|says| says.used = gib * GIB);
        card.set(|says| says.processes = vec![(42, Some(Bytes(gib * GIB)))]);
    }
    devices.read(&BTreeSet::from([42]), true);
    let seen = devices.observed();
    let peaks: Vec<_> = seen.iter().map(|gpu| gpu.peak_memory).collect();
    assert_eq!(peaks, [Some(Bytes(20 * GIB)), Some(Bytes(12 * GIB)), None]);
}

#[test]
fn what_others_do_on_a_hidden_card_is_not_ours() {
    let cards = ["GPU-aa", "GPU-bb", "GPU-cc"].map(|uuid| Fake::new(uuid, 0));
    let seen_with = |visible: &str| {
        let mut devices = watch(&cards.each_ref(), Some(visible)).unwrap();
        cards.iter().for_each(|card| card.set(|says| says.used += 5 * GIB));
        devices.read(&BTreeSet::from([42]), true);
        devices.observed().iter().map(|gpu| gpu.index).collect::<Vec<_>>()
    };
    assert_eq!(seen_with("1"), [1]);
    assert_eq!(seen_with("GPU-cc,GPU-a"), [0, 2], "in the driver's order");
    assert_eq!(seen_with("2,-1,0"), [2]);
    let none = watch(&cards.each_ref(), Some("")).err().expect("no card is left");
    assert_eq!(none, "CUDA_VISIBLE_DEVICES='' hides all GPUs of the driver's list");
    let none = watch(&[], None).err().expect("there is none");
    assert_eq!(none, "the NVIDIA driver sees no GPU");
}

#[test]
fn the_clock_is_the_median_of_the_samples_in_which_it_computed() {
    let card = Fake::new("GPU-1", 0);
    let mut devices = watch(&[&card], None).unwrap();
    let pids = BTreeSet::from([42]);
    for (busy, clock, celsius) in
        [(false, 345, 41), (true, 1980, 60), (true, 1755, 71), (true, 1965, 68), (false, 345, 50)]
    {
        card.set(|says| (says.busy, says.clock, says.celsius) = (busy, clock, celsius));
        devices.read(&pids, true);
    }
    let seen = &devices.observed()[0];
    assert_eq!((seen.clock_mhz, seen.hottest_celsius), (Some(1965), Some(71)));
    assert_eq!(seen.power_limit, Some(Watts(700.0)));
}

#[test]
fn the_reasons_of_slow_clocks_become_marks_of_the_trials() {
    let card = Fake::new("GPU-1", 0);
    let mut devices = watch(&[&card], None).unwrap();
    let pids = BTreeSet::from([42]);
    card.set(|says| says.throttling = Some(ThrottleReasons::HW_THERMAL_SLOWDOWN));
    (0..10).for_each(|_| devices.read(&pids, true));
    assert_eq!(devices.observed()[0].throttled, [Mark::ThermalThrottled]);
    devices.turn(true, false);
    card.set(|says| says.throttling = Some(ThrottleReasons::SW_POWER_CAP));
    (0..10).for_each(|_| devices.read(&pids, true));
    assert_eq!(devices.observed()[0].throttled, [Mark::PowerLimited], "the load's heat is over");
    // Another engine's turn does not count.
    card.set(|says| says.throttling = Some(ThrottleReasons::HW_SLOWDOWN));
    (0..10).for_each(|_| devices.read(&pids, false));
    assert_eq!(devices.observed()[0].throttled, [Mark::PowerLimited]);
}

#[test]
fn energy_counts_from_the_start_of_the_watch_and_a_card_without_a_counter_has_none() {
    let (counted, old) = (Fake::new("GPU-1", 0), Fake::new("GPU-2", 0));
    counted.set(|says| says.millijoules = Some(5_000_000));
    let devices = watch(&[&counted, &old], None).unwrap();
    counted.set(|says| says.millijoules = Some(5_700_000));
    assert_eq!(devices.joules(), [Some(Joules(700.0)), None]);
}
