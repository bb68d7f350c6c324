//! A teacher's pooled hidden states of the training texts. All layers of all augmented texts would
//! not fit into memory, so the states are f16 matrices on disk that are mapped into memory, and a
//! batch reads the states of its own examples. [`crate::store::teacher_logits`] writes them.

use crate::files::MappedMatrix;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Where a text's state lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatePlace {
    /// The matrix, by its file.
    pub file: usize,
    /// The row of the matrix.
    pub row: usize,
}

/// Pooled states of one layer: `width` values for each text.
#[derive(Debug, Clone)]
pub struct PooledStates {
    /// Values of a state.
    pub width: usize,
    /// The matrices; none if all states are zero.
    pub files: Vec<Arc<MappedMatrix>>,
    /// The place of each text's state.
    pub places: Vec<StatePlace>,
}

impl PooledStates {
    /// States that are zero, for timing.
    pub fn zeros(width: usize) -> PooledStates {
        PooledStates {
            width,
            files: Vec::new(),
            places: Vec::new(),
        }
    }

    /// The states `[texts, width]` of these texts in fp32.
    pub fn rows(&self, texts: &[usize], device: Device) -> Tensor {
        let size = [texts.len() as i64, self.width as i64];
        if self.files.is_empty() {
            return Tensor::zeros(size, (Kind::Float, device));
        }
        let mut bytes = Vec::with_capacity(texts.len() * self.width * 2);
        for &text in texts {
            let StatePlace { file, row } = self.places[text];
            bytes.extend_from_slice(self.files[file].row(row));
        }
        Tensor::from_data_size(&bytes, &size, Kind::Half)
            .to_device(device)
            .to_kind(Kind::Float)
    }
}
