//! Writes the training curve as a TensorBoard event file, for
//! `tensorboard --logdir checkpoints/runs`: records framed as in TensorFlow (length, its checksum,
//! data, its checksum), messages as in its `event.proto`. This is our own code because the crates
//! for it build a protobuf compiler.

use crate::training::CurvePoint;
use crate::{Error, Result, error::BUG, files};
use prost::Message;
use std::path::Path;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// In seconds. An interrupted run has no one clock, so an update counts as a second.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, tag = "3")]
    file_version: String,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Writes every value of a curve under its own name.
pub(crate) fn write(path: &Path, curve: &[CurvePoint]) -> Result<()> {
    let mut bytes = record(&Event {
        file_version: "brain.Event:2".into(),
        ..Event::default()
    });
    for point in curve {
        let values = serde_json::to_value(point).map_err(Error::in_file(path, BUG))?;
        let named = values
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != "step");
        let value = |(name, value): (&String, &serde_json::Value)| {
            Some(Value {
                tag: name.clone(),
                simple_value: Some(value.as_f64()? as f32),
            })
        };
        let summary = Some(Summary {
            value: named.filter_map(value).collect(),
        });
        let (wall_time, step) = (point.step as f64, point.step as i64);
        bytes.extend(record(&Event {
            wall_time,
            step,
            summary,
            ..Event::default()
        }));
    }
    files::write_atomically(path, |temporary| {
        std::fs::write(temporary, bytes).map_err(Error::io(path))
    })
}

fn record(event: &Event) -> Vec<u8> {
    let checksum = |bytes: &[u8]| {
        crc32c::crc32c(bytes)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8)
            .to_le_bytes()
    };
    let data = event.encode_to_vec();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &checksum(&length), &data, &checksum(&data)].concat()
}
