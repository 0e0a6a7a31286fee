//! What a scenario's text becomes.

mod errors;

use std::path::Path;

use super::*;

fn known() -> Known {
    let model = |id: &str, context_max| KnownModel {
        id: id.to_owned(),
        context_max,
        not_synthetic: (id == "deepseek-v4-pro").then(|| "its tensors are not known".to_owned()),
    };
    let models = [
        model("qwen3-0.6b", Some(40_960)),
        model("qwen3-8b", Some(40_960)),
        model("llama-2-7b", Some(4096)),
        model("glm-4.5-air", None),
        model("deepseek-v4-pro", None),
    ];
    let mut known = Known::new(models, ["Q4_K_M", "Q8_0", "F16"].map(str::to_owned));
    known.file_quants = vec!["IQ2_XXS".to_owned()];
    known.devices = Some(vec!["rtx-5090".to_owned(), "rtx-4070".to_owned()]);
    known.api_models = Some(vec!["openai/gpt-4o".to_owned()]);
    known.tariffs = Some(vec!["DE".to_owned(), "US".to_owned()]);
    known.presets = Some(vec!["chat-team".to_owned()]);
    known
}

/// A scenario with one matrix, which `change` may add to.
fn with_matrix(change: &str) -> String {
    format!(
        "[[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q4_K_M\"]\n\
         engines = [\"candle\", \"llama.cpp\"]\n\
         points = [{{ prompt_tokens = 512, new_tokens = 64 }}]\n{change}"
    )
}

fn read(text: &str) -> Scenario {
    Scenario::parse(text, Path::new("s.toml"), &known()).unwrap()
}

/// The errors of a text, one a line.
fn errors(text: &str) -> String {
    Scenario::parse(text, Path::new("s.toml"), &known()).unwrap_err().to_string()
}

/// The errors of a scenario whose matrix stands in lines 1 to 5, and `more` from line 6.
fn errors_of(more: &str) -> String {
    errors(&with_matrix(more))
}

/// The errors of a scenario whose matrix has `key = value` in place of its own `key`.
fn errors_with(key: &str, value: &str) -> String {
    let text = with_matrix("");
    let lines = text.lines().map(|line| {
        if line.starts_with(key) { format!("{key} = {value}\n") } else { format!("{line}\n") }
    });
    errors(&lines.collect::<String>())
}

#[test]
fn a_scenario_with_every_key_is_read_whole() {
    let text = r#"
description = "All keys"
seed = 7
[host]
device = "rtx-5090"
cpu = "EPYC"
cores = 2
gpu = "RTX 5090"
gpus = 2
gpu_memory = "30 GiB"
memory = "64 GB"
os = ["linux"]
[trials]
min = 3
max = 9
warm_up = 0
interval = 0.05
[limits]
case_seconds = 100
trial_seconds = 20.5
scenario_seconds = 1000
memory = "20 GiB"
[settings]
threads = 2
[settings."llama.cpp"]
gpu_layers = 99
flash_attention = true
kv_type = "q8_0"
batch_tokens = 1024
micro_batch = 256
mmap = false
split_mode = "row"
tensor_split = [3, 1.0]
[[matrix]]
models = ["qwen3-0.6b", "qwen3-8b"]
quants = ["Q4_K_M"]
engines = ["candle", "llama.cpp"]
weights = "synthetic"
points = [
    { prompt_tokens = 512, new_tokens = 64 },
    { prompt_tokens = 1, new_tokens = 128, depth = 4096 },
]
batch = [1, 8]
settings = { threads = 4, candle = { kv_type = "f32" } }
[[matrix]]
models = ["qwen3-8b"]
quants = ["Q8_0"]
engines = ["vllm", "box"]
points = [{ prompt_tokens = 128, new_tokens = 64 }]
concurrency = [1, 4]
rates = [0.5]
slots = 4
requests = 16
[servers.box]
kind = "openai"
url = "https://box.example/v1"
model = "qwen"
api_key_env = "BOX_KEY"
ready_seconds = 10
silence_seconds = 60
early_end = "allowed"
[servers.vllm]
program = "/opt/vllm"
args = ["-x", "-x"]
[slo]
ttft_ms = 1000
tpot_ms = 50.5
e2e_ms = 30000
attainment = 0.9
search = true
[workload]
preset = "chat-team"
users = 40
requests_per_day = { low = 1000, likely = 2000, high = 4000.5 }
prompt_tokens = { median = 800, p95 = 4000 }
new_tokens = { histogram = [[200, 0.7], [4000, 0.3]] }
cached_share = 0.3
turns = 4
think_seconds = 20
arrivals = "gamma"
variation = 2.0
working_days_per_month = 21
peak_factor = 3
growth_per_year = -0.2
[prices]
device_usd = 2699.99
tariff = "DE"
against = ["openai/gpt-4o"]
api_usd_per_month = 750.10
"#;
    let scenario = read(text);
    assert_eq!(scenario.name, "s");
    assert_eq!(scenario.seed, 7);
    assert_eq!(scenario.host.gpu_memory, Some(Bytes::from_gib(30.0)));
    assert_eq!(scenario.host.memory, Some(Bytes(64_000_000_000)));
    let trials =
        Trials { min: 3, max: 9, warm_up: 0, interval: Share(0.05), in_turn: InTurn::Point };
    assert_eq!(scenario.trials, trials);
    assert_eq!(scenario.limits.trial, Nanos(20_500_000_000));
    assert_eq!(scenario.limits.memory, Some(Bytes::from_gib(20.0)));

    let [first, second] = &scenario.matrices[..] else { panic!("two matrices") };
    assert_eq!(first.points[1].context(), Tokens(4225));
    assert_eq!(first.loads, [Load::Batch(1), Load::Batch(8)]);
    let candle =
        Settings { threads: Some(4), kv_type: Some("f32".to_owned()), ..Settings::default() };
    assert_eq!(first.settings["candle"], candle);
    let llama = Settings {
        threads: Some(4),
        gpu_layers: Some(99),
        flash_attention: Some(true),
        kv_type: Some("q8_0".to_owned()),
        batch_tokens: Some(1024),
        micro_batch: Some(256),
        mmap: Some(false),
        split_mode: Some("row".to_owned()),
        tensor_split: Some(vec![3.0, 1.0]),
        ..Settings::default()
    };
    assert_eq!(first.settings["llama.cpp"], llama);
    // Threads are no setting that vLLM is started with; the box was started by somebody else.
    assert_eq!(second.settings["vllm"].threads, None);
    let options = &second.settings["box"].options;
    assert_eq!(options["url"], "https://box.example/v1");
    assert_eq!(options["key_env"], "BOX_KEY");
    assert_eq!(options["early_end"], "allowed");
    assert_eq!(options["ready_seconds"], "10");
    assert_eq!(scenario.servers["vllm"].args, ["-x", "-x"]);
    assert_eq!(second.settings["vllm"].options["args"], "[\"-x\",\"-x\"]");
    assert_eq!(second.loads, [Load::Concurrency(1), Load::Concurrency(4), Load::Rate(0.5)]);
    assert_eq!((second.slots, second.requests), (Some(4), Some(16)));

    let server = &scenario.servers["box"];
    assert_eq!((server.kind.as_str(), server.model.as_deref()), ("openai", Some("qwen")));
    assert_eq!(server.ready, Some(Nanos(10_000_000_000)));
    let slo = scenario.slo.unwrap();
    assert_eq!((slo.tpot, slo.search), (Some(Nanos(50_500_000)), true));
    let workload = scenario.workload.unwrap();
    assert_eq!(workload.requests_per_day.unwrap().high, Decimal::new(40_005, 1));
    assert_eq!(workload.prompt_tokens, Some(Length::LogNormal { median: 800.0, p95: 4000.0 }));
    let bins = vec![(Tokens(200), 0.7), (Tokens(4000), 0.3)];
    assert_eq!(workload.new_tokens, Some(Length::Histogram(bins)));
    assert_eq!(workload.arrivals, Some(Arrivals::Gamma { variation: 2.0 }));
    assert_eq!(workload.growth_per_year.unwrap().likely, Decimal::new(-2, 1));
    let prices = scenario.prices.unwrap();
    // To the cent, as it is written: never through a binary float.
    assert_eq!(prices.device_usd.unwrap().likely, Decimal::new(269_999, 2));
    assert_eq!(prices.api_usd_per_month, Some(Usd(Decimal::new(75_010, 2))));
}

#[test]
fn the_least_scenario_has_the_documented_defaults() {
    let scenario = read(&with_matrix(""));
    assert_eq!(scenario.seed, 1);
    assert_eq!(scenario.trials, Trials::default());
    assert_eq!(scenario.limits, Limits::default());
    assert_eq!(scenario.matrices[0].loads, [Load::Batch(1)]);
    assert_eq!(scenario.matrices[0].weights, Weights::Synthetic);
    assert_eq!(scenario.matrices[0].settings["candle"], Settings::default());
}

#[test]
fn a_default_in_the_key_table_is_the_default_in_force() {
    let default = |section, name| keys::find(section, name).unwrap().default.to_owned();
    let trials = Trials::default();
    assert_eq!(default("[trials]", "min"), trials.min.to_string());
    assert_eq!(default("[trials]", "max"), trials.max.to_string());
    assert_eq!(default("[trials]", "warm_up"), trials.warm_up.to_string());
    assert_eq!(default("[trials]", "interval"), trials.interval.0.to_string());
    assert_eq!(default("[trials]", "in_turn"), "\"point\"");
    assert_eq!(trials.in_turn, InTurn::Point);
    let limits = Limits::default();
    assert_eq!(default("[limits]", "case_seconds"), limits.case.seconds().to_string());
    assert_eq!(default("[limits]", "trial_seconds"), limits.trial.seconds().to_string());
}

#[test]
fn every_key_is_in_the_documentation_word_for_word() {
    let readme = include_str!("../../../scenarios/README.md");
    for key in KEYS {
        let row = document(key);
        assert!(readme.contains(&row), "scenarios/README.md lacks this row:\n{row}");
    }
    let rows = readme.lines().filter(|line| line.starts_with("| `")).count();
    assert_eq!(rows, KEYS.len(), "scenarios/README.md documents a key that is gone");
}

/// A key's row in `scenarios/README.md`.
fn document(key: &Key) -> String {
    let Key { name, example, default, used_by, meaning, .. } = key;
    let default = if default.is_empty() { "**required**" } else { default };
    format!("| `{name}` | `{example}` | {default} | {used_by} | {meaning} |")
}

#[test]
fn an_example_of_every_key_is_accepted_in_its_section() {
    for key in KEYS.iter().filter(|key| !matches!(key.name, "descriptor" | "trace")) {
        let line = format!("{} = {}\n", key.name, key.example);
        let text = match key.section {
            "" => format!("{line}{}", with_matrix("")),
            "[settings]" if key.name == "tensor_split" => continue,
            "[settings]" if matches!(key.name, "dtype" | "group_size") => {
                let engines = "\"candle\", \"llama.cpp\"";
                with_matrix(&format!("[settings.mlx]\n{line}")).replace(engines, "\"mlx\"")
            }
            "[settings]" => with_matrix(&format!("[settings.\"llama.cpp\"]\n{line}")),
            "[[matrix]]" if matches!(key.name, "slots" | "requests" | "seconds") => {
                with_matrix(&format!("{line}concurrency = [8]\n"))
            }
            "[[matrix]]" if key.name == "rates" => {
                with_matrix(&format!("{line}slots = 8\nrequests = 32\n"))
            }
            "[[matrix]]" if key.default.is_empty() => with_matrix(""),
            "[[matrix]]" => with_matrix(&line),
            "points" => with_matrix("").replace("new_tokens = 64", "new_tokens = 64, depth = 4096"),
            "lengths" | "estimates" => continue,
            "[servers.NAME]" => with_matrix(&format!("[servers.vllm]\n{line}")),
            "[slo]" if key.name == "search" => {
                with_matrix(&format!("concurrency = [8]\n[slo]\nttft_ms = 9\n{line}"))
            }
            "[slo]" if key.name == "ttft_ms" => with_matrix(&format!("[slo]\n{line}")),
            "[slo]" => with_matrix(&format!("[slo]\nttft_ms = 9\n{line}")),
            "[workload]" if key.name == "preset" => with_matrix(&format!("[workload]\n{line}")),
            "[workload]" if key.name == "variation" => with_matrix(&format!(
                "[workload]\npreset = \"chat-team\"\narrivals = \"gamma\"\n{line}"
            )),
            "[workload]" => with_matrix(&format!("[workload]\npreset = \"chat-team\"\n{line}")),
            section => with_matrix(&format!("{section}\n{line}")),
        };
        if let Err(problems) = Scenario::parse(&text, Path::new("s.toml"), &known()) {
            panic!("{} {}: {problems}\n{text}", key.section, key.name);
        }
    }
}

#[test]
fn every_setting_reaches_the_engine() {
    // An engine that takes all settings, so that none is forgotten between key and `Settings`.
    let all: Vec<&'static str> = keys::of("[settings]").map(|key| key.name).collect();
    let all: &'static [&'static str] = Vec::leak(all);
    let mut known = known();
    let engine =
        Engine { name: "all", runner: "all", settings: all, kv_types: &["q8_0"], ..ENGINES[0] };
    known.engines = vec![engine];
    let lines = keys::of("[settings]").map(|key| format!("{} = {}\n", key.name, key.example));
    let text = with_matrix(&format!("[settings]\n{}", lines.collect::<String>()))
        .replace("\"candle\", \"llama.cpp\"", "\"all\"");
    let scenario = Scenario::parse(&text, Path::new("s.toml"), &known).unwrap();
    let settings = serde_json::to_value(&scenario.matrices[0].settings["all"]).unwrap();
    for key in all {
        assert!(!settings[key].is_null(), "setting '{key}' was lost");
    }
}

#[test]
fn a_host_is_told_apart_with_words() {
    let gpu =
        |name: &str, gib| FoundGpu { name: name.to_owned(), memory: Some(Bytes::from_gib(gib)) };
    let found = FoundHost {
        cpu: "AMD EPYC 9R14".to_owned(),
        cores: 2,
        gpus: vec![gpu("NVIDIA GeForce RTX 4070", 11.99)],
        memory: Bytes::from_gib(24.0),
        os: "linux".to_owned(),
    };
    assert_eq!(Expectation::default().differences(&found), Vec::<String>::new());
    let right = Expectation {
        cpu: Some("epyc".to_owned()),
        gpu: Some("rtx 4070".to_owned()),
        memory: Some(Bytes::from_gib(16.0)),
        os: vec!["linux".to_owned()],
        ..Expectation::default()
    };
    assert_eq!(right.differences(&found), Vec::<String>::new());
    let wrong = Expectation {
        cores: Some(8),
        gpu: Some("RTX 5090".to_owned()),
        gpus: Some(2),
        memory: Some(Bytes::from_gib(64.0)),
        os: vec!["macos".to_owned()],
        ..Expectation::default()
    };
    assert_eq!(
        wrong.differences(&found),
        [
            "expects 8 cores or more, found 2",
            "expects 2 GPUs 'RTX 5090', found 'NVIDIA GeForce RTX 4070'",
            "expects 64.0 GiB (68.7 GB) of memory or more, found 24.0 GiB (25.8 GB)",
            "expects macos, found linux",
        ]
    );
    // Measured under the name of the plain card, another card's figures would be wrong.
    for other in ["NVIDIA GeForce RTX 4070 SUPER", "NVIDIA GeForce RTX 4070 Laptop GPU"] {
        let found = FoundHost { gpus: vec![gpu(other, 12.0)], ..found.clone() };
        assert_eq!(
            right.differences(&found),
            [format!("expects a GPU 'rtx 4070', found '{other}'")]
        );
    }
    let m4 = FoundHost { cpu: "Apple M4 Max".to_owned(), ..found.clone() };
    let max = Expectation { cpu: Some("m4 max".to_owned()), ..Expectation::default() };
    assert_eq!(max.differences(&m4), Vec::<String>::new());
    assert_eq!(max.differences(&found), ["expects a CPU 'm4 max', found 'AMD EPYC 9R14'"]);
    let small = Expectation { gpu_memory: Some(Bytes::from_gib(15.0)), ..Expectation::default() };
    assert_eq!(
        small.differences(&found),
        ["expects 15.0 GiB (16.1 GB) or more on each GPU, found 12.0 GiB (12.9 GB) on \
          'NVIDIA GeForce RTX 4070'"]
    );
}
