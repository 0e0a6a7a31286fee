//! Typed access to a TOML table that remembers where everything stands and collects what is wrong.

use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use rust_decimal::Decimal;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Estimate;
use super::keys::{self, Key};
use super::problem::{Problem, nearest};
use crate::units::Bytes;

/// A value and where it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Collects the errors of one file.
pub(super) struct Findings {
    /// Byte offsets at which lines start.
    lines: Vec<usize>,
    problems: BTreeSet<Problem>,
}

impl Findings {
    pub fn new(text: &str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self { lines: std::iter::once(0).chain(breaks).collect(), problems: BTreeSet::new() }
    }

    /// The line, from 1, of a byte.
    pub fn line(&self, at: usize) -> usize {
        self.lines.partition_point(|start| *start <= at)
    }

    pub fn add(&mut self, span: Range<usize>, message: impl Into<String>) {
        let line = self.line(span.start);
        self.problems.insert(Problem { line, message: message.into() });
    }

    pub fn into_problems(self) -> Vec<Problem> {
        self.problems.into_iter().collect()
    }
}

/// A table whose keys have been checked against a section of [`keys::KEYS`].
pub(super) struct Section<'t, 'i> {
    name: &'static str,
    table: &'t DeTable<'i>,
    span: Range<usize>,
}

/// A key that is there, with its value.
pub(super) struct Field<'t, 'i> {
    pub key: &'static Key,
    pub value: &'t Value<'i>,
}

impl<'t, 'i> Section<'t, 'i> {
    /// Checks the table's keys; `more` are names that are allowed besides those of the section.
    pub fn new(
        name: &'static str,
        table: &'t DeTable<'i>,
        span: Range<usize>,
        more: &[&str],
        findings: &mut Findings,
    ) -> Self {
        for (key, value) in table {
            let word = key.get_ref();
            if keys::find(name, word).is_some() || more.contains(&word.as_ref()) {
                continue;
            }
            let candidates = keys::of(name).map(|key| key.name).chain(more.iter().copied());
            // A dot in a name: `[settings.llama.cpp]` is a table in a table.
            let parts = value.get_ref().as_table().into_iter().flat_map(DeTable::keys);
            let whole: Vec<_> = parts.map(|part| format!("{word}.{}", part.get_ref())).collect();
            let dotted = more.iter().find(|name| whole.iter().any(|dotted| dotted == *name));
            let remedy = match (dotted, nearest(word, candidates)) {
                (Some(meant), _) => format!("did you mean '\"{meant}\"', in quotes?"),
                (None, Some(meant)) => format!("did you mean '{meant}'?"),
                (None, None) => elsewhere(name, word),
            };
            findings.add(key.span(), format!("unknown key '{word}'; {remedy}"));
        }
        Self { name, table, span }
    }

    /// The section in the value of a key: a table, else an error.
    pub fn of_value(
        name: &'static str,
        key: &str,
        value: &'t Value<'i>,
        more: &[&str],
        findings: &mut Findings,
    ) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => Some(Self::new(name, table, value.span(), more, findings)),
            other => {
                let kind = of_kind(other);
                findings.add(value.span(), format!("'{key}' must be a table, not {kind}"));
                None
            }
        }
    }

    /// Where the section starts.
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Whether the key is there, right or wrong.
    pub fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    /// The value of a name that is not in [`keys::KEYS`].
    pub fn raw(&self, name: &str) -> Option<&'t Value<'i>> {
        self.table.get(name)
    }

    /// All names with their values.
    pub fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Value<'i>)> {
        self.table.iter().map(|(key, value)| (key.get_ref().as_ref(), value))
    }

    /// A key, where it is there.
    pub fn get(&self, name: &str) -> Option<Field<'t, 'i>> {
        let key = keys::find(self.name, name);
        debug_assert!(key.is_some(), "'{name}' is not in KEYS of '{}'", self.name);
        Some(Field { key: key?, value: self.table.get(name)? })
    }

    /// A key that must be there.
    pub fn need(&self, name: &str, findings: &mut Findings) -> Option<Field<'t, 'i>> {
        let field = self.get(name);
        if let (None, Some(key)) = (&field, keys::find(self.name, name)) {
            let section = self.name;
            findings.add(
                self.span(),
                format!("{section} has no '{name}'; add '{name} = {}'", key.example),
            );
        }
        field
    }

    /// A whole number in a range.
    pub fn whole(
        &self,
        name: &str,
        range: RangeInclusive<u64>,
        findings: &mut Findings,
    ) -> Option<u64> {
        let field = self.get(name)?;
        field.whole_of(field.value, range, findings)
    }

    /// A whole number in a range that ends where `u32` ends.
    pub fn count(&self, name: &str, least: u32, findings: &mut Findings) -> Option<u32> {
        let range = u64::from(least)..=u64::from(u32::MAX);
        self.whole(name, range, findings).and_then(|n| u32::try_from(n).ok())
    }

    /// A number in a range.
    pub fn number(
        &self,
        name: &str,
        range: RangeInclusive<f64>,
        findings: &mut Findings,
    ) -> Option<f64> {
        let field = self.get(name)?;
        field.number_of(field.value, range, findings)
    }

    /// Text that is not empty.
    pub fn text(&self, name: &str, findings: &mut Findings) -> Option<&'t str> {
        let field = self.get(name)?;
        field.text_of(field.value, findings)
    }

    /// One of some words.
    pub fn word(&self, name: &str, words: &[&str], findings: &mut Findings) -> Option<&'t str> {
        let field = self.get(name)?;
        let word = field.text_of(field.value, findings)?;
        field.one_of(word, words, findings).then_some(word)
    }

    /// `true` or `false`.
    pub fn flag(&self, name: &str, findings: &mut Findings) -> Option<bool> {
        let field = self.get(name)?;
        let flag = field.value.get_ref().as_bool();
        if flag.is_none() {
            field.wrong_type(field.value, "true or false", findings);
        }
        flag
    }

    /// A size such as `"20 GiB"`.
    pub fn bytes(&self, name: &str, findings: &mut Findings) -> Option<Bytes> {
        let field = self.get(name)?;
        let Some(text) = field.value.get_ref().as_str() else {
            field.wrong_type(field.value, "a size with its unit", findings);
            return None;
        };
        match Bytes::from_str(text) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                findings.add(field.value.span(), format!("'{name}': {error}"));
                None
            }
        }
    }

    /// An exact figure in a range: a number, or a table with `low`, `likely` and `high`.
    pub fn estimate(
        &self,
        name: &str,
        range: RangeInclusive<Decimal>,
        findings: &mut Findings,
    ) -> Option<Estimate> {
        let field = self.get(name)?;
        let DeValue::Table(table) = field.value.get_ref() else {
            let exact = field.decimal_of(field.value, &range, findings)?;
            return Some(Estimate { low: exact, likely: exact, high: exact });
        };
        let section = Section::new("estimates", table, field.value.span(), &[], findings);
        let mut part = |name: &str| {
            let part = section.need(name, findings)?;
            part.decimal_of(part.value, &range, findings)
        };
        let (low, likely, high) = (part("low"), part("likely"), part("high"));
        let estimate = Estimate { low: low?, likely: likely?, high: high? };
        if estimate.low > estimate.likely || estimate.likely > estimate.high {
            let Estimate { low, likely, high } = estimate;
            findings.add(
                field.value.span(),
                format!(
                    "'{name}' must have low ≤ likely ≤ high, not {low}, {likely}, {high}; put them \
                     in order"
                ),
            );
            return None;
        }
        Some(estimate)
    }

    /// A list that is neither empty nor has a value twice; `read` reads one of its values.
    pub fn list<T: PartialEq>(
        &self,
        name: &str,
        what: &str,
        findings: &mut Findings,
        read: impl FnMut(&Field<'t, 'i>, &'t Value<'i>, &mut Findings) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.get(name)?.list_of(what, findings, read)
    }
}

impl<'t, 'i> Field<'t, 'i> {
    pub fn wrong_type(&self, value: &Value<'i>, wanted: &str, findings: &mut Findings) {
        let Key { name, example, .. } = self.key;
        let kind = of_kind(value.get_ref());
        findings.add(
            value.span(),
            format!("'{name}' must be {wanted}, not {kind}; for example '{name} = {example}'"),
        );
    }

    /// A value that is of the right type and impossible.
    pub fn impossible(&self, value: &Value<'i>, wanted: &str, shown: &str, out: &mut Findings) {
        let Key { name, example, .. } = self.key;
        out.add(
            value.span(),
            format!("'{name}' must be {wanted}, not {shown}; for example '{name} = {example}'"),
        );
    }

    pub fn whole_of(
        &self,
        value: &Value<'i>,
        range: RangeInclusive<u64>,
        findings: &mut Findings,
    ) -> Option<u64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(value, "a whole number", findings);
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let fits = number.and_then(|n| u64::try_from(n).ok()).filter(|n| range.contains(n));
        if fits.is_none() {
            let (least, most) = (*range.start(), *range.end());
            let wanted = if most >= u64::from(u32::MAX) {
                format!("{least} or more")
            } else {
                format!("from {least} to {most}")
            };
            let wanted = if number.is_none_or(|n| n > i128::from(most)) {
                format!("{most} or less")
            } else {
                wanted
            };
            self.impossible(value, &wanted, &integer.to_string(), findings);
        }
        fits
    }

    pub fn count_of(
        &self,
        value: &Value<'i>,
        least: u32,
        most: u32,
        findings: &mut Findings,
    ) -> Option<u32> {
        let range = u64::from(least)..=u64::from(most);
        self.whole_of(value, range, findings).and_then(|n| u32::try_from(n).ok())
    }

    pub fn number_of(
        &self,
        value: &Value<'i>,
        range: RangeInclusive<f64>,
        findings: &mut Findings,
    ) -> Option<f64> {
        let literal = self.literal(value, findings)?;
        let number: Option<f64> = literal.parse().ok().filter(|n| range.contains(n));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            self.impossible(value, &format!("from {least} to {most}"), &literal, findings);
        }
        number
    }

    fn decimal_of(
        &self,
        value: &Value<'i>,
        range: &RangeInclusive<Decimal>,
        findings: &mut Findings,
    ) -> Option<Decimal> {
        let literal = self.literal(value, findings)?;
        let exact = Decimal::from_str(&literal).or_else(|_| Decimal::from_scientific(&literal));
        let exact = exact.ok().filter(|n| range.contains(n));
        if exact.is_none() {
            let (least, most) = (range.start(), range.end());
            self.impossible(value, &format!("from {least} to {most}"), &literal, findings);
        }
        exact
    }

    /// The digits of a number, as they are written.
    fn literal(&self, value: &Value<'i>, findings: &mut Findings) -> Option<String> {
        match value.get_ref() {
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.to_string()),
            DeValue::Float(float) => Some(float.as_str().to_owned()),
            _ => {
                self.wrong_type(value, "a number", findings);
                None
            }
        }
    }

    pub fn text_of(&self, value: &'t Value<'i>, findings: &mut Findings) -> Option<&'t str> {
        let Some(text) = value.get_ref().as_str() else {
            self.wrong_type(value, "a text in quotes", findings);
            return None;
        };
        if text.trim().is_empty() {
            self.impossible(value, "a text", "empty", findings);
            return None;
        }
        Some(text)
    }

    /// Whether the field's word is one of some.
    pub fn one_of(&self, word: &str, words: &[&str], findings: &mut Findings) -> bool {
        self.one_of_at(word, self.value, words, findings)
    }

    pub fn one_of_at(
        &self,
        word: &str,
        value: &Value<'i>,
        words: &[&str],
        findings: &mut Findings,
    ) -> bool {
        let known = words.contains(&word);
        if !known {
            let name = self.key.name;
            let remedy = match (nearest(word, words.iter().copied()), name) {
                (Some(meant), _) => format!("did you mean '{meant}'?"),
                (None, "device") => "'bench devices' lists them".to_owned(),
                (None, "tariff") => "'bench prices --electricity' lists them".to_owned(),
                (None, "against") => "'bench prices' lists them".to_owned(),
                (None, _) => format!("use one of {}", words.join(", ")),
            };
            findings.add(value.span(), format!("unknown {name} '{word}'; {remedy}"));
        }
        known
    }

    pub fn list_of<T: PartialEq>(
        &self,
        what: &str,
        findings: &mut Findings,
        mut read: impl FnMut(&Self, &'t Value<'i>, &mut Findings) -> Option<T>,
    ) -> Option<Vec<T>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            self.wrong_type(self.value, &format!("a list of {what}"), findings);
            return None;
        };
        let Key { name, example, .. } = self.key;
        if array.is_empty() {
            findings.add(
                self.value.span(),
                format!(
                    "'{name}' is empty, so nothing would run; for example '{name} = {example}'"
                ),
            );
            return None;
        }
        let mut list = Vec::with_capacity(array.len());
        let mut whole = true;
        for value in array.iter() {
            match read(self, value, findings) {
                Some(item) if list.contains(&item) => {
                    let shown = shown(value.get_ref());
                    findings.add(
                        value.span(),
                        format!("'{name}' has {shown} twice; remove one of them"),
                    );
                }
                Some(item) => list.push(item),
                None => whole = false,
            }
        }
        whole.then_some(list)
    }
}

/// The remedy for a key that is like none of its section: another section may have it.
fn elsewhere(section: &str, word: &str) -> String {
    let mut owners = keys::KEYS.iter().filter(|key| key.name == word).map(|key| key.section);
    match (owners.next(), section) {
        (Some(""), _) => "it belongs before the first [section]".to_owned(),
        (Some(owner), _) => format!("it belongs in {owner}"),
        (None, "") => format!("use one of {}", names_of(section)),
        (None, _) => format!("{section} knows {}", names_of(section)),
    }
}

fn names_of(section: &str) -> String {
    keys::of(section).map(|key| key.name).collect::<Vec<_>>().join(", ")
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("'{text}'"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.as_str().to_owned(),
        _ => "a value".to_owned(),
    }
}

/// The type of a value, in words.
pub(super) fn of_kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
