//! What a person wrote: TOML to [`Scenario`], with every rule checked here.
