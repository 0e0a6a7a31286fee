//! Times that are sums of positive terms, each a known number of seconds times powers of unknown
//! factors, and the factors that explain measured times best.

/// One part of a time: `seconds × exp(Σ exponent × θ)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Term {
    /// The time if every factor were one.
    pub seconds: f64,
    /// Factors that scale it: index of θ and exponent.
    pub factors: Vec<(usize, f64)>,
}

impl Term {
    fn value(&self, theta: &[f64]) -> f64 {
        self.seconds * self.factors.iter().map(|&(i, x)| x * theta[i]).sum::<f64>().exp()
    }
}

/// The sum of the terms, in seconds.
pub fn seconds(terms: &[Term], theta: &[f64]) -> f64 {
    terms.iter().map(|t| t.value(theta)).sum()
}

/// What is believed about a factor before any measurement: normal in the logarithm.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prior {
    /// Expected θ.
    pub mean: f64,
    /// How far from it θ may well lie.
    pub deviation: f64,
}

/// A measured time and the terms that should explain it.
#[derive(Clone, Debug)]
pub struct Observation {
    /// What the time is made of.
    pub terms: Vec<Term>,
    /// The measured time.
    pub seconds: f64,
    /// How much it counts (1: fully).
    pub weight: f64,
}

/// Relative noise of one measurement: what two careful people measure differs by about as much.
pub(super) const NOISE: f64 = 0.13;

/// The factors θ that explain the observations best: Gauss–Newton on log times with the priors as
/// ridge and pseudo-Huber weights, so that single odd measurements do not pull.
///
/// A factor that no observation names keeps its prior's mean.
pub fn fit(observations: &[Observation], priors: &[Prior], start: &[f64]) -> Vec<f64> {
    let named = named(observations);
    let few: Vec<Observation> = observations.iter().map(|o| renumber(o, &named)).collect();
    let few_priors: Vec<Prior> = named.iter().map(|&i| priors[i]).collect();
    let few_start: Vec<f64> = named.iter().map(|&i| start[i]).collect();
    let mut theta: Vec<f64> = priors.iter().map(|p| p.mean).collect();
    for (&i, value) in named.iter().zip(descend(&few, &few_priors, &few_start)) {
        theta[i] = value;
    }
    theta
}

/// How uncertain the factors still are after the observations.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// The factors that the observations name.
    named: Vec<usize>,
    /// Their precision matrix, lower triangle.
    precision: Vec<Vec<f64>>,
    /// The variance that all others keep from their prior.
    unnamed: Vec<f64>,
}

impl Posterior {
    /// Around `theta`, which [`fit`] found.
    pub fn of(observations: &[Observation], priors: &[Prior], theta: &[f64]) -> Self {
        let named = named(observations);
        let few: Vec<Observation> = observations.iter().map(|o| renumber(o, &named)).collect();
        let few_priors: Vec<Prior> = named.iter().map(|&i| priors[i]).collect();
        let few_theta: Vec<f64> = named.iter().map(|&i| theta[i]).collect();
        let (precision, _) = normal_equations(&few, &few_priors, &few_theta);
        let unnamed = priors.iter().map(|p| p.deviation.powi(2)).collect();
        Self { named, precision, unnamed }
    }

    /// The variance of the logarithm of the time that `terms` predict.
    pub fn variance(&self, terms: &[Term], theta: &[f64]) -> f64 {
        let total = seconds(terms, theta);
        let mut gradient = vec![0.0; self.named.len()];
        let mut rest = vec![0.0; theta.len()];
        for term in terms {
            let share = term.value(theta) / total;
            for &(i, x) in &term.factors {
                match self.named.binary_search(&i) {
                    Ok(place) => gradient[place] += share * x,
                    Err(_) => rest[i] += share * x,
                }
            }
        }
        let solved = solve_damped(&self.precision, &gradient, 0.0);
        let known: f64 = gradient.iter().zip(&solved).map(|(g, s)| g * s).sum();
        let unknown: f64 = rest.iter().zip(&self.unnamed).map(|(g, v)| g * g * v).sum();
        known + unknown
    }
}

/// The factors that observations name, in order.
fn named(observations: &[Observation]) -> Vec<usize> {
    let terms = observations.iter().flat_map(|o| &o.terms);
    let mut named: Vec<usize> = terms.flat_map(|t| &t.factors).map(|f| f.0).collect();
    named.sort_unstable();
    named.dedup();
    named
}

/// The observation with each factor's place in `named` instead of its index.
fn renumber(observation: &Observation, named: &[usize]) -> Observation {
    let mut o = observation.clone();
    for factor in o.terms.iter_mut().flat_map(|t| &mut t.factors) {
        factor.0 = named.partition_point(|&n| n < factor.0);
    }
    o
}

fn descend(observations: &[Observation], priors: &[Prior], start: &[f64]) -> Vec<f64> {
    let mut theta = start.to_vec();
    let mut damping = 1e-3;
    let mut cost = loss(observations, priors, &theta);
    for _ in 0..60 {
        let (normal, gradient) = normal_equations(observations, priors, &theta);
        let step = solve_damped(&normal, &gradient, damping);
        let next: Vec<f64> = theta.iter().zip(&step).map(|(t, s)| t - s).collect();
        let next_cost = loss(observations, priors, &next);
        if next_cost < cost {
            let done = cost - next_cost < 1e-6 * cost.max(1.0);
            (theta, cost) = (next, next_cost);
            damping = (damping * 0.3).max(1e-9);
            if done {
                break;
            }
        } else {
            damping *= 10.0;
            if damping > 1e8 {
                break;
            }
        }
    }
    theta
}

fn residual(o: &Observation, theta: &[f64]) -> f64 {
    (seconds(&o.terms, theta) / o.seconds).ln() / NOISE
}

fn loss(observations: &[Observation], priors: &[Prior], theta: &[f64]) -> f64 {
    let data: f64 = observations
        .iter()
        .map(|o| 2.0 * o.weight * ((1.0 + residual(o, theta).powi(2)).sqrt() - 1.0))
        .sum();
    let belief: f64 =
        priors.iter().zip(theta).map(|(p, t)| ((t - p.mean) / p.deviation).powi(2)).sum();
    data + belief
}

/// JᵀWJ + Λ (lower triangle, row by row) and JᵀWr + Λ(θ − μ).
fn normal_equations(
    observations: &[Observation],
    priors: &[Prior],
    theta: &[f64],
) -> (Vec<Vec<f64>>, Vec<f64>) {
    let n = theta.len();
    let mut normal: Vec<Vec<f64>> = (0..n).map(|i| vec![0.0; i + 1]).collect();
    let mut gradient = vec![0.0; n];
    let mut row = vec![0.0; n];
    for o in observations {
        row.fill(0.0);
        let total = seconds(&o.terms, theta);
        let mut touched: Vec<usize> = Vec::new();
        for term in &o.terms {
            let share = term.value(theta) / total / NOISE;
            for &(i, x) in &term.factors {
                if row[i] == 0.0 {
                    touched.push(i);
                }
                row[i] += share * x;
            }
        }
        let r = residual(o, theta);
        let weight = o.weight / (1.0 + r * r).sqrt();
        for &i in &touched {
            gradient[i] += weight * row[i] * r;
            for &j in touched.iter().filter(|&&j| j <= i) {
                normal[i][j] += weight * row[i] * row[j];
            }
        }
    }
    for (i, p) in priors.iter().enumerate() {
        let precision = p.deviation.powi(-2);
        normal[i][i] += precision;
        gradient[i] += precision * (theta[i] - p.mean);
    }
    (normal, gradient)
}

/// Solves (A + damping·diag A)·x = b by Cholesky; A is positive definite thanks to the priors.
pub(super) fn solve_damped(a: &[Vec<f64>], b: &[f64], damping: f64) -> Vec<f64> {
    let n = b.len();
    let mut l: Vec<Vec<f64>> = a.to_vec();
    for (i, row) in l.iter_mut().enumerate() {
        row[i] *= 1.0 + damping;
    }
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| l[i][k] * l[j][k]).sum();
            let value = l[i][j] - dot;
            l[i][j] = if i == j { value.max(1e-12).sqrt() } else { value / l[j][j] };
        }
    }
    let mut x = b.to_vec();
    for i in 0..n {
        let dot: f64 = (0..i).map(|k| l[i][k] * x[k]).sum();
        x[i] = (x[i] - dot) / l[i][i];
    }
    for i in (0..n).rev() {
        let dot: f64 = (i + 1..n).map(|k| l[k][i] * x[k]).sum();
        x[i] = (x[i] - dot) / l[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factors_that_made_the_times_are_found_again() {
        let truth: [f64; 2] = [0.4, -1.2];
        let observations: Vec<Observation> = (1..30)
            .map(|n| {
                let terms = vec![
                    Term { seconds: f64::from(n), factors: vec![(0, 1.0)] },
                    Term { seconds: 10.0, factors: vec![(1, 1.0), (0, 0.5)] },
                ];
                let seconds = seconds(&terms, &truth);
                Observation { terms, seconds, weight: 1.0 }
            })
            .collect();
        let vague = Prior { mean: 0.0, deviation: 10.0 };
        let found = fit(&observations, &[vague; 2], &[0.0; 2]);
        for (f, t) in found.iter().zip(truth) {
            assert!((f - t).abs() < 1e-3, "{found:?}");
        }
    }

    #[test]
    fn without_measurements_a_factor_keeps_its_prior() {
        let prior = Prior { mean: 0.7, deviation: 0.1 };
        let found = fit(&[], &[prior], &[0.0]);
        assert!((found[0] - 0.7).abs() < 1e-6);
    }

    #[test]
    fn one_odd_measurement_in_twenty_hardly_pulls() {
        let observations: Vec<Observation> = (0..20)
            .map(|i| Observation {
                terms: vec![Term { seconds: 1.0, factors: vec![(0, 1.0)] }],
                seconds: if i == 0 { 100.0 } else { 1.0 },
                weight: 1.0,
            })
            .collect();
        let found = fit(&observations, &[Prior { mean: 0.0, deviation: 10.0 }], &[0.0]);
        assert!(found[0].abs() < 0.02, "{found:?}");
    }

    #[test]
    fn what_was_observed_is_less_uncertain_than_what_was_not() {
        let prior = Prior { mean: 0.0, deviation: 0.5 };
        let term = |i| vec![Term { seconds: 1.0, factors: vec![(i, 1.0)] }];
        let seen = Observation { terms: term(0), seconds: 1.0, weight: 4.0 };
        let theta = fit(&[seen.clone(), seen.clone()], &[prior; 2], &[0.0; 2]);
        let posterior = Posterior::of(&[seen.clone(), seen], &[prior; 2], &theta);
        // Eight measurements' worth of precision beside the prior's.
        let expected = 1.0 / (8.0 / NOISE.powi(2) + 4.0);
        assert!((posterior.variance(&term(0), &theta) - expected).abs() < 1e-9);
        assert!((posterior.variance(&term(1), &theta) - 0.25).abs() < 1e-9);
        let both: Vec<Term> = term(0).into_iter().chain(term(1)).collect();
        let half = posterior.variance(&both, &theta);
        assert!((half - 0.25 * (expected + 0.25)).abs() < 1e-9, "{half}");
    }
}
