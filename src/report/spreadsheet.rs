//! Records as a CSV file that a spreadsheet opens without running what stands in it.

use std::borrow::Cow;

use anyhow::Context;

use crate::record::{Record, to_csv};

/// The records with the columns of `records.csv`; a text that a spreadsheet would take for a formula
/// gets an apostrophe before it.
///
/// # Errors
/// A record that cannot be encoded.
pub fn csv(records: &[Record]) -> anyhow::Result<String> {
    defused(&to_csv(records)?)
}

/// CSV with an apostrophe before each text that a spreadsheet would take for a formula.
///
/// # Errors
/// What is no CSV.
pub fn defused(plain: &[u8]) -> anyhow::Result<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(plain);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in reader.records() {
        let row = row.context("cannot read a record back")?;
        writer
            .write_record(row.iter().map(|cell| harmless(cell).into_owned()))
            .context("cannot encode a record")?;
    }
    let text = writer.into_inner().context("cannot encode the records")?;
    String::from_utf8(text).context("a record is no text")
}

/// A cell that no spreadsheet computes; numbers stay what they are.
fn harmless(cell: &str) -> Cow<'_, str> {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '|', '%']);
    if is_formula && cell.parse::<f64>().is_err() {
        Cow::Owned(format!("'{cell}"))
    } else {
        Cow::Borrowed(cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_csv_can_be_defused() {
        let said = defused(b"a,b\n=cmd|' /C calc'!A0,-1.5\n").unwrap();
        assert_eq!(said, "a,b\n'=cmd|' /C calc'!A0,-1.5\n");
    }

    #[test]
    fn a_text_that_a_spreadsheet_would_compute_is_only_shown() {
        let record = Record {
            case_id: "=cmd|' /C calc'!A0".to_owned(),
            model: "@SUM(1+1)*cmd".to_owned(),
            engine: "+1+1".to_owned(),
            quant: "-2+3".to_owned(),
            settings: "\t=1".to_owned(),
            decode_tok_s_median: Some(-0.5),
            ..Record::default()
        };
        let text = csv(&[record]).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let row = reader.records().next().unwrap().unwrap();
        for cell in &row {
            let is_number = cell.parse::<f64>().is_ok();
            assert!(is_number || !cell.starts_with(['=', '+', '-', '@', '\t']), "{cell}");
        }
        assert!(text.contains("'=cmd|' /C calc'!A0") && text.contains(",-0.5,"), "{text}");
    }
}
