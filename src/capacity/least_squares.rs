//! Least squares with coefficients that cannot be negative, in which single odd rows do not pull.

/// One measured value and what it is made of: `value ≈ Σ columns × coefficients`.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub columns: Vec<f64>,
    pub value: f64,
    /// Rows of a kind are odd by the measure of their own kind.
    pub kind: usize,
}

/// Where the influence of a row stops to grow, in standard deviations: 95 % as efficient as least
/// squares on normal noise (Huber 1964).
const HUBER: f64 = 1.345;

/// Kinds of rows.
pub(super) const KINDS: usize = 2;

/// What took longer than so many times what is expected was not slow but something else: another
/// program, or two steps that were taken for one.
const SLOW: f64 = 1.5;

/// No clock of steps is better than this: an error within it is none.
const LEAST: f64 = 0.002;

/// From a median absolute deviation to the standard deviation of a normal distribution.
const NORMAL: f64 = 1.4826;

/// The non-negative coefficients that explain the rows best, each row's error relative to its value.
pub(super) fn non_negative(rows: &[Row]) -> Vec<f64> {
    let mut weights = vec![1.0; rows.len()];
    let mut found = weighted(rows, &weights);
    for _ in 0..20 {
        let errors: Vec<f64> = rows.iter().map(|row| relative_error(row, &found)).collect();
        let scales: Vec<f64> = (0..KINDS).map(|kind| scale(rows, &errors, kind)).collect();
        for ((weight, row), error) in weights.iter_mut().zip(rows).zip(&errors) {
            let most = HUBER * scales[row.kind];
            *weight = if error.abs() <= most { 1.0 } else { most / error.abs() };
        }
        let next = weighted(rows, &weights);
        let moved = next.iter().zip(&found).any(|(a, b)| (a - b).abs() > 1e-9 * b.abs());
        found = next;
        if !moved {
            break;
        }
    }
    found
}

/// The same coefficients, raised until the rows together have their measured sum: what is usual is less than
/// the mean where single rows take longer, and a sum of many has these in it. Rows beyond [`SLOW`] are in
/// neither sum.
pub(super) fn of_the_sum(rows: &[Row]) -> Vec<f64> {
    let usual = non_negative(rows);
    let (mut measured, mut expected) = (0.0, 0.0);
    for row in rows {
        let sum = sum(row, &usual);
        if row.value <= SLOW * sum {
            measured += row.value;
            expected += sum;
        }
    }
    let level = if expected > 0.0 { measured / expected } else { 1.0 };
    usual.iter().map(|coefficient| coefficient * level).collect()
}

fn sum(row: &Row, coefficients: &[f64]) -> f64 {
    row.columns.iter().zip(coefficients).map(|(a, b)| a * b).sum()
}

/// How far rows of a kind are usually off.
fn scale(rows: &[Row], errors: &[f64], kind: usize) -> f64 {
    let of_kind = rows.iter().zip(errors).filter(|(row, _)| row.kind == kind);
    let sizes: Vec<f64> = of_kind.map(|(_, error)| error.abs()).collect();
    (crate::stats::median(&sizes).unwrap_or(0.0) * NORMAL).max(LEAST)
}

/// What `row`'s value is above the coefficients' sum, relative to the value.
pub(super) fn relative_error(row: &Row, coefficients: &[f64]) -> f64 {
    (row.value - sum(row, coefficients)) / row.value
}

fn weighted(rows: &[Row], weights: &[f64]) -> Vec<f64> {
    let n = rows.first().map_or(0, |row| row.columns.len());
    // Columns have very different sizes: a token and a pair of tokens.
    let norm = |j: usize| {
        let squares = rows.iter().map(|row| (row.columns[j] / row.value).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let norms: Vec<f64> = (0..n).map(norm).collect();
    let mut gram = vec![vec![0.0; n]; n];
    let mut right = vec![0.0; n];
    for (row, weight) in rows.iter().zip(weights) {
        let scaled = |j: usize| {
            if norms[j] > 0.0 { row.columns[j] / row.value / norms[j] } else { 0.0 }
        };
        for i in 0..n {
            let a = scaled(i);
            if a == 0.0 {
                continue;
            }
            right[i] += weight * a;
            for (j, cell) in gram[i].iter_mut().enumerate() {
                *cell += weight * a * scaled(j);
            }
        }
    }
    let found = active_set(&gram, &right);
    found.iter().zip(&norms).map(|(x, norm)| if *norm > 0.0 { x / norm } else { 0.0 }).collect()
}

/// Lawson and Hanson (1974), chapter 23, on normal equations.
fn active_set(gram: &[Vec<f64>], right: &[f64]) -> Vec<f64> {
    let n = right.len();
    let mut x = vec![0.0; n];
    let mut free = vec![false; n];
    let size = right.iter().fold(0.0_f64, |most, value| most.max(value.abs()));
    for _ in 0..3 * n {
        let gradient =
            |j: usize, x: &[f64]| right[j] - gram[j].iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
        let steepest = (0..n)
            .filter(|j| !free[*j] && gram[*j][*j] > 0.0)
            .map(|j| (j, gradient(j, &x)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        let Some((enters, _)) = steepest.filter(|(_, slope)| *slope > 1e-10 * size) else { break };
        free[enters] = true;
        loop {
            let z = solved(gram, right, &free);
            let blocked = (0..n)
                .filter(|j| free[*j] && z[*j] <= 0.0)
                .map(|j| x[j] / (x[j] - z[j]))
                .fold(None, |least: Option<f64>, step| Some(least.map_or(step, |l| l.min(step))));
            let Some(step) = blocked else {
                x = z;
                break;
            };
            let step = if step.is_finite() { step } else { 0.0 };
            for j in 0..n {
                if free[j] {
                    x[j] += step * (z[j] - x[j]);
                    if x[j] <= 1e-14 {
                        (x[j], free[j]) = (0.0, false);
                    }
                }
            }
            if !free.iter().any(|free| *free) {
                break;
            }
        }
    }
    x
}

/// The solution over the free coefficients, by Cholesky's decomposition; the others are 0.
fn solved(gram: &[Vec<f64>], right: &[f64], free: &[bool]) -> Vec<f64> {
    let places: Vec<usize> = (0..right.len()).filter(|j| free[*j]).collect();
    let n = places.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let before: f64 = lower[i][..j].iter().zip(&lower[j][..j]).map(|(a, b)| a * b).sum();
            let rest = gram[places[i]][places[j]] - before;
            lower[i][j] = if i == j {
                // Columns that say the same: a little of both.
                (rest + 1e-12).max(1e-12).sqrt()
            } else {
                rest / lower[j][j]
            };
        }
    }
    let mut y = vec![0.0; n];
    for i in 0..n {
        let before: f64 = lower[i][..i].iter().zip(&y[..i]).map(|(a, b)| a * b).sum();
        y[i] = (right[places[i]] - before) / lower[i][i];
    }
    let mut x = vec![0.0; right.len()];
    for i in (0..n).rev() {
        let after: f64 = (i + 1..n).map(|k| lower[k][i] * x[places[k]]).sum();
        x[places[i]] = (y[i] - after) / lower[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coefficients_are_found_and_never_negative() {
        // 2 + 3a, and a column that would have to be negative.
        let rows: Vec<Row> = (1..40)
            .map(|i| {
                let a = f64::from(i);
                Row { columns: vec![1.0, a, (a * 1.7).sin() + 1.0], value: 2.0 + 3.0 * a, kind: 0 }
            })
            .collect();
        let found = non_negative(&rows);
        assert!((found[0] - 2.0).abs() < 1e-6 && (found[1] - 3.0).abs() < 1e-6, "{found:?}");
        assert!(found[2].abs() < 1e-6, "{found:?}");
        let falling: Vec<Row> = (1..40)
            .map(|i| Row { columns: vec![1.0, f64::from(i)], value: 50.0 - f64::from(i), kind: 1 })
            .collect();
        let found = non_negative(&falling);
        assert!(found[1] == 0.0 && found[0] > 10.0, "{found:?}");
    }

    #[test]
    fn a_tenth_of_absurd_rows_does_not_move_the_rest() {
        let rows: Vec<Row> = (1..200)
            .map(|i| {
                let a = f64::from(i % 17);
                let odd = if i % 10 == 0 { 5.0 } else { 1.0 };
                Row { columns: vec![1.0, a], value: (4.0 + a) * odd, kind: 0 }
            })
            .collect();
        let found = non_negative(&rows);
        assert!((found[0] - 4.0).abs() < 0.05 && (found[1] - 1.0).abs() < 0.01, "{found:?}");
    }

    #[test]
    fn slow_rows_are_in_the_sum_and_absurd_ones_are_not() {
        let rows = |slow: f64| -> Vec<Row> {
            let of = |i: u32| {
                let a = f64::from(i % 17);
                let factor = if i.is_multiple_of(5) { slow } else { 1.0 };
                Row { columns: vec![1.0, a], value: (4.0 + a) * factor, kind: 0 }
            };
            (0..850).map(of).collect()
        };
        let usual = non_negative(&rows(1.4));
        assert!((usual[0] / 4.0 - 1.0).abs() < 0.01, "{usual:?}");
        // One in five takes 1.4 times as long: 1.08 on average.
        let found = of_the_sum(&rows(1.4));
        assert!((found[0] / 4.32 - 1.0).abs() < 0.01, "{found:?}");
        assert!((found[1] / 1.08 - 1.0).abs() < 0.01, "{found:?}");
        // A hundred times as long: as if it had not been.
        let absurd = of_the_sum(&rows(100.0));
        assert!((absurd[0] / 4.0 - 1.0).abs() < 0.01, "{absurd:?}");
    }

    #[test]
    fn nothing_is_found_in_nothing() {
        assert!(of_the_sum(&[]).is_empty());
        let empty = [Row { columns: vec![0.0, 1.0], value: 3.0, kind: 0 }];
        assert_eq!(non_negative(&empty)[0], 0.0);
    }
}
