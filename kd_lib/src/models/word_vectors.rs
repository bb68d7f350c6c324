//! First word vectors for a student from a BERT checkpoint: what the teacher's pretraining knows of single characters,
//! in the student's width. A start, not a constraint: they are trained like all else.

use crate::data::{Pieces, Vocabulary};
use crate::files::TensorFile;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Kind, Tensor};

/// What a student's word vectors are before training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WordVectors {
    /// Their standard deviation.
    pub spread: f64,
    /// A BERT checkpoint whose vectors of the same characters they begin as ([`of_checkpoint`]); drawn from
    /// N(0, spread²) where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
}

/// Word vectors `[vocabulary, width]` of standard deviation `spread`: the first `width` principal components of the
/// checkpoint's vectors of these characters. Entries that the checkpoint has no piece for are drawn from
/// N(0, spread²), from libtorch's generator.
pub fn of_checkpoint(
    folder: &Path,
    pieces: &Pieces,
    characters: &Vocabulary,
    width: i64,
    spread: f64,
) -> Result<Tensor> {
    let path = folder.join("model.safetensors");
    let mut file = TensorFile::read(&path)?;
    let name = ["embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"];
    let name = name.into_iter().find(|name| file.tensors.contains_key(*name)).unwrap_or(name[0]);
    let table = file.take(&path, name)?.to_kind(Kind::Float);
    let (pieces, hidden) = (pieces.of_entries(characters.entries()), table.size()[1]);
    if width > hidden {
        let fix = format!("the checkpoint's vectors have {hidden} components: choose as many at most");
        return Err(Error::recipe("model.embedding", width.to_string(), fix));
    }
    let known: Vec<(i64, i64)> = (0..).zip(pieces).filter_map(|(row, id)| Some((row, id?))).collect();
    let [rows, ids] =
        [|k: &(i64, i64)| k.0, |k: &(i64, i64)| k.1].map(|part| known.iter().map(part).collect::<Vec<_>>());
    let found = table.index_select(0, &Tensor::from_slice(&ids));
    let centred = &found - found.mean_dim([0i64].as_slice(), true, None);
    // Ascending, so that the last eigenvectors of the covariance span the most.
    let (_, directions) = centred.transpose(0, 1).matmul(&centred).linalg_eigh("L");
    let reduced = centred.matmul(&directions.narrow(1, hidden - width, width));
    let vectors = Tensor::randn([characters.size() as i64, width], (Kind::Float, tch::Device::Cpu)) * spread;
    let scaled = &reduced * (spread / reduced.std(false));
    Ok(vectors.index_copy(0, &Tensor::from_slice(&rows), &scaled))
}
