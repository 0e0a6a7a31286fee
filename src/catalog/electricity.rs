//! Electricity tariffs and the carbon intensity of grids, by country.

use std::fmt;
use std::sync::LazyLock;

use anyhow::{Context, bail, ensure};
use rust_decimal::Decimal;

use crate::units::UsdPerKwh;

const TARIFFS: &str = include_str!("electricity.csv");
// Share-alike licences: kept in files of their own, with their attribution.
const ELECTRICITY_MAPS: &str = include_str!("carbon_electricity_maps.csv");
const EMBER: &str = include_str!("carbon_ember.csv");

/// A currency by its ISO 4217 code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(String);

impl Currency {
    /// The currency of a three-letter code.
    ///
    /// # Errors
    /// Anything else.
    pub fn new(code: &str) -> anyhow::Result<Self> {
        let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase());
        ensure!(is_code, "'{code}' is no currency: write its ISO 4217 code, such as EUR");
        Ok(Self(code.to_owned()))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// US dollars for one unit of another currency, as the user states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRate {
    currency: Currency,
    usd: Decimal,
}

impl ExchangeRate {
    /// Reads `EUR=1.16`.
    ///
    /// # Errors
    /// Another form, or a rate that is not above zero.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let (code, rate) = text
            .split_once('=')
            .with_context(|| format!("'{text}' is no exchange rate: write EUR=USD, as EUR=1.16"))?;
        let usd: Decimal = rate
            .trim()
            .parse()
            .ok()
            .with_context(|| format!("'{rate}' is no number of US dollars for one {code}"))?;
        ensure!(
            usd > Decimal::ZERO && usd < Decimal::from(100),
            "{usd} US dollars for one {code} cannot be"
        );
        Ok(Self { currency: Currency::new(code.trim())?, usd })
    }
}

/// A price in the currency of its country. It has no arithmetic: only an exchange rate of the same
/// currency makes dollars of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalPrice {
    /// The amount for a kilowatt-hour.
    pub per_kwh: Decimal,
    /// Of what.
    pub currency: Currency,
}

impl LocalPrice {
    /// In US dollars; none where the rate is one of another currency.
    pub fn in_usd(&self, rate: &ExchangeRate) -> Option<UsdPerKwh> {
        (rate.currency == self.currency).then(|| UsdPerKwh(self.per_kwh * rate.usd))
    }
}

impl fmt::Display for LocalPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}/kWh", self.per_kwh, self.currency))
    }
}

/// How good a source is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quality {
    /// Second-hand.
    Weak,
    /// A compilation.
    Fair,
    /// An official statistic.
    Good,
}

/// A tariff as one source states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tariff {
    /// ISO 3166 code, with the state where there is one; empty for regions.
    pub code: String,
    /// The country or region.
    pub country: String,
    /// Household, commercial …
    pub sector: String,
    /// In US dollars, where the source says so.
    pub usd: Option<UsdPerKwh>,
    /// In the currency of the country, where the source says so.
    pub local: Option<LocalPrice>,
    /// The period that it is about.
    pub period: String,
    /// Where from.
    pub source: String,
    /// How good that is.
    pub quality: Quality,
    /// What else is known.
    pub notes: String,
}

/// A tariff in US dollars, and the others of the same place.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The price.
    pub price: UsdPerKwh,
    /// Its row.
    pub tariff: &'static Tariff,
    /// The lowest and the highest price in dollars of the place and sector.
    pub spread: (UsdPerKwh, UsdPerKwh),
}

/// Carbon intensity of a grid in a year.
#[derive(Clone, Debug, PartialEq)]
pub struct Carbon {
    /// Grams of CO2 equivalents for a kilowatt-hour.
    pub g_per_kwh: f64,
    /// The year.
    pub year: String,
    /// Who says so, with the licence.
    pub source: &'static str,
}

/// All tariffs.
pub fn tariffs() -> &'static [Tariff] {
    static ROWS: LazyLock<Vec<Tariff>> =
        LazyLock::new(|| parse(TARIFFS).expect("the table is tested"));
    &ROWS
}

fn parse(text: &str) -> anyhow::Result<Vec<Tariff>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let mut tariffs = Vec::new();
    for row in reader.records() {
        let row = row?;
        let line = row.position().map_or(0, csv::Position::line);
        let cell = |at: usize| row.get(at).unwrap_or_default();
        let number = |at: usize| -> anyhow::Result<Option<Decimal>> {
            let text = cell(at);
            if text.is_empty() {
                return Ok(None);
            }
            Ok(Some(text.parse().with_context(|| format!("electricity.csv:{line}: '{text}'"))?))
        };
        let usd = number(3)?;
        let currency = cell(5);
        let local = match number(4)? {
            Some(per_kwh) => Some(LocalPrice { per_kwh, currency: Currency::new(currency)? }),
            None => None,
        };
        ensure!(usd.is_some() || local.is_some(), "electricity.csv:{line}: no price");
        tariffs.push(Tariff {
            code: cell(0).to_owned(),
            country: cell(1).to_owned(),
            sector: cell(2).to_owned(),
            usd: usd.map(UsdPerKwh),
            local,
            period: cell(7).to_owned(),
            source: cell(8).to_owned(),
            quality: match cell(9) {
                "good" => Quality::Good,
                "fair" => Quality::Fair,
                "weak" => Quality::Weak,
                other => bail!("electricity.csv:{line}: unknown quality '{other}'"),
            },
            notes: cell(10).to_owned(),
        });
    }
    Ok(tariffs)
}

/// The tariff of a country, by its code or name: the best source first, then the newest.
///
/// # Errors
/// An unknown place, with the nearest; a tariff that is only known in another currency, while no
/// exchange rate for it is given.
pub fn find(place: &str, sector: &str, rate: Option<&ExchangeRate>) -> anyhow::Result<Chosen> {
    let is_here =
        |t: &&Tariff| t.code.eq_ignore_ascii_case(place) || t.country.eq_ignore_ascii_case(place);
    let here: Vec<&Tariff> =
        if place.is_empty() { vec![] } else { tariffs().iter().filter(is_here).collect() };
    if here.is_empty() {
        let words = tariffs().iter().flat_map(|t| [t.code.as_str(), t.country.as_str()]);
        let mut near = super::nearest(place, words.filter(|word| !word.is_empty()));
        near.dedup();
        let near = near.first().map_or(":".to_owned(), |word| format!("; did you mean '{word}'?"));
        bail!(
            "no tariff of '{place}' is known{near} `bench prices --electricity` lists them, \
             'electricity_usd_per_kwh' sets yours"
        );
    }
    let rows: Vec<&Tariff> = here.iter().copied().filter(|t| t.sector == sector).collect();
    if rows.is_empty() {
        let mut known: Vec<&str> = here.iter().map(|t| t.sector.as_str()).collect();
        known.dedup();
        bail!("no {sector} tariff of '{place}' is known: use {}", known.join(" or "));
    }
    let in_usd =
        |t: &Tariff| t.usd.or_else(|| t.local.as_ref().and_then(|local| local.in_usd(rate?)));
    let mut priced: Vec<(UsdPerKwh, &'static Tariff)> = tariffs()
        .iter()
        .filter(|t| is_here(t) && t.sector == sector)
        .filter_map(|t| in_usd(t).map(|price| (price, t)))
        .collect();
    priced.sort_by(|a, b| (b.1.quality, &b.1.period).cmp(&(a.1.quality, &a.1.period)));
    let Some(&(price, tariff)) = priced.first() else {
        let local = rows[0].local.as_ref().context("a row without any price")?;
        bail!(
            "the tariff of {} is known as {local} ({}): state the exchange rate with --exchange \
             {}=USD, or 'electricity_usd_per_kwh'",
            rows[0].country,
            rows[0].period,
            local.currency
        );
    };
    let low = priced.iter().map(|(price, _)| *price).min().unwrap_or(price);
    let high = priced.iter().map(|(price, _)| *price).max().unwrap_or(price);
    Ok(Chosen { price, tariff, spread: (low, high) })
}

/// The carbon intensity of a country's grid from both sources that are known, the newer first.
pub fn carbon(place: &str) -> Vec<Carbon> {
    let country = place.split_once('-').map_or(place, |(country, _)| country);
    let lists =
        [(ELECTRICITY_MAPS, "Electricity Maps (ODbL 1.0)"), (EMBER, "Ember (CC BY-SA 4.0)")];
    lists
        .into_iter()
        .filter_map(|(text, source)| {
            let mut reader =
                csv::ReaderBuilder::new().comment(Some(b'#')).from_reader(text.as_bytes());
            let row = reader.records().filter_map(Result::ok).find(|row| {
                [0, 1]
                    .iter()
                    .any(|&at| row.get(at).is_some_and(|cell| cell.eq_ignore_ascii_case(country)))
            })?;
            Some(Carbon {
                g_per_kwh: row.get(2)?.parse().ok()?,
                year: row.get(3)?.to_owned(),
                source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tariff_has_a_price_and_a_source() {
        assert_eq!(parse(TARIFFS).unwrap().len(), 62);
        assert!(tariffs().iter().all(|t| !t.source.is_empty() && !t.country.is_empty()));
        for text in [ELECTRICITY_MAPS, EMBER] {
            assert!(text.starts_with('#') && text.contains("licen"), "no attribution");
        }
    }

    #[test]
    fn the_best_source_is_taken_and_the_spread_is_kept() {
        let us = find("US", "household", None).unwrap();
        assert_eq!(us.price.to_string(), "$0.1872/kWh");
        assert_eq!(us.spread.0.to_string(), "$0.159/kWh");
        let by_name = find("united states", "commercial", None).unwrap();
        assert_eq!(by_name.price.to_string(), "$0.146/kWh");
    }

    #[test]
    fn euros_become_dollars_only_with_a_stated_rate() {
        assert_eq!(find("DE", "household", None).unwrap().price.to_string(), "$0.374/kWh");
        let rate = ExchangeRate::parse("EUR=1.16").unwrap();
        let converted = find("DE", "household", Some(&rate)).unwrap();
        // 0.3835 EUR x 1.16
        assert_eq!(converted.price, UsdPerKwh(Decimal::new(44486, 5)));
        let error = find("HU", "household", None).unwrap_err().to_string();
        assert_eq!(
            error,
            "the tariff of Hungary is known as 0.104 EUR/kWh (2025-H1): state the exchange rate \
             with --exchange EUR=USD, or 'electricity_usd_per_kwh'"
        );
        let pounds = ExchangeRate::parse("GBP=1.3").unwrap();
        assert!(find("HU", "household", Some(&pounds)).is_err());
        assert!(ExchangeRate::parse("EUR=-1").is_err() && ExchangeRate::parse("euro=1").is_err());
    }

    #[test]
    fn an_unknown_country_names_the_nearest() {
        let error = find("Germny", "household", None).unwrap_err().to_string();
        assert!(error.contains("did you mean 'Germany'?"), "{error}");
        assert!(find("", "household", None).is_err());
    }

    #[test]
    fn two_sources_of_carbon_are_shown_where_both_are_known() {
        let belgium = carbon("BE");
        assert_eq!(belgium.len(), 2);
        assert_eq!((belgium[0].g_per_kwh, belgium[1].g_per_kwh), (180.0, 117.6));
        assert_eq!(carbon("US-CA")[0].g_per_kwh, 414.0);
        assert!(carbon("XX").is_empty());
    }
}
