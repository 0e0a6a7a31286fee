//! Every key that a scenario may have, as data: the checks and `scenarios/README.md` read it.

/// A key of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The section as it is written: `[trials]`; empty for keys before the first section.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// A value that makes sense, in TOML.
    pub example: &'static str,
    /// What holds where the key is absent; empty: nothing, the key must be given.
    pub default: &'static str,
    /// The commands that use it.
    pub used_by: &'static str,
    /// What it says, with its unit.
    pub meaning: &'static str,
}

/// The keys of a section, in the order of [`KEYS`].
pub(super) fn of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

/// A key by its section and name.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    of(section).find(|key| key.name == name)
}

macro_rules! keys {
    ($($section:literal { $($name:literal = $example:literal, $default:literal, $used:literal,
        $meaning:literal;)* })*) => {
        /// All keys.
        pub const KEYS: &[Key] = &[$($(Key {
            section: $section,
            name: $name,
            example: $example,
            default: $default,
            used_by: $used,
            meaning: $meaning,
        }),*),*];
    };
}

keys! {
    "" {
        "description" = "\"What this machine does with a 32B model\"", "none", "all",
            "What the scenario is for, in one sentence.";
        "seed" = "1", "1", "run, capacity, cost",
            "Seeds synthetic weights, prompts, arrivals and draws; part of every case's id.";
    }
    "[host]" {
        "device" = "\"rtx-5090\"", "none", "fit, capacity, cost",
            "The machine's row in the hardware catalogue (`bench devices`).";
        "cpu" = "\"Apple M4 Max\"", "any", "run", "Whole words of the CPU's name, in any case.";
        "cores" = "8", "any", "run", "The fewest physical cores.";
        "gpu" = "\"RTX 5090\"", "any", "run",
            "The last words of the GPU's name, in any case: `RTX 4070` is neither the SUPER nor \
             the laptop's.";
        "gpus" = "2", "1 where another gpu key is given", "run, fit, capacity, cost",
            "The fewest GPUs of that name.";
        "gpu_memory" = "\"30 GiB\"", "any", "run",
            "The least memory of each of them, in KiB, MiB, GiB, kB, MB or GB.";
        "memory" = "\"16 GiB\"", "any", "run", "The least main memory.";
        "os" = "[\"linux\", \"macos\"]", "any", "run",
            "Operating systems: `linux`, `macos`, `windows`.";
    }
    "[trials]" {
        "min" = "5", "5", "run", "Trials that are always made, 1 or more.";
        "max" = "30", "30", "run", "Trials after which a case ends, however wide its interval is.";
        "warm_up" = "1", "1", "run", "Trials before these, which are not recorded; may be 0.";
        "interval" = "0.02", "0.02", "run",
            "Half-width of the 95 % interval of the median, as a share of it, at which a case \
             ends: 0.02 is ±2 %.";
        "in_turn" = "\"model\"", "\"point\"", "run",
            "Whose trials take turns, so that drift hits all alike: those of the engines of a `point`, \
             or of all cases of a `model` and quantisation, whose rows are written together.";
    }
    "[limits]" {
        "case_seconds" = "600", "600", "run", "Most seconds for a case, its loading included.";
        "trial_seconds" = "120", "120", "run", "Most seconds for one trial.";
        "scenario_seconds" = "7200", "no limit", "run", "Most seconds for the whole scenario.";
        "memory" = "\"20 GiB\"", "what the machine has", "run",
            "A case that is expected to need more is not started.";
    }
    "[settings]" {
        "threads" = "8", "the engine's own", "run", "Threads of generation and of prompts.";
        "gpu_layers" = "99", "the engine's own", "run",
            "Layers whose weights lie on a GPU; all where it is larger than their number.";
        "flash_attention" = "true", "the engine's own", "run", "The fused attention kernel.";
        "kv_type" = "\"q8_0\"", "the engine's own", "run, fit",
            "Element type of the KV cache, spelt as in GGUF.";
        "batch_tokens" = "2048", "the engine's own", "run",
            "Most tokens in one call of the engine.";
        "micro_batch" = "512", "the engine's own", "run, fit",
            "Most tokens that the engine computes at once.";
        "mmap" = "true", "the engine's own", "run", "Map the file instead of reading it.";
        "split_mode" = "\"layer\"", "the engine's own", "run, fit",
            "How a model is split over several GPUs: `none`, `layer`, `row`.";
        "tensor_split" = "[1.0, 1.0]", "the engine's own", "run",
            "Share of the model on each GPU.";
        "dtype" = "\"float32\"", "the engine's own", "run",
            "Floats that are computed with: `float16`, `bfloat16`, `float32`.";
        "group_size" = "32", "the engine's own", "run",
            "Weights that share a scale in a quantisation of the engine's own.";
    }
    "[[matrix]]" {
        "models" = "[\"qwen3-0.6b\"]", "", "run, fit, capacity, cost",
            "Catalogue ids (`bench models`).";
        "quants" = "[\"Q4_K_M\"]", "", "run, fit, capacity, cost", "Quantisations.";
        "engines" = "[\"candle\", \"llama.cpp\"]", "", "run",
            "Engines, and servers with or without a `[servers.NAME]` of their own.";
        "weights" = "\"synthetic\"", "\"synthetic\"", "run",
            "`synthetic`, a GGUF file or, for mlx, a folder with `config.json` and \
             safetensors (the path relative to the scenario's folder), or \
             `hub:owner/repo/file.gguf`; anything but `synthetic` wants one model and one \
             quantisation.";
        "points" = "[{ prompt_tokens = 512, new_tokens = 128 }]", "", "run, fit",
            "The work of one request, see `points`; or `\"workload\"`: requests as `[workload]` \
             describes them.";
        "batch" = "[1, 8]", "[1] where `concurrency` and `rates` are absent", "run, fit",
            "Static batches: so many requests start together and run in lockstep.";
        "concurrency" = "[1, 2, 4]", "none", "run, fit",
            "Closed loops: so many users, each of whom asks again when answered (continuous \
             batching).";
        "rates" = "[0.5, 1.0]", "none", "run",
            "Open loops: requests per second on average, Poisson unless `[workload]` says \
             otherwise; wants `slots`, and `requests` or `seconds`.";
        "calibrate" = "true", "false", "run, capacity",
            "A sweep of prompts and batches instead of a load, for `bench capacity`: `points` \
             names its longest prompt and answer, `slots` its most sequences.";
        "slots" = "8", "as many as `concurrency`; 8 with `calibrate`", "run, fit",
            "Sequences that the engine holds at once in `concurrency` and `rates`; further \
             requests wait.";
        "requests" = "32", "4 for each user", "run",
            "Requests in a trial of `concurrency` and `rates`.";
        "seconds" = "60", "none", "run",
            "Instead of `requests`: how long requests of a trial start.";
        "settings" = "{ threads = 8 }", "those of `[settings]`", "run",
            "Settings of this matrix alone, over the scenario's; `[matrix.settings.candle]` is for \
             one engine.";
    }
    "points" {
        "prompt_tokens" = "512", "", "run, fit", "Tokens of the prompt, inside the clock.";
        "new_tokens" = "128", "", "run, fit", "Tokens to generate; the end of a text is ignored.";
        "depth" = "4096", "0", "run, fit",
            "Tokens already in the KV cache when the clock starts; only with `batch`.";
    }
    "[servers.NAME]" {
        "kind" = "\"vllm\"", "NAME", "run", "The known server whose dialect it speaks.";
        "url" = "\"http://127.0.0.1:8000\"", "bench starts it", "run",
            "Where a running server answers.";
        "model" = "\"qwen3:0.6b\"", "the catalogue id", "run", "The model's name there.";
        "api_key_env" = "\"OPENAI_API_KEY\"", "no key", "run",
            "The environment variable that holds the key; a key itself is never written in a file.";
        "args" = "[\"--enforce-eager\"]", "[]", "run",
            "More arguments of the program that is started.";
        "program" = "\"/opt/vllm/bin/vllm\"", "the descriptor's", "run",
            "The program to start, where it is not on the search path.";
        "ready_seconds" = "300", "the descriptor's", "run",
            "Seconds that it may take until it is ready.";
        "silence_seconds" = "120", "120", "run",
            "Seconds without a word after which a request counts as timed out.";
        "early_end" = "\"allowed\"", "\"void\"", "run",
            "What an answer with fewer tokens than asked for does: `void` the trial, or `allowed`.";
        "descriptor" = "\"my-server.toml\"", "the one that is shipped", "run",
            "A descriptor of a server that is not shipped, relative to the scenario's folder.";
    }
    "[slo]" {
        "ttft_ms" = "1000", "no limit", "run, capacity, cost", "Time to first token, in ms.";
        "tpot_ms" = "50", "no limit", "run, capacity, cost", "Time per output token, in ms.";
        "e2e_ms" = "30000", "no limit", "run, capacity, cost", "End-to-end time, in ms.";
        "attainment" = "0.95", "0.95", "run, capacity, cost",
            "Share of requests that must meet all of them.";
        "search" = "true", "false", "run",
            "Search the highest rate and the highest number of users that meet them.";
    }
    "[workload]" {
        "preset" = "\"chat-team\"", "none", "run, capacity, cost",
            "A named workload to start from; the other keys override it.";
        "users" = "40", "the preset's", "capacity, cost", "People or agents at once.";
        "requests_per_day" = "2000", "the preset's", "capacity, cost",
            "Requests on a working day: a number or an estimate.";
        "tokens_per_day" = "2000000", "from the requests", "cost",
            "Tokens in and out on a working day, instead of `requests_per_day`.";
        "prompt_tokens" = "{ median = 800, p95 = 4000 }", "the preset's", "run, capacity, cost",
            "Length of prompts: a number or a distribution, see `lengths`.";
        "new_tokens" = "250", "the preset's", "run, capacity, cost", "Length of answers, likewise.";
        "cached_share" = "0.3", "the preset's, or what `turns` repeat, or 0", "cost",
            "Share of the prompt that a prefix cache answers, 0 to 1.";
        "turns" = "4", "the preset's, or 1", "run, capacity, cost",
            "Turns of a conversation, each with all turns before it in its prompt.";
        "context_tokens" = "8192", "8192, or what fixed lengths or the trace need; capacity: what all turns need, to 32768", "run, capacity",
            "The longest prompt with its answer; longer ones are cut, and conversations start anew.";
        "think_seconds" = "20", "the preset's, or 0", "run, capacity", "A user's pause before the next request.";
        "arrivals" = "\"poisson\"", "\"poisson\"", "run, capacity",
            "`constant`, `poisson` or `gamma` (bursts).";
        "variation" = "2.0", "none", "run, capacity",
            "Coefficient of variation of the distance between requests, for `gamma`; 1 is Poisson.";
        "trace" = "\"day.jsonl\"", "none", "run, capacity",
            "A trace to replay instead (Mooncake JSONL, or CSV with \
             `arrival_s,prompt_tokens,new_tokens`), relative to the scenario's folder.";
        "working_days_per_month" = "21", "the preset's", "capacity, cost", "Days of use in a month, to 31.";
        "peak_factor" = "3", "the preset's, or 3", "cost",
            "Load of the busiest hour relative to the mean: a number or an estimate.";
        "growth_per_year" = "0.2", "the command's", "cost", "Growth of the use in a year; 0.2 is 20 %.";
    }
    "lengths" {
        "mean" = "800", "none", "run, capacity, cost",
            "Mean of a normal distribution, in tokens; with `deviation`.";
        "deviation" = "200", "none", "run, capacity, cost",
            "Its standard deviation, in tokens.";
        "median" = "800", "none", "run, capacity, cost",
            "Median of a log-normal distribution, in tokens; with `p95`.";
        "p95" = "4000", "none", "run, capacity, cost", "Its 95th percentile, in tokens.";
        "histogram" = "[[200, 0.7], [4000, 0.3]]", "none", "run, capacity, cost",
            "Pairs of a length in tokens and its weight.";
    }
    "estimates" {
        "low" = "1500", "", "capacity, cost", "The lowest value that is thought possible.";
        "likely" = "2000", "", "capacity, cost", "The most likely value.";
        "high" = "3000", "", "capacity, cost", "The highest value that is thought possible.";
    }
    "[prices]" {
        "device_usd" = "2699", "the catalogue's", "cost", "Price of the device or devices, in USD.";
        "rest_usd" = "1200", "the command's", "cost", "Price of the rest of the machine, in USD.";
        "life_years" = "4", "the command's", "cost", "Years of use.";
        "resale_share" = "0.3", "the command's", "cost",
            "What it sells for at the end, as a share of the purchase.";
        "capital_cost_per_year" = "0.08", "the command's", "cost",
            "Cost of capital in a year; 0.08 is 8 %.";
        "tariff" = "\"DE\"", "the command's", "cost", "Country code whose electricity price holds.";
        "electricity_usd_per_kwh" = "0.35", "the tariff's", "cost",
            "Electricity in USD per kWh, instead of `tariff`.";
        "idle_watts" = "70", "the catalogue's", "cost", "Power of the idle machine, in watts.";
        "active_watts" = "550", "measured, or the catalogue's", "cost",
            "Power of the machine at work, in watts.";
        "pue" = "1.3", "1", "cost", "Energy of the building relative to the machine's, 1 or more.";
        "rack_usd_per_month" = "150", "0", "cost", "Rack or colocation, in USD a month.";
        "maintenance_share_per_year" = "0.05", "the command's", "cost",
            "Maintenance in a year, as a share of the purchase.";
        "staff_hours_per_month" = "4", "the command's", "cost", "Hours of work in a month.";
        "staff_usd_per_hour" = "60", "the command's", "cost", "Price of such an hour, in USD.";
        "spare_share" = "0.2", "the command's", "cost",
            "Capacity kept free, as a share of what the peak needs.";
        "against" = "[\"openai/gpt-4o\"]", "none", "cost",
            "API models to compare with, `provider/model` (`bench prices`).";
        "api_usd_per_month" = "750", "none", "cost",
            "What is spent on APIs today, in USD a month.";
        "api_change_per_year" = "-0.2", "the command's", "cost",
            "Change of API prices in a year; -0.2 is 20 % less.";
        "rent_usd_per_gpu_hour" = "2.5", "none", "cost",
            "Price of one rented GPU as fast as the machine's own, in USD an hour.";
    }
}
