//! Values of a JSON tree by their path; an error names the file, the place and what stands there.

use anyhow::{bail, ensure};
use serde_json::Value;

/// A value with the words that say where it stands.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    value: &'a Value,
    place: String,
}

impl<'a> Field<'a> {
    /// The root of a document: `place` is its file and line.
    pub fn root(value: &'a Value, place: String) -> Self {
        Self { value, place }
    }

    /// What stands at a path of keys such as `metrics.ttft.p50`; `None` where nothing or `null` does.
    pub fn at(&self, path: &str) -> Option<Self> {
        let mut value = self.value;
        for key in path.split('.') {
            value = value.get(key)?;
        }
        (!value.is_null()).then(|| Self { value, place: format!("{}: '{path}'", self.place) })
    }

    /// The elements of the list at a path; none where nothing stands there.
    pub fn list(&self, path: &str) -> anyhow::Result<Vec<Self>> {
        let Some(found) = self.at(path) else { return Ok(Vec::new()) };
        let Some(values) = found.value.as_array() else { return found.wrong("a list") };
        let place = |i: usize| format!("{}[{i}]", found.place);
        Ok(values.iter().enumerate().map(|(i, value)| Self { value, place: place(i) }).collect())
    }

    /// The text at a path.
    pub fn text(&self, path: &str) -> anyhow::Result<Option<&'a str>> {
        let Some(found) = self.at(path) else { return Ok(None) };
        match found.value.as_str() {
            Some(text) => Ok(Some(text)),
            None => found.wrong("a text"),
        }
    }

    /// The number at a path, also where it is written as a text.
    pub fn number(&self, path: &str) -> anyhow::Result<Option<f64>> {
        let Some(found) = self.at(path) else { return Ok(None) };
        found.as_number().map(Some)
    }

    /// This value as a text.
    pub fn as_text(&self) -> anyhow::Result<&'a str> {
        self.value.as_str().map_or_else(|| self.wrong("a text"), Ok)
    }

    /// This value as a finite number.
    pub fn as_number(&self) -> anyhow::Result<f64> {
        let parsed = match self.value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            _ => None,
        };
        match parsed.filter(|value| value.is_finite()) {
            Some(value) => Ok(value),
            None => self.wrong("a number"),
        }
    }

    /// The figure at a path: a speed or a time is positive, and 0 is a tool's word for "none".
    pub fn figure(&self, path: &str) -> anyhow::Result<Option<f64>> {
        let Some(found) = self.at(path) else { return Ok(None) };
        let value = found.as_number()?;
        ensure!(value >= 0.0, "{}: {value} is below zero", found.place);
        Ok((value > 0.0).then_some(value))
    }

    /// The whole number at a path.
    pub fn whole(&self, path: &str) -> anyhow::Result<Option<u64>> {
        let Some(found) = self.at(path) else { return Ok(None) };
        let value = found.as_number()?;
        // 2^53: above it not every whole number is a number of JSON.
        let fits = value >= 0.0 && value.fract() == 0.0 && value <= 9_007_199_254_740_992.0;
        if fits { Ok(Some(value as u64)) } else { found.wrong("a whole number, 0 or more") }
    }

    /// The number of tokens at a path, rounded: tools state means of them.
    pub fn tokens(&self, path: &str) -> anyhow::Result<Option<u32>> {
        let Some(found) = self.at(path) else { return Ok(None) };
        let value = found.as_number()?.round();
        let fits = (0.0..=f64::from(u32::MAX)).contains(&value);
        if fits { Ok(Some(value as u32)) } else { found.wrong("a number of tokens") }
    }

    /// This value as it would stand in a row's settings.
    pub fn plain(&self) -> String {
        self.value.as_str().map_or_else(|| self.value.to_string(), str::to_owned)
    }

    /// Whether the switch at a path is on; off where nothing stands there.
    pub fn is_on(&self, path: &str) -> anyhow::Result<bool> {
        Ok(self.number(path)?.is_some_and(|value| value != 0.0))
    }

    /// What a file has to have.
    pub fn needed<T>(&self, path: &str, value: Option<T>) -> anyhow::Result<T> {
        match value {
            Some(value) => Ok(value),
            None => bail!("{}: there is no '{path}'", self.place),
        }
    }

    fn wrong<T>(&self, wanted: &str) -> anyhow::Result<T> {
        let mut shown = self.value.to_string();
        if shown.len() > 60 {
            let end = (0..=60).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0);
            shown.truncate(end);
            shown.push('…');
        }
        bail!("{}: {shown} is not {wanted}", self.place)
    }
}
