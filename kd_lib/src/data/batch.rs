//! Which examples go together, in which order, as which tensors. Orders are functions of (seed, epoch)
//! alone, so a resumed run meets the batches that it would have met.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// Batches are formed among this many shuffled neighbours: wide enough to find equal lengths, narrow
/// enough to leave the order random.
const POOL: usize = 64;

/// A split as ids.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    /// Ids of each text; none is empty.
    pub ids: Vec<Vec<i64>>,
    /// Class index of each text; empty where labels are not known.
    pub labels: Vec<i64>,
    /// The id that fills short rows.
    pub pad: i64,
}

/// One micro-batch, padded to its own longest row.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, seq]` int64.
    pub ids: Tensor,
    /// `[batch]` int64, real tokens in each row, at least 1.
    pub lengths: Tensor,
    /// `[batch, seq]` bool, true on real tokens.
    pub mask: Tensor,
    /// `[batch]` int64, or empty where labels are not known.
    pub labels: Tensor,
    /// Which rows of the split these are.
    pub rows: Vec<usize>,
}

impl Batch {
    /// Gathers rows of a split into tensors on `device`.
    ///
    /// ```
    /// use kd_lib::data::{Batch, Encoded};
    /// let split = Encoded { ids: vec![vec![5, 6, 7], vec![8]], labels: vec![0, 1], pad: 0 };
    /// let batch = Batch::collate(&split, &[1, 0], tch::Device::Cpu);
    /// assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[8, 0, 0], [5, 6, 7]]);
    /// ```
    pub fn collate(split: &Encoded, rows: &[usize], device: Device) -> Batch {
        let longest = rows.iter().map(|&r| split.ids[r].len()).max().unwrap_or(0);
        let mut ids = vec![split.pad; rows.len() * longest];
        for (row, line) in rows.iter().zip(ids.chunks_mut(longest.max(1))) {
            line[..split.ids[*row].len()].copy_from_slice(&split.ids[*row]);
        }
        let lengths: Vec<i64> = rows.iter().map(|&r| split.ids[r].len() as i64).collect();
        let labels: Vec<i64> = rows.iter().filter_map(|&r| split.labels.get(r).copied()).collect();
        let lengths = Tensor::from_slice(&lengths).to_device(device);
        let positions = Tensor::arange(longest as i64, (tch::Kind::Int64, device));
        Batch {
            ids: Tensor::from_slice(&ids).view([rows.len() as i64, longest as i64]).to_device(device),
            mask: positions.unsqueeze(0).less_tensor(&lengths.unsqueeze(1)),
            lengths,
            labels: Tensor::from_slice(&labels).to_device(device),
            rows: rows.to_vec(),
        }
    }
}

/// Rows of an evaluation batch: large, since nothing is kept for a backward pass.
const EVALUATION_BATCH: usize = 128;

/// The batches of one epoch: every row once, batches in random order; `bucketed`, rows of like length together.
pub fn epoch(split: &Encoded, batch: usize, bucketed: bool, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed.wrapping_add((epoch as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let mut rows: Vec<usize> = (0..split.ids.len()).collect();
    rows.shuffle(&mut random);
    if bucketed {
        rows.chunks_mut(POOL * batch).for_each(|pool| pool.sort_by_key(|&r| split.ids[r].len()));
    }
    let mut batches: Vec<Vec<usize>> = rows.chunks(batch).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut random);
    batches
}

/// All rows in order of length, for evaluation: the least padding there is.
pub fn by_length(split: &Encoded) -> Vec<Vec<usize>> {
    let mut rows: Vec<usize> = (0..split.ids.len()).collect();
    rows.sort_by_key(|&r| split.ids[r].len());
    rows.chunks(EVALUATION_BATCH).map(<[usize]>::to_vec).collect()
}

/// All rows as they come, `batch` at a time: each text beside batch-mates of any length.
pub fn as_they_come(split: &Encoded, batch: usize) -> Vec<Vec<usize>> {
    (0..split.ids.len()).collect::<Vec<_>>().chunks(batch).map(<[usize]>::to_vec).collect()
}
