//! How a case on a server reaches the client of servers: by its environment, so that addresses
//! and names of a person's network stay out of rows and case ids.

use std::path::Path;

use crate::cases::Case;
use crate::scenario::{ENGINES, NEVER_STARTED, Scenario};

/// The runner program of all servers.
pub const CLIENT: &str = "openai";

/// Whether `engine` is reached over HTTP.
pub fn is_server(scenario: &Scenario, engine: &str) -> bool {
    scenario.servers.contains_key(engine)
        || ENGINES.iter().any(|known| known.name == engine && known.server)
}

/// Whether somebody else runs it: then it needs no weights of ours.
pub fn is_attached(scenario: &Scenario, engine: &str) -> bool {
    let server = scenario.servers.get(engine);
    let kind = server.map_or(engine, |server| &server.kind);
    NEVER_STARTED.contains(&kind) || server.is_some_and(|server| server.url.is_some())
}

/// The engine in process that a server computes with.
pub fn in_process(scenario: &Scenario, engine: &str) -> Option<&'static str> {
    let kind = scenario.servers.get(engine).map_or(engine, |server| &server.kind);
    ENGINES.iter().find(|known| known.name == kind)?.in_process
}

/// The client's environment for a case: which server it stands for, and the options of the
/// scenario's section for it, which it needs before it can say which version runs there.
pub fn environment(scenario: &Scenario, case: &Case) -> Vec<(String, String)> {
    let server = scenario.servers.get(&case.engine);
    let descriptor = server.and_then(|server| server.descriptor.as_ref());
    let name = match (descriptor, server) {
        // Relative to the scenario's own folder, as its documentation says.
        (Some(path), _) => {
            let folder = scenario.path.parent().unwrap_or(Path::new(""));
            folder.join(path).display().to_string()
        }
        (None, Some(server)) => server.kind.clone(),
        (None, None) => case.engine.clone(),
    };
    // A map of texts has no form that JSON could refuse.
    let options = serde_json::to_string(&case.settings.options).unwrap_or_default();
    vec![("BENCH_SERVER".to_owned(), name), ("BENCH_SERVER_OPTIONS".to_owned(), options)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;
    use crate::scenario::Known;

    fn start(engine: &str, section: &str) -> (String, serde_json::Value) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mine.toml"), "").unwrap();
        let text = format!(
            "[[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q4_K_M\"]\n\
             engines = [\"{engine}\"]\nconcurrency = [2]\n\
             points = [{{ prompt_tokens = 9, new_tokens = 9 }}]\n{section}"
        );
        let path = folder.path().join("s.toml");
        let scenario = Scenario::parse(&text, &path, &Known::here());
        let scenario = scenario.unwrap_or_else(|problems| panic!("{problems}"));
        let case = &cases::expand(&scenario).unwrap()[0];
        let variables = environment(&scenario, case);
        let [(server, name), (options, json)] = &variables[..] else { panic!("{variables:?}") };
        assert_eq!((server.as_str(), options.as_str()), ("BENCH_SERVER", "BENCH_SERVER_OPTIONS"));
        let root = folder.path().display().to_string();
        (name.replace(&root, "ROOT"), serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_client_is_told_its_server_and_every_option_of_its_section() {
        assert_eq!(start("vllm", ""), ("vllm".to_owned(), serde_json::json!({})));
        let (name, options) = start(
            "box",
            "[servers.box]\nkind = \"openai\"\nurl = \"https://box.example/v1\"\n\
             model = \"qwen\"\napi_key_env = \"BOX_KEY\"\nready_seconds = 10\n\
             silence_seconds = 60\nearly_end = \"allowed\"\n",
        );
        assert_eq!(name, "openai");
        let expected = serde_json::json!({
            "url": "https://box.example/v1", "model": "qwen", "key_env": "BOX_KEY",
            "ready_seconds": "10", "silence_seconds": "60", "early_end": "allowed",
        });
        assert_eq!(options, expected);
        let (_, options) =
            start("vllm", "[servers.vllm]\nprogram = \"/opt/vllm\"\nargs = [\"-x\", \"-x\"]\n");
        assert_eq!(options, serde_json::json!({"program": "/opt/vllm", "args": "[\"-x\",\"-x\"]"}));
    }

    #[test]
    fn a_descriptor_is_looked_up_beside_its_scenario() {
        let section = "[servers.mine]\nkind = \"vllm\"\ndescriptor = \"mine.toml\"\n";
        let (name, _) = start("mine", section);
        assert_eq!(Path::new(&name), Path::new("ROOT").join("mine.toml"));
    }
}
