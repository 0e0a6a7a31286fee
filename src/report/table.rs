//! Tables: columns, rows, and cells that know their number and where it comes from.

use std::fmt;
use std::ops::Deref;

use crate::units::ABSENT;

/// Columns and rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// What it shows; none where the section's heading says it.
    pub caption: Option<String>,
    /// The columns' names and alignments.
    pub columns: Vec<Column>,
    /// As many cells in each row as there are columns.
    pub rows: Rows,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its heading, with the unit where the cells do not say it.
    pub name: String,
    /// Numbers stand to the right.
    pub right: bool,
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a run on the machine.
    Measured,
    /// From a model with the machine's own constants.
    Calibrated,
    /// From a model alone.
    Predicted,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Measured => "measured",
            Self::Calibrated => "calibrated",
            Self::Predicted => "predicted",
        })
    }
}

/// What stands where a row and a column meet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cell {
    /// As it is shown, with its unit.
    pub text: String,
    /// What it is sorted by.
    pub value: Option<f64>,
    /// Where its number comes from, where a reader could take it for something else.
    pub origin: Option<Origin>,
}

impl Cell {
    /// A number as it is shown, and what it is sorted by.
    pub fn number(text: impl Into<String>, value: Option<f64>) -> Self {
        Self { text: text.into(), value, origin: None }
    }

    /// The same cell, whose number comes from `origin`.
    pub fn from_origin(self, origin: Origin) -> Self {
        Self { origin: Some(origin), ..self }
    }

    /// The text, and the number's origin where that is not plain.
    pub fn words(&self) -> String {
        match self.origin {
            Some(origin) => format!("{} ({origin})", self.text),
            None => self.text.clone(),
        }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, ..Self::default() }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for Cell {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl AsRef<[u8]> for Cell {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// Rows of cells; plain text becomes a cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows(Vec<Vec<Cell>>);

impl Rows {
    /// Adds a row.
    pub fn push<C: Into<Cell>>(&mut self, row: Vec<C>) {
        self.0.push(row.into_iter().map(Into::into).collect());
    }
}

impl Deref for Rows {
    type Target = [Vec<Cell>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = &'a Vec<Cell>;
    type IntoIter = std::slice::Iter<'a, Vec<Cell>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl Table {
    /// An empty table; a column whose name starts with `>` stands to the right.
    pub fn new(columns: &[&str]) -> Self {
        let columns = columns
            .iter()
            .map(|name| Column {
                name: name.trim_start_matches('>').to_owned(),
                right: name.starts_with('>'),
            })
            .collect();
        Self { columns, ..Self::default() }
    }

    /// Takes out the columns that no row has a value for, and gives their names.
    pub fn take_absent(&mut self) -> Vec<String> {
        let is_absent =
            |at: usize| !self.rows.is_empty() && self.rows.iter().all(|row| row[at].text == ABSENT);
        let absent: Vec<usize> = (0..self.columns.len()).filter(|at| is_absent(*at)).collect();
        let mut names = Vec::new();
        for at in absent.into_iter().rev() {
            names.insert(0, self.columns.remove(at).name);
            for row in &mut self.rows.0 {
                row.remove(at);
            }
        }
        names
    }

    /// Takes out the columns in which every row says the same, and gives their names and values:
    /// what is said once need not be read in every row. A table of one row keeps its columns.
    pub fn take_constant(&mut self, names: &[&str]) -> Vec<(String, String)> {
        let mut taken = Vec::new();
        if self.rows.len() < 2 {
            return taken;
        }
        for name in names {
            let Some(at) = self.columns.iter().position(|c| c.name == *name) else { continue };
            let first = self.rows[0][at].text.clone();
            if self.rows.iter().all(|row| row[at].text == first) {
                self.columns.remove(at);
                for row in &mut self.rows.0 {
                    row.remove(at);
                }
                taken.push(((*name).to_owned(), first));
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_that_says_the_same_in_every_row_is_said_once() {
        let mut table = Table::new(&["engine", "host", ">tok/s"]);
        table.rows.push(vec!["candle", "box", "1"]);
        table.rows.push(vec!["llama.cpp", "box", "1"]);
        let taken = table.take_constant(&["host", "engine", "absent"]);
        assert_eq!(taken, [("host".to_owned(), "box".to_owned())]);
        assert_eq!(table.columns.len(), 2);
        assert_eq!(&*table.rows[1][0], "llama.cpp");
        table.columns.push(Column { name: "gap".to_owned(), right: true });
        for row in &mut table.rows.0 {
            row.push(ABSENT.into());
        }
        assert_eq!(table.take_absent(), ["gap"]);
        assert_eq!(table.rows[0].len(), 2);
        let mut one = Table::new(&["host"]);
        one.rows.push(vec!["box"]);
        assert!(one.take_constant(&["host"]).is_empty());
    }
}
