//! Writes the training curve as a TensorBoard event file, for
//! `tensorboard --logdir checkpoints/runs`: records framed as in TensorFlow (length, its checksum,
//! data, its checksum), messages as in its `event.proto`. This is our own code because the crates
//! for it build a protobuf compiler, and the three messages take thirty lines by `prost`'s
//! encoders.

use crate::training::CurvePoint;
use crate::{Error, Result, error::BUG, files};
use prost::encoding::{self, WireType};
use std::path::Path;

/// `Event`: an update's values. `wall_time` is in seconds; an interrupted run has no one clock, so
/// an update counts as a second.
fn event(step: usize, values: &[(String, f32)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, value) in values {
        let mut message = Vec::new();
        encoding::string::encode(1, tag, &mut message);
        encoding::float::encode(2, value, &mut message);
        embed(1, &message, &mut summary);
    }
    let mut event = Vec::new();
    encoding::double::encode(1, &(step as f64), &mut event);
    encoding::int64::encode(2, &(step as i64), &mut event);
    embed(5, &summary, &mut event);
    event
}

/// `Event`: the version of the format, which begins a file.
fn file_version() -> Vec<u8> {
    let mut event = Vec::new();
    encoding::string::encode(3, &"brain.Event:2".to_owned(), &mut event);
    event
}

/// Appends a message as a field of another.
fn embed(field: u32, message: &[u8], into: &mut Vec<u8>) {
    encoding::encode_key(field, WireType::LengthDelimited, into);
    encoding::encode_varint(message.len() as u64, into);
    into.extend_from_slice(message);
}

/// Writes every value of a curve under its own name.
pub(crate) fn write(path: &Path, curve: &[CurvePoint]) -> Result<()> {
    let mut bytes = record(&file_version());
    for point in curve {
        let fields = serde_json::to_value(point).map_err(Error::in_file(path, BUG))?;
        let mut values = Vec::new();
        for (name, value) in fields.as_object().into_iter().flatten() {
            if let (true, Some(value)) = (name != "step", value.as_f64()) {
                values.push((name.clone(), value as f32));
            }
        }
        bytes.extend(record(&event(point.step, &values)));
    }
    files::write_atomically(path, |temporary| {
        std::fs::write(temporary, bytes).map_err(Error::io(path))
    })
}

/// A record of the file around a message.
fn record(data: &[u8]) -> Vec<u8> {
    let checksum = |bytes: &[u8]| {
        crc32c::crc32c(bytes)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8)
            .to_le_bytes()
    };
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), data, &checksum(data)].concat()
}
