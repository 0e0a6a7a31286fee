//! What schedulers do with requests that wait, meet, outgrow the memory or come back.

use super::*;
use crate::workload::Recorded;

/// Steps that differ in all that a step can differ in.
fn uneven() -> StepTime {
    StepTime {
        decode: Curve::new(vec![(1.0, 0.010), (8.0, 0.024)]).expect("a curve"),
        cached_token: 1e-6,
        prompt: Curve::new(vec![(0.0, 0.010), (1000.0, 0.210)]).expect("a curve"),
        pair: 1e-8,
        both: 0.0,
        beside: 1e-4,
        cold: 0.0,
        entry: 0.002,
    }
}

fn traced(rows: &[(f64, u32, u32)]) -> Demand {
    let recorded = |&(start, prompt, new): &(f64, u32, u32)| Recorded {
        start: Nanos::from_seconds(start),
        prompt_tokens: Tokens(prompt),
        new_tokens: Tokens(new),
    };
    let trace = rows.iter().map(recorded).collect();
    let mix = Mix { trace, ..Mix::fixed(Tokens(1), Tokens(1)) };
    Demand { mix, who: Who::Trace { speed: 1.0 }, pauses: Arrivals::Constant, profile: None }
}

fn close(is: f64, should: f64) {
    assert!((is / should - 1.0).abs() < 2e-3, "{is} instead of {should}");
}

#[test]
fn a_request_alone_takes_its_prompt_and_its_steps() {
    let step = uneven();
    let fleet = one(Engine::vllm(step.clone(), 100_000));
    let outcome = run(&fleet, &traced(&[(0.0, 500, 100)]), &span(0, 1));
    let part = PromptPart { tokens: 500.0, pairs: 500.0 * 250.0 };
    let first = step.seconds(0, 0.0, part);
    let rest: f64 =
        (0..99).map(|n| step.seconds(1, 501.0 + f64::from(n), PromptPart::default())).sum();
    close(seconds(outcome.ttft.mean()), first + 0.002);
    close(seconds(outcome.e2e.mean()), first + rest + 0.002);
    close(seconds(outcome.tpot.mean()), rest / 99.0);
    assert_eq!((outcome.asked, outcome.finished, outcome.met), (1, 1, 1));
}

#[test]
fn a_long_prompt_is_computed_in_chunks_beside_those_that_generate() {
    let step = uneven();
    let engine = Engine { step_tokens: 256, ..Engine::vllm(step.clone(), 100_000) };
    // One generates for long; the other comes in the middle of a step with 1,000 tokens.
    let demand = traced(&[(0.0, 1, 400), (1.005, 1000, 2)]);
    let outcome = run(&one(engine), &demand, &span(1, 1));
    // 255 tokens beside one that generates: four steps, the last with 235.
    let mut chunks = 0.0;
    let mut done = 0.0;
    while done < 1000.0 {
        let tokens = (1000.0_f64 - done).min(255.0);
        let part = PromptPart { tokens, pairs: tokens * (done + tokens / 2.0) };
        chunks += step.seconds(1, 100.0, part);
        done += tokens;
    }
    let ttft = seconds(outcome.ttft.mean());
    assert!(ttft > chunks && ttft < chunks + 0.013 + 0.002, "{ttft} {chunks}");
}

#[test]
fn what_finds_no_slot_waits_and_what_finds_no_queue_is_refused() {
    let rows: Vec<_> = (0..10).map(|n| (f64::from(n) * 1e-3, 1, 101)).collect();
    let engine = Engine { queue: Some(3), ..Engine::ollama(steady(), 2, Tokens(4096)) };
    let outcome = run(&one(engine), &traced(&rows), &span(0, 10));
    assert_eq!((outcome.asked, outcome.refused, outcome.finished), (10, 5, 5));
    // Two at once, then two, then one: each second a pair.
    close(seconds(outcome.e2e.percentile(0.0)), 1.0);
    assert!((seconds(outcome.e2e.mean()) - 1.8).abs() < 0.02, "{:?}", outcome.e2e.mean());
    // The second waits for the end of a step beside the three.
    assert_eq!(outcome.most_waiting, 4);
}

#[test]
fn a_request_that_no_cache_holds_is_refused_and_said() {
    let fleet = one(Engine::llama_server(steady(), 4, Tokens(100)));
    let outcome = run(&fleet, &traced(&[(0.0, 90, 10), (0.0, 90, 11)]), &span(0, 2));
    assert_eq!((outcome.too_long, outcome.finished), (1, 1));
    let fleet = one(Engine::vllm(steady(), 1600));
    let outcome = run(&fleet, &traced(&[(0.0, 1599, 1), (0.0, 1599, 2)]), &span(0, 2));
    assert_eq!((outcome.too_long, outcome.finished), (1, 1));
}

#[test]
fn a_full_cache_puts_the_last_one_out_and_all_are_answered() {
    // Four of 100 + 300 tokens want 1,600; there is room for 1,000.
    let rows = [(0.0, 100, 300); 4];
    let roomy = run(&one(Engine::vllm(steady(), 10_000)), &traced(&rows), &span(0, 4));
    let tight = run(&one(Engine::vllm(steady(), 1_008)), &traced(&rows), &span(0, 4));
    assert_eq!((roomy.preempted, roomy.finished), (0, 4));
    assert!(tight.preempted > 0);
    assert_eq!(tight.finished, 4);
    assert!(tight.most_cache <= 1.0 && tight.most_cache > 0.9, "{}", tight.most_cache);
    // Prompts cost nothing here: the first is never put out, the last ends later.
    close(seconds(tight.e2e.percentile(0.0)), seconds(roomy.e2e.percentile(0.0)));
    assert!(seconds(tight.e2e.mean()) > 1.15 * seconds(roomy.e2e.mean()));
}

#[test]
fn a_further_turn_finds_its_cache_while_it_lasts() {
    let talk = |context| Mix {
        turns: 5,
        think: Nanos(10_000_000_000),
        context: Tokens(context),
        ..Mix::fixed(Tokens(200), Tokens(20))
    };
    let ttft = |engine: Engine, users_: u32| {
        seconds(run(&one(engine), &users(talk(4096), users_), &span(20, 400)).ttft.mean())
    };
    let slots = |count| Engine::llama_server(uneven(), count, Tokens(4096));
    let forgetful = Engine { reuses_prefix: false, ..slots(4) };
    // Each computes its own 200 tokens instead of 640 on average.
    assert!(ttft(slots(4), 4) < 0.6 * ttft(forgetful.clone(), 4));
    // With fewer slots than users, others have taken them in the meantime.
    let taken = ttft(slots(1), 4);
    assert!(taken > 0.9 * ttft(Engine { sequences: 1, ..forgetful.clone() }, 4), "{taken}");
    // Paged caches of all users fit, or some are given up.
    let paged = |tokens| ttft(Engine::vllm(uneven(), tokens), 4);
    assert!(paged(100_000) < 0.9 * paged(2_500), "{} {}", paged(100_000), paged(2_500));
}

#[test]
fn users_without_pause_keep_their_slots_busy() {
    let mix = Mix::fixed(Tokens(10), Tokens(100));
    for (count, expected) in [(1, 100.0), (4, 400.0), (8, 400.0)] {
        let engine = Engine { sequences: 4, ..Engine::vllm(steady(), 100_000) };
        let outcome = run(&one(engine), &users(mix.clone(), count), &span(50, 2000));
        // 99 steps for 100 tokens.
        let speed = outcome.system_tok_s().expect("a speed") * 0.99;
        assert!((speed / expected - 1.0).abs() < 0.02, "{count} users: {speed}");
        assert!(outcome.busy > 0.99 && outcome.busy < 1.0 + 1e-9, "{}", outcome.busy);
    }
}

#[test]
fn least_loaded_routing_is_better_than_taking_turns() {
    let mix = Mix {
        answer: Length::LogNormal { median: 50.0, p95: 600.0 },
        context: Tokens(8192),
        ..Mix::fixed(Tokens(10), Tokens(1))
    };
    let engine = Engine::one_at_a_time("candle", steady(), Tokens(8192));
    let wait = |routing| {
        let fleet = Fleet { engines: vec![engine.clone(); 4], routing };
        seconds(run(&fleet, &rate(mix.clone(), 2.4), &span(500, 20_000)).ttft.mean())
    };
    let (turns, least) = (wait(Routing::RoundRobin), wait(Routing::LeastLoaded));
    assert!(least < 0.7 * turns, "{least} {turns}");
}

#[test]
fn unlike_devices_share_by_their_load() {
    let slow = StepTime { decode: Curve::flat(0.040), ..steady() };
    let engines = vec![
        Engine::one_at_a_time("fast", steady(), Tokens(4096)),
        Engine::one_at_a_time("slow", slow, Tokens(4096)),
    ];
    let mix = Mix::fixed(Tokens(1), Tokens(101));
    // Alone the fast one serves 1 a second, both 1.25.
    let fleet = |routing| Fleet { engines: engines.clone(), routing };
    let turns = run(&fleet(Routing::RoundRobin), &rate(mix.clone(), 0.8), &span(100, 5000));
    let least = run(&fleet(Routing::LeastLoaded), &rate(mix, 0.8), &span(100, 5000));
    assert!(turns.ttft.mean() > least.ttft.mean());
    assert_eq!(least.overload, None);
}

#[test]
fn overload_ends_with_a_statement() {
    let engine = Engine::one_at_a_time("candle", steady(), Tokens(4096));
    let outcome =
        run(&one(engine), &rate(Mix::fixed(Tokens(1), Tokens(101)), 2.0), &span(0, 1 << 40));
    let overload = outcome.overload.expect("an overload");
    assert!(overload.waiting > 1000, "{overload:?}");
    // Half of them cannot be served: a thousand wait after two thousand came.
    assert!((1800..2300).contains(&outcome.asked), "{}", outcome.asked);
    assert!(outcome.attainment().expect("a share") < 0.6);
}

#[test]
fn a_day_has_its_busy_hours() {
    let mut weights = [0.1; 24];
    weights[9..17].fill(1.0);
    weights[11] = 2.0;
    let profile = Profile::new(weights).expect("a day");
    assert_eq!(profile.peak(), 11);
    let day = Span {
        run_up: 0,
        requests: u64::MAX,
        time: Some(Nanos(86_400_000_000_000)),
        day_second: 0.0,
        bins: 24,
    };
    let mix = Mix { think: Nanos(5_000_000_000), ..Mix::fixed(Tokens(10), Tokens(100)) };
    let engine = Engine { sequences: 8, ..Engine::vllm(steady(), 100_000) };
    for who in
        [Who::Users { users: 40 }, Who::Rate { per_second: 3.0, arrivals: Arrivals::Poisson }]
    {
        let demand =
            Demand { mix: mix.clone(), who, pauses: Arrivals::Constant, profile: Some(profile) };
        let outcome = run(&one(engine.clone()), &demand, &day);
        let asked: Vec<f64> = outcome.bins.iter().map(|bin| bin.asked as f64).collect();
        assert_eq!(asked.iter().sum::<f64>() as u64, outcome.asked);
        assert!(asked[11] > 1.4 * asked[10] && asked[10] > 4.0 * asked[3], "{who:?} {asked:?}");
        assert!(outcome.bins[11].busy > outcome.bins[3].busy);
        assert!(outcome.bins[11].waiting >= outcome.bins[3].waiting);
        if let Who::Rate { .. } = who {
            assert!((asked[11] / 10_800.0 - 1.0).abs() < 0.05, "{}", asked[11]);
            assert!((asked[3] / 540.0 - 1.0).abs() < 0.15, "{}", asked[3]);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let mix = Mix {
        answer: Length::LogNormal { median: 50.0, p95: 300.0 },
        turns: 3,
        context: Tokens(4096),
        ..Mix::fixed(Tokens(100), Tokens(1))
    };
    let fleet = one(Engine::vllm(uneven(), 8_000));
    let limits = Limits { ttft: Some(Nanos(300_000_000)), ..Limits::default() };
    let told = |seed| {
        let outcome = simulate(&fleet, &rate(mix.clone(), 0.5), &limits, &span(50, 2000), seed);
        let outcome = outcome.expect("an outcome");
        (outcome.met, outcome.preempted, outcome.ttft.mean(), outcome.span)
    };
    assert_eq!(told(3), told(3));
    assert_ne!(told(3), told(4));
    // On another thread, the same.
    let there = std::thread::scope(|scope| scope.spawn(|| told(3)).join().expect("a thread"));
    assert_eq!(told(3), there);
}

#[test]
fn requests_of_one_queue_are_worth_fewer_than_independent_ones() {
    let engine = Engine::one_at_a_time("candle", steady(), Tokens(4096));
    let mix = Mix::fixed(Tokens(1), Tokens(101));
    let limits = Limits { ttft: Some(Nanos(4_000_000_000)), ..Limits::default() };
    // The share of very many lies in nearly all intervals of a few.
    let of = |seed, requests| {
        let demand = rate(mix.clone(), 0.9);
        simulate(&one(engine.clone()), &demand, &limits, &span(200, requests), seed)
            .expect("an outcome")
    };
    let share = of(100, 1_000_000).attainment().expect("a share");
    let holds = |seed: &u64| {
        let interval = of(*seed, 5000).attainment_interval().expect("an interval");
        interval.low <= share && share <= interval.high
    };
    let inside = (0..40).filter(holds).count();
    assert!(inside >= 34, "{inside} of 40 have {share}");
}

#[test]
fn nobody_and_nothing_are_errors() {
    let fleet = one(Engine::vllm(steady(), 1000));
    let mix = Mix::fixed(Tokens(1), Tokens(1));
    let limits = Limits::default();
    for demand in [
        users(mix.clone(), 0),
        rate(mix.clone(), 0.0),
        rate(mix.clone(), f64::NAN),
        Demand {
            mix: mix.clone(),
            who: Who::Trace { speed: 1.0 },
            pauses: Arrivals::Constant,
            profile: None,
        },
    ] {
        assert!(simulate(&fleet, &demand, &limits, &span(0, 1), 1).is_err(), "{demand:?}");
    }
    let empty = Fleet { engines: Vec::new(), routing: Routing::RoundRobin };
    assert!(simulate(&empty, &users(mix, 1), &limits, &span(0, 1), 1).is_err());
    assert!(Profile::new([0.0; 24]).is_err());
}

#[test]
fn users_with_pauses_of_their_own_meet_by_chance() {
    let step = StepTime { prompt: Curve::flat(0.5), ..StepTime::constant(0.01) };
    let engine = Engine::one_at_a_time("one", step, Tokens(4096));
    let mix = Mix { think: Nanos::from_seconds(30.0), ..Mix::fixed(Tokens(100), Tokens(10)) };
    let demand = Demand { pauses: Arrivals::Poisson, ..users(mix, 4) };
    let ttft = seconds(run(&one(engine), &demand, &span(200, 50_000)).ttft.mean());
    // 0.59 s of every 30.59 s: one in seventeen meets another of three, and half of its answer.
    let expected = 0.5 + 3.0 * 0.59 / 30.59 * 0.59 / 2.0;
    assert!((ttft - expected).abs() < 0.003, "{ttft} {expected}");
}

fn llama_server(step: &StepTime, slots: u32, unified: bool) -> Engine {
    let cache = Cache::Slots { tokens: Tokens(4096), unified };
    Engine { cache, ..Engine::llama_server(step.clone(), slots, Tokens(4096)) }
}

#[test]
fn slots_with_caches_of_their_own_generate_together_where_they_are_neighbours() {
    let step = uneven();
    // They get the slots 2, 1 and 0; the one in the middle ends first.
    let demand = traced(&[(0.0, 1, 400), (0.001, 1, 50), (0.002, 1, 400)]);
    let outcome = run(&one(llama_server(&step, 3, false)), &demand, &span(0, 3));
    let took = |lengths: &[u32], generating: u32, cached: u32, prompts: u32| {
        let piece = |&sequences: &u32| Piece { sequences, tokens: 1 };
        let pieces: Vec<Piece> = lengths.iter().map(piece).collect();
        let (tokens, pairs) = (f64::from(prompts), f64::from(prompts) / 2.0);
        step.seconds_in(&pieces, generating, f64::from(cached), PromptPart { tokens, pairs })
    };
    // Slot 2 generates beside the prompts of 0 and 1, which are behind it in the batch.
    let mut now = took(&[1], 0, 0, 1) + took(&[1, 2], 1, 2, 2);
    // Tokens in the caches of slots 2, 1 and 0.
    let mut cached = [3, 2, 2];
    for _ in 0..49 {
        now += took(&[3], 3, cached.iter().sum(), 0);
        cached.iter_mut().for_each(|tokens| *tokens += 1);
    }
    let second = now;
    for _ in 0..349 {
        now += took(&[1, 1], 2, cached[0] + cached[2], 0);
        cached.iter_mut().for_each(|tokens| *tokens += 1);
    }
    let first = now;
    let third = now + took(&[1], 1, cached[2], 0);
    let mean = (first + (second - 0.001) + (third - 0.002)) / 3.0 + 0.002;
    close(seconds(outcome.e2e.mean()), mean);
}

#[test]
fn a_prompt_beside_seven_that_generate_waits_for_both_pieces() {
    let step = uneven();
    let mut rows = vec![(0.0, 1, 300); 7];
    rows.push((1.005, 100, 2));
    let ttft = |unified| {
        let outcome = run(&one(llama_server(&step, 8, unified)), &traced(&rows), &span(7, 1));
        seconds(outcome.ttft.mean())
    };
    let pieces = [Piece { sequences: 7, tokens: 1 }, Piece { sequences: 1, tokens: 100 }];
    let prompt = PromptPart { tokens: 100.0, pairs: 5000.0 };
    let (apart, whole) =
        (step.seconds_in(&pieces, 7, 300.0, prompt), step.seconds(7, 300.0, prompt));
    assert!(apart > whole + 0.015, "{apart} {whole}");
    // It comes in the middle of a step of 23 ms.
    for (is, should) in [(ttft(false), apart), (ttft(true), whole)] {
        assert!(is > should && is < should + 0.024 + 0.002, "{is} {should}");
    }
}

#[test]
fn a_request_gets_the_longest_unused_slot() {
    let step = uneven();
    // The first keeps slot 3, the others had 2, 1 and 0, and the last comes when they have ended.
    let tpot = |answers: [u32; 3]| {
        let mut rows = vec![(0.0, 1, 400)];
        rows.extend(answers.map(|tokens| (0.001, 1, tokens)));
        rows.push((1.5, 1, 50));
        let engine = llama_server(&step, 4, false);
        seconds(run(&one(engine), &traced(&rows), &span(4, 1)).tpot.mean())
    };
    let near = |is: f64, should: f64| assert!((is - should).abs() < 5e-4, "{is} {should}");
    near(tpot([10, 20, 30]), step.decode.at(2.0));
    near(tpot([20, 10, 30]), 2.0 * step.decode.at(1.0));
    near(tpot([30, 20, 10]), 2.0 * step.decode.at(1.0));
}

#[test]
fn a_conversation_does_not_find_the_one_before_of_the_same_user() {
    // The first turn is always on one device, the second on the other.
    let mix = Mix {
        turns: 2,
        think: Nanos(10_000_000_000),
        context: Tokens(4096),
        ..Mix::fixed(Tokens(200), Tokens(20))
    };
    let ttft = |engine: &Engine| {
        let fleet = Fleet { engines: vec![engine.clone(); 2], routing: Routing::RoundRobin };
        seconds(run(&fleet, &users(mix.clone(), 1), &span(21, 200)).ttft.mean())
    };
    for engine in [Engine::vllm(uneven(), 100_000), Engine::llama_server(uneven(), 1, Tokens(4096))]
    {
        let forgetful = Engine { reuses_prefix: false, ..engine.clone() };
        close(ttft(&engine), ttft(&forgetful));
    }
}

#[test]
fn a_cache_in_use_is_told_as_it_grows() {
    let fleet = one(Engine::vllm(steady(), 100_000));
    let outcome = run(&fleet, &traced(&[(0.0, 100, 1000)]), &span(0, 1));
    // From 100 to 1,100 tokens, and half a block.
    assert!((outcome.cache - 0.006).abs() < 2e-4, "{}", outcome.cache);
    assert!((outcome.most_cache - 0.011).abs() < 2e-4, "{}", outcome.most_cache);
}

#[test]
fn bursts_without_any_distance_do_not_end_the_day() {
    let mut hours = [0.0; 24];
    hours[8..18].fill(1.0);
    let who = Who::Rate { per_second: 1.0, arrivals: Arrivals::Gamma { variation: 20.0 } };
    let profile = Some(Profile::new(hours).expect("a day"));
    let demand = Demand { who, profile, ..rate(Mix::fixed(Tokens(10), Tokens(1)), 1.0) };
    let day = Span { time: Some(Nanos::from_seconds(86_400.0)), ..span(0, u64::MAX) };
    let outcome = run(&one(Engine::vllm(steady(), 100_000)), &demand, &day);
    assert!(outcome.asked > 5_000, "{}", outcome.asked);
}

#[test]
fn the_first_step_after_a_pause_takes_longer() {
    let step = StepTime { cold: 0.050, ..uneven() };
    // At the beginning and a second after the first has ended; the third comes beside the second, the
    // fourth 50 ms after the end of both.
    let ttft = |step: &StepTime, place: u64| {
        let rows = [(0.0, 10, 2), (1.0, 10, 2), (1.01, 10, 2), (1.11, 10, 2)];
        let engine = Engine::vllm(step.clone(), 100_000);
        seconds(run(&one(engine), &traced(&rows), &span(place, 1)).ttft.mean())
    };
    let more = |place| ttft(&step, place) - ttft(&uneven(), place);
    for (place, expected) in [(0, 0.050), (1, 0.050), (2, 0.050), (3, 0.0)] {
        assert!((more(place) - expected).abs() < 0.002, "{place}: {}", more(place));
    }
}
