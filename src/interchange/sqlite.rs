//! Records as a flat SQLite file: one table, `records`, with the columns of `records.csv`.

use std::path::Path;

use anyhow::{Context, ensure};
use rusqlite::Connection;
use rusqlite::types::Value as Sql;
use serde_json::{Map, Value, json};

use crate::record::Record;

/// Writes the records; `path` must not exist.
pub fn write(records: &[Record], path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    ensure!(!path.exists(), "'{shown}' exists; name a new file, or remove it");
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under another name first: a reader sees a whole file or none.
    let draft = tempfile::Builder::new()
        .prefix(".bench-")
        .tempdir_in(folder)
        .with_context(|| format!("cannot write in '{}'", folder.display()))?;
    let file = draft.path().join("records.sqlite");
    fill(records, &file).with_context(|| format!("cannot write '{shown}'"))?;
    std::fs::rename(&file, path).with_context(|| format!("cannot write '{shown}'"))
}

fn fill(records: &[Record], path: &Path) -> anyhow::Result<()> {
    let mut database = Connection::open(path)?;
    let columns = columns();
    let defined: Vec<_> = columns.iter().map(|(name, kind)| format!("\"{name}\" {kind}")).collect();
    let marks = vec!["?"; columns.len()].join(", ");
    let transaction = database.transaction()?;
    transaction.execute(&format!("CREATE TABLE records ({})", defined.join(", ")), [])?;
    {
        let mut insert = transaction.prepare(&format!("INSERT INTO records VALUES ({marks})"))?;
        for record in records {
            let row = as_map(record)?;
            let values = columns.iter().map(|(name, _)| sql(&row[name]));
            insert.execute(rusqlite::params_from_iter(values))?;
        }
    }
    transaction.commit()?;
    database.close().map_err(|(_, error)| error)?;
    Ok(())
}

fn as_map(record: &Record) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(record)? {
        Value::Object(map) => Ok(map),
        _ => anyhow::bail!("a record is not an object"),
    }
}

fn sql(value: &Value) -> Sql {
    match value {
        Value::Null => Sql::Null,
        Value::Bool(flag) => Sql::Integer((*flag).into()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => Sql::Integer(whole),
            None => number.as_f64().map_or(Sql::Null, Sql::Real),
        },
        Value::String(text) => Sql::Text(text.clone()),
        other => Sql::Text(other.to_string()),
    }
}

/// The columns of `records.csv` in their order, each with the type of what a record can hold in it:
/// found by trying, so that a new column needs no second list.
fn columns() -> Vec<(String, &'static str)> {
    let holds =
        |name: &str, value: Value| serde_json::from_value::<Record>(json!({ name: value })).is_ok();
    let csv = crate::record::to_csv(&[Record::default()]).unwrap_or_default();
    let header = String::from_utf8_lossy(&csv);
    let names = header.lines().next().unwrap_or_default().split(',');
    names
        .map(|name| {
            let kind = if holds(name, json!(1.5)) {
                "REAL"
            } else if holds(name, json!(1)) {
                "INTEGER"
            } else {
                "TEXT"
            };
            (name.to_owned(), kind)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_back_from_the_file_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.sqlite");
        let record = Record {
            case_id: "a'b\"; DROP TABLE records; --".to_owned(),
            decode_tok_s_median: Some(0.1 + 0.2),
            prefill_tok_s_median: Some(500.0),
            peak_memory_bytes: Some(1 << 40),
            concurrency: None,
            ..Record::default()
        };
        write(&[record.clone(), Record::default()], &path).unwrap();
        let database = Connection::open(&path).unwrap();
        let mut query = database.prepare("SELECT * FROM records").unwrap();
        let names: Vec<String> = query.column_names().map(str::to_owned).collect();
        let rows = query.query_map([], |row| {
            let mut map = Map::new();
            for (i, name) in names.iter().enumerate() {
                let value = match row.get_unwrap::<_, Sql>(i) {
                    Sql::Null => Value::Null,
                    Sql::Integer(whole) => json!(whole),
                    Sql::Real(real) => json!(real),
                    Sql::Text(text) => json!(text),
                    Sql::Blob(_) => panic!("no column holds bytes"),
                };
                map.insert(name.clone(), value);
            }
            Ok(serde_json::from_value::<Record>(Value::Object(map)).unwrap())
        });
        let rows: Vec<_> = rows.unwrap().map(Result::unwrap).collect();
        assert_eq!(rows, [record, Record::default()]);
    }

    #[test]
    fn columns_have_the_types_of_their_values() {
        let all = columns();
        let of = |name: &str| all.iter().find(|(n, _)| n == name).unwrap().1;
        assert_eq!(of("case_id"), "TEXT");
        assert_eq!(of("outcome"), "TEXT");
        assert_eq!(of("trials"), "INTEGER");
        assert_eq!(of("peak_memory_bytes"), "INTEGER");
        assert_eq!(of("decode_tok_s_median"), "REAL");
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.sqlite");
        std::fs::write(&path, "mine").unwrap();
        let error = write(&[], &path).unwrap_err().to_string();
        assert!(error.contains("exists"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "mine");
    }
}
