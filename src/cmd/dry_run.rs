//! `bench run --dry-run`: what would be measured, with expected memory and time.

use std::process::ExitCode;

use crate::cases::{self, Case};
use crate::host::Host;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::scenario::Scenario;
use crate::units;

/// Prints the list.
pub fn print(scenario: &Scenario, cases: &[Case], host: &Host) -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["case", ">memory", ">time"]);
    for case in cases {
        let expected = cases::expect(case, scenario.trials, |_| None, |_| None);
        table.rows.push(vec![
            case.id.to_string(),
            units::or_absent(expected.memory),
            units::or_absent(expected.time),
        ]);
    }
    let _ = host;
    let section = Section { table: Some(table), ..Section::default() };
    let report = Report {
        title: format!("{}: {} cases", scenario.name, cases.len()),
        sections: vec![section],
    };
    Terminal::default().render(&report, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}
