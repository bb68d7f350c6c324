//! Whether a difference between runs is statistically distinguishable from zero: a paired bootstrap
//! over seeds × examples (Efron & Tibshirani 1993, chapter 16; for classifiers Berg-Kirkpatrick et
//! al. 2012), and Holm's correction (1979) for several comparisons. Inputs say for each seed and
//! example whether the prediction is correct.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Binomial, Distribution};
use std::collections::BTreeMap;

/// Resamples of a bootstrap: enough for p < 0.001 after Holm's correction over two dozen
/// comparisons.
pub const DRAWS: usize = 50_000;

/// A 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// 2.5 % of the resamples are below.
    pub low: f64,
    /// 2.5 % of the resamples are above.
    pub high: f64,
}

/// A difference in accuracy, ours − baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Mean over the paired seeds.
    pub mean: f64,
    /// Interval of the resampled differences.
    pub interval: Interval,
    /// Two-sided p-value of no difference.
    pub p: f64,
    /// Seeds that were paired.
    pub seeds: usize,
}

/// A share of the gap between baseline and teacher.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GapShare {
    /// Share of the means.
    pub share: f64,
    /// Interval of the resampled shares.
    pub interval: Interval,
}

impl Difference {
    /// Whether the p-value is the smallest that the resampling can show, 2/([`DRAWS`] + 1). The
    /// true value may be smaller, so it is written as "≤".
    pub fn at_floor(&self) -> bool {
        self.p < 3.0 / (DRAWS + 1) as f64
    }
}

/// Compares two table rows. `ours` and `baseline` say whether each prediction is correct,
/// `[seed][example]`, with seeds and examples in the same order; none if there is no seed or no
/// example. Each resample draws seeds, then examples, both with replacement and the same for both
/// rows. It draws one seed fewer than there are: the mean of n draws of n seeds varies only
/// (n − 1)/n as much as a mean of n seeds (Rao & Wu 1988).
///
/// ```
/// use kd_lib::evaluation::significance::difference;
/// let baseline = vec![(0..400).map(|i| i % 4 != 0).collect::<Vec<bool>>()];
/// let better = vec![(0..400).map(|i| i % 8 != 0).collect::<Vec<bool>>()];
/// assert!(difference(&better, &baseline).unwrap().p < 0.01);
/// assert!(difference(&baseline, &baseline).unwrap().p > 0.9);
/// ```
pub fn difference(ours: &[Vec<bool>], baseline: &[Vec<bool>]) -> Option<Difference> {
    let seeds = ours.len().min(baseline.len());
    let examples = ours
        .iter()
        .chain(baseline)
        .map(Vec::len)
        .min()
        .filter(|&n| n > 0)?;
    let gain = |seed: usize, example: usize| {
        [i64::from(ours[seed][example]) - i64::from(baseline[seed][example])]
    };
    let Resampled {
        mean: [mean],
        draws,
    } = resample(seeds, examples, gain)?;
    let means = sorted(draws.into_iter().map(|[mean]| mean));
    let share = |holds: fn(&f64) -> bool| {
        let count = means.iter().filter(|mean| holds(mean)).count();
        (count + 1) as f64 / (DRAWS + 1) as f64
    };
    let p = (2.0 * share(|&mean| mean <= 0.0).min(share(|&mean| mean >= 0.0))).min(1.0);
    Some(Difference {
        mean,
        interval: interval(&means),
        p,
        seeds,
    })
}

/// The share of the gap between baseline and teacher that ours recovers. None if the gap itself is
/// not distinguishable from zero. The interval does not include the variance from retraining the
/// teacher.
///
/// ```
/// use kd_lib::evaluation::significance::share_of_gap;
/// let correct = |every: usize| (0..900).map(|i| i % every != 0).collect::<Vec<bool>>();
/// let gap = share_of_gap(&[correct(6)], &[correct(3)], &correct(900)).unwrap();
/// assert!(gap.interval.low < gap.share && gap.share < gap.interval.high);
/// assert!((gap.share - 0.5).abs() < 0.01);
/// ```
pub fn share_of_gap(
    ours: &[Vec<bool>],
    baseline: &[Vec<bool>],
    teacher: &[bool],
) -> Option<GapShare> {
    let seeds = ours.len().min(baseline.len());
    let lengths = ours
        .iter()
        .chain(baseline)
        .map(Vec::len)
        .chain([teacher.len()]);
    let examples = lengths.min().filter(|&n| n > 0)?;
    let gains = |seed: usize, example: usize| {
        let ours = i64::from(ours[seed][example]);
        let baseline = i64::from(baseline[seed][example]);
        let teacher = i64::from(teacher[example]);
        [ours - baseline, teacher - baseline]
    };
    let Resampled { mean, draws } = resample(seeds, examples, gains)?;
    // A share of a gap that may be zero or negative has no meaning.
    let without_gap = draws.iter().filter(|[_, gap]| *gap <= 0.0).count();
    if without_gap > DRAWS / 40 {
        return None;
    }
    let share = |[gained, gap]: [f64; 2]| gained / gap;
    let shares = sorted(draws.into_iter().map(share));
    Some(GapShare {
        share: share(mean),
        interval: interval(&shares),
    })
}

/// The outcome of a bootstrap of N gains.
struct Resampled<const N: usize> {
    /// Mean gains over all seeds and examples.
    mean: [f64; N],
    /// Mean gains of each resample.
    draws: Vec<[f64; N]>,
}

/// The bootstrap. Examples that gain alike under every seed are of one kind. A resample of the
/// examples is decided by how often it draws each kind, which is multinomial; the counts are drawn
/// one after another from binomial distributions. The plain form, which draws example by example,
/// is in the tests: it gives the same distribution and takes a hundred times as long.
fn resample<const N: usize>(
    seeds: usize,
    examples: usize,
    gains: impl Fn(usize, usize) -> [i64; N],
) -> Option<Resampled<N>> {
    if seeds == 0 {
        return None;
    }
    let mut kinds: BTreeMap<Vec<[i64; N]>, u64> = BTreeMap::new();
    for example in 0..examples {
        let kind: Vec<[i64; N]> = (0..seeds).map(|seed| gains(seed, example)).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    let drawn_seeds = seeds.max(2) - 1;
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let mut draws = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        let mut seeds_of_draw = Vec::with_capacity(drawn_seeds);
        for _ in 0..drawn_seeds {
            seeds_of_draw.push(random.random_range(0..seeds));
        }
        let mut sums = [0; N];
        let (mut to_draw, mut others) = (examples as u64, examples as u64);
        for (kind, &count) in &kinds {
            let share = count as f64 / others as f64;
            let times = Binomial::new(to_draw, share).ok()?.sample(&mut random);
            for &seed in &seeds_of_draw {
                add(&mut sums, &kind[seed], times as i64);
            }
            to_draw -= times;
            others -= count;
        }
        draws.push(mean(sums, drawn_seeds * examples));
    }
    let mut sums = [0; N];
    for (kind, &count) in &kinds {
        for values in kind {
            add(&mut sums, values, count as i64);
        }
    }
    Some(Resampled {
        mean: mean(sums, seeds * examples),
        draws,
    })
}

fn add<const N: usize>(sums: &mut [i64; N], gains: &[i64; N], times: i64) {
    for (sum, gain) in sums.iter_mut().zip(gains) {
        *sum += times * gain;
    }
}

fn mean<const N: usize>(sums: [i64; N], count: usize) -> [f64; N] {
    sums.map(|sum| sum as f64 / count as f64)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

/// The interval of sorted resamples.
fn interval(sorted: &[f64]) -> Interval {
    Interval {
        low: sorted[DRAWS / 40],
        high: sorted[DRAWS - 1 - DRAWS / 40],
    }
}

/// Holm's adjusted p-values, in the order given.
///
/// ```
/// assert_eq!(kd_lib::evaluation::significance::holm(&[0.01, 0.04, 0.02]), [0.03, 0.04, 0.04]);
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

/// The class that most models predict for each example; of equally many, the one that the first of
/// these models predicts. `predictions[model][example]`.
pub fn majority_vote(predictions: &[Vec<usize>]) -> Vec<usize> {
    let examples = predictions.iter().map(Vec::len).min().unwrap_or(0);
    let vote = |example: usize| {
        let votes: Vec<usize> = predictions.iter().map(|model| model[example]).collect();
        most_frequent(&votes)
    };
    (0..examples).map(vote).collect()
}

/// The most frequent class; of equally frequent ones, the first.
fn most_frequent(votes: &[usize]) -> usize {
    let count = |class: usize| votes.iter().filter(|&&vote| vote == class).count();
    let mut best = votes.first().copied().unwrap_or_default();
    for &class in votes {
        if count(class) > count(best) {
            best = class;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    // Gains of +1, 0 and −1 for all examples have variance 1 over seeds, and their mean of three
    // 1/3.
    #[test]
    fn resampled_means_vary_as_means_over_seeds_do() {
        let resampled = resample(3, 50, |seed, _| [seed as i64 - 1]).unwrap();
        let squares: f64 = resampled.draws.iter().map(|[mean]| mean * mean).sum();
        let variance = squares / DRAWS as f64;
        assert!((variance - 1.0 / 3.0).abs() < 0.01, "{variance}");
    }

    // The plain form of the bootstrap: draw seeds, then examples, one by one.
    #[test]
    fn drawing_kinds_of_examples_is_drawing_examples() {
        let gain = |seed: usize, example: usize| [(seed * 7 + example * 13) as i64 % 5 - 2];
        let (seeds, examples, draws) = (4, 60, 20_000);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut plain = Vec::new();
        for _ in 0..draws {
            let drawn_seeds: Vec<usize> =
                (1..seeds).map(|_| random.random_range(0..seeds)).collect();
            let mut sum = 0;
            for _ in 0..examples {
                let example = random.random_range(0..examples);
                sum += drawn_seeds
                    .iter()
                    .map(|&seed| gain(seed, example)[0])
                    .sum::<i64>();
            }
            plain.push(sum as f64 / ((seeds - 1) * examples) as f64);
        }
        let ours: Vec<f64> = resample(seeds, examples, gain).unwrap().draws.concat();
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
            [mean, (squares / values.len() as f64).sqrt()]
        };
        let (ours, plain) = (moments(&ours), moments(&plain));
        assert!(
            (ours[0] - plain[0]).abs() < 0.03 * plain[1],
            "{ours:?} {plain:?}"
        );
        assert!(
            (ours[1] / plain[1] - 1.0).abs() < 0.03,
            "{ours:?} {plain:?}"
        );
    }

    // With one seed a resampled mean is nearly normal: sd of the gains over √n.
    #[test]
    fn one_seed_s_interval_and_p_are_those_of_the_normal_approximation() {
        let baseline = vec![
            (0..4000)
                .map(|i: usize| !i.is_multiple_of(5))
                .collect::<Vec<bool>>(),
        ];
        let better = |i: usize| {
            if i.is_multiple_of(40) {
                true
            } else {
                !i.is_multiple_of(5) && i % 70 != 1
            }
        };
        let ours = vec![(0..4000).map(better).collect::<Vec<bool>>()];
        let found = difference(&ours, &baseline).unwrap();
        let pairs = ours[0].iter().zip(&baseline[0]);
        let gains: Vec<f64> = pairs
            .map(|(a, b)| f64::from(u8::from(*a)) - f64::from(u8::from(*b)))
            .collect();
        let mean = gains.iter().sum::<f64>() / 4000.0;
        let squares: f64 = gains.iter().map(|gain| (gain - mean).powi(2)).sum();
        let error = (squares / 4000.0 / 4000.0).sqrt();
        assert!((found.mean - mean).abs() < 1e-12);
        for (end, z) in [(found.interval.low, -1.96), (found.interval.high, 1.96)] {
            let expected = mean + z * error;
            assert!(
                (end - expected).abs() < 0.05 * error,
                "{end} is not {expected}"
            );
        }
        // z = 3.346, for which the normal table says p = 0.0008; 50,000 draws show that to within
        // 0.0002.
        assert!((mean / error - 3.346).abs() < 1e-3, "z = {}", mean / error);
        assert!((found.p - 0.0008).abs() < 0.0005, "p = {}", found.p);
    }

    #[test]
    fn a_majority_decides_and_without_one_the_first() {
        let votes = [
            vec![2, 1, 1],
            vec![2, 2, 0],
            vec![2, 1, 0],
            vec![3, 0, 0, 3],
        ];
        assert_eq!(votes.map(|votes| most_frequent(&votes)), [1, 2, 2, 3]);
        assert_eq!(majority_vote(&[vec![2, 0], vec![1, 0], vec![1, 1]]), [1, 0]);
    }
}
