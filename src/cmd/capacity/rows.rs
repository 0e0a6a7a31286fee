//! The answer as CSV and JSON, units in the names.

use std::io::Write;

use serde_json::{Value, json};

use crate::capacity::{Outcome, Size, Times, Tried};
use crate::units::Nanos;

use super::answer::Answer;
use super::asked::who_words;
use super::work::{Day, Offer, breaks};

const COLUMNS: [&str; 37] = [
    "machine",
    "engine",
    "sequences",
    "model",
    "basis",
    "verdict",
    "devices",
    "devices_fast_end",
    "devices_slow_end",
    "slow_end_verdict",
    "usd_per_month",
    "usd_per_month_low",
    "usd_per_month_high",
    "purchase_usd",
    "attainment",
    "attainment_low",
    "goodput_per_s",
    "system_tok_s",
    "ttft_s_p50",
    "ttft_s_p95",
    "ttft_s_p99",
    "tpot_s_p50",
    "tpot_s_p95",
    "tpot_s_p99",
    "e2e_s_p50",
    "e2e_s_p95",
    "e2e_s_p99",
    "busy_share",
    "running_mean",
    "waiting_mean",
    "waiting_most",
    "cache_share_mean",
    "cache_share_most",
    "requests",
    "refused",
    "preempted",
    "reason",
];

impl Answer<'_> {
    /// A row for each machine, also for those that cannot serve.
    pub fn csv(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut out = csv::Writer::from_writer(out);
        out.write_record(COLUMNS)?;
        for offer in &self.offers {
            out.write_record(self.cells(offer))?;
        }
        for (name, reason) in &self.left_out {
            let mut row = [""; COLUMNS.len()];
            row[0] = name;
            row[5] = "left-out";
            row[COLUMNS.len() - 1] = reason;
            out.write_record(row)?;
        }
        out.flush()?;
        Ok(())
    }

    fn cells(&self, offer: &Offer) -> Vec<String> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let number = |value: Option<f64>| text(value.map(|v| v.to_string()));
        let tried = offer.tried();
        let o = &tried.outcome;
        let (fast, slow) = offer.range();
        let owning = offer.owning.as_ref();
        let usd = |of: fn(&crate::cmd::cost::Owning) -> crate::units::Usd| {
            text(owning.map(|owning| of(owning).0.round_dp(2).to_string()))
        };
        let mut row = vec![
            offer.machinery.name.clone(),
            offer.engine.name.clone(),
            offer.engine.sequences.to_string(),
            self.model.clone(),
            offer.machinery.basis.to_string(),
            verdict(&offer.size).to_owned(),
            tried.count.to_string(),
            text(fast.map(|n| n.to_string())),
            text(slow.map(|n| n.to_string())),
            verdict(&offer.ends[0]).to_owned(),
            usd(|o| o.usd_per_month),
            usd(|o| o.usd_per_month_low),
            usd(|o| o.usd_per_month_high),
            usd(|o| o.purchase_usd),
            number(o.attainment()),
            number(o.attainment_interval().map(|interval| interval.low)),
            number(o.goodput_per_s()),
            number(o.system_tok_s()),
        ];
        for times in [&o.ttft, &o.tpot, &o.e2e] {
            for p in [50.0, 95.0, 99.0] {
                row.push(number(times.percentile(p).map(Nanos::seconds)));
            }
        }
        let reason = (!tried.kept).then(|| {
            let broken = breaks(self.question, offer, tried);
            format!("{}: {}", broken.missed, broken.cause)
        });
        row.extend([
            o.busy.to_string(),
            o.running.to_string(),
            o.waiting.to_string(),
            o.most_waiting.to_string(),
            o.cache.to_string(),
            o.most_cache.to_string(),
            o.asked.to_string(),
            (o.refused + o.too_long).to_string(),
            o.preempted.to_string(),
            text(reason),
        ]);
        row
    }

    /// All of it.
    pub fn json(&self) -> Value {
        let asked = self.question.asked;
        let limits = &asked.limits;
        // A trace is a file of its own.
        let mut demand = asked.demand.clone();
        demand.mix.trace.clear();
        let seconds = |time: Option<Nanos>| time.map(Nanos::seconds);
        let machines: Vec<Value> = self.offers.iter().map(|offer| self.machine(offer)).collect();
        let left_out: Vec<Value> = self
            .left_out
            .iter()
            .map(|(name, reason)| json!({"machine": name, "reason": reason}))
            .collect();
        let mut said = json!({
            "answer": self.sentence(),
            "plan": self.offers.first().and_then(|offer| offer.plan.as_ref()),
            "asked": {
                "who": asked.who, "workload": asked.name, "requests": asked.requests,
                "demand": demand, "recorded": asked.demand.mix.trace.len(), "ttft_s": seconds(limits.ttft),
                "tpot_s": seconds(limits.tpot), "e2e_s": seconds(limits.end_to_end),
                "attainment": asked.attainment, "notes": asked.notes,
            },
            "model": self.model, "machines": machines, "left_out": left_out,
            "routing": self.question.objective.routing,
            "devices_beside": self.question.objective.beside.len(),
            "seed": self.question.objective.seed, "command": self.question.command,
        });
        let Some(detail) = &self.detail else { return said };
        let load = |factor: f64| {
            let scaled = asked.demand.scaled(factor);
            who_words(&scaled.who, &scaled.mix)
        };
        let rung = |(factor, tried): &(f64, Tried)| {
            let mut row = outcome(&tried.outcome);
            row["load"] = json!(load(*factor));
            row["load_factor"] = json!(factor);
            row["kept"] = json!(tried.kept);
            row
        };
        said["growth"] = json!({
            "carries_factor": detail.growth.carries,
            "carries": detail.growth.carries.map(load),
            "breaks": detail.growth.breaks.map(|(factor, broken)| json!({
                "load_factor": factor, "load": load(factor),
                "missed": broken.missed.to_string(), "cause": broken.cause.to_string(),
            })),
            "loads": detail.ladder.iter().map(rung).collect::<Vec<_>>(),
        });
        let what_if = detail.what_if.iter().map(|what| {
            let mut row = outcome(&what.tried.outcome);
            row["change"] = json!(what.change);
            row["devices"] = json!(what.tried.count);
            row["kept"] = json!(what.tried.kept);
            row["devices_needed"] = json!(what.needs.as_ref().and_then(Size::count));
            row
        });
        said["what_if"] = what_if.collect::<Vec<_>>().into();
        said["day"] = match &detail.day {
            Day::LeftOut(why) => json!({"left_out": why}),
            Day::Simulated(day) => {
                let mut row = outcome(day);
                let parts = day.bins.iter().map(|bin| {
                    json!({
                        "start_s": bin.start.seconds(), "requests": bin.asked, "met": bin.met,
                        "waiting_mean": bin.waiting, "running_mean": bin.running,
                        "busy_share": bin.busy, "cache_share_mean": bin.cache,
                        "ttft_s_mean": bin.ttft.map(Nanos::seconds),
                    })
                });
                row["parts"] = parts.collect::<Vec<_>>().into();
                row
            }
        };
        said
    }

    fn machine(&self, offer: &Offer) -> Value {
        let tried = offer.tried();
        let (fast, slow) = offer.range();
        let broken = breaks(self.question, offer, tried);
        json!({
            "machine": offer.machinery.name, "engine": offer.engine, "basis": offer.machinery.basis.name(),
            "sources": offer.machinery.sources, "verdict": verdict(&offer.size),
            "devices": tried.count, "devices_fast_end": fast, "devices_slow_end": slow,
            "slow_end_verdict": verdict(&offer.ends[0]),
            "owning": offer.owning, "no_price": offer.unpriced,
            "reason": (!tried.kept).then(|| format!("{}: {}", broken.missed, broken.cause)),
            "peak": outcome(&tried.outcome),
        })
    }
}

fn verdict(size: &Size) -> &'static str {
    match size {
        Size::Enough(_) => "enough",
        Size::TooMany(_) => "too-few",
        Size::Never(_) => "never",
    }
}

fn outcome(o: &Outcome) -> Value {
    let times = |times: &Times| {
        let at = |p: f64| times.percentile(p).map(Nanos::seconds);
        json!({"p50": at(50.0), "p95": at(95.0), "p99": at(99.0), "count": times.count()})
    };
    json!({
        "requests": o.asked, "finished": o.finished, "met": o.met,
        "attainment": o.attainment(),
        "attainment_low": o.attainment_interval().map(|interval| interval.low),
        "attainment_high": o.attainment_interval().map(|interval| interval.high),
        "goodput_per_s": o.goodput_per_s(), "system_tok_s": o.system_tok_s(),
        "ttft_s": times(&o.ttft), "tpot_s": times(&o.tpot), "e2e_s": times(&o.e2e),
        "busy_share": o.busy, "running_mean": o.running, "waiting_mean": o.waiting,
        "waiting_most": o.most_waiting, "cache_share_mean": o.cache,
        "cache_share_most": o.most_cache, "refused": o.refused, "too_long": o.too_long,
        "preempted": o.preempted, "simulated_s": o.span.seconds(),
        "overload": o.overload.map(|o| json!({"at_s": o.at.seconds(), "waiting": o.waiting})),
    })
}
