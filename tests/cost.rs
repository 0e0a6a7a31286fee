//! `bench cost` and `bench prices` as a person runs them.

use std::fs;
use std::process::Output;

use assert_cmd::Command;

fn bench(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::cargo_bin("bench")
        .unwrap()
        .args(args)
        // No list of the person who runs the tests, and no results either.
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env_remove("BENCH_PRICES")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn answer(args: &[&str]) -> String {
    let output = bench(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    text(&output)
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
    assert!(out.contains("its speed for this workload is not known"), "{out}");
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
    for words in ["1500 – 2500", "for 50 instead of 25", "France household", "openai/gpt-4o"] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn wrong_input_ends_with_two_and_says_what_to_do() {
    let with = |more: &[&str]| {
        let mut args = THE_CLAIM.to_vec();
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
