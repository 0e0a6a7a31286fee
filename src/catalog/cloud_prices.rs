//! Prices of APIs and of rented GPUs, each with its source and date.

use std::collections::HashSet;
use std::sync::LazyLock;

use anyhow::{Context, bail, ensure};
use jiff::civil::Date;
use rust_decimal::Decimal;

use crate::units::{UsdPerHour, UsdPerMtok};

/// Days after which a price is marked with its age.
pub const STALE_DAYS: i32 = 90;

const EMBEDDED: &str = include_str!("cloud_prices.csv");
/// The columns of a price list.
pub const COLUMNS: [&str; 15] = [
    "kind",
    "provider",
    "model_or_gpu",
    "input_usd_mtok",
    "cached_input_usd_mtok",
    "output_usd_mtok",
    "batch_discount",
    "batch_input_usd_mtok",
    "batch_output_usd_mtok",
    "tier_note",
    "usd_per_gpu_hour",
    "provisioning",
    "as_of",
    "source",
    "notes",
];

/// What a listing is a price of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Tokens of a model.
    Api,
    /// A rule about all models of a provider.
    ApiRule,
    /// Hours of a GPU.
    GpuRental,
}

/// The day a price was seen, as its source states it: a day, a month, a season or a year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf(pub String);

impl AsOf {
    /// The first day that it can mean; none where the source states no date.
    pub fn day(&self) -> Option<Date> {
        let text = self.0.split_whitespace().next().unwrap_or_default();
        let padded = match text.len() {
            4 => format!("{text}-01-01"),
            7 => format!("{text}-01"),
            _ => match text.split_once('-') {
                // Seasons of the north, as meteorologists count them.
                Some((year, "spring")) => format!("{year}-03-01"),
                Some((year, "summer")) => format!("{year}-06-01"),
                Some((year, "autumn")) => format!("{year}-09-01"),
                _ => text.to_owned(),
            },
        };
        padded.parse().ok()
    }

    /// Days from then to `today`; none where there is no date, negative for announced prices.
    pub fn age_days(&self, today: Date) -> Option<i32> {
        self.day().map(|day| (today - day).get_days())
    }

    /// `2026-08-05`, with its age where it is stale: `2026-08-05 (108 days old)`.
    pub fn marked(&self, today: Date) -> String {
        match self.age_days(today) {
            None => "no date".to_owned(),
            Some(age) if age > STALE_DAYS => format!("{} ({age} days old)", self.0),
            Some(_) => self.0.clone(),
        }
    }
}

/// One price as one source lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// What it is a price of.
    pub kind: Kind,
    /// Who charges it.
    pub provider: String,
    /// The model or the GPU.
    pub name: String,
    /// Prompt tokens.
    pub input: Option<UsdPerMtok>,
    /// Prompt tokens that the provider's cache answers.
    pub cached: Option<UsdPerMtok>,
    /// Generated tokens.
    pub output: Option<UsdPerMtok>,
    /// Discount of the batch mode.
    pub batch_discount: Option<Decimal>,
    /// When it holds: prompt lengths, dates.
    pub tier: String,
    /// An hour of one GPU.
    pub gpu_hour: Option<UsdPerHour>,
    /// On demand, spot, marketplace …
    pub provisioning: String,
    /// When it was seen.
    pub as_of: AsOf,
    /// Where.
    pub source: String,
    /// What else the source says, and conflicts.
    pub notes: String,
}

impl Listing {
    /// `provider/name`, as flags spell it.
    pub fn key(&self) -> String {
        format!("{}/{}", self.provider, self.name)
    }

    /// Its row in a price list.
    pub fn cells(&self) -> Vec<String> {
        let number = |value: Option<Decimal>| value.map_or(String::new(), |v| v.to_string());
        vec![
            match self.kind {
                Kind::Api => "api".to_owned(),
                Kind::ApiRule => "api_rule".to_owned(),
                Kind::GpuRental => "gpu_rental".to_owned(),
            },
            self.provider.clone(),
            self.name.clone(),
            number(self.input.map(|p| p.0)),
            number(self.cached.map(|p| p.0)),
            number(self.output.map(|p| p.0)),
            number(self.batch_discount),
            String::new(),
            String::new(),
            self.tier.clone(),
            number(self.gpu_hour.map(|p| p.0)),
            self.provisioning.clone(),
            self.as_of.0.clone(),
            self.source.clone(),
            self.notes.clone(),
        ]
    }

    /// Whether a date window in its tier leaves `today` out.
    fn is_over_or_not_yet(&self, today: Date) -> bool {
        let Some(window) = self.tier.split_once("valid from ").map(|(_, rest)| rest) else {
            return false;
        };
        let window = window.split(';').next().unwrap_or_default();
        let (from, to) = window.split_once(" to ").unwrap_or((window, "open"));
        let from: Option<Date> = from.trim().parse().ok();
        let to: Option<Date> = to.trim().parse().ok();
        from.is_some_and(|day| today < day) || to.is_some_and(|day| today >= day)
    }

    /// Whether its tier is about prompts of this length.
    fn is_for_prompts_of(&self, tokens: u64) -> bool {
        let limit = |words: &str| {
            let number = self.tier.split_once(words)?.1;
            let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
            let value: u64 = digits.parse().ok()?;
            let is_thousands = number[digits.len()..].starts_with(['k', 'K']);
            Some(if is_thousands { value * 1000 } else { value })
        };
        let is_named_for_it = self.name.ends_with('k') && self.name.contains('-');
        limit("prompt up to ").is_none_or(|most| tokens <= most)
            && (is_named_for_it || limit("prompt over ").is_none_or(|least| tokens > least))
    }
}

/// Several listings, from one list or two.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceList {
    /// In the order of their list; the user's own first.
    pub listings: Vec<Listing>,
    own: usize,
}

/// The price that holds, and what other listings of the same thing say.
#[derive(Clone, Debug)]
pub struct Quote<'a> {
    /// The newest.
    pub listing: &'a Listing,
    /// Its batch discount, from the listing or from a rule about its provider.
    pub batch_discount: Option<Decimal>,
    /// Others that hold today.
    pub others: Vec<&'a Listing>,
}

/// The list that comes with the program.
pub fn embedded() -> &'static PriceList {
    static LIST: LazyLock<PriceList> = LazyLock::new(|| {
        let listings = parse(EMBEDDED, "cloud_prices.csv").expect("the list is tested");
        PriceList { listings, own: 0 }
    });
    &LIST
}

/// Reads a price list with the columns of the one that comes with the program.
///
/// # Errors
/// A column that is missing or unknown, a cell that is no price, a listing that is there twice:
/// with file, line and remedy.
pub fn parse(text: &str, file: &str) -> anyhow::Result<Vec<Listing>> {
    let mut reader = csv::ReaderBuilder::new().from_reader(text.as_bytes());
    let headers = reader.headers().with_context(|| format!("{file}:1: no header"))?.clone();
    for header in &headers {
        if !COLUMNS.contains(&header) {
            let near = super::nearest(header, COLUMNS);
            let near =
                near.first().map_or(String::new(), |word| format!("; did you mean '{word}'?"));
            bail!("{file}:1: unknown column '{header}'{near}");
        }
    }
    let column = |name: &str| headers.iter().position(|header| header == name);
    for needed in ["kind", "provider", "model_or_gpu", "as_of", "source"] {
        ensure!(column(needed).is_some(), "{file}:1: no column '{needed}': add it to the header");
    }
    let mut seen = HashSet::new();
    let mut listings = Vec::new();
    for row in reader.records() {
        let row = row.map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            anyhow::anyhow!("{file}:{line}: {error}")
        })?;
        let line = row.position().map_or(0, csv::Position::line);
        let listing = listing(&row, &column).with_context(|| format!("{file}:{line}"))?;
        let identity = (
            listing.kind,
            listing.key().to_lowercase(),
            listing.tier.clone(),
            listing.provisioning.clone(),
            listing.as_of.0.clone(),
            listing.source.clone(),
        );
        ensure!(
            seen.insert(identity),
            "{file}:{line}: '{}' of {} is there twice: remove one of them, or tell them apart by \
             'tier_note', 'provisioning', 'as_of' or 'source'",
            listing.key(),
            listing.as_of.0
        );
        listings.extend(tiers(listing).with_context(|| format!("{file}:{line}"))?);
    }
    ensure!(!listings.is_empty(), "{file}: no prices: write a row for each below the header");
    Ok(listings)
}

/// A listing whose note has prices for long prompts, as `input over 200000 tokens 4; output over
/// 200000 tokens 18`, as two: for prompts up to there, and over.
fn tiers(listing: Listing) -> anyhow::Result<Vec<Listing>> {
    let mut rest = Vec::new();
    let mut long = Vec::new();
    for part in listing.tier.split(';').map(str::trim) {
        match part
            .split_once(" over ")
            .and_then(|(kind, limit)| Some((kind, limit.split_once(" tokens ")?)))
        {
            Some((kind @ ("input" | "cache" | "output"), (limit, price))) => {
                let price: Decimal = price.trim().parse().ok().with_context(|| {
                    format!("'tier_note' has '{part}': write a price without unit at its end")
                })?;
                long.push((kind, limit.trim(), UsdPerMtok(price)));
            }
            _ => rest.push(part),
        }
    }
    let Some(&(_, limit, _)) = long.first() else { return Ok(vec![listing]) };
    ensure!(
        long.iter().all(|&(_, other, _)| other == limit),
        "'tier_note' has several limits: write a row for each, with 'prompt up to' or 'prompt over'"
    );
    let price = |wanted: &str, base: Option<UsdPerMtok>| {
        long.iter().find(|(kind, ..)| *kind == wanted).map(|&(.., price)| price).or(base)
    };
    let with = |words: &str| {
        let limit = format!("{words} {limit} tokens");
        let parts = rest.iter().copied().chain([limit.as_str()]);
        parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    };
    let over = Listing {
        input: price("input", listing.input),
        cached: price("cache", listing.cached),
        output: price("output", listing.output),
        tier: with("prompt over"),
        ..listing.clone()
    };
    Ok(vec![Listing { tier: with("prompt up to"), ..listing }, over])
}

fn listing(
    row: &csv::StringRecord,
    column: &dyn Fn(&str) -> Option<usize>,
) -> anyhow::Result<Listing> {
    let text = |name: &str| column(name).and_then(|at| row.get(at)).unwrap_or_default().trim();
    let number = |name: &str| -> anyhow::Result<Option<Decimal>> {
        let cell = text(name);
        if cell.is_empty() {
            return Ok(None);
        }
        let value: Decimal = cell.parse().ok().with_context(|| {
            format!("'{name}' is '{cell}': write a number without unit, or leave it empty")
        })?;
        ensure!(
            value >= Decimal::ZERO && value < Decimal::from(100_000),
            "'{name}' is {cell}, which cannot be a price in USD"
        );
        Ok(Some(value))
    };
    let kind = match text("kind") {
        "api" => Kind::Api,
        "api_rule" => Kind::ApiRule,
        "gpu_rental" => Kind::GpuRental,
        other => bail!("'kind' is '{other}': write api, api_rule or gpu_rental"),
    };
    for needed in ["provider", "model_or_gpu", "source"] {
        ensure!(!text(needed).is_empty(), "'{needed}' is empty: every price has one");
    }
    let input = number("input_usd_mtok")?;
    let batch_discount = match (number("batch_discount")?, number("batch_input_usd_mtok")?, input) {
        (Some(discount), ..) => Some(discount),
        (None, Some(batch), Some(list)) if !list.is_zero() => Some(Decimal::ONE - batch / list),
        _ => None,
    };
    if let Some(discount) = batch_discount {
        ensure!(
            (Decimal::ZERO..=Decimal::ONE).contains(&discount),
            "'batch_discount' is {discount}: write a share between 0 and 1"
        );
    }
    let as_of = AsOf(text("as_of").to_owned());
    ensure!(
        as_of.0.is_empty() || as_of.day().is_some(),
        "'as_of' is '{}': write when it was seen, as 2026-11-21, 2026-11, 2026-autumn or 2026, or \
         leave it empty",
        as_of.0
    );
    let gpu_hour = number("usd_per_gpu_hour")?;
    match kind {
        Kind::Api => ensure!(input.is_some(), "an API needs 'input_usd_mtok'"),
        Kind::GpuRental => ensure!(gpu_hour.is_some(), "a GPU needs 'usd_per_gpu_hour'"),
        Kind::ApiRule => ensure!(batch_discount.is_some(), "a rule needs 'batch_discount'"),
    }
    Ok(Listing {
        kind,
        provider: text("provider").to_owned(),
        name: text("model_or_gpu").to_owned(),
        input: input.map(UsdPerMtok),
        cached: number("cached_input_usd_mtok")?.map(UsdPerMtok),
        output: number("output_usd_mtok")?.map(UsdPerMtok),
        batch_discount,
        tier: text("tier_note").to_owned(),
        gpu_hour: gpu_hour.map(UsdPerHour),
        provisioning: text("provisioning").to_owned(),
        as_of,
        source: text("source").to_owned(),
        notes: text("notes").to_owned(),
    })
}

impl PriceList {
    /// This list with a user's own listings before it: they hold wherever they have a price.
    pub fn with_own(&self, own: Vec<Listing>) -> Self {
        let count = own.len();
        let listings = own.into_iter().chain(self.listings.iter().cloned()).collect();
        Self { listings, own: count }
    }

    /// Whether the listing at `index` is the user's own.
    pub fn is_own(&self, index: usize) -> bool {
        index < self.own
    }

    /// The price of the API model `key`, written `provider/model`, for prompts of that length.
    ///
    /// # Errors
    /// A key that is not listed, with the nearest; a list that has no price for generated tokens.
    pub fn api(&self, key: &str, prompt_tokens: u64, today: Date) -> anyhow::Result<Quote<'_>> {
        let quote = self.quote(Kind::Api, key, Some(prompt_tokens), today)?;
        ensure!(
            quote.listing.output.is_some(),
            "no 'output_usd_mtok' of {} is known: add it with `bench prices --update FILE`",
            quote.listing.key()
        );
        let long: Option<(&Listing, u64)> = self
            .listings
            .iter()
            .filter_map(|other| {
                let tail = other.name.strip_prefix(&quote.listing.name)?.strip_prefix('-')?;
                let limit: u64 = tail.strip_suffix('k')?.parse().ok()?;
                (other.provider == quote.listing.provider).then_some((other, limit * 1000))
            })
            .find(|&(_, limit)| prompt_tokens > limit);
        if let Some((other, limit)) = long {
            bail!(
                "{} has another price for prompts over {limit} tokens: use '{}'",
                quote.listing.key(),
                other.key()
            );
        }
        Ok(quote)
    }

    /// The rent of the GPU `key`, written `provider/gpu`, of offers that are called `offer`.
    ///
    /// # Errors
    /// A key that is not listed, with the nearest; an offer that is not, with those that are.
    pub fn gpu(&self, key: &str, offer: Option<&str>, today: Date) -> anyhow::Result<Quote<'_>> {
        let mut quote = self.quote(Kind::GpuRental, key, None, today)?;
        let Some(offer) = offer else { return Ok(quote) };
        let mut all = quote.others;
        all.insert(0, quote.listing);
        let has = |l: &Listing| l.provisioning.to_lowercase().contains(&offer.to_lowercase());
        let (named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|l| has(l));
        let Some((&listing, rest)) = named.split_first() else {
            let mut known: Vec<&str> = others.iter().map(|l| l.provisioning.as_str()).collect();
            known.sort_unstable();
            known.dedup();
            bail!(
                "no '{offer}' offer of '{key}' is known, but {}: add it with `bench prices --update \
                 FILE`",
                known.join(", ")
            );
        };
        quote.listing = listing;
        quote.others = rest.to_vec();
        Ok(quote)
    }

    fn quote(
        &self,
        kind: Kind,
        key: &str,
        prompt_tokens: Option<u64>,
        today: Date,
    ) -> anyhow::Result<Quote<'_>> {
        let named: Vec<(usize, &Listing)> = self
            .listings
            .iter()
            .enumerate()
            .filter(|(_, l)| l.kind == kind && l.key().eq_ignore_ascii_case(key))
            .collect();
        if named.is_empty() {
            let keys: Vec<String> =
                self.listings.iter().filter(|l| l.kind == kind).map(Listing::key).collect();
            let mut near = super::nearest(key, keys.iter().map(String::as_str));
            near.dedup();
            let near = if near.is_empty() {
                ":".to_owned()
            } else {
                format!("; did you mean '{}'?", near.join("' or '"))
            };
            let what = if kind == Kind::GpuRental { "rented GPU" } else { "API model" };
            bail!(
                "unknown {what} '{key}'{near} `bench prices` lists them, `--update FILE` adds yours"
            );
        }
        let mut holding: Vec<(usize, &Listing)> = named
            .iter()
            .copied()
            .filter(|(_, l)| !l.is_over_or_not_yet(today))
            .filter(|(_, l)| prompt_tokens.is_none_or(|tokens| l.is_for_prompts_of(tokens)))
            .collect();
        // The user's own first, then the newest; without a date last.
        holding.sort_by_key(|(index, l)| {
            (!self.is_own(*index), std::cmp::Reverse(l.as_of.day()), *index)
        });
        let Some((&(_, listing), rest)) = holding.split_first() else {
            bail!(
                "'{key}' is listed with prices that do not hold today or for such prompts: add one \
                 with `bench prices --update FILE`"
            );
        };
        let rule = || {
            self.listings
                .iter()
                .find(|l| l.kind == Kind::ApiRule && l.provider == listing.provider)
                .and_then(|l| l.batch_discount)
        };
        Ok(Quote {
            listing,
            batch_discount: listing.batch_discount.or_else(rule),
            others: rest.iter().map(|&(_, l)| l).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    const TODAY: Date = date(2026, 11, 21);

    #[test]
    fn the_list_that_comes_with_the_program_is_whole() {
        let list = embedded();
        // 384 rows, five of them with prices for long prompts too.
        assert_eq!(list.listings.len(), 389);
        for listing in &list.listings {
            assert!(!listing.source.is_empty(), "{}", listing.key());
            if !listing.as_of.0.is_empty() {
                assert!(listing.as_of.day().is_some(), "{} {:?}", listing.key(), listing.as_of);
            }
        }
    }

    #[test]
    fn a_list_that_is_written_reads_back_the_same() {
        let mut out = csv::Writer::from_writer(Vec::new());
        out.write_record(COLUMNS).unwrap();
        for listing in &embedded().listings {
            out.write_record(listing.cells()).unwrap();
        }
        let text = String::from_utf8(out.into_inner().unwrap()).unwrap();
        assert_eq!(parse(&text, "again.csv").unwrap(), embedded().listings);
    }

    #[test]
    fn the_newest_price_that_holds_today_is_taken_and_the_others_are_kept() {
        let quote = embedded().api("anthropic/claude-sonnet-5", 1000, TODAY).unwrap();
        assert_eq!(quote.listing.input.unwrap().0, Decimal::from(3));
        assert_eq!(quote.batch_discount, Some(Decimal::new(5, 1)));
        assert_eq!(quote.others.len(), 1);
        let august = embedded().api("anthropic/claude-sonnet-5", 1000, date(2026, 8, 20)).unwrap();
        assert_eq!(august.listing.input.unwrap().0, Decimal::from(2));
    }

    #[test]
    fn the_length_of_the_prompt_chooses_its_tier() {
        let key = "anthropic/claude-haiku-5.5";
        let price = |tokens| embedded().api(key, tokens, TODAY).unwrap().listing.input.unwrap().0;
        assert_eq!(price(100_000), Decimal::new(1, 1));
        assert_eq!(price(100_001), Decimal::new(5, 1));
        let error = embedded().api("openai/gpt-5.5", 300_000, TODAY).unwrap_err().to_string();
        assert_eq!(
            error,
            "openai/gpt-5.5 has another price for prompts over 272000 tokens: use \
             'openai/gpt-5.5-272k'"
        );
        assert!(embedded().api("openai/gpt-5.5-272k", 300_000, TODAY).is_ok());
    }

    #[test]
    fn a_price_that_was_cut_is_not_that_of_today() {
        let prices = |key: &str, today| {
            let quote = embedded().api(key, 1000, today).unwrap();
            let listing = quote.listing;
            [listing.input, listing.cached, listing.output].map(|p| p.unwrap().0.to_string())
        };
        assert_eq!(prices("openai/gpt-5.6-luna", TODAY), ["0.2", "0.02", "1.2"]);
        assert_eq!(prices("openai/gpt-5.6-terra", TODAY), ["2", "0.2", "12.0"]);
        assert_eq!(prices("openai/gpt-5.6-luna", date(2026, 7, 29))[0], "1");
    }

    #[test]
    fn a_note_with_prices_for_long_prompts_is_two_tiers() {
        let prices = |tokens| {
            let quote = embedded().api("google/gemini-3.1-pro-preview", tokens, TODAY).unwrap();
            assert!(quote.others.is_empty(), "{:?}", quote.others);
            let listing = quote.listing;
            [listing.input, listing.cached, listing.output].map(|p| p.unwrap().0.to_string())
        };
        assert_eq!(prices(200_000), ["2", "0.2", "12"]);
        assert_eq!(prices(200_001), ["4", "0.4", "18"]);
        let head =
            "kind,provider,model_or_gpu,input_usd_mtok,output_usd_mtok,tier_note,as_of,source\n";
        let error = |tier| {
            let row = format!("{head}api,me,mine,1,2,{tier},2026,x\n");
            format!("{:#}", parse(&row, "mine.csv").unwrap_err())
        };
        assert!(error("input over 9 tokens dear").starts_with("mine.csv:2: 'tier_note' has"));
        assert!(error("input over 9 tokens 1; output over 8 tokens 1").contains("several limits"));
    }

    #[test]
    fn a_missing_price_is_an_error_that_names_the_key() {
        let error = embedded().api("google/gemini-3.8-flash", 100, TODAY).unwrap_err().to_string();
        assert!(error.starts_with("no 'output_usd_mtok' of google/gemini-3.8-flash"), "{error}");
        let error = embedded().api("openai/gpt-4p", 100, TODAY).unwrap_err().to_string();
        assert!(error.contains("unknown API model 'openai/gpt-4p'"), "{error}");
        assert!(error.contains("openai/gpt-4o"), "{error}");
    }

    #[test]
    fn a_price_older_than_ninety_days_is_marked_with_its_age() {
        assert_eq!(AsOf("2026-08-05".into()).marked(TODAY), "2026-08-05 (108 days old)");
        assert_eq!(AsOf("2026-11-09".into()).marked(TODAY), "2026-11-09");
        assert_eq!(AsOf("2026-autumn".into()).age_days(TODAY), Some(81));
        assert_eq!(AsOf(String::new()).marked(TODAY), "no date");
    }

    #[test]
    fn a_users_list_is_refused_with_file_line_and_remedy() {
        let head = "kind,provider,model_or_gpu,input_usd_mtok,output_usd_mtok,as_of,source\n";
        let row = "api,me,mine,1,2,2026-11-20,invoice\n";
        let error = |text: String| format!("{:#}", parse(&text, "mine.csv").unwrap_err());
        assert_eq!(
            error(format!("{head}{row}{row}")),
            "mine.csv:3: 'me/mine' of 2026-11-20 is there twice: remove one of them, or tell them \
             apart by 'tier_note', 'provisioning', 'as_of' or 'source'"
        );
        assert_eq!(
            error(format!("{head}api,me,mine,1 USD,2,2026,invoice\n")),
            "mine.csv:2: 'input_usd_mtok' is '1 USD': write a number without unit, or leave it empty"
        );
        assert_eq!(
            error(head.replace("input_usd_mtok", "inputs_usd_mtok")),
            "mine.csv:1: unknown column 'inputs_usd_mtok'; did you mean 'input_usd_mtok'?"
        );
        assert!(error(format!("{head}api,me,mine,-1,2,2026,x\n")).contains("cannot be a price"));
        assert!(error(format!("{head}api,me\n")).starts_with("mine.csv:2: "));
        let own =
            parse(&format!("{head}{}", row.replace("me,mine", "openai,gpt-4o")), "m").unwrap();
        let list = embedded().with_own(own);
        let quote = list.api("openai/gpt-4o", 10, TODAY).unwrap();
        assert_eq!(quote.listing.input.unwrap().0, Decimal::ONE);
    }
}
