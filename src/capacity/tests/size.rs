//! The search for the number of devices, against loads whose answer is known.

use crate::capacity::{
    Cause, Curve, Demand, Engine, Missed, Objective, Routing, Size, StepTime, Who, in_parallel,
};
use crate::metrics::Limits;
use crate::units::{Nanos, Share, Tokens};
use crate::workload::{Arrivals, Length, Mix, Recorded};

fn seconds(seconds: f64) -> Option<Nanos> {
    Some(Nanos::from_seconds(seconds))
}

/// Steps of 10 ms alone, of 17.5 ms with 16 sequences; 2,000 prompt tokens a second.
fn step() -> StepTime {
    StepTime {
        decode: Curve::new(vec![(1.0, 0.010), (16.0, 0.0175)]).unwrap(),
        cached_token: 0.0,
        prompt: Curve::new(vec![(0.0, 0.010), (2000.0, 1.010)]).unwrap(),
        pair: 0.0,
        both: 0.0,
        beside: 0.0,
        cold: 0.0,
        entry: 0.0,
    }
}

fn engine() -> Engine {
    Engine::llama_server(step(), 8, Tokens(2048))
}

fn users(users: u32) -> Demand {
    let mix = Mix {
        prompt: Length::Fixed(Tokens(200)),
        answer: Length::Fixed(Tokens(100)),
        turns: 1,
        think: Nanos(10_000_000_000),
        context: Tokens(2048),
        trace: Vec::new(),
    };
    Demand { mix, who: Who::Users { users }, pauses: Arrivals::Poisson, profile: None }
}

fn objective(ttft: f64) -> Objective {
    Objective {
        limits: Limits { ttft: seconds(ttft), tpot: None, end_to_end: None },
        attainment: Share(0.95),
        routing: Routing::LeastLoaded,
        beside: Vec::new(),
        most: 64,
        seed: 1,
    }
}

fn enough(size: Size) -> u32 {
    size.count().unwrap_or_else(|| panic!("{size:?}"))
}

#[test]
fn the_number_found_is_enough_and_one_fewer_is_not() {
    let objective = objective(1.0);
    for asked in [10, 60, 250, 700] {
        let demand = users(asked);
        let found = enough(objective.size(&engine(), &demand, None).unwrap());
        let kept = |count| objective.try_count(&engine(), count, &demand).unwrap().kept;
        assert!(kept(found), "{asked}: {found}");
        assert!(found == 1 || !kept(found - 1), "{asked}: {found}");
    }
}

#[test]
fn the_search_finds_what_trying_every_number_does() {
    let rate = |per_second| {
        let who = Who::Rate { per_second, arrivals: Arrivals::Poisson };
        Demand { who, ..users(1) }
    };
    // A few heavy requests, then many light ones: their mean is no bound of either.
    let mut uneven = users(1);
    let mut at = 0.0;
    for n in 0..4000 {
        at += if n < 400 { 1.0 } else { 0.1 };
        uneven.mix.trace.push(Recorded {
            start: Nanos::from_seconds(at),
            prompt_tokens: Tokens(if n < 400 { 1500 } else { 20 }),
            new_tokens: Tokens(if n < 400 { 400 } else { 5 }),
        });
    }
    uneven.who = Who::Trace { speed: 1.0 };
    let demands = [users(3), users(100), rate(2.0), rate(12.0), uneven];
    for limits in [(0.9, None), (5.0, None), (5.0, seconds(0.03)), (60.0, None)] {
        let mut objective = objective(limits.0);
        objective.limits.tpot = limits.1;
        for (n, demand) in demands.iter().enumerate() {
            let kept = |count| objective.try_count(&engine(), count, demand).unwrap().kept;
            let found = enough(objective.size(&engine(), demand, None).unwrap());
            assert!(kept(found) && (found == 1 || !kept(found - 1)), "{limits:?} {n}: {found}");
            // With a limit on tokens fewer may do too: prompts that wait are computed together.
            if limits.1.is_none() {
                assert_eq!(Some(found), (1..=64).find(|count| kept(*count)), "{limits:?} {n}");
            }
        }
    }
    // And it begins near there: 40 requests a second are not served by a handful.
    let likely = objective(1.0).likely(&engine(), &rate(40.0)).unwrap();
    let found = enough(objective(1.0).size(&engine(), &rate(40.0), None).unwrap());
    assert!(likely > found / 2 && likely <= found, "{likely} {found}");
}

#[test]
fn a_queue_without_end_is_overload_also_where_no_limit_is_on_the_wait() {
    let mut objective = objective(1.0);
    objective.limits = Limits { ttft: None, tpot: seconds(1.0), end_to_end: None };
    // 64 sequences make 1,540 tokens a second, and a prompt takes 0.11 s: 5.7 requests.
    let engine = Engine::llama_server(step(), 64, Tokens(2048)).unified();
    let at = |per_second| {
        let who = Who::Rate { per_second, arrivals: Arrivals::Poisson };
        objective.try_count(&engine, 1, &Demand { who, ..users(1) }).unwrap()
    };
    let over = at(7.0);
    // Far fewer wait at the end than make it stop.
    assert!(over.outcome.overload.is_some_and(|o| o.waiting < 6400) && !over.kept, "{over:?}");
    let what = super::super::Break::of(&over.outcome, std::slice::from_ref(&engine));
    assert_eq!((what.missed, what.cause), (Missed::Queue, Cause::Overload));
    let under = at(5.0);
    assert!(under.kept, "{:?}", under.outcome.overload);
}

#[test]
fn a_trace_is_judged_by_its_own_share() {
    let mut demand = users(1);
    let row = |n: u32| Recorded {
        start: Nanos::from_seconds(f64::from(n) * 10.0),
        prompt_tokens: Tokens(200),
        new_tokens: Tokens(100),
    };
    demand.mix.trace = (0..20).map(row).collect();
    demand.who = Who::Trace { speed: 1.0 };
    assert_eq!(enough(objective(1.0).size(&engine(), &demand, None).unwrap()), 1);
    // Two of them miss it on any number.
    demand.mix.trace[3].prompt_tokens = Tokens(1900);
    demand.mix.trace[7].prompt_tokens = Tokens(1900);
    let tried = objective(0.5).try_count(&engine(), 3, &demand).unwrap();
    assert_eq!((tried.outcome.met, tried.kept), (18, false));
}

#[test]
fn a_guess_changes_the_way_and_not_the_answer() {
    let objective = objective(1.0);
    let demand = users(250);
    let found = enough(objective.size(&engine(), &demand, None).unwrap());
    for guess in [1, found - 1, found, found + 1, 64] {
        let guessed = enough(objective.size(&engine(), &demand, Some(guess)).unwrap());
        assert_eq!(guessed, found, "guess {guess}");
    }
}

#[test]
fn a_request_that_is_too_slow_alone_is_too_slow_on_any_number() {
    // 200 prompt tokens take 110 ms.
    let size = objective(0.1).size(&engine(), &users(40), None).unwrap();
    let Size::Never(alone) = size else { panic!("{size:?}") };
    assert_eq!(alone.outcome.met, 0);
    let of_ttft = alone.outcome.ttft.percentile(50.0).unwrap().seconds();
    assert!((of_ttft - 0.11).abs() < 0.002, "{of_ttft}");
}

#[test]
fn more_than_may_be_tried_is_told() {
    let few = Objective { most: 2, ..objective(1.0) };
    let size = few.size(&engine(), &users(2000), None).unwrap();
    let Size::TooMany(tried) = size else { panic!("{size:?}") };
    assert_eq!(tried.count, 2);
    assert!(!tried.kept);
}

#[test]
fn nobody_and_nothing_are_refused() {
    let objective = objective(1.0);
    let rate = |per_second| Who::Rate { per_second, arrivals: Arrivals::Poisson };
    for who in [Who::Users { users: 0 }, rate(0.0), rate(f64::NAN), Who::Trace { speed: 1.0 }] {
        let demand = Demand { who, ..users(1) };
        assert!(objective.size(&engine(), &demand, None).is_err(), "{who:?}");
    }
}

#[test]
fn a_rate_beyond_the_service_is_overload_and_more_devices_cure_it() {
    let objective = objective(1.0);
    let who = Who::Rate { per_second: 20.0, arrivals: Arrivals::Poisson };
    let demand = Demand { who, ..users(1) };
    let one = objective.try_count(&engine(), 1, &demand).unwrap();
    assert!(one.outcome.overload.is_some() && !one.kept);
    assert!(enough(objective.size(&engine(), &demand, None).unwrap()) > 3);
}

fn alone_size(engine: &Engine, demand: &Demand) -> Size {
    objective(1.0).size(engine, demand, None).unwrap()
}

#[test]
fn devices_that_are_there_make_fewer_necessary() {
    let alone = objective(1.0);
    let demand = users(250);
    let without = enough(alone.size(&engine(), &demand, None).unwrap());
    let beside = Objective { beside: vec![engine(); 2], ..alone };
    let with = enough(beside.size(&engine(), &demand, None).unwrap());
    assert_eq!(with + 2, without);
    // However slow what would be added is: it is not needed.
    let slow = Engine::llama_server(step().scaled(10.0), 8, Tokens(2048));
    assert!(matches!(alone_size(&slow, &demand), Size::Never(_)));
    let fast = Objective { beside: vec![engine(); without as usize], ..objective(1.0) };
    assert_eq!(enough(fast.size(&slow, &demand, None).unwrap()), 0);
    // Enough of them need nothing more.
    let many = Objective { beside: vec![engine(); without as usize], ..beside };
    assert_eq!(enough(many.size(&engine(), &demand, None).unwrap()), 0);
}

#[test]
fn what_is_carried_is_kept_and_what_breaks_is_not() {
    let objective = objective(1.0);
    let demand = users(60);
    let count = enough(objective.size(&engine(), &demand, None).unwrap());
    let growth = objective.growth(&engine(), count, &demand).unwrap();
    let carries = growth.carries.unwrap();
    let (breaks, what) = growth.breaks.unwrap();
    assert!((1.0..2.0).contains(&carries), "{carries}");
    // By one user.
    assert!((breaks - carries) * 60.0 < 1.5 + carries * 60.0 * 0.02, "{carries} {breaks}");
    let kept = |factor| objective.try_count(&engine(), count, &demand.scaled(factor)).unwrap().kept;
    assert!(kept(carries) && !kept(breaks));
    // Eight slots and no other limit: what waits waits for one of them.
    assert_eq!((what.missed, what.cause), (Missed::FirstToken, Cause::SlotsTaken));
}

#[test]
fn a_full_queue_and_long_steps_break_in_their_own_way() {
    let mut objective = objective(30.0);
    let short = Engine { queue: Some(2), ..engine() };
    let tried = objective.try_count(&short, 1, &users(400)).unwrap();
    let what = super::super::Break::of(&tried.outcome, &[short]);
    assert_eq!(what.missed, Missed::Refused);
    // 16 sequences take 17.5 ms a step: too long, though none waits.
    objective.limits = Limits { ttft: None, tpot: seconds(0.012), end_to_end: None };
    let wide = Engine::llama_server(step(), 64, Tokens(2048));
    let tried = objective.try_count(&wide, 1, &users(150)).unwrap();
    let what = super::super::Break::of(&tried.outcome, &[wide]);
    assert_eq!((what.missed, what.cause), (Missed::PerToken, Cause::StepsLong));
}

#[test]
fn the_answer_is_the_same_with_any_number_of_threads() {
    let objective = objective(1.0);
    let answers = |threads| {
        in_parallel(6, threads, |i| {
            let demand = users(20 + 30 * i as u32);
            let size = objective.size(&engine(), &demand, None).unwrap();
            let Size::Enough(tried) = size else { panic!("{size:?}") };
            let o = tried.outcome;
            (tried.count, o.met, o.asked, o.ttft.percentile(95.0), o.busy.to_bits())
        })
    };
    let one = answers(1);
    assert_eq!(one, answers(2));
    assert_eq!(one, answers(7));
}

#[test]
fn longer_prompts_are_longer_in_every_kind_of_length() {
    let demand = users(4);
    let longer = demand.with_longer_prompts(2.0);
    assert_eq!(longer.mix.prompt, Length::Fixed(Tokens(400)));
    assert_eq!(longer.mix.context, demand.mix.context);
    assert_eq!(longer.mix.answer, demand.mix.answer);
    for length in [
        Length::Normal { mean: 100.0, deviation: 20.0 },
        Length::LogNormal { median: 80.0, p95: 800.0 },
        Length::Histogram(vec![(Tokens(10), 1.0), (Tokens(30), 3.0)]),
    ] {
        assert!((length.scaled(2.0).mean() / length.mean() - 2.0).abs() < 1e-9, "{length:?}");
    }
}

#[test]
fn a_conversation_that_stays_on_its_device_is_computed_once() {
    // Six on each device, with its eight slots.
    let mut demand = users(24);
    demand.mix.turns = 4;
    demand.mix.prompt = Length::Normal { mean: 200.0, deviation: 60.0 };
    let outcome = |engine: &Engine, routing| {
        let objective = Objective { routing, ..objective(1.0) };
        objective.try_count(engine, 4, &demand).unwrap().outcome
    };
    for engine in [engine(), engine().unified()] {
        let of = |routing| outcome(&engine, routing);
        let (spread, sticky) = (of(Routing::LeastLoaded), of(Routing::Sticky));
        assert!(sticky.busy < 0.9 * spread.busy, "{} {}", sticky.busy, spread.busy);
        assert!(sticky.ttft.mean().unwrap() < spread.ttft.mean().unwrap());
        assert_eq!(sticky.asked, spread.asked);
    }
}

#[test]
fn conversations_begin_where_there_is_room() {
    // A sequence for each user, one of seventeen on the small device.
    let mut demand = users(17);
    demand.mix.turns = 4;
    let large = engine().unified();
    let small = Engine { sequences: 1, ..large.clone() };
    let objective = Objective { routing: Routing::Sticky, beside: vec![small], ..objective(1.0) };
    let outcome = objective.try_count(&large, 2, &demand).unwrap().outcome;
    // In turns, a third of the users would wait for it.
    assert!(outcome.attainment().unwrap() > 0.99, "{:?}", outcome.attainment());
}

#[test]
fn an_objective_that_one_request_in_fourteen_misses_alone_is_never_kept() {
    // 7 % of the prompts are long ones, each slow by itself.
    let mut demand = users(10);
    demand.mix.prompt = Length::Histogram(vec![(Tokens(10), 93.0), (Tokens(4000), 7.0)]);
    let step = StepTime {
        prompt: Curve::new(vec![(0.0, 0.01), (4000.0, 4.0)]).unwrap(),
        ..StepTime::constant(0.01)
    };
    let engine = Engine::llama_server(step, 8, Tokens(8192));
    let size = objective(1.0).size(&engine, &demand, None).unwrap();
    assert!(matches!(size, Size::Never(_)));
}
