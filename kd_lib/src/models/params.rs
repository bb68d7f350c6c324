//! A model's parameters with their reference names and their weight-decay group, in the order in
//! which they were created. Each has fp32 master weights (f64 if it was created so), which the
//! optimizer updates and which are saved, and a leaf that the forward pass reads: the same memory,
//! or a copy that is rounded to 16 bits.

use crate::files::{TensorFile, write_tensors};
use crate::precision::Precision;
use crate::{Error, Result};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// One trainable tensor.
#[derive(Debug)]
pub struct Param {
    /// Name in the reference implementation's state dict.
    pub name: String,
    /// The leaf that the model computes with.
    pub tensor: Tensor,
    /// What is trained and saved: the same memory, or fp32 next to a rounded leaf (see
    /// [`Params::round`]).
    pub master: Tensor,
    /// Whether a matrix product reads it, in the precision of the run.
    is_matmul_weight: bool,
    /// Whether weight decay applies; biases and layer norms are spared.
    pub decay: bool,
}

impl Param {
    /// Moves the weights to `place`, which already holds the same values, flat. The leaf moves too,
    /// unrounded until the next rounding.
    pub(crate) fn move_to(&self, place: &Tensor) {
        [&self.master, &self.tensor]
            .into_iter()
            .for_each(|x| x.shallow_clone().set_data(&place.view_as(&self.master)));
    }
}

/// Parameters by name.
#[derive(Debug)]
pub struct Params {
    device: Device,
    entries: Vec<Param>,
}

impl Params {
    /// No parameters yet; they will be created on `device`.
    pub fn on(device: Device) -> Params {
        Params {
            device,
            entries: Vec::new(),
        }
    }

    /// The parameters of several groups as one, sharing their memory.
    pub fn joined(groups: &[&Params]) -> Params {
        let share = |param: &Param| Param {
            name: param.name.clone(),
            tensor: param.tensor.shallow_clone(),
            master: param.master.shallow_clone(),
            is_matmul_weight: param.is_matmul_weight,
            decay: param.decay,
        };
        Params {
            device: groups[0].device,
            entries: groups
                .iter()
                .flat_map(|group| group.iter())
                .map(share)
                .collect(),
        }
    }

    /// The device that holds all of them.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All parameters, in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &Param> {
        self.entries.iter()
    }

    /// Number of scalars.
    pub fn count(&self) -> usize {
        self.iter().map(|p| p.master.numel()).sum()
    }

    /// Adds a leaf with these initial values; returns a handle that shares its memory.
    pub fn add(&mut self, name: impl Into<String>, values: Tensor, decay: bool) -> Tensor {
        let kind = if values.kind() == Kind::Double {
            Kind::Double
        } else {
            Kind::Float
        };
        let tensor = values
            .to_device(self.device)
            .to_kind(kind)
            .contiguous()
            .set_requires_grad(true);
        let (handle, master) = (tensor.shallow_clone(), tensor.detach());
        self.entries.push(Param {
            name: name.into(),
            tensor,
            master,
            is_matmul_weight: false,
            decay,
        });
        handle
    }

    /// Marks, by their names, the parameters that the encoder's matrix products read.
    pub fn mark_matmul_weights(&mut self, is_matmul_weight: impl Fn(&str) -> bool) {
        self.entries
            .iter_mut()
            .for_each(|p| p.is_matmul_weight = is_matmul_weight(&p.name));
    }

    /// Rounds the leaves of matrix products to a precision, once for all passes until the weights
    /// change. Their gradients then come in that precision. Without this each pass rounds for
    /// itself, with the same result.
    pub fn round(&self, precision: Precision) {
        let _guard = tch::no_grad_guard();
        for param in self
            .entries
            .iter()
            .filter(|p| p.is_matmul_weight && precision != Precision::Fp32)
        {
            param
                .tensor
                .shallow_clone()
                .set_data(&precision.cast(&param.master));
        }
    }

    /// Writes the weights under their reference names.
    pub fn write(&self, path: &Path) -> Result<()> {
        write_tensors(path, self.iter().map(|p| (p.name.clone(), &p.master)))
    }

    /// Replaces the weights by a file's; names and shapes must agree, and nothing is changed before
    /// all do.
    pub fn read(&self, path: &Path) -> Result<()> {
        self.assign(path, &mut TensorFile::read(path)?, "")
    }

    /// Replaces the weights by `prefix + name` of an open file.
    pub fn assign(&self, path: &Path, file: &mut TensorFile, prefix: &str) -> Result<()> {
        let mut values = Vec::new();
        for param in self.iter() {
            let value = file.take(path, &format!("{prefix}{}", param.name))?;
            if !value.is_floating_point() {
                let problem = format!("{:?} holds {:?}, not floats", param.name, value.kind());
                let fix = "use a checkpoint that is not quantized";
                return Err(Error::file(path, problem, fix));
            }
            if value.size() != param.master.size() {
                let problem = format!(
                    "{:?} has shape {:?}, the model's is {:?}",
                    param.name,
                    value.size(),
                    param.master.size()
                );
                return Err(Error::file(
                    path,
                    problem,
                    "use a checkpoint of the same sizes and class count",
                ));
            }
            values.push(value);
        }
        let _guard = tch::no_grad_guard();
        for (param, value) in self.iter().zip(&values) {
            param.master.shallow_clone().copy_(value);
        }
        Ok(())
    }
}
