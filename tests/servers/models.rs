//! Models of a server that runs already: uploaded, loaded, asked for their memory.

use bench::mock_server::{DEVICE_BYTES, MockServer};
use bench::runner::Process;
use bench::units::Bytes;

use crate::client::{TOKENS, request, served, server};

#[test]
fn ollama_takes_a_file_of_ours_once_and_measures_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("Qwen3-0.6B-Q4.gguf");
    std::fs::write(&path, vec![7; 3 << 20]).unwrap();
    let mock = MockServer::start(0).unwrap();
    let mut setup = server("ollama", "").option("url", mock.url("ttft_ms=20,tpot_ms=2"));
    setup.model = Some(path);
    for _ in 0..2 {
        // The second time the file and the model are there already.
        let (mut client, report) = setup.load().unwrap();
        assert_eq!(report.effective["served_model"], "bench-qwen3-0.6b-q4");
        assert_eq!(report.device_bytes, Some(Bytes(DEVICE_BYTES)));
        let sample = client.sample();
        assert_eq!(sample.token_ns.len(), TOKENS as usize);
        assert_eq!(served(&sample).server_load_ns, Some(1_000_000));
    }
}

#[test]
fn a_model_that_ollama_has_is_used_by_its_name() {
    let mock = MockServer::start(0).unwrap();
    let setup = server("ollama", "").option("url", mock.url("")).option("model", "qwen3:0.6b");
    let (_, report) = setup.load().unwrap();
    assert_eq!(report.effective["served_model"], "qwen3:0.6b");
    assert_eq!(report.device_bytes, Some(Bytes(DEVICE_BYTES)));
    let missing = server("ollama", "").option("url", mock.url("")).option("model", "bench-nobody");
    let failure = missing.load().err().expect("it loaded").to_string();
    assert!(failure.contains("404") && failure.contains("'bench-nobody' not found"), "{failure}");
}

#[test]
fn vllm_s_own_times_are_what_a_trial_added_to_its_metrics() {
    let mock = MockServer::start(0).unwrap();
    let setup = server("vllm", "").option("url", mock.url("ttft_ms=50,tpot_ms=2,usage=running"));
    let (mut client, report) = setup.load().unwrap();
    assert_eq!(report.effective["cache_blocks"], "1000");
    assert_eq!(report.effective["block_tokens"], "16");
    client.sample();
    let samples = client.samples(vec![request(11); 3]);
    for sample in &samples {
        let served = served(sample);
        assert_eq!(served.server_prompt_ns, Some(50_000_000));
        assert_eq!(served.server_ttft_ns, Some(50_000_000));
        let decode = served.server_decode_ns.unwrap();
        assert!(decode.abs_diff(20_000_000) < 1000, "{decode}");
        assert_eq!(served.cached_tokens, Some(0));
        assert!(served.server_means);
    }
}

#[test]
fn a_server_on_another_machine_is_not_watched_and_one_on_this_is_by_its_port() {
    let mock = MockServer::start(0).unwrap();
    let (_, report) = server("vllm", "").option("url", mock.url("")).load().unwrap();
    let Process::Listener { port, programs } = report.process else {
        panic!("{:?}", report.process)
    };
    assert!(mock.url("").ends_with(&format!(":{port}")));
    assert_eq!(programs, ["vllm"]);
}
