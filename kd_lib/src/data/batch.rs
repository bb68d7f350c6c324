//! Which examples form a batch, in which order, and as which tensors. The order of an epoch is a
//! function of (seed, epoch) alone, so a resumed run gets the same batches.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

/// Texts are sorted by length within pools of this many batches: large enough to find equal
/// lengths, small enough to leave the order random.
const BATCHES_PER_POOL: usize = 64;

/// A split as token ids.
#[derive(Debug, Clone, Default)]
pub struct TokenizedSplit {
    /// Ids of each text; none is empty.
    pub ids: Vec<Vec<i64>>,
    /// Of each token, 0 in the first text of a pair and 1 in the second, as the tokenizer numbers
    /// them; empty where all texts are single.
    pub token_types: Vec<Vec<i64>>,
    /// Class index of each text; empty where labels are not known.
    pub labels: Vec<i64>,
    /// Rows of the texts that were too long, so that a part of them is not read.
    pub truncated: Vec<usize>,
    /// The id that fills short rows.
    pub pad_id: i64,
}

impl TokenizedSplit {
    /// Adds another split's texts behind these.
    pub fn append(&mut self, other: TokenizedSplit) {
        self.pad_id = other.pad_id;
        let before = self.ids.len();
        let truncated = other.truncated.iter().map(|row| before + row);
        self.truncated.extend(truncated);
        self.ids.extend(other.ids);
        self.token_types.extend(other.token_types);
        self.labels.extend(other.labels);
    }
}

/// One micro-batch, padded to its own longest row.
#[derive(Debug)]
pub struct Batch {
    /// `[batch, seq]` int64.
    pub ids: Tensor,
    /// `[batch, seq]` int64, of text pairs; padding has 0.
    pub token_types: Option<Tensor>,
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
    /// use kd_lib::data::{Batch, TokenizedSplit};
    /// let ids = vec![vec![5, 6, 7], vec![8]];
    /// let split = TokenizedSplit { ids, labels: vec![0, 1], ..TokenizedSplit::default() };
    /// let batch = Batch::collate(&split, &[1, 0], tch::Device::Cpu);
    /// assert_eq!(Vec::<Vec<i64>>::try_from(&batch.ids).unwrap(), [[8, 0, 0], [5, 6, 7]]);
    /// ```
    pub fn collate(split: &TokenizedSplit, rows: &[usize], device: Device) -> Batch {
        let longest = rows.iter().map(|&r| split.ids[r].len()).max().unwrap_or(0);
        let padded = |values: &[Vec<i64>], padding: i64| {
            let mut filled = vec![padding; rows.len() * longest];
            for (row, line) in rows.iter().zip(filled.chunks_mut(longest.max(1))) {
                line[..values[*row].len()].copy_from_slice(&values[*row]);
            }
            Tensor::from_slice(&filled)
                .view([rows.len() as i64, longest as i64])
                .to_device(device)
        };
        let lengths: Vec<i64> = rows.iter().map(|&r| split.ids[r].len() as i64).collect();
        let labels: Vec<i64> = rows
            .iter()
            .filter_map(|&r| split.labels.get(r).copied())
            .collect();
        let lengths = Tensor::from_slice(&lengths).to_device(device);
        let positions = Tensor::arange(longest as i64, (tch::Kind::Int64, device));
        Batch {
            ids: padded(&split.ids, split.pad_id),
            token_types: (!split.token_types.is_empty()).then(|| padded(&split.token_types, 0)),
            mask: positions.unsqueeze(0).less_tensor(&lengths.unsqueeze(1)),
            lengths,
            labels: Tensor::from_slice(&labels).to_device(device),
            rows: rows.to_vec(),
        }
    }
}

/// Texts of an evaluation batch on a GPU: large, since no activations are kept for a backward pass.
const GPU_EVAL_BATCH_SIZE: usize = 128;

/// Texts of an evaluation batch on a CPU. A larger batch is no faster for a BERT there, and a
/// signal has to wait for the end of a batch.
const CPU_EVAL_BATCH_SIZE: usize = 32;

/// The batches of one epoch: every row once, batches in random order. With `group_by_length`,
/// texts of similar length share a batch.
pub fn epoch_batches(
    split: &TokenizedSplit,
    batch_size: usize,
    group_by_length: bool,
    seed: u64,
    epoch: usize,
) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(
        seed.wrapping_add((epoch as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
    );
    let mut rows: Vec<usize> = (0..split.ids.len()).collect();
    rows.shuffle(&mut random);
    if group_by_length {
        rows.chunks_mut(BATCHES_PER_POOL * batch_size)
            .for_each(|pool| pool.sort_by_key(|&r| split.ids[r].len()));
    }
    let mut batches: Vec<Vec<usize>> = rows.chunks(batch_size).map(<[usize]>::to_vec).collect();
    batches.shuffle(&mut random);
    batches
}

/// The batches in which a split is evaluated. With `group_by_length` they are sorted by length,
/// which needs the least padding, and their size depends on the device; else they are the split's
/// rows in order, `batch_size` at a time, so that each text is padded to its neighbours' length.
pub fn eval_batches(
    split: &TokenizedSplit,
    batch_size: usize,
    group_by_length: bool,
    device: Device,
) -> Vec<Vec<usize>> {
    let mut rows: Vec<usize> = (0..split.ids.len()).collect();
    if group_by_length {
        rows.sort_by_key(|&r| split.ids[r].len());
    }
    let size = match (group_by_length, device) {
        (false, _) => batch_size,
        (true, Device::Cpu) => CPU_EVAL_BATCH_SIZE,
        (true, _) => GPU_EVAL_BATCH_SIZE,
    };
    rows.chunks(size).map(<[usize]>::to_vec).collect()
}
