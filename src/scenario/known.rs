//! The words that a scenario may use, given to the checks as data.

use super::engines::{ENGINES, Engine};

/// What the catalogues know. A list that is `None` is not checked here.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Models.
    pub models: Vec<KnownModel>,
    /// Quantisations.
    pub quants: Vec<String>,
    /// Engines.
    pub engines: Vec<Engine>,
    /// Devices of the hardware catalogue.
    pub devices: Option<Vec<String>>,
    /// API models, `provider/model`.
    pub api_models: Option<Vec<String>>,
    /// Countries with a tariff.
    pub tariffs: Option<Vec<String>>,
    /// Workloads with a name.
    pub presets: Option<Vec<String>>,
}

/// What a scenario's checks need of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownModel {
    /// Its catalogue id.
    pub id: String,
    /// The longest context that it was made for, where that is known.
    pub context_max: Option<u32>,
}

impl Known {
    /// These models and quantisations, all engines, and nothing about prices.
    pub fn new(
        models: impl IntoIterator<Item = KnownModel>,
        quants: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            models: models.into_iter().collect(),
            quants: quants.into_iter().collect(),
            engines: ENGINES.to_vec(),
            devices: None,
            api_models: None,
            tariffs: None,
            presets: None,
        }
    }
}
