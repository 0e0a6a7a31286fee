//! The part of a report about money: what `bench cost` says, and a grid around it.

use anyhow::Context;

use crate::report::Section;
use crate::report::publish::cost::explorer;

/// What `bench cost` says to `arguments`, with a chart to move for each alternative.
pub fn sections(arguments: &str) -> anyhow::Result<Vec<Section>> {
    let place = || format!("--cost '{arguments}'");
    let decision = crate::cmd::cost::decision(arguments).with_context(place)?;
    let mut sections = vec![Section {
        heading: "Cost and break-even".to_owned(),
        text: vec![format!("{}.", decision.report.title)],
        ..Section::default()
    }];
    for (number, mut section) in decision.report.sections.into_iter().enumerate() {
        let first = &mut sections[0];
        if number == 0 && section.heading.is_empty() {
            first.text.append(&mut section.text);
            first.notes.append(&mut section.notes);
            for (name, inputs) in &decision.alternatives {
                let Some(explorer) = explorer(name, inputs) else { continue };
                sections.push(Section {
                    heading: format!("When it pays back against {name}"),
                    is_part: true,
                    explorer: Some(explorer),
                    notes: vec![
                        "Every point was worked out by the program with all other inputs as below; \
                         the sliders look it up. tokens: prompt and generated together."
                            .to_owned(),
                    ],
                    ..Section::default()
                });
            }
        } else {
            sections.push(Section { is_part: true, ..section });
        }
    }
    Ok(sections)
}

/// What stands there without a question.
pub fn missing() -> Vec<Section> {
    vec![Section {
        heading: "Cost and break-even".to_owned(),
        text: vec![
            "Not asked for: a price takes a workload, the machine's price and power, and something \
             to compare with. `bench report --cost` takes the arguments of `bench cost`."
                .to_owned(),
        ],
        ..Section::default()
    }]
}
