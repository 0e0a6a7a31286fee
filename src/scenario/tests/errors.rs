//! Each class of errors with its exact words.

use super::*;

#[test]
fn an_unknown_key_names_the_nearest_or_its_section() {
    assert_eq!(
        errors_of("concurency = [1]\n"),
        "s.toml:6: unknown key 'concurency'; did you mean 'concurrency'?"
    );
    assert_eq!(
        errors_of("warm_up = 1\n"),
        "s.toml:6: unknown key 'warm_up'; it belongs in [trials]"
    );
    assert_eq!(
        errors_of("[trails]\nmin = 5\n"),
        "s.toml:6: unknown key 'trails'; did you mean 'trials'?"
    );
    assert_eq!(
        errors_of("[slo]\nttft_ms = 1000\nxyz = 1\n"),
        "s.toml:8: unknown key 'xyz'; [slo] knows ttft_ms, tpot_ms, e2e_ms, attainment, search"
    );
    assert_eq!(
        errors_of("[settings.llama.cpp]\nthreads = 1\n"),
        "s.toml:6: unknown key 'llama'; did you mean '\"llama.cpp\"', in quotes?"
    );
    assert_eq!(
        errors_of("[settings]\nslots = 1\n"),
        "s.toml:7: unknown key 'slots'; it belongs in [[matrix]]"
    );
}

#[test]
fn a_wrong_type_is_named_with_an_example() {
    assert_eq!(
        errors_of("[trials]\nmin = \"5\"\n"),
        "s.toml:7: 'min' must be a whole number, not a text; for example 'min = 5'"
    );
    assert_eq!(
        errors_of("batch = 8\n"),
        "s.toml:6: 'batch' must be a list of whole numbers, not a whole number; for example \
         'batch = [1, 8]'"
    );
    assert_eq!(
        errors_of("[limits]\nmemory = 20\n"),
        "s.toml:7: 'memory' must be a size with its unit, not a whole number; for example \
         'memory = \"20 GiB\"'"
    );
    assert_eq!(
        errors_of("[limits]\nmemory = \"20 gigs\"\n"),
        "s.toml:7: 'memory': no size '20 gigs'; write a number with its unit, such as 20 GiB or \
         24 GB"
    );
    assert_eq!(
        errors_of("[settings]\nmmap = 1\n"),
        "s.toml:7: 'mmap' must be true or false, not a whole number; for example 'mmap = true'\n\
         s.toml:7: engine 'candle' has no setting 'mmap'; move it to [settings.\"llama.cpp\"]"
    );
    assert_eq!(
        errors("[matrix]\n"),
        "s.toml:1: [matrix] is one table; write [[matrix]], in double brackets"
    );
    assert_eq!(
        errors_of("[[trials]]\nmin = 1\n"),
        "s.toml:6: 'trials' must be one table; write [trials]"
    );
}

#[test]
fn an_unknown_model_quantisation_or_engine_names_the_nearest() {
    assert_eq!(
        errors_with("models", "[\"qwen3-06b\"]"),
        "s.toml:2: unknown model 'qwen3-06b'; did you mean 'qwen3-0.6b'?"
    );
    assert_eq!(
        errors_with("models", "[\"foo\"]"),
        "s.toml:2: unknown model 'foo'; 'bench models' lists them"
    );
    assert_eq!(
        errors_with("quants", "[\"q4km\"]"),
        "s.toml:3: unknown quantisation 'q4km'; did you mean 'Q4_K_M'?"
    );
    assert_eq!(
        errors_with("engines", "[\"llamacpp\"]"),
        "s.toml:4: unknown engine 'llamacpp'; did you mean 'llama.cpp'?"
    );
    assert_eq!(
        errors_of("[host]\ndevice = \"rtx5090\"\n"),
        "s.toml:7: unknown device 'rtx5090'; did you mean 'rtx-5090'?"
    );
}

#[test]
fn an_empty_or_absent_list_would_run_nothing() {
    assert_eq!(
        errors_with("models", "[]"),
        "s.toml:2: 'models' is empty, so nothing would run; for example \
         'models = [\"qwen3-0.6b\"]'"
    );
    assert_eq!(
        errors("[[matrix]]\nmodels = [\"qwen3-8b\"]\nquants = [\"F16\"]\nengines = [\"mock\"]\n"),
        "s.toml:1: [[matrix]] has no 'points'; add \
         'points = [{ prompt_tokens = 512, new_tokens = 128 }]'"
    );
    assert_eq!(
        errors(""),
        "s.toml:1: no [[matrix]], so nothing would run; add one with models, quants, engines and \
         points"
    );
    assert_eq!(errors("matrix = []"), "s.toml:1: 'matrix' is empty, so nothing would run");
}

#[test]
fn an_impossible_value_is_refused() {
    assert_eq!(
        errors_with("points", "[{ prompt_tokens = 0, new_tokens = 8 }]"),
        "s.toml:5: 'prompt_tokens' must be from 1 to 16777216, not 0; for example \
         'prompt_tokens = 512'"
    );
    assert_eq!(
        errors_of("batch = [0]\n"),
        "s.toml:6: 'batch' must be from 1 to 16777216, not 0; for example 'batch = [1, 8]'"
    );
    assert_eq!(
        errors_of("batch = [-4]\n"),
        "s.toml:6: 'batch' must be from 1 to 16777216, not -4; for example 'batch = [1, 8]'"
    );
    assert_eq!(
        errors_of("rates = [nan]\nslots = 1\nrequests = 1\n"),
        "s.toml:6: 'rates' must be from 0.000001 to 1000000, not nan; for example \
         'rates = [0.5, 1.0]'"
    );
    assert_eq!(
        errors_of("[trials]\nmin = 8\nmax = 4\n"),
        "s.toml:8: 'max' is 4, fewer than the 8 trials of 'min'; raise 'max' or lower 'min'"
    );
    assert_eq!(
        errors_of("[limits]\ncase_seconds = 10\ntrial_seconds = 20\n"),
        "s.toml:8: 'trial_seconds' is 20.0 s, longer than the 10.0 s of its case; lower it or \
         raise 'case_seconds'"
    );
    assert_eq!(
        errors_of("batch = [1, 8, 1]\n"),
        "s.toml:6: 'batch' has 1 twice; remove one of them"
    );
    assert_eq!(
        errors_with("quants", "[\"F16\", \"F16\"]"),
        "s.toml:3: 'quants' has 'F16' twice; remove one of them"
    );
}

#[test]
fn a_context_beyond_the_model_is_refused() {
    let text = with_matrix("").replace("qwen3-0.6b", "llama-2-7b").replace("512", "4090");
    assert_eq!(
        errors(&text),
        "s.toml:5: a context of 4154 tokens (depth + prompt + new) is beyond the 4096 of \
         'llama-2-7b'; shorten the point or leave the model out"
    );
    read(&text.replace("4090", "4032"));
    // Where the catalogue does not know the longest context, nothing is refused.
    read(&text.replace("llama-2-7b", "glm-4.5-air"));
}

#[test]
fn what_a_load_cannot_use_is_refused() {
    assert_eq!(
        errors_of("batch = [8]\nslots = 4\n"),
        "s.toml:7: 'slots' has no use here: it belongs to 'concurrency' or 'rates'; remove it"
    );
    assert_eq!(
        errors_of("concurrency = [8]\nrequests = 4\n"),
        "s.toml:7: 'requests' is 4, fewer than 8 users; raise it to 8 or more"
    );
    assert_eq!(
        errors_of("rates = [1.0]\nrequests = 4\n"),
        "s.toml:1: [[matrix]] has no 'slots'; add 'slots = 8'"
    );
    let deep = with_matrix("concurrency = [2]\n").replace("64 }", "64, depth = 128 }");
    assert_eq!(
        errors(&deep),
        "s.toml:5: 'depth' of 128 with 'concurrency' or 'rates': later requests start with an \
         empty cache; put the point in a [[matrix]] with 'batch'"
    );
}

#[test]
fn a_setting_that_an_engine_lacks_is_refused() {
    let text = "[settings.candle]\nsplit_mode = \"row\"\n";
    assert_eq!(
        errors_of(text),
        "s.toml:7: engine 'candle' has no setting 'split_mode'; it has threads, gpu_layers, \
         kv_type, batch_tokens"
    );
    let mock = with_matrix("settings = { gpu_layers = 99 }\n").replace("candle", "mock");
    assert_eq!(
        errors(&mock),
        "s.toml:6: engine 'mock' has no setting 'gpu_layers'; move it to \
         [matrix.settings.\"llama.cpp\"]"
    );
    let vllm = with_matrix("[settings.vllm]\nthreads = 1\n").replace("candle", "vllm");
    assert_eq!(
        errors(&vllm),
        "s.toml:7: engine 'vllm' has no setting 'threads'; it has kv_type, batch_tokens"
    );
    let ollama = with_matrix("[settings.ollama]\nthreads = 1\n").replace("candle", "ollama");
    assert_eq!(
        errors(&ollama),
        "s.toml:7: engine 'ollama' has no setting 'threads'; a server takes its switches from \
         [servers.ollama] args"
    );
    let attached = "[settings.vllm]\nbatch_tokens = 1\n[servers.vllm]\nurl = \"http://a\"\n";
    assert_eq!(
        errors(&with_matrix(attached).replace("candle", "vllm")),
        "s.toml:6: [servers.vllm] has a 'url': what runs there has its own settings; remove \
         [settings.vllm]"
    );
    assert_eq!(
        errors_of("[servers.vllm]\nurl = \"http://a\"\nargs = []\n"),
        "s.toml:8: 'args' is for a server that is started, not for one with a 'url'; remove one of \
         them"
    );
    assert_eq!(
        errors_of("[settings.candle]\nkv_type = \"q8_0\"\n"),
        "s.toml:7: unknown kv_type 'q8_0'; use one of f16, f32"
    );
    assert_eq!(
        errors_of("[settings.llama-server]\nbatch_tokens = 1\n"),
        "s.toml:6: no [[matrix]] measures 'llama-server'; remove [settings.llama-server] or measure it"
    );
    let shared = format!("{}[settings]\ngpu_layers = 2\n", with_matrix(""));
    let mixed = shared.replace("candle", "mock");
    assert_eq!(
        errors(&mixed),
        "s.toml:7: engine 'mock' has no setting 'gpu_layers'; move it to \
         [settings.\"llama.cpp\"]"
    );
    assert_eq!(
        errors_of("[settings.\"llama.cpp\"]\nbatch_tokens = 128\nmicro_batch = 256\n"),
        "s.toml:8: 'micro_batch' of 256 is more than 'batch_tokens' of 128; lower it to 128 or less"
    );
}

#[test]
fn weights_that_are_no_weights_are_refused() {
    assert_eq!(
        errors_of("weights = \"synthetik\"\n"),
        "s.toml:6: unknown weights 'synthetik'; did you mean 'synthetic'?"
    );
    assert_eq!(
        errors_of("weights = \"no/such.gguf\"\n"),
        "s.toml:6: 'weights': no file 'no/such.gguf'; paths start at the scenario's folder"
    );
    assert_eq!(
        errors_of("weights = \"hub:owner/model.gguf\"\n"),
        "s.toml:6: 'weights' names no file in 'hub:owner/model.gguf'; write \
         hub:owner/repo/file.gguf"
    );
    assert_eq!(
        errors_of("weights = \"hub:owner/repo/../../x.gguf\"\n"),
        "s.toml:6: 'weights' names no GGUF file in 'hub:owner/repo/../../x.gguf'; write \
         hub:owner/repo/file.gguf"
    );
    let two =
        with_matrix("weights = \"hub:o/r/f.gguf\"\n").replace("\"Q4_K_M\"", "\"F16\", \"Q8_0\"");
    assert_eq!(
        errors(&two),
        "s.toml:6: 'weights' is one file, but 'quants' has 2 entries; give each its own [[matrix]]"
    );
}

#[test]
fn what_has_no_synthetic_weights_wants_a_file() {
    assert_eq!(
        errors_with("models", "[\"deepseek-v4-pro\"]"),
        "s.toml:2: no synthetic weights of 'deepseek-v4-pro': its tensors are not known; name a \
         real file in 'weights'"
    );
    assert_eq!(
        errors_with("quants", "[\"IQ2_XXS\"]"),
        "s.toml:3: no synthetic weights in 'IQ2_XXS'; name a real file in 'weights', or use one of \
         Q4_K_M, Q8_0, F16"
    );
    let hub = with_matrix("weights = \"hub:o/r/f.gguf\"\n")
        .replace("Q4_K_M", "IQ2_XXS")
        .replace("qwen3-0.6b", "deepseek-v4-pro");
    assert_eq!(
        read(&hub).matrices[0].weights,
        Weights::Hub { repo: "o/r".to_owned(), file: "f.gguf".to_owned() }
    );
}

#[test]
fn a_server_must_be_known_and_keep_its_key_secret() {
    assert_eq!(
        errors_of("[servers.box]\nurl = \"http://127.0.0.1:1\"\n"),
        "s.toml:6: no server is called 'box'; add 'kind', one of vllm, llama-server, ollama, \
         lm-studio, lm-studio-v0, lm-studio-v1, mlx-lm-server, openai, openai-completions, \
         anthropic"
    );
    assert_eq!(
        errors_of("[servers.vllm]\nurl = \"127.0.0.1:8000\"\n"),
        "s.toml:7: 'url' is no http:// or https:// address: '127.0.0.1:8000'; write it in full"
    );
    let key = errors_of("[servers.openai]\napi_key_env = \"sk-abc123\"\n");
    assert!(key.starts_with("s.toml:7: 'api_key_env' must be the name"), "{key}");
    assert!(!key.contains("abc123"), "{key}");
    let login = errors_of("[servers.openai]\nurl = \"https://me:secret@example.org\"\n");
    assert!(login.starts_with("s.toml:7: 'url' holds"), "{login}");
    assert!(!login.contains("secret"), "{login}");
    assert_eq!(
        errors_of("[servers.openai]\napi_key = \"sk-abc123\"\n"),
        "s.toml:7: unknown key 'api_key'; did you mean 'api_key_env'?"
    );
    assert_eq!(
        errors_of("[servers.candle]\nkind = \"vllm\"\n"),
        "s.toml:6: 'candle' is an engine that runs in process; give the server another name"
    );
}

#[test]
fn a_workload_or_price_that_makes_no_sense_is_refused() {
    assert_eq!(
        errors_of("[slo]\nsearch = true\n"),
        "s.toml:6: [slo] has no limit, so everything would meet it; add 'ttft_ms', 'tpot_ms' or \
         'e2e_ms'"
    );
    assert_eq!(
        errors_of("[workload]\nusers = 4\nprompt_tokens = 100\n"),
        "s.toml:6: [workload] has no 'new_tokens'; add it, or a 'preset' or a 'trace'"
    );
    assert_eq!(
        errors_of("[workload]\npreset = \"chat-teem\"\n"),
        "s.toml:7: unknown preset 'chat-teem'; did you mean 'chat-team'?"
    );
    assert_eq!(
        errors_of("[workload]\npreset = \"chat-team\"\nprompt_tokens = { mean = 5 }\n"),
        "s.toml:8: 'prompt_tokens' is no distribution; write a number, { mean, deviation }, \
         { median, p95 } or { histogram }"
    );
    assert_eq!(
        errors_of("[workload]\npreset = \"chat-team\"\ntokens_per_day = 5\nrequests_per_day = 1\n"),
        "s.toml:8: 'tokens_per_day' and 'requests_per_day' exclude each other; remove one of them"
    );
    assert_eq!(
        errors_of("[workload]\npreset = \"chat-team\"\narrivals = \"gamma\"\n"),
        "s.toml:8: 'arrivals' of gamma wants 'variation'; add 'variation = 2.0'"
    );
    assert_eq!(
        errors_of("[prices]\ndevice_usd = -1\n"),
        "s.toml:7: 'device_usd' must be from 0 to 1000000000, not -1; for example \
         'device_usd = 2699'"
    );
    assert_eq!(
        errors_of("[prices]\ndevice_usd = { low = 3, likely = 2, high = 1 }\n"),
        "s.toml:7: 'device_usd' must have low ≤ likely ≤ high, not 3, 2, 1; put them in order"
    );
    assert_eq!(
        errors_of("[prices]\ntariff = \"XX\"\nagainst = [\"openai/gpt-4\"]\n"),
        "s.toml:7: unknown tariff 'XX'; 'bench prices --electricity' lists them\n\
         s.toml:8: unknown against 'openai/gpt-4'; did you mean 'openai/gpt-4o'?"
    );
}

#[test]
fn requests_of_a_workload_must_have_a_load_that_suits_them() {
    let of = |points: &str, more: &str| {
        let text = with_matrix("").replace("[{ prompt_tokens = 512, new_tokens = 64 }]", points);
        errors(&format!("{text}{more}"))
    };
    let lengths = "[workload]\nprompt_tokens = 20\nnew_tokens = 9\n";
    assert_eq!(
        of("\"wurkload\"", ""),
        "s.toml:5: 'points' is a list of points or the word \"workload\", not 'wurkload'; for example \
         [{ prompt_tokens = 512, new_tokens = 128 }]"
    );
    assert_eq!(
        of("\"workload\"", ""),
        "s.toml:5: 'points' names the workload, and there is none; add a [workload]"
    );
    let error = of("\"workload\"", &format!("batch = [4]\n{lengths}"));
    assert!(
        error.starts_with("s.toml:6: a static batch wants requests that are all alike"),
        "{error}"
    );
    let long = format!("concurrency = [4]\n{lengths}context_tokens = 50000\n");
    let error = of("\"workload\"", &long);
    assert!(error.starts_with("s.toml:5: a context of 50000 tokens"), "{error}");
    for (more, words) in [
        ("concurrency = [4]\nseconds = 9\nrequests = 8\n", "'seconds' and 'requests' exclude"),
        ("seconds = 9\n", "'seconds' has no use here"),
        ("rates = [2.0]\nslots = 4\n", "[[matrix]] has no 'requests'"),
        ("[slo]\nttft_ms = 9\nsearch = true\n", "'search' has nothing to search with"),
        (
            "concurrency = [4]\nseconds = 9\n[trials]\nwarm_up = 0\n",
            "learns the engine's pace from a warm-up",
        ),
    ] {
        let error = errors_of(more);
        assert!(error.contains(words), "{more}: {error}");
    }
}

#[test]
fn all_errors_are_reported_in_the_order_of_their_lines() {
    let text = "[trials]\nmin = 0\n[[matrix]]\nmodels = [\"qwen3-0.6\"]\nquants = []\n\
                engines = [\"candel\"]\npoints = [{ prompt_tokens = 1, new_token = 1 }]\n";
    assert_eq!(
        errors(text),
        "s.toml:2: 'min' must be from 1 to 100000, not 0; for example 'min = 5'\n\
         s.toml:4: unknown model 'qwen3-0.6'; did you mean 'qwen3-0.6b'?\n\
         s.toml:5: 'quants' is empty, so nothing would run; for example 'quants = [\"Q4_K_M\"]'\n\
         s.toml:6: unknown engine 'candel'; did you mean 'candle'?\n\
         s.toml:7: points has no 'new_tokens'; add 'new_tokens = 128'\n\
         s.toml:7: unknown key 'new_token'; did you mean 'new_tokens'?"
    );
}

#[test]
fn what_is_not_toml_is_an_error_with_its_line() {
    let error = errors("seed = 1\ndescription = \"open\n");
    assert!(error.starts_with("s.toml:2: not TOML: "), "{error}");
    let twice = errors("seed = 1\nseed = 2\n");
    assert!(twice.starts_with("s.toml:2: not TOML: duplicate key"), "{twice}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.toml");
    std::fs::write(&path, b"seed = 1\n# \xff\n").unwrap();
    let error = Scenario::read(&path, &known()).unwrap_err().to_string();
    assert!(error.ends_with("s.toml:2: not UTF-8; save the file as UTF-8 text"), "{error}");
    let missing = Scenario::read(&folder.path().join("no.toml"), &known()).unwrap_err().to_string();
    assert!(missing.contains("cannot read scenario"), "{missing}");
}

#[test]
fn no_text_makes_the_checks_panic() {
    let all =
        with_matrix("[slo]\nttft_ms = 1\n[prices]\ndevice_usd = 1\n[settings]\nthreads = 2\n");
    let words = ["0", "-1", "\"\"", "[]", "{}", "nan", "1e400", "99999999999999999999", "[[1]]"];
    for (at, _) in all.match_indices("= ") {
        let end = all[at..].find('\n').map_or(all.len(), |n| at + n);
        for word in words {
            let text = format!("{}= {word}{}", &all[..at], &all[end..]);
            let _ = Scenario::parse(&text, Path::new("s.toml"), &known());
        }
    }
    for at in 0..all.len() {
        let _ = Scenario::parse(&all[..at], Path::new("s.toml"), &known());
    }
}

#[test]
fn a_sweep_for_step_times_takes_no_load_beside_it() {
    let sweep = |change: &str| with_matrix(&format!("calibrate = true\n{change}"));
    assert_eq!(
        errors(&sweep("concurrency = [2]\n")),
        "s.toml:7: 'concurrency' with 'calibrate', which makes its own requests; put it in a \
         [[matrix]] of its own"
    );
    assert!(errors(&sweep("seconds = 3\n")).contains("'seconds' with 'calibrate'"));
    let mixed = sweep("[workload]\npreset = \"chat\"\n")
        .replace("points = [{ prompt_tokens = 512, new_tokens = 64 }]", "points = \"workload\"");
    assert!(errors(&mixed).contains("name the longest prompt and answer"), "{}", errors(&mixed));
    let deep = sweep("").replace("new_tokens = 64", "new_tokens = 64, depth = 9");
    assert!(errors(&deep).contains("'depth' of 9"), "{}", errors(&deep));
}
