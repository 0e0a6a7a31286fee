//! Whole runs with servers in them: `bench run` on a scenario file.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use crate::client::SERVER;
use crate::common::{Place, stderr, stdout};

fn words_of(output: &Output) -> String {
    stderr(output) + &stdout(output)
}

/// One point on `engines`, with these servers.
fn scenario(engines: &str, loads: &str, servers: &str) -> Place {
    Place::with_scenario(&format!(
        "[trials]\nmin = 2\nmax = 2\n[[matrix]]\nmodels = [\"qwen3-0.6b\"]\n\
         quants = [\"Q4_K_M\"]\nengines = [{engines}]\n\
         points = [{{ prompt_tokens = 16, new_tokens = 20 }}]\n{loads}\n{servers}"
    ))
}

#[test]
fn a_scenario_measures_servers_beside_engines() {
    let url = SERVER.url("ttft_ms=20,tpot_ms=2,usage=running");
    let place = scenario(
        "\"box\", \"vllm\"",
        "concurrency = [1, 4]",
        &format!(
            "[servers.box]\nkind = \"llama-server\"\nurl = \"{url}\"\n\
             [servers.vllm]\nurl = \"{url}\"\n"
        ),
    );
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", words_of(&output));
    let records = place.records();
    assert_eq!(records.len(), 4, "{}", words_of(&output));
    for record in &records {
        assert_eq!(record.reason, None);
        let ttft = record.ttft_ns_median.unwrap();
        assert!((19_000_000.0..40_000_000.0).contains(&ttft), "{ttft}");
        let text = format!("{record:?}");
        assert!(!text.contains("127.0.0.1"), "an address got into the record: {text}");
        // The mock listens in this test's own process, which is neither server.
        assert_eq!(record.peak_memory_bytes, None, "the client's memory is not the server's");
    }
}

/// `bench mock-server` on a port of its own.
struct Mock(Child, String);

impl Mock {
    fn start(profile: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["mock-server", "--port", "0", "--profile", profile])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self(child, url.trim().to_owned())
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_memory_of_a_local_server_is_that_of_the_process_on_its_port() {
    let mock = Mock::start("ttft_ms=20,tpot_ms=2");
    let text = include_str!("../../runners/openai/servers/openai-completions.toml");
    for (programs, found) in [("mock-server", true), ("some-other-server", false)] {
        let servers = format!(
            "[servers.mine]\nkind = \"openai-completions\"\ndescriptor = \"mine.toml\"\n\
             url = \"{}\"\n",
            mock.1
        );
        let place = scenario("\"mine\"", "", &servers);
        let descriptor = format!("programs = [\"{programs}\"]\n{text}");
        std::fs::write(place.path().join("mine.toml"), descriptor).unwrap();
        let output = place.run(&[]);
        assert!(output.status.success(), "{}", words_of(&output));
        let record = place.records().remove(0);
        if found {
            let status = std::fs::read_to_string(format!("/proc/{}/status", mock.0.id())).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            let own: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            let seen = record.peak_memory_bytes.unwrap() >> 10;
            // The client's few MiB are in it too.
            assert!(seen > own && seen < own + 100_000, "{seen} KiB; the server has {own} KiB");
        } else {
            assert_eq!(record.peak_memory_bytes, None);
            let why = record.absent.unwrap();
            assert!(why.contains("belongs to 'bench', which is no some-other-server"), "{why}");
        }
    }
}

#[test]
fn ollama_is_given_the_case_s_weights_and_tells_their_device_memory() {
    let mock = Mock::start("ttft_ms=20,tpot_ms=2");
    let url = mock.1.clone();
    let place = scenario("\"ollama\"", "", &format!("[servers.ollama]\nurl = \"{url}\"\n"));
    place.write_header("tiny.gguf");
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("quants =", "weights = \"tiny.gguf\"\nquants =");
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", words_of(&output));
    let record = place.records().remove(0);
    assert_eq!(record.peak_vram_bytes, Some(bench::mock_server::DEVICE_BYTES));
    let settings = record.effective_settings.unwrap();
    assert!(settings.contains("served_model=bench-tiny"), "{settings}");
}

/// A server that does not begin to listen and ignores the wish that it end, as vLLM does in the
/// middle of its start.
#[cfg(target_os = "linux")]
const STUBBORN: &str = "#!/bin/sh
if [ \"$1\" = --version ]; then echo 1.2.3; exit 0; fi
trap '' TERM INT
echo $$ > \"$PIDS\"
sleep 1000 &
echo $! >> \"$PIDS\"
while :; do wait; sleep 1; done
";

#[test]
#[cfg(target_os = "linux")]
fn an_interrupted_run_leaves_no_server_behind() {
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, Instant};

    let place = Place::with_scenario(
        "[[matrix]]\nmodels = [\"smollm2-135m\"]\nquants = [\"BF16\"]\nengines = [\"vllm\"]\n\
         points = [{ prompt_tokens = 16, new_tokens = 4 }]\n",
    );
    let program = place.path().join("stubborn");
    let scenario = place.path().join("scenario.toml");
    let text = std::fs::read_to_string(&scenario).unwrap();
    let server = format!("[servers.vllm]\nprogram = \"{}\"\n", program.display());
    std::fs::write(&scenario, text + &server).unwrap();
    std::fs::write(&program, STUBBORN).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let pids = place.path().join("pids");
    let mut run = place
        .bench(&["run", "scenario.toml"])
        .env("PIDS", &pids)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let until = |done: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !done() && start.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(20));
        }
        done()
    };
    let started = || std::fs::read_to_string(&pids).unwrap_or_default();
    let is_started = until(&|| started().lines().count() == 2);
    let pid = rustix::process::Pid::from_raw(run.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = run.wait().unwrap();
    assert!(is_started, "the server was not started: {output}");
    assert_eq!(output.code(), Some(130));
    // The interrupt is no outcome of the case: a resumed run measures it.
    let rows = std::fs::read_to_string(place.results().join("records.csv")).unwrap_or_default();
    assert!(!rows.contains("crashed"), "{rows}");
    for pid in started().lines() {
        let folder = std::path::Path::new("/proc").join(pid);
        // Dead ones may still be in the table until somebody reaps them.
        let gone = || {
            std::fs::read_to_string(folder.join("stat")).map_or(true, |stat| stat.contains(") Z "))
        };
        assert!(until(&gone), "process {pid} is still there");
    }
}
