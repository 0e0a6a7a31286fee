//! `bench capacity` as a person runs it, and its plan in `bench cost`.

#[path = "common/at_home.rs"]
mod at_home;

use std::fs;

use at_home::{answer, bench};
use serde_json::Value;

fn error(args: &[&str]) -> String {
    let output = bench(args);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

fn json(args: &[&str]) -> Value {
    let args = [args, &["--format=json"]].concat();
    serde_json::from_str(&answer(&args)).unwrap()
}

const TEAM: &[&str] = &[
    "capacity",
    "--users=40",
    "--workload=chat",
    "--model=qwen3-8b",
    "--device=rtx-4090,rtx-3090",
    "--ttft=1s",
];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [TEAM, more].concat()
}

#[test]
fn forty_people_are_told_which_machine_how_many_and_what_breaks() {
    let out = answer(&with(&["--what-if"]));
    let first = out.lines().nth(2).unwrap();
    for words in ["1 × rtx-", "40 users of chat", "TTFT 1.00 s for 95 %", "predicted", "a month"] {
        assert!(first.contains(words), "{words}: {first}");
    }
    for words in [
        "At the peak",
        "It carries",
        "breaks first",
        "twice the load: 80 users",
        "prompts twice as long",
        "A day of",
        "Seed 1",
        "fit, qwen3-8b Q4_K_M with llama-server",
        "assumed",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(!out.contains("NaN") && !out.contains(" inf"), "{out}");
}

#[test]
fn the_readme_shows_what_is_answered() {
    let words = |text: &str| {
        let words = text.split_whitespace().filter(|word| !word.starts_with(['─', '═']));
        words.collect::<Vec<_>>().join(" ")
    };
    let readme = include_str!("../README.md");
    let shown = &readme[readme.find("$ bench capacity").unwrap()..];
    let (asked, shown) = shown.split_once("Capacity for").unwrap();
    let shown = words(shown.split_once("```").unwrap().0);
    let asked = asked.replace(['\\', '$'], "");
    let out = words(&answer(&asked.split_whitespace().skip(1).collect::<Vec<_>>()));
    assert!(out.contains(&shown), "README: {shown}\nnow: {out}");
}

#[test]
fn json_and_csv_say_the_same_with_units_in_their_names() {
    let json = json(TEAM);
    let csv = answer(&with(&["--format=csv"]));
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let machines = json["machines"].as_array().unwrap();
    assert_eq!((rows.len(), machines.len()), (2, 2));
    for (row, machine) in rows.iter().zip(machines) {
        let cell = |name: &str| &row[headers.iter().position(|header| header == name).unwrap()];
        assert_eq!(cell("machine"), machine["machine"]);
        assert_eq!(cell("devices"), machine["devices"].to_string());
        assert_eq!(cell("ttft_s_p95"), machine["peak"]["ttft_s"]["p95"].to_string());
        assert_eq!(cell("basis"), "predicted");
        assert!(machine["peak"]["attainment_low"].as_f64().unwrap() >= 0.95);
    }
    // The cheapest first.
    let usd = |i: usize| -> f64 {
        machines[i]["owning"]["usd_per_month"].as_str().unwrap().parse().unwrap()
    };
    assert!(usd(0) <= usd(1));
    assert_eq!(json["seed"], 1);
    assert!(json["command"].as_str().unwrap().starts_with("bench capacity --users=40"));
}

#[test]
fn the_same_seed_gives_the_same_answer_with_any_number_of_threads() {
    let of = |threads: &str, seed: &str| {
        let mut said = json(&with(&[threads, seed]));
        said.as_object_mut().unwrap().remove("command");
        said["plan"].as_object_mut().unwrap().remove("command");
        said
    };
    let one = of("--threads=1", "--seed=7");
    assert_eq!(one, of("--threads=3", "--seed=7"));
    assert_ne!(one, of("--threads=3", "--seed=8"));
}

#[test]
fn the_plan_feeds_bench_cost_and_both_count_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let team = ["--users=400", "--workload=chat", "--model=qwen3-8b", "--device=rtx-4090"];
    let text = answer(&[&["capacity", "--ttft=1s", "--format=json"], &team[..]].concat());
    fs::write(&path, &text).unwrap();
    let plan: Value = serde_json::from_str(&text).unwrap();
    let devices = plan["plan"]["devices"].as_u64().unwrap();
    assert!(devices > 2, "{devices}");
    let flag = format!("--capacity={}", path.display());
    let args = ["cost", &flag, "--against=openai/gpt-4o", "--draws=200", "--format=json"];
    let cost: Value = serde_json::from_str(&answer(&args)).unwrap();
    assert_eq!(cost["owning"]["devices"], devices);
    assert_eq!(cost["machine"], "rtx-4090");
    let month = |value: &Value| value.as_str().unwrap().parse::<f64>().unwrap();
    let planned = month(&plan["machines"][0]["owning"]["usd_per_month"]);
    let priced = month(&cost["owning"]["total_per_month"]);
    assert!((planned / priced - 1.0).abs() < 1e-6, "{planned} {priced}");
    // Half of the requests need half of the devices.
    let half = plan["plan"]["requests_per_day"].as_f64().unwrap() * 0.499;
    let set = format!("--set=requests_per_day={half}");
    let half: Value =
        serde_json::from_str(&answer(&[&args[..], &[set.as_str()]].concat())).unwrap();
    assert_eq!(half["owning"]["devices"], devices.div_ceil(2));
    let other = error(&[&args[..2], &["--device=rtx-5090"]].concat());
    assert!(other.contains("the plan is for 'rtx-4090'"), "{other}");
}

#[test]
fn an_slo_that_no_device_can_meet_is_an_answer_with_its_reason_and_no_plan() {
    let args = ["capacity", "--users=4", "--workload=rag", "--model=qwen3-8b", "--ttft=50ms"];
    let args = [&args[..], &["--device=rtx-3090"]].concat();
    let out = answer(&args);
    for words in ["No number of rtx-3090", "a device to themselves", "95th percentile"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let said = json(&args);
    assert_eq!((&said["plan"], &said["machines"][0]["verdict"]), (&Value::Null, &"never".into()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    fs::write(&path, said.to_string()).unwrap();
    let none = error(&["cost", &format!("--capacity={}", path.display())]);
    assert!(none.contains("has no plan to price: No number of rtx-3090"), "{none}");
}

#[test]
fn a_machine_beside_the_best_that_never_serves_says_why() {
    let long =
        ["--users=4", "--prompt-tokens=4000", "--new-tokens=100", "--think=30s", "--ttft=2s"];
    let machines = ["capacity", "--device=apple-m4,rtx-5090", "--model=qwen3-8b"];
    let out = answer(&[&machines[..], &long].concat());
    assert!(out.lines().nth(2).unwrap().contains("rtx-5090"), "{out}");
    assert!(
        out.contains("apple-m4, never: of requests that have a device to themselves 0 %"),
        "{out}"
    );
}

#[test]
fn overload_is_a_statement_and_a_full_queue_is_told() {
    let rate = ["capacity", "--rate=50", "--workload=rag", "--model=qwen3-8b"];
    let one = ["--device=rtx-4090", "--count=1"];
    let out = answer(&[&rate[..], &one].concat());
    for words in ["1 × rtx-4090 cannot serve 50.0 requests/s", "overloaded: ", "for ever longer"] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let args = [&rate[..], &one, &["--engine=ollama"]].concat();
    let refused = json(&args)["machines"][0]["peak"]["refused"].as_u64().unwrap();
    assert!(refused > 100, "{refused}");
}

#[test]
fn devices_that_are_there_already_make_fewer_necessary() {
    let of = |more: &[&str]| {
        let args = ["capacity", "--users=400", "--workload=chat", "--model=qwen3-8b"];
        let said = json(&[&args[..], &["--device=rtx-4090"], more].concat());
        said["machines"][0]["devices"].as_u64().unwrap()
    };
    assert!(of(&["--beside=rtx-5090,rtx-3090"]) < of(&[]));
}

#[test]
fn a_plan_has_the_repeated_prompts_the_peak_and_its_own_part_of_the_load() {
    let of = |more: &[&str]| {
        let args = ["capacity", "--users=100", "--model=qwen3-8b", "--device=rtx-4090"];
        json(&[&args[..], more].concat())
    };
    let said = of(&["--workload=coding-agent", "--ttft=5s"]);
    let plan = |key: &str| said["plan"][key].as_f64().unwrap();
    assert!((0.7..1.0).contains(&plan("cached_share")), "{said}");
    assert!(plan("prompt_tokens") + plan("new_tokens") < 32_768.0, "{said}");
    // The office day has 15 hours, together 7.69 of its busiest.
    assert!((plan("peak_factor") - 15.0 / 7.69).abs() < 1e-9, "{said}");
    // Of single requests nothing is repeated, and around the clock no hour is quiet.
    let said = of(&["--prompt-tokens=200", "--new-tokens=50", "--think=10s", "--profile=always"]);
    for (key, wanted) in [("cached_share", 0.0), ("peak_factor", 1.0), ("busy_factor", 1.0)] {
        assert_eq!(said["plan"][key], wanted, "{key}");
    }
    // In the quiet hours of an office a device computes with fewer at once.
    let chat = ["--workload=chat", "--ttft=1s"];
    let all = of(&chat);
    let busy = all["plan"]["busy_factor"].as_f64().unwrap();
    assert!((1.01..3.0).contains(&busy), "{busy}");
    // One device is there: the plan is for what the others serve.
    let part = of(&[&chat[..], &["--beside=rtx-4090"]].concat());
    assert_eq!(part["plan"]["beside"], 1);
    let devices = part["plan"]["devices"].as_f64().unwrap();
    let asked = |said: &Value| said["plan"]["requests_per_day"].as_f64().unwrap();
    let share = asked(&part) / asked(&all);
    assert!((share / (devices / (devices + 1.0)) - 1.0).abs() < 0.03, "{part}");
    let words = part["plan"]["workload"].as_str().unwrap();
    assert!(words.starts_with(&format!("what {devices} of {} devices", devices + 1.0)), "{words}");
}

#[test]
fn prompts_that_the_context_cuts_are_not_called_twice_as_long() {
    let args = ["capacity", "--users=4", "--model=qwen3-8b", "--device=rtx-4090", "--think=30s"];
    let of = |more: &[&str]| {
        let lengths = ["--prompt-tokens=4000", "--new-tokens=100", "--what-if", "--ttft=5s"];
        json(&[&args[..], &lengths, more].concat())["what_if"][2]["change"].clone()
    };
    assert_eq!(of(&[]), "prompts twice as long, cut at 4,352: 1.06 times");
    assert_eq!(of(&["--context=9000"]), "prompts twice as long");
}

#[test]
fn a_trace_is_replayed_and_its_errors_name_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good: String = std::iter::once("arrival_s,prompt_tokens,new_tokens\n".to_owned())
        .chain((0..400).map(|i| format!("{},{},100\n", f64::from(i) * 0.5, 200 + i)))
        .collect();
    let good = write("good.csv", &good);
    let args = ["capacity", "--model=qwen3-8b", "--device=rtx-4090", "--trace"];
    let out = answer(&[&args[..], &[good.as_str()]].concat());
    assert!(out.contains("1 × rtx-4090 serves the trace of recorded requests"), "{out}");
    assert!(out.contains("The trace of 1 × rtx-4090"), "{out}");
    for (name, text, wanted) in [
        ("a.csv", "arrival_s,prompt_tokens,new_tokens\n1,10,10\n-2,10,10\n", "line 3"),
        ("b.csv", "arrival_s,prompt_tokens,new_tokens\n1,10,99999999999\n", "line: 2"),
        ("c.jsonl", "{\"timestamp\": 1, \"input_length\": 5}\n", "line 1"),
        ("d.csv", "arrival_s,prompt_tokens,new_tokens\n1,0,10\n", "line 2"),
        ("e.csv", "arrival_s,prompt_tokens,new_tokens\n", "no request"),
        ("f.csv", "arrival_s,prompt_tokens,new_tokens\n1,4000000000,10\n", "context"),
    ] {
        let path = write(name, text);
        let said = error(&[&args[..], &[path.as_str()]].concat());
        assert!(said.contains(wanted), "{name}: {said}");
    }
    let lost = error(&[&args[..], &["nowhere.csv"]].concat());
    assert!(lost.contains("cannot read 'nowhere.csv'"), "{lost}");
}

#[test]
fn a_scenario_has_the_workload_the_objective_and_the_prices() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("team.toml");
    let text = r#"
[host]
device = "rtx-4090"
[[matrix]]
engines = ["llama.cpp"]
models = ["qwen3-8b"]
quants = ["Q4_K_M"]
points = [{ prompt_tokens = 512, new_tokens = 128 }]
[slo]
ttft_ms = 900
[workload]
preset = "chat-team"
users = 30
[prices]
device_usd = 1234
tariff = "DE"
"#;
    fs::write(&path, text).unwrap();
    let said = json(&["capacity", path.to_str().unwrap()]);
    assert_eq!(said["asked"]["who"], "30 users");
    assert_eq!(said["asked"]["ttft_s"], 0.9);
    assert_eq!(said["model"], "qwen3-8b Q4_K_M");
    let machine = &said["machines"][0];
    assert_eq!(machine["machine"], "rtx-4090");
    assert!(machine["owning"]["price_source"].as_str().unwrap().ends_with("team.toml"));
    let more = json(&["capacity", path.to_str().unwrap(), "--users=31", "--ttft=1s"]);
    assert_eq!(
        (&more["asked"]["who"], &more["asked"]["ttft_s"]),
        (&"31 users".into(), &1.0.into())
    );
    // Its price is that of its machine alone.
    let both = json(&["capacity", path.to_str().unwrap(), "--device=rtx-4090,rtx-5090"]);
    for machine in both["machines"].as_array().unwrap() {
        let source = machine["owning"]["price_source"].as_str().unwrap();
        assert_eq!(source.ends_with("team.toml"), machine["machine"] == "rtx-4090", "{source}");
    }
    // A flag overrides its tariff, and its own price of electricity.
    let stated = text.replace("tariff = \"DE\"", "electricity_usd_per_kwh = 4.5");
    fs::write(&path, stated).unwrap();
    let month = |more: &[&str]| -> f64 {
        let said = json(&[&["capacity", path.to_str().unwrap()], more].concat());
        said["machines"][0]["owning"]["usd_per_month"].as_str().unwrap().parse().unwrap()
    };
    let dear = month(&[]);
    assert!(month(&["--tariff=US"]) < 0.5 * dear, "{dear}");
    assert!(month(&["--tariff=HU", "--exchange=EUR=1.16"]) < 0.5 * dear);
}

#[test]
fn charts_are_drawn_in_both_forms() {
    let folder = tempfile::tempdir().unwrap();
    answer(&with(&["--charts", folder.path().to_str().unwrap()]));
    for name in ["capacity-latency", "capacity-day"] {
        let svg = fs::read_to_string(folder.path().join(format!("{name}.svg"))).unwrap();
        assert!(svg.contains("simulated"), "{svg}");
        assert!(folder.path().join(format!("{name}.png")).metadata().unwrap().len() > 1000);
    }
}

#[test]
fn wrong_input_is_told_with_what_to_do() {
    let base = ["capacity", "--model=qwen3-8b", "--device=rtx-4090"];
    for (more, wanted) in [
        (&["--workload=chat"][..], "who asks?"),
        (&["--users=4"], "no workload: name one"),
        (&["--users=0", "--workload=chat"], "0 is not in 1..=1000000"),
        (&["--users=4", "--rate=1", "--workload=chat"], "cannot be used with"),
        (&["--users=4", "--workload=chatt"], "did you mean 'chat'?"),
        (&["--users=4", "--workload=chat", "--device=rtx-409"], "did you mean 'rtx-4090'"),
        (&["--users=4", "--workload=chat", "--profile=ofice"], "did you mean 'office'?"),
        (&["--users=4", "--workload=chat", "--profile=1,2"], "2 weights"),
        (&["--users=4", "--workload=chat", "--ttft=1"], "write a time with its unit"),
        (&["--users=4", "--workload=chat", "--attainment=95"], "write a share"),
        (&["--users=4", "--workload=chat", "--context=999k"], "was made for 40,960"),
        (&["--rate=-1", "--workload=chat"], "--rate -1 cannot be"),
        (&["--rate=1", "--workload=chat", "--arrivals=bursts"], "bursts=2"),
        (&["--users=4", "--workload=chat", "--engine=mlx", "--parallel=4"], "leave --parallel out"),
        (&["--users=4", "--workload=chat", "--engine=vllm", "--kv-unified"], "--kv-unified is"),
        (&["--users=4", "--workload=chat", "--results=nowhere"], "nowhere"),
        (&["--users=4", "--workload=chat", "--beside=3x rtx-5090", "--engine=vllm"], "--beside"),
        (&["--users=4", "--workload=chat", "--engine=vllm", "--quant=Q4_K_M"], "AWQ, GPTQ"),
    ] {
        let said = error(&[&base[..], more].concat());
        assert!(said.contains(wanted), "{more:?}: {said}");
    }
}

#[test]
fn vllm_on_a_card_is_predicted_from_published_loads_and_says_so() {
    let asked = ["capacity", "--engine=vllm", "--model=qwen3-8b", "--quant=FP8", "--users=400"];
    let cards = "--device=h100-sxm-80gb,rtx-5090,2x rtx-5090,3x rtx-5090";
    let said = json(&[&asked[..], &["--workload=chat", "--ttft=1s", cards]].concat());
    let find = |name: &str| {
        let machines = said["machines"].as_array().unwrap();
        machines.iter().find(|machine| machine["machine"] == name).cloned().unwrap()
    };
    for (name, words) in [
        ("h100-sxm-80gb", "twice the interval"),
        ("rtx-5090", "another card or packing: 0.91 of their speed, 0.7 to 1.1"),
        ("2x rtx-5090", "dense models: 0.8 of their speed, 0.54 to 1.02"),
    ] {
        let machine = find(name);
        assert_eq!(
            (&machine["basis"], &machine["verdict"]),
            (&"predicted".into(), &"enough".into()),
            "{name}"
        );
        let sources = machine["sources"].to_string();
        assert!(sources.contains("published loads") && sources.contains(words), "{sources}");
    }
    // More are needed of one card than of two that share every layer.
    let needed = |name: &str| find(name)["devices"].as_u64().unwrap();
    assert!(needed("rtx-5090") > needed("2x rtx-5090"), "{said:#}");
    let uneven = said["left_out"].to_string();
    assert!(uneven.contains("32 attention heads evenly, which 3 cards cannot"), "{uneven}");
}

#[test]
fn one_cache_for_all_slots_makes_shorter_steps_than_one_for_each() {
    let base = ["capacity", "--users=40", "--workload=chat", "--model=qwen3-8b", "--ttft=1s"];
    let base = [&base[..], &["--device=rtx-5090", "--parallel=16"]].concat();
    let (apart, unified) = (json(&base), json(&[&base[..], &["--kv-unified"]].concat()));
    let tpot = |said: &Value| said["day"]["tpot_s"]["p50"].as_f64().unwrap();
    assert!(tpot(&apart) > 1.5 * tpot(&unified), "{} {}", tpot(&apart), tpot(&unified));
    for (said, words) in [(&apart, "batches in pieces"), (&unified, "whole batches")] {
        let sources = said["machines"][0]["sources"].to_string();
        assert!(sources.contains(words), "{words}: {sources}");
    }
}

#[test]
fn results_of_ones_own_are_simulated_as_measured() {
    let folder = "results/2026-11-21-amd-epyc-2c-24g-capacity-proof";
    let base = ["capacity", "--users=2", "--workload=chat", "--results", folder, "--ttft=20s"];
    let asked = ["--engine=llama-server", "--quant=Q4_K_M"];
    let said = json(&[&base[..], &asked].concat());
    let machine = &said["machines"][0];
    assert_eq!((&machine["basis"], &machine["verdict"]), (&"measured".into(), &"enough".into()));
    let source = machine["sources"][0].as_str().unwrap();
    for words in ["measured steps", folder, "held back", "in the median"] {
        assert!(source.contains(words), "{words}: {source}");
    }
    // No price without the machine's name.
    assert_eq!(machine["owning"], Value::Null);
    let other = error(&[&base[..], &["--model=qwen3-8b"]].concat());
    assert!(other.contains("they have qwen3-0.6b "), "{other}");
}
