//! The words that a scenario may use, given to the checks as data.

use super::engines::{ENGINES, Engine};
use crate::catalog::{electricity, hardware, models, quants};
use crate::model::quant::Quant;

/// What the catalogues know. A list that is `None` is not checked here.
#[derive(Clone, Debug, PartialEq)]
pub struct Known {
    /// Models.
    pub models: Vec<KnownModel>,
    /// Quantisations.
    pub quants: Vec<String>,
    /// Quantisations that only real files have: no recipe for synthetic weights.
    pub file_quants: Vec<String>,
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
    /// Why no synthetic weights can be made of it, where that is so.
    pub not_synthetic: Option<String>,
}

impl Known {
    /// What the catalogues of this program know. API models are not checked: a user's own price
    /// list may have more of them.
    pub fn here() -> Self {
        let models = models::all().iter().map(|spec| KnownModel {
            id: spec.id.clone(),
            context_max: Some(spec.context_max),
            not_synthetic: spec.not_synthesisable.clone(),
        });
        let made: Vec<String> = Quant::ALL.iter().map(|quant| quant.name().to_owned()).collect();
        let mut known = Self::new(models, made);
        let files = quants::all()
            .iter()
            .filter(|fact| fact.family == "GGUF file type" && !fact.id.contains(' '));
        for name in files.map(|fact| &fact.id) {
            if !known.quants.contains(name) && !known.file_quants.contains(name) {
                known.file_quants.push(name.clone());
            }
        }
        known.devices = Some(hardware::all().iter().map(|device| device.id.clone()).collect());
        let tariffs = electricity::tariffs().iter().map(|tariff| tariff.code.clone());
        let mut tariffs: Vec<String> = tariffs.filter(|code| !code.is_empty()).collect();
        tariffs.sort();
        tariffs.dedup();
        known.tariffs = Some(tariffs);
        known
    }

    /// These models and quantisations, all engines, and nothing about prices.
    pub fn new(
        models: impl IntoIterator<Item = KnownModel>,
        quants: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            models: models.into_iter().collect(),
            quants: quants.into_iter().collect(),
            file_quants: Vec::new(),
            engines: ENGINES.to_vec(),
            devices: None,
            api_models: None,
            tariffs: None,
            presets: None,
        }
    }
}
