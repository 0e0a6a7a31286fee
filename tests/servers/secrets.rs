//! Keys come from the environment and go nowhere but to the server.

use std::path::Path;

use crate::client::{SERVER, server};
use crate::common::Place;

const SECRET: &str = "sk-very-secret-0123456789";

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_key_is_in_no_file_no_message_and_no_result() {
    // The first server repeats the key in its refusal, the second one answers.
    for profile in ["fail=bad-request", "ttft_ms=10,tpot_ms=1"] {
        let url = SERVER.url(profile);
        let place = Place::with_scenario(&format!(
            "[trials]\nmin = 1\nmax = 1\n[[matrix]]\nmodels = [\"qwen3-0.6b\"]\n\
             quants = [\"Q4_K_M\"]\nengines = [\"cloud\"]\n\
             points = [{{ prompt_tokens = 16, new_tokens = 20 }}]\n\
             [servers.cloud]\nkind = \"openai\"\nurl = \"{url}\"\napi_key_env = \"MY_CLOUD_KEY\"\n"
        ));
        let output =
            place.bench(&["run", "scenario.toml"]).env("MY_CLOUD_KEY", SECRET).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(!said.contains(SECRET), "{said}");
        let record = place.records().remove(0);
        match profile.starts_with("fail") {
            true => assert!(record.reason.unwrap().contains("[key removed]"), "{said}"),
            false => assert_eq!(record.reason, None, "{said}"),
        }
        let files = files(place.path());
        assert!(files.len() >= 4, "{files:?}");
        for file in files {
            let content = std::fs::read(&file).unwrap();
            let content = String::from_utf8_lossy(&content);
            assert!(!content.contains(SECRET), "the key is in {}", file.display());
        }
    }
}

#[test]
fn proxies_of_the_environment_are_not_used() {
    let mut setup = server("openai-completions", "ttft_ms=10,tpot_ms=1");
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        // Nothing listens there.
        setup = setup.env(name, "http://127.0.0.1:9");
    }
    assert!(crate::client::served(&setup.start().sample()).error.is_none());
}
