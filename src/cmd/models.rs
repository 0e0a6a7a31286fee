//! `bench models`: the catalogue of models.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::catalog::models::{self, ModelSpec};
use crate::model;
use crate::model::quant::Quant;
use crate::report::{Report, Section, Table};
use crate::units::{self, Tokens, significant};

/// Flags of `bench models`.
#[derive(Debug, clap::Args)]
pub struct ModelsArgs {
    /// Only models whose id, name or architecture contains this
    word: Option<String>,
    /// Show sources and remarks too
    #[arg(long)]
    sources: bool,
    /// Your own devices, models and prices too, a TOML file (README.md)
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Write Markdown
    #[arg(long)]
    markdown: bool,
}

/// Runs the subcommand.
pub fn run(args: &ModelsArgs) -> anyhow::Result<ExitCode> {
    let word = args.word.as_deref().unwrap_or_default().to_lowercase();
    let matches = |s: &&ModelSpec| {
        [s.id.as_str(), s.name.as_str(), s.arch.name()]
            .into_iter()
            .any(|text| text.to_lowercase().contains(&word))
    };
    let own = super::own::catalog(args.catalog.as_deref())?.models;
    let found: Vec<&ModelSpec> = models::all_with(&own).filter(matches).collect();
    if found.is_empty() {
        // The same words as for any unknown model, with the nearest names.
        models::find_with(&word, &own)?;
    }
    let mut columns = vec![
        "id",
        "architecture",
        ">parameters",
        ">active",
        ">layers",
        ">context",
        ">Q4_K_M",
        ">Q8_0",
        ">F16",
        "licence",
    ];
    if args.sources {
        columns.extend(["source", "notes"]);
    }
    let mut table = Table::new(&columns);
    let billions = |n: Option<u64>| {
        n.map_or_else(
            || units::ABSENT.to_owned(),
            |n| format!("{} B", significant(n as f64 / 1e9, 3)),
        )
    };
    for spec in found {
        let size = |quant| units::or_absent(model::weight_bytes(spec, quant).ok());
        let mut row = vec![
            spec.id.clone(),
            spec.arch.name().to_owned(),
            billions(spec.params_total),
            billions(spec.params_active),
            spec.layers.to_string(),
            Tokens(spec.context_max).to_string(),
            size(Quant::Q4KM),
            size(Quant::Q8_0),
            size(Quant::F16),
            spec.licence.clone(),
        ];
        if args.sources {
            row.extend([spec.source.clone(), spec.notes.clone()]);
        }
        table.rows.push(row);
    }
    let section = Section { table: Some(table), ..Section::default() };
    let report = Report { title: String::new(), sections: vec![section] };
    super::show(&report, args.markdown)?;
    Ok(ExitCode::SUCCESS)
}
