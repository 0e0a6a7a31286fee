//! A decision over a grid of inputs: every answer is worked out before the report is written.

use crate::units::{ABSENT, Months, Usd, or_absent};

use super::table::{Cell, Table};

/// Break-even over volume, electricity price and hardware price.
#[derive(Clone, Debug, PartialEq)]
pub struct Explorer {
    /// What is compared with owning.
    pub against: String,
    /// The machine's life: nothing breaks even after it.
    pub life: Months,
    /// Tokens a day, along the chart.
    pub volume: Axis,
    /// Price of electricity.
    pub electricity: Axis,
    /// Price of the hardware.
    pub hardware: Axis,
    /// The answers: for each electricity price, for each hardware price, for each volume.
    pub answers: Vec<Answer>,
}

/// One input with the values that it can be set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Axis {
    /// Its name.
    pub name: String,
    /// The values, rising.
    pub values: Vec<f64>,
    /// The values with their unit.
    pub shown: Vec<String>,
    /// Which of them holds at first.
    pub start: usize,
}

/// What one point of the grid comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    /// When owning pays back; `None` where it never does in the machine's life.
    pub break_even: Option<Months>,
    /// A mean month of owning.
    pub owning: Usd,
    /// A mean month of the alternative.
    pub cloud: Usd,
}

impl Explorer {
    /// The answer for the values with these places on their axes.
    pub fn at(&self, electricity: usize, hardware: usize, volume: usize) -> Option<&Answer> {
        let row = electricity * self.hardware.values.len() + hardware;
        self.answers.get(row * self.volume.values.len() + volume)
    }

    /// The answers for every volume, at the prices that hold at first.
    pub fn values(&self) -> Table {
        let (electricity, hardware) = (self.electricity.start, self.hardware.start);
        let mut table = Table::new(&[
            &format!(">{}", self.volume.name),
            ">owning a month",
            &format!(">{} a month", self.against),
            ">break-even",
        ]);
        for (volume, shown) in self.volume.shown.iter().enumerate() {
            let Some(answer) = self.at(electricity, hardware, volume) else { continue };
            table.rows.push(vec![
                Cell::number(shown.clone(), self.volume.values.get(volume).copied()),
                Cell::from(answer.owning.to_string()),
                Cell::from(answer.cloud.to_string()),
                Cell::number(
                    answer.break_even.map_or_else(|| "never".to_owned(), |m| m.to_string()),
                    answer.break_even.map(|m| m.0),
                ),
            ]);
        }
        table
    }

    /// Months to break-even for every electricity and hardware price, at the volume that holds
    /// at first.
    pub fn prices(&self) -> Table {
        let columns: Vec<_> = self.hardware.shown.iter().map(|shown| format!(">{shown}")).collect();
        let mut names = vec![self.electricity.name.as_str()];
        names.extend(columns.iter().map(String::as_str));
        let mut table = Table::new(&names);
        for (row, shown) in self.electricity.shown.iter().enumerate() {
            let mut cells =
                vec![Cell::number(shown.clone(), self.electricity.values.get(row).copied())];
            for column in 0..self.hardware.values.len() {
                let months = self.at(row, column, self.volume.start).map(|a| a.break_even);
                cells.push(match months {
                    Some(Some(months)) => Cell::number(months.to_string(), Some(months.0)),
                    Some(None) => Cell::from("never"),
                    None => Cell::from(ABSENT),
                });
            }
            table.rows.push(cells);
        }
        table
    }

    /// The answer that holds at first, in a sentence.
    pub fn sentence(&self) -> String {
        let (e, h, v) = (self.electricity.start, self.hardware.start, self.volume.start);
        let Some(answer) = self.at(e, h, v) else { return String::new() };
        let shown = |axis: &Axis| axis.shown.get(axis.start).cloned().unwrap_or_default();
        let when = match answer.break_even {
            Some(months) => format!("owning breaks even after {months}"),
            None => format!("owning never breaks even in its {}", or_absent(Some(self.life))),
        };
        format!(
            "At {} a working day, {} for a device and {}, {when}: it costs {} a month, {} {}.",
            shown(&self.volume),
            shown(&self.hardware),
            shown(&self.electricity),
            answer.owning,
            self.against,
            answer.cloud
        )
    }
}
