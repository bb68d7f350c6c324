//! Weight files: the package's archive and safetensors, valid and damaged. Whatever the bytes are,
//! the result is a tensor or an error, never a panic.

#[path = "../examples/convert_e5.rs"]
#[allow(dead_code)] // its main
mod e5;

use kd_lib::files::{TensorFile, write_tensors};
use std::collections::HashMap;
use tch::Tensor;

/// A one-layer archive with hidden size 32; every weight of a quantised tensor is (nibble − 8) / 2.
fn archive() -> Vec<u8> {
    let mut head = b"E5S1".to_vec();
    head.extend(1u32.to_le_bytes());
    [32i32, 1, 2, 64, 3, 2, 1]
        .iter()
        .for_each(|n| head.extend(n.to_le_bytes()));
    head.extend(1e-12f32.to_le_bytes());
    head.extend(32i32.to_le_bytes());
    [1i32, 0, 2, 1, 0]
        .iter()
        .for_each(|n| head.extend(n.to_le_bytes())); // pieces, bos, eos, pad, unk
    head.extend(2u64.to_le_bytes());
    head.extend([0u8; 4 * 2 + 4]); // two offsets, one score
    head.extend(b"ab");
    head.extend(0i32.to_le_bytes());
    head.extend(0u32.to_le_bytes());
    let layer = ["q", "k", "v", "ao"]
        .map(|p| (format!("l0.{p}"), 32 * 32))
        .into_iter();
    let layer = layer.chain([("l0.fi".into(), 64 * 32), ("l0.fo".into(), 32 * 64)]);
    let mut tensors: Vec<(String, usize, bool)> = vec![
        ("emb.word".into(), 96, true),
        ("emb.pos".into(), 64, false),
        ("emb.type".into(), 32, false),
    ];
    for (name, size) in layer {
        tensors.push((format!("{name}.w"), size, true));
        tensors.push((
            format!("{name}.b"),
            if name == "l0.fi" { 64 } else { 32 },
            false,
        ));
    }
    for name in ["emb.ln", "l0.aln", "l0.oln"] {
        tensors.extend([
            (format!("{name}.w"), 32, false),
            (format!("{name}.b"), 32, false),
        ]);
    }
    head.extend((tensors.len() as i32).to_le_bytes());
    let table: usize = tensors
        .iter()
        .map(|(n, ..)| 2 + n.len() + 1 + 4 + 8 + 8)
        .sum();
    let (start, mut data) = (head.len() + table, Vec::new());
    for (name, size, quantised) in &tensors {
        let block = [
            half::f16::from_f32(0.5).to_le_bytes().to_vec(),
            vec![0x4c; 16],
        ]
        .concat(); // below 12, above 4
        let bytes = if *quantised {
            block.repeat(size / 32)
        } else {
            0.25f32.to_le_bytes().repeat(*size)
        };
        head.extend((name.len() as u16).to_le_bytes());
        head.extend(name.as_bytes());
        head.push(u8::from(*quantised));
        head.extend((*size as u32).to_le_bytes());
        head.extend(((start + data.len()) as u64).to_le_bytes());
        head.extend((bytes.len() as u64).to_le_bytes());
        data.extend(bytes);
    }
    [head, data].concat()
}

#[test]
fn an_archive_becomes_bert_tensors() {
    let (config, tensors) = e5::parse(&archive()).unwrap();
    assert_eq!(
        (config.hidden_size, config.vocab_size, config.layer_norm_eps),
        (32, 3, 1e-12)
    );
    let named: HashMap<&str, &Tensor> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let word = Vec::<Vec<f32>>::try_from(named["embeddings.word_embeddings.weight"]).unwrap();
    // 12 − 8 = 4, 4 − 8 = −4, times 0.5.
    assert_eq!((word.len(), word[0][0], word[0][16]), (3, 2.0, -2.0));
    assert_eq!(
        named["encoder.layer.0.intermediate.dense.weight"].size(),
        [64, 32]
    );
    assert_eq!(named["encoder.layer.0.output.LayerNorm.bias"].size(), [32]);
}

#[test]
fn a_truncated_or_changed_archive_does_not_panic() {
    let valid = archive();
    for length in 0..valid.len() {
        assert!(e5::parse(&valid[..length]).is_err(), "{length} bytes");
    }
    for at in 0..700 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut broken = valid.clone();
            broken[at] = value;
            let _ = e5::parse(&broken); // an error or another value, no panic
        }
    }
}

#[test]
fn the_error_of_a_damaged_safetensors_file_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let ones = Tensor::ones([4, 3], (tch::Kind::Float, tch::Device::Cpu));
    write_tensors(&path, [("a".to_owned(), &ones)]).unwrap();
    let valid = std::fs::read(&path).unwrap();
    let huge_header = [&u64::MAX.to_le_bytes(), &valid[8..]].concat();
    let beyond = String::from_utf8_lossy(&valid)
        .replacen("[0,48]", "[8,56]", 1)
        .into_bytes();
    for bytes in [
        &valid[..valid.len() / 2],
        &valid[..4],
        &huge_header,
        &beyond,
    ] {
        std::fs::write(&path, bytes).unwrap();
        let message = TensorFile::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("model.safetensors")
                && message.contains("not a sound safetensors file"),
            "{message}"
        );
    }
}
