//! How a case on a server reaches the client of servers: by its environment, so that addresses
//! and names of a person's network stay out of rows and case ids.

use std::collections::BTreeMap;
use std::path::Path;

use crate::scenario::{ENGINES, NEVER_STARTED, Scenario, Server, Synthetic, TAKE_UPLOADS};

/// The runner program of all servers.
pub const CLIENT: &str = "openai";

/// Whether `engine` is reached over HTTP.
pub fn is_server(scenario: &Scenario, engine: &str) -> bool {
    scenario.servers.contains_key(engine)
        || ENGINES.iter().any(|known| known.name == engine && known.server)
}

/// Whether it measures weights of ours; else somebody else has loaded it with their own.
pub fn takes_weights(scenario: &Scenario, engine: &str) -> bool {
    let server = scenario.servers.get(engine);
    let kind = kind(scenario, engine);
    if TAKE_UPLOADS.contains(&kind) {
        return server.is_none_or(|server| server.model.is_none());
    }
    !NEVER_STARTED.contains(&kind) && server.is_none_or(|server| server.url.is_none())
}

/// The form in which it takes synthetic weights.
pub fn synthetic_form(scenario: &Scenario, engine: &str) -> Synthetic {
    let kind = kind(scenario, engine);
    ENGINES.iter().find(|known| known.name == kind).map_or(Synthetic::Gguf, |known| known.synthetic)
}

/// The known engine that it is, or whose dialect it speaks.
fn kind<'a>(scenario: &'a Scenario, engine: &'a str) -> &'a str {
    scenario.servers.get(engine).map_or(engine, |server| &server.kind)
}

/// The client's environment for `engine`.
pub fn environment(scenario: &Scenario, engine: &str) -> Vec<(String, String)> {
    let server = scenario.servers.get(engine);
    let descriptor = server.and_then(|server| server.descriptor.as_ref());
    let name = match (descriptor, server) {
        // Relative to the scenario's own folder, as its documentation says.
        (Some(path), _) => {
            let folder = scenario.path.parent().unwrap_or(Path::new(""));
            folder.join(path).display().to_string()
        }
        (None, Some(server)) => server.kind.clone(),
        (None, None) => engine.to_owned(),
    };
    let options = server.map(options).unwrap_or_default();
    // A map of texts has no form that JSON could refuse.
    let options = serde_json::to_string(&options).unwrap_or_default();
    vec![("BENCH_SERVER".to_owned(), name), ("BENCH_SERVER_OPTIONS".to_owned(), options)]
}

fn options(server: &Server) -> BTreeMap<&'static str, String> {
    let args =
        (!server.args.is_empty()).then(|| serde_json::to_string(&server.args).unwrap_or_default());
    [
        ("url", server.url.clone()),
        ("model", server.model.clone()),
        ("key_env", server.api_key_env.clone()),
        ("args", args),
        ("ready_seconds", server.ready.map(|ready| ready.seconds().to_string())),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
