//! Is a difference more than noise? A paired bootstrap over seeds × examples (Efron & Tibshirani 1993, chapter 16;
//! for classifiers Berg-Kirkpatrick et al. 2012), and Holm's correction (1979) for asking more than once.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution};
use std::collections::BTreeMap;

/// Resamples of a bootstrap: enough for p < 0.001 after Holm's correction over two dozen comparisons.
const DRAWS: usize = 50_000;

/// A difference in accuracy, ours − baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean over the paired seeds.
    pub mean: f64,
    /// 2.5 % and 97.5 % of the resampled differences.
    pub interval: [f64; 2],
    /// Two-sided p-value of no difference.
    pub p: f64,
    /// Seeds that were paired.
    pub seeds: usize,
}

/// Compares two rows; `[seed][example]` says whether an answer was right, in the same order of seeds and examples.
/// Each resample draws seeds, then examples, both with replacement and the same for both rows; one seed fewer than there
/// are, since of n seeds n draws vary by only (n − 1)/n of what a mean of n does (Rao & Wu 1988), which tells with three.
///
/// ```
/// use kd_show::significance::difference;
/// let baseline = vec![(0..400).map(|i| i % 4 != 0).collect::<Vec<bool>>()];
/// let better = vec![(0..400).map(|i| i % 8 != 0).collect::<Vec<bool>>()];
/// assert!(difference(&better, &baseline).unwrap().p < 0.01);
/// assert!(difference(&baseline, &baseline).unwrap().p > 0.9);
/// ```
pub fn difference(ours: &[Vec<bool>], baseline: &[Vec<bool>]) -> Option<Difference> {
    let seeds = ours.len().min(baseline.len());
    let examples = ours.iter().chain(baseline).map(Vec::len).min().filter(|&n| n > 0)?;
    let gain = |seed: usize, example: usize| [i64::from(ours[seed][example]) - i64::from(baseline[seed][example])];
    let ([mean], drawn) = resampled(seeds, examples, gain)?;
    let means = sorted(drawn.into_iter().map(|[mean]| mean));
    let share = |holds: fn(&f64) -> bool| (means.iter().filter(|m| holds(m)).count() + 1) as f64 / (DRAWS + 1) as f64;
    let p = (2.0 * share(|&m| m <= 0.0).min(share(|&m| m >= 0.0))).min(1.0);
    Some(Difference { mean, interval: ends(&means), p, seeds })
}

/// The share of the gap between baseline and teacher that ours recovers, `[2.5 %, mean, 97.5 %]` of the resamples of
/// [`difference`]; none where the gap may as well be none. What other trainings of
/// the teacher would score is not in the interval.
///
/// ```
/// use kd_show::significance::share_of_gap;
/// let right = |every: usize| (0..900).map(|i| i % every != 0).collect::<Vec<bool>>();
/// let [low, share, high] = share_of_gap(&[right(6)], &[right(3)], &right(900)).unwrap();
/// assert!(low < share && share < high && (share - 0.5).abs() < 0.01);
/// ```
pub fn share_of_gap(ours: &[Vec<bool>], baseline: &[Vec<bool>], teacher: &[bool]) -> Option<[f64; 3]> {
    let seeds = ours.len().min(baseline.len());
    let lengths = ours.iter().chain(baseline).map(Vec::len).chain([teacher.len()]);
    let examples = lengths.min().filter(|&n| n > 0)?;
    let gains = |seed: usize, example: usize| {
        let [ours, baseline, teacher] = [ours[seed][example], baseline[seed][example], teacher[example]].map(i64::from);
        [ours - baseline, teacher - baseline]
    };
    let (mean, drawn) = resampled(seeds, examples, gains)?;
    // Where the gap may as well be none, or negative, a share of it means nothing.
    if drawn.iter().filter(|[_, gap]| *gap <= 0.0).count() > DRAWS / 40 {
        return None;
    }
    let share = |[gained, gap]: [f64; 2]| gained / gap;
    let [low, high] = ends(&sorted(drawn.into_iter().map(share)));
    Some([low, share(mean), high])
}

/// The mean gains over seeds and examples, and those of each resample.
fn resampled<const N: usize>(
    seeds: usize,
    examples: usize,
    gains: impl Fn(usize, usize) -> [i64; N],
) -> Option<([f64; N], Vec<[f64; N]>)> {
    // Examples that gain alike under every seed are one kind: how often each kind is drawn is all that a resample needs.
    let mut kinds = BTreeMap::new();
    for example in 0..examples {
        *kinds.entry((0..seeds).map(|seed| gains(seed, example)).collect::<Vec<_>>()).or_insert(0) += 1;
    }
    let add = |sums: &mut [i64; N], of_seed: &[i64; N], times: i64| {
        sums.iter_mut().zip(of_seed).for_each(|(sum, gain)| *sum += times * gain);
    };
    let mean = |sums: [i64; N], seeds: usize| sums.map(|sum| sum as f64 / (seeds * examples) as f64);
    let drawn_seeds = seeds.max(2) - 1;
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let draws: Option<Vec<[f64; N]>> = (0..DRAWS)
        .map(|_| {
            let drawn: Vec<usize> = (0..drawn_seeds).map(|_| random.random_range(0..seeds)).collect();
            let (mut sums, mut to_draw, mut others) = ([0; N], examples as u64, examples as u64);
            for (gains, &alike) in &kinds {
                let times = Binomial::new(to_draw, alike as f64 / others as f64).ok()?.sample(&mut random);
                drawn.iter().for_each(|&seed| add(&mut sums, &gains[seed], times as i64));
                (to_draw, others) = (to_draw - times, others - alike);
            }
            Some(mean(sums, drawn_seeds))
        })
        .collect();
    let mut sums = [0; N];
    kinds.iter().for_each(|(gains, &alike)| gains.iter().for_each(|of_seed| add(&mut sums, of_seed, alike as i64)));
    Some((mean(sums, seeds), draws?))
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// 2.5 % and 97.5 % of sorted resamples.
fn ends(sorted: &[f64]) -> [f64; 2] {
    [sorted[DRAWS / 40], sorted[DRAWS - 1 - DRAWS / 40]]
}

/// Holm's adjusted p-values, in the order given.
///
/// ```
/// assert_eq!(kd_show::significance::holm(&[0.01, 0.04, 0.02]), [0.03, 0.04, 0.04]);
/// ```
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.0; p.len()];
    let mut highest: f64 = 0.0;
    for (rank, &at) in order.iter().enumerate() {
        highest = highest.max(p[at] * (p.len() - rank) as f64).min(1.0);
        adjusted[at] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    // Gains of +1, 0 and −1 for all examples have the variance 1 over seeds, and their mean of three 1/3.
    #[test]
    fn resampled_means_vary_as_means_over_seeds_do() {
        let (_, drawn) = resampled(3, 50, |seed, _| [seed as i64 - 1]).unwrap();
        let variance = drawn.iter().map(|[mean]| mean * mean).sum::<f64>() / DRAWS as f64;
        assert!((variance - 1.0 / 3.0).abs() < 0.01, "{variance}");
    }

    // With one seed a resampled mean is normal, nearly: sd of the gains over √n.
    #[test]
    fn one_seed_s_interval_and_p_are_those_of_the_normal_approximation() {
        let baseline = vec![(0..4000).map(|i| i % 5 != 0).collect::<Vec<bool>>()];
        let ours = vec![(0..4000).map(|i| if i % 40 == 0 { true } else { i % 5 != 0 && i % 70 != 1 }).collect()];
        let found = difference(&ours, &baseline).unwrap();
        let gains: Vec<f64> = ours[0].iter().zip(&baseline[0]).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect();
        let mean = gains.iter().sum::<f64>() / 4000.0;
        let error = (gains.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / 4000.0 / 4000.0).sqrt();
        assert!((found.mean - mean).abs() < 1e-12);
        for (end, z) in found.interval.into_iter().zip([-1.96, 1.96]) {
            assert!((end - mean - z * error).abs() < 0.05 * error, "{end} is not {}", mean + z * error);
        }
        // z = 3.346, of which the normal table says p = 0.0008; 50,000 draws tell that to within 0.0002.
        assert!((mean / error - 3.346).abs() < 1e-3 && (found.p - 0.0008).abs() < 0.0005, "p = {}", found.p);
    }
}
