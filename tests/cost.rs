//! `bench cost` and `bench prices` as a person runs them.

#[path = "common/at_home.rs"]
mod at_home;
mod common;

use std::fs;
use std::process::Output;

use assert_cmd::Command;
use at_home::{answer, bench};

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn error(args: &[&str]) -> String {
    let output = bench(args);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(output.stdout.is_empty(), "{}", text(&output));
    String::from_utf8(output.stderr).unwrap().trim_end().to_owned()
}

/// 1,500 USD against a bill of 500, with 30 USD of electricity a month: 1500 / 470 = 3.19 months.
const THE_CLAIM: &[&str] = &[
    "cost",
    "--bill=500",
    "--tok-s=76",
    "--set=requests_per_day=1000",
    "--set=prompt_tokens=3000",
    "--set=new_tokens=1000",
    "--set=active_hours_per_day=24",
    "--set=peak_factor=1",
    "--set=device_usd=1500",
    "--set=active_watts=0",
    "--set=idle_watts=0",
    "--set=rack_usd_per_month=30",
    "--set=life_years=3",
    "--set=resale_share=0",
    "--set=capital_cost_per_year=0",
    "--set=spare_share=0",
    "--set=maintenance_share_per_year=0",
    "--set=staff_hours_per_month=0",
    "--set=api_change_per_year=0",
    "--set=growth_per_year=0",
    "--draws=500",
];

#[test]
fn a_decision_by_hand_is_found_in_every_format() {
    let with = |format: &str| {
        let mut args = THE_CLAIM.to_vec();
        args.push(format);
        answer(&args)
    };
    assert!(with("--format=table").contains("it breaks even after 3.19 months"));
    let markdown = with("--format=markdown");
    assert!(markdown.contains("| depreciation | $41.67 |"), "{markdown}");
    let csv = with("--format=csv");
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let row = reader.records().next().unwrap().unwrap();
    let cell = |name: &str| &row[headers.iter().position(|header| header == name).unwrap()];
    assert_eq!(cell("owning_usd_per_month"), "71.666667");
    assert_eq!(cell("cloud_usd_per_month"), "500");
    // 36 x 470 - 1500.
    assert_eq!(cell("npv_usd"), "15420");
    assert!(cell("break_even_months").starts_with("3.1914"));
    let json: serde_json::Value = serde_json::from_str(&with("--format=json")).unwrap();
    let months = &json["alternatives"][0]["comparison"]["break_even"]["after"];
    assert!((months.as_f64().unwrap() - 1500.0 / 470.0).abs() < 1e-9);
    assert_eq!(json["inputs"][0]["basis"], "stated");
}

#[test]
fn a_catalogued_device_is_decided_with_charts_and_its_prices_have_their_age() {
    let folder = tempfile::tempdir().unwrap();
    let out = answer(&[
        "cost",
        "--device=rtx-5090",
        "--tok-s=2400",
        "--workload=chat-team",
        "--against=anthropic/claude-sonnet-4-6",
        "--tariff=DE",
        "--draws=500",
        "--format=markdown",
        "--charts",
        folder.path().to_str().unwrap(),
    ]);
    for words in ["Owning rtx-5090 for chat-team", "days old)", "Germany household", "g/kWh", "P90"]
    {
        assert!(out.contains(words), "{words}: {out}");
    }
    assert!(!out.contains("NaN") && !out.contains(" inf"), "{out}");
    for kind in ["paid", "volume", "tornado"] {
        for ending in ["svg", "png"] {
            let file = format!("cost-anthropic-claude-sonnet-4-6-{kind}.{ending}");
            assert!(folder.path().join(&file).metadata().unwrap().len() > 1000, "{file}");
        }
    }
}

#[test]
fn a_machine_that_cannot_serve_is_never_called_cheaper() {
    let mut args = THE_CLAIM.to_vec();
    args.extend(["--set=requests_per_day=100000", "--max-devices=1", "--format=markdown"]);
    let out = answer(&args);
    assert!(out.contains("cannot serve the workload: it needs 16 devices"), "{out}");
    assert!(!out.contains("less; it breaks even"), "{out}");
}

#[test]
fn a_machine_that_is_named_beside_all_keeps_its_speed() {
    let out = answer(&[
        "cost",
        "compare",
        "--devices=all,RTX-5090=313,2x rtx-5090=500",
        "--workload=chat-team",
        "--format=csv",
    ]);
    assert!(out.contains(",rtx-5090,313,stated,") && out.contains(",2x rtx-5090,500,"), "{out}");
    assert_eq!(out.matches(",rtx-5090,").count(), 1, "{out}");
    assert!(out.contains(",rtx-4090,"), "{out}");
}

#[test]
fn devices_are_ranked_and_those_that_too_little_is_known_about_come_last() {
    let out = answer(&[
        "cost",
        "compare",
        "--devices=rtx-3090-ti=900,dgx-spark-gb10=313,rtx-5090=2400,l4",
        "--workload=chat-team",
        "--against=openai/gpt-4o",
        "--format=csv",
    ]);
    let devices: Vec<&str> = out.lines().skip(1).map(|l| l.split(',').nth(1).unwrap()).collect();
    assert_eq!(devices[2..], ["rtx-3090-ti", "l4"], "{out}");
    assert!(out.contains("'device_usd'"), "{out}");
    assert!(out.contains("how fast is the machine?"), "{out}");
}

#[test]
fn a_hybrid_keeps_the_quality_floor() {
    let mut args = THE_CLAIM.to_vec();
    args.retain(|arg| !arg.starts_with("--bill"));
    args.extend([
        "--against=openai/gpt-4o",
        "--hybrid=share",
        "--local-quality=0.7",
        "--cloud-quality=0.9",
        "--quality-floor=0.8",
        "--format=markdown",
    ]);
    let out = answer(&args);
    assert!(out.contains("50 % of the requests on 1 device"), "{out}");
    assert!(out.contains("Mean quality of the answers: 0.8."), "{out}");
}

#[test]
fn a_hybrid_with_a_bill_has_all_local_and_all_in_the_cloud_at_its_ends() {
    let with = |more: &[&str]| answer(&[THE_CLAIM, more].concat());
    let out = with(&["--hybrid=share", "--format=markdown"]);
    let ends = "100 % of the requests on 1 device for $71.67 a month, the rest for $0.00: $71.67 \
                together; all local $71.67 on 1 device, all in the cloud $500.00.";
    assert!(out.contains(ends), "{out}");
    // 16 devices of work, of which one can be had: it serves 76 tok/s x 86,400 s / 1,000 = 6,566.4 of
    // 100,000 requests.
    let mut args = THE_CLAIM.to_vec();
    args.retain(|arg| !arg.starts_with("--bill"));
    args.extend([
        "--bill=5000",
        "--set=requests_per_day=100000",
        "--max-devices=1",
        "--hybrid=share",
        "--format=json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&answer(&args)).unwrap();
    let hybrid = &json["alternatives"][0]["hybrid"];
    assert_eq!(hybrid["devices"], 1);
    assert!((hybrid["local_share"].as_f64().unwrap() - 0.065_664).abs() < 1e-9, "{hybrid}");
}

#[test]
fn a_bill_has_no_volume_of_break_even_and_grows_with_the_use() {
    let folder = tempfile::tempdir().unwrap();
    let charts = format!("--charts={}", folder.path().display());
    let out = answer(&[THE_CLAIM, &["--format=markdown", &charts]].concat());
    assert!(!out.contains("never") && out.contains("what other volumes would cost"), "{out}");
    let file = |kind: &str| folder.path().join(format!("cost-today-s-bill-{kind}.svg"));
    assert!(file("paid").exists() && !file("volume").exists());
    let mut args = THE_CLAIM.to_vec();
    args.retain(|arg| !arg.contains("growth"));
    args.extend(["--set=growth_per_year=1", "--format=json"]);
    let json: serde_json::Value = serde_json::from_str(&answer(&args)).unwrap();
    // 500, 1,000 and 2,000 in the three years.
    let month = json["alternatives"][0]["cloud_per_month"].as_str().unwrap();
    assert_eq!(month.parse::<f64>().unwrap().round(), 1167.0);
}

#[test]
fn a_range_of_one_alternative_is_not_drawn_for_another() {
    let out = answer(
        &[
            THE_CLAIM,
            &[
                "--set=api_input_usd_per_mtok=1",
                "--set=api_output_usd_per_mtok=5",
                "--range=api_input_usd_per_mtok=0.5..2",
                "--format=json",
            ],
        ]
        .concat(),
    );
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let all = json["alternatives"].as_array().unwrap();
    let of = |name: &str| all.iter().find(|one| one["name"] == name).unwrap();
    let bars = |name: &str| of(name)["tornado"].to_string();
    assert!(bars("stated API prices").contains("api_input"), "{out}");
    assert!(!bars("today's bill").contains("api_input"), "{out}");
    let npv = &of("today's bill")["draws"]["npv"];
    assert_eq!((&npv["p10"], &npv["p50"]), (&npv["p50"], &npv["p90"]), "{npv}");
}

#[test]
fn prices_that_are_set_come_before_the_list() {
    let mut args = THE_CLAIM.to_vec();
    args.retain(|arg| !arg.starts_with("--bill"));
    args.extend([
        "--against=openai/gpt-4o",
        "--set=cached_share=0.5",
        "--set=api_cached_usd_per_mtok=0",
        "--format=json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&answer(&args)).unwrap();
    // 21,000 requests of 1,500 uncached tokens at 2.50 and 1,000 at 10: 78.75 and 210.
    let month = json["alternatives"][0]["cloud_per_month"].as_str().unwrap();
    assert_eq!(month.parse::<f64>().unwrap(), 288.75);
}

#[test]
fn a_scenario_brings_its_workload_and_prices_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let quickstart =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/quickstart.toml"));
    let text = quickstart.unwrap()
        + "\n[workload]\npreset = \"chat-team\"\nusers = 50\npeak_factor = 2\n\
           [prices]\ndevice_usd = { low = 1500, likely = 1800, high = 2500 }\nactive_watts = 400\n\
           idle_watts = 60\ntariff = \"FR\"\nagainst = [\"openai/gpt-4o\"]\n";
    fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let missing = error(&["cost", path]);
    assert!(missing.contains("no results of 'mine' in 'results'"), "{missing}");
    assert!(missing.contains("--tok-s"), "{missing}");
    let out = answer(&["cost", path, "--tok-s=500", "--format=markdown", "--draws=200"]);
    for words in ["1500–2500", "for 50 instead of 25", "France household", "openai/gpt-4o"] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn what_a_workload_leaves_out_is_assumed_with_a_range_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.toml");
    let quickstart =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/quickstart.toml"));
    let quickstart = quickstart.unwrap();
    let rows = |more: &str| {
        let text = format!(
            "{quickstart}\n[workload]\nrequests_per_day = 1000\nprompt_tokens = 100\n\
             new_tokens = 50\nturns = 4\n{more}\n[prices]\ndevice_usd = 1500\n\
             active_watts = 400\nidle_watts = 60\n"
        );
        fs::write(&path, text).unwrap();
        let out = answer(&["cost", path.to_str().unwrap(), "--tok-s=500", "--format=json"]);
        let json: serde_json::Value = serde_json::from_str(&out).unwrap();
        let rows = json["inputs"].as_array().unwrap().clone();
        move |input: &str| {
            let row = rows.iter().find(|row| row["input"] == input).unwrap();
            let of = |name: &str| row[name].as_str().unwrap().to_owned();
            [of("low"), of("likely"), of("high"), of("basis")]
        }
    };
    let row = rows("");
    assert_eq!(row("active_hours_per_day"), ["8", "9", "12", "assumed"]);
    assert_eq!(row("peak_factor"), ["2", "3.0", "5", "assumed"]);
    assert_eq!(row("working_days_per_month"), ["20", "21", "23", "assumed"]);
    // Three halves of 150 tokens come before the mean prompt of 100: 225 of 325.
    assert_eq!(row("prompt_tokens")[1].parse::<f64>().unwrap(), 325.0);
    assert_eq!(row("cached_share"), ["0", "0.6923", "0.6923", "assumed"]);
    let row = rows("cached_share = 0.3\npeak_factor = 2");
    assert_eq!(row("cached_share"), ["0.3", "0.3", "0.3", "stated"]);
    assert_eq!(row("peak_factor"), ["2", "2", "2", "stated"]);
}

#[test]
fn wrong_input_ends_with_two_and_says_what_to_do() {
    let with = |more: &[&str]| {
        let mut args = THE_CLAIM.to_vec();
        let is_again =
            |flag: &&str| more.iter().any(|m| m.split('=').next() == flag.split('=').next());
        args.retain(|flag| flag.starts_with("--set") || !is_again(flag));
        args.extend(more);
        error(&args)
    };
    for (more, words) in [
        (&["--set=device_usd=-5"][..], "'device_usd' is -5, which cannot be: write 0 to 10000000"),
        (&["--set=device_uds=5"], "did you mean 'device_usd'?"),
        (&["--set=pue=two"], "'two' is no number; write it without its unit"),
        (&["--range=device_usd=1..2"], "does not hold its value 1500"),
        (&["--against=openai/gpt-4p"], "unknown API model 'openai/gpt-4p'; did you mean"),
        (&["--against=google/gemini-3.8-flash"], "no 'output_usd_mtok' of google/gemini-3.8-flash"),
        (&["--tariff=Germny"], "did you mean 'Germany'?"),
        (&["--tariff=HU"], "state the exchange rate with --exchange EUR=USD"),
        (&["--exchange=euro"], "write EUR=USD, as EUR=1.16"),
        (&["--device=rtx-5099"], "unknown device 'rtx-5099'; did you mean"),
        (&["--workload=chat-teem"], "did you mean 'chat-team'?"),
        (&["--tok-s=nan"], "--tok-s NaN cannot be"),
        (&["--model=qwen3-33b"], "unknown model 'qwen3-33b'; did you mean"),
        (&["--rent=vast/RTX 5090"], "Name it with --rent-device so that it is predicted, or state"),
        (
            &["--rent=vast/RTX 5090", "--rent-tok-s=9", "--rent-offer=reserved"],
            "no 'reserved' offer of 'vast/RTX 5090' is known, but",
        ),
        (
            &["--hybrid=length", "--against=openai/gpt-4o"],
            "give a scenario whose [workload] spreads",
        ),
        (&["--hybrid=length", "--local-share=0.5"], "use it with --hybrid share"),
        (&["--set=rent_hours_per_day=9"], "nothing that it is a price of is compared"),
        (&["--set=api_input_usd_per_mtok=2"], "set both"),
        (&["--set=api_usd_per_month=400"], "leave one of them out"),
        (
            &["--set=rent_usd_per_gpu_hour=2", "--set=rent_hours_per_day=9"],
            "'rent_hours_per_day' 9 is below 'active_hours_per_day' 24",
        ),
        (&["--rent=vast/RTX 5090", "--rent-tok-s=0"], "--rent-tok-s 0 cannot be"),
    ] {
        let message = with(more);
        assert!(message.contains(words), "{words}: {message}");
    }
    let mut args = THE_CLAIM.to_vec();
    args.retain(|arg| !arg.contains("idle_watts") && !arg.contains("tok-s"));
    assert!(error(&args).contains("how fast is the machine?"));
    assert!(error(&["cost", "--tok-s=5"]).contains("no workload: name one with --workload"));
    args.push("--tok-s=76");
    assert!(error(&args).contains("'idle_watts' (power of the whole machine while it waits"));
}

#[test]
fn prices_are_listed_searched_and_aged() {
    let out = answer(&["prices", "anthropic", "sonnet", "--format=csv"]);
    assert!(out.lines().count() > 3 && out.contains("claude-sonnet-5.5"), "{out}");
    assert!(out.lines().skip(1).all(|line| line.starts_with("api,anthropic,")), "{out}");
    assert!(answer(&["prices", "--gpus", "h100"]).contains("/h"));
    assert!(answer(&["prices", "--electricity", "germany"]).contains("0.3835 EUR/kWh"));
    let old = answer(&["prices", "--older-than=100000", "--gpus"]);
    assert!(old.contains("no date") && !old.contains("2026-"), "{old}");
    assert!(error(&["prices", "nothing-like-it"]).contains("no price of 'nothing-like-it'"));
}

#[test]
fn a_list_of_ones_own_is_checked_kept_and_used() {
    let home = tempfile::tempdir().unwrap();
    let mine = home.path().join("mine.csv");
    let own = home.path().join("kept").join("own.csv");
    let run = |args: &[&str]| {
        Command::cargo_bin("bench").unwrap().args(args).env("BENCH_PRICES", &own).output().unwrap()
    };
    let head = "kind,provider,model_or_gpu,input_usd_mtok,output_usd_mtok,as_of,source\n";
    fs::write(&mine, format!("{head}api,us,ours,1 USD,2,2026-11-20,invoice\n")).unwrap();
    let update = ["prices", "--update", mine.to_str().unwrap()];
    let refused = run(&update);
    assert_eq!(refused.status.code(), Some(2));
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(message.contains("mine.csv:2: 'input_usd_mtok' is '1 USD'"), "{message}");
    assert!(!own.exists());
    fs::write(&mine, format!("{head}api,us,ours,1,2,yesterday,invoice\n")).unwrap();
    let message = String::from_utf8(run(&update).stderr).unwrap();
    assert!(message.contains("mine.csv:2: 'as_of' is 'yesterday': write when"), "{message}");
    fs::write(&mine, format!("{head}api,us,ours,1,2,2026-11-20,invoice\n")).unwrap();
    assert!(run(&update).status.success());
    assert!(text(&run(&["prices", "us/ours"])).contains("yours, 2026-11-20"));
}

#[test]
fn the_report_of_claims_is_what_the_program_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/reports/claims-roi.md");
    let out = answer(&["cost", "claims", "--on=2026-11-21"]);
    let kept = fs::read_to_string(path).unwrap();
    assert!(
        out == kept,
        "make it again: bench cost claims --on 2026-11-21 > reports/claims-roi.md"
    );
}

/// A scenario with everything: what is measured, what is promised, what it is for, what it costs.
const WHOLE: &str = r#"
[trials]
min = 5
max = 5
warm_up = 0

[limits]
case_seconds = 30
trial_seconds = 10

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q8_0"]
engines = ["mock"]
weights = "m@decode_tps=400,prefill_tps=20000.gguf"
points = [{ prompt_tokens = 200, new_tokens = 20 }]
batch = [1, 4]

[slo]
ttft_ms = 1000
tpot_ms = 100
attainment = 0.9

[workload]
requests_per_day = 1000
prompt_tokens = 400
new_tokens = 40

[prices]
device_usd = 1000
active_watts = 200
idle_watts = 20
tariff = "US"
against = ["openai/gpt-4o"]
"#;

#[test]
fn one_scenario_is_measured_and_then_priced_with_what_was_measured() {
    let place = common::Place::with_scenario(WHOLE);
    place.write_header("m@decode_tps=400,prefill_tps=20000.gguf");
    let run = place.run(&[]);
    assert!(run.status.success(), "{}", common::stderr(&run));
    let priced = |args: &[&str]| {
        let whole = [&["cost", "scenario.toml", "--draws=200"], args].concat();
        let output = place.bench(&whole).env("HOME", place.path()).output().unwrap();
        assert!(output.status.success(), "{}", common::stderr(&output));
        common::stdout(&output)
    };
    let json: serde_json::Value = serde_json::from_str(&priced(&["--format=json"])).unwrap();
    let input = |name: &str| {
        let all = json["inputs"].as_array().unwrap();
        all.iter().find(|row| row["input"] == name).unwrap().clone()
    };
    let number = |value: &serde_json::Value| -> f64 { value.as_str().unwrap().parse().unwrap() };
    // The row with the most tokens a second, among those that kept the SLO.
    let (records, folder) = (place.records(), place.results());
    let best = records.iter().filter_map(|r| r.system_tok_s_median).fold(0.0, f64::max);
    let speed = input("output_tok_s");
    assert_eq!(speed["basis"], "measured");
    assert!((number(&speed["likely"]) / best - 1.0).abs() < 1e-3, "{speed} {best}");
    let source = speed["source"].as_str().unwrap();
    assert!(source.contains("kept the SLO") && source.contains(&records[0].scenario), "{source}");
    assert_eq!(input("prompt_s_per_mtok")["basis"], "measured");
    assert_eq!(input("active_watts")["basis"], "stated");
    let text = priced(&["--format=markdown"]);
    let said = "measured: output\\_tok\\_s, prompt\\_s\\_per\\_mtok";
    assert!(text.contains(said), "{text}");

    // A folder of another scenario, whose name ends alike.
    let other = place.path().join("results/9999-dual-scenario");
    fs::create_dir(&other).unwrap();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap();
        fs::write(other.join(name), text.replace(",scenario,mock,", ",dual-scenario,mock,"))
            .unwrap();
    }
    assert!(!priced(&["--format=json"]).contains("9999"));

    // What was promised later was not counted then: the medians decide, and no case is fast enough.
    let path = place.path().join("scenario.toml");
    std::fs::write(&path, WHOLE.replace("tpot_ms = 100", "tpot_ms = 1")).unwrap();
    let text = priced(&["--format=csv"]);
    assert!(text.contains("misses the SLO in every measured case"), "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn a_speed_that_nobody_measured_is_predicted_and_says_so() {
    let out = answer(&[
        "cost",
        "--device=rtx-5090",
        "--model=qwen3-14b",
        "--workload=chat-team",
        "--tpot-ms=50",
        "--against=openai/gpt-4o",
        "--draws=200",
        "--format=json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rows = json["inputs"].as_array().unwrap();
    let of = |name: &str| rows.iter().find(|row| row["input"] == name).unwrap();
    for name in ["output_tok_s", "prompt_s_per_mtok", "busy_factor"] {
        assert_eq!(of(name)["basis"], "predicted", "{name}");
    }
    let number = |value: &serde_json::Value| -> f64 { value.as_str().unwrap().parse().unwrap() };
    let speed = of("output_tok_s");
    assert!(number(&speed["low"]) < number(&speed["likely"]), "{speed}");
    assert!(number(&speed["likely"]) < number(&speed["high"]), "{speed}");
    let source = speed["source"].as_str().unwrap();
    assert!(source.starts_with("fit: qwen3-14b Q4_K_M on rtx-5090"), "{source}");
}

#[test]
fn a_rented_gpu_is_as_fast_as_is_predicted_and_costs_what_its_offer_says() {
    let out = answer(&[
        "cost",
        "--device=rtx-5090",
        "--model=qwen3-14b",
        "--workload=chat-team",
        "--rent=vast/RTX 5090",
        "--rent-device=rtx-5090",
        "--rent-offer=lowest",
        "--set=rent_hours_per_day=9",
        "--draws=200",
        "--format=json",
    ]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let rented = &json["alternatives"][0];
    // One of them, 0.9081 USD an hour, nine hours on 30.4375 days.
    let month: f64 = rented["cloud_per_month"].as_str().unwrap().parse().unwrap();
    assert!((month - 0.9081 * 9.0 * 30.4375).abs() < 1e-6, "{month}");
    let source = rented["source"].as_str().unwrap();
    assert!(source.contains("fit: qwen3-14b Q4_K_M on rtx-5090"), "{source}");
}

#[test]
fn a_rented_machine_of_two_is_paid_twice() {
    let month = |more: &[&str]| -> f64 {
        let args = [
            "cost",
            "--model=qwen3-14b",
            "--workload=chat-team",
            "--set=rent_hours_per_day=9",
            "--draws=200",
            "--format=json",
        ];
        let json: serde_json::Value =
            serde_json::from_str(&answer(&[&args[..], more].concat())).unwrap();
        json["alternatives"][0]["cloud_per_month"].as_str().unwrap().parse().unwrap()
    };
    let two = month(&[
        "--device=rtx-5090",
        "--rent=vast/RTX 5090",
        "--rent-device=2x rtx-5090",
        "--rent-offer=lowest",
    ]);
    assert!((two - 2.0 * 0.9081 * 9.0 * 30.4375).abs() < 1e-6, "{two}");
    // As fast as the own machine, which has two.
    let two = month(&["--device=2x rtx-5090", "--set=rent_usd_per_gpu_hour=1"]);
    assert!((two - 2.0 * 9.0 * 30.4375).abs() < 1e-6, "{two}");
}

#[test]
fn a_machine_that_cannot_hold_the_model_is_never_called_cheaper() {
    let with = |more: &[&str]| {
        let args = [
            "cost",
            "--device=rtx-4070",
            "--model=qwen3-32b",
            "--workload=chat-team",
            "--against=openai/gpt-4o",
            "--draws=200",
        ];
        answer(&[&args[..], more].concat())
    };
    let predicted = with(&["--format=csv"]);
    assert!(predicted.contains("cannot hold qwen3-32b Q4_K_M"), "{predicted}");
    // Also where somebody states a speed, its costs stand, and nothing is compared.
    let stated = with(&["--tok-s=5000", "--format=csv"]);
    let mut reader = csv::Reader::from_reader(stated.as_bytes());
    let headers = reader.headers().unwrap().clone();
    let row = reader.records().next().unwrap().unwrap();
    let cell = |name: &str| &row[headers.iter().position(|header| header == name).unwrap()];
    assert!(cell("cannot_serve").contains("cannot hold"), "{stated}");
    assert!(!cell("owning_usd_per_month").is_empty());
    for name in ["break_even_months", "npv_usd", "roi", "owning_wins"] {
        assert_eq!(cell(name), "", "{name}");
    }
    let text = with(&["--tok-s=5000", "--format=markdown"]);
    assert!(!text.contains("breaks even") && !text.contains("less;"), "{text}");
    // More users than there is room for.
    let crowded = answer(&[
        "cost",
        "--device=rtx-5090",
        "--model=qwen3-32b",
        "--workload=chat-team",
        "--users=64",
        "--format=json",
    ]);
    assert!(crowded.contains("for each of 64 users"), "{crowded}");
}

#[test]
fn devices_are_ranked_by_predicted_speeds_and_those_that_do_not_fit_are_not_ranked() {
    let out = answer(&[
        "cost",
        "compare",
        "--devices=rtx-5090,rtx-4070,2x rtx-5090",
        "--model=qwen3-32b",
        "--workload=chat-team",
        "--format=csv",
    ]);
    let rows: Vec<Vec<String>> = csv::Reader::from_reader(out.as_bytes())
        .records()
        .map(|row| row.unwrap().iter().map(ToOwned::to_owned).collect())
        .collect();
    assert_eq!(rows[0][..2], ["1", "rtx-5090"], "{out}");
    assert_eq!(rows[0][3], "predicted");
    assert_eq!(rows[1][1], "2x rtx-5090", "{out}");
    assert_eq!(rows[2][..2], ["", "rtx-4070"], "{out}");
    assert!(rows[2][11].contains("cannot hold qwen3-32b"), "{out}");
}
