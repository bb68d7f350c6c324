//! A tokenizer with a smaller vocabulary, for a small student. Texts whose pieces are all kept are
//! split as before; a piece that is not kept is split into smaller ones. The three kinds of model
//! that `tokenizer.json` may hold are supported: Unigram (XLM-R), WordPiece (BERT) and BPE (RoBERTa).
//! [`super::subword_tokenizer`] decides which texts count.

use crate::error::BUG;
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

/// The mark of a piece inside a word, in WordPiece.
const INSIDE_WORD: &str = "##";

/// A tokenizer file with at most `size` pieces. `counts` says how often texts use each piece.
/// Special tokens come first, then single characters, so that an unseen piece can be split, then
/// the most frequent pieces.
///
/// # Errors
/// If the model is of another kind; the error says what it is.
pub(crate) fn shrink(
    mut file: Value,
    counts: &HashMap<String, usize>,
    size: usize,
) -> Result<Value, String> {
    let vocabulary = vocabulary(&file["model"])?;
    let special: Vec<String> = added_tokens(&file);
    let kept = choose(&vocabulary, &special, counts, size);
    let kept = match file["model"]["merges"].as_array() {
        Some(merges) => with_merged_pieces(kept, merges, &vocabulary),
        None => kept,
    };
    let mut pieces: Vec<(&String, u64)> = Vec::new();
    for (piece, &id) in &vocabulary {
        if kept.contains(piece) {
            pieces.push((piece, id));
        }
    }
    pieces.sort_by_key(|&(_, id)| id);
    let mut new_ids: HashMap<String, usize> = HashMap::new();
    for (new, (piece, _)) in pieces.iter().enumerate() {
        new_ids.insert((*piece).clone(), new);
    }
    for token in special {
        let next = new_ids.len();
        new_ids.entry(token).or_insert(next);
    }
    rewrite_model(&mut file["model"], &pieces, &new_ids)?;
    for token in file["added_tokens"].as_array_mut().into_iter().flatten() {
        let id = new_ids[token["content"].as_str().unwrap_or_default()];
        token["id"] = json!(id);
    }
    renumber_special_tokens(&mut file["post_processor"], &new_ids);
    file["padding"] = Value::Null;
    file["truncation"] = Value::Null;
    Ok(file)
}

/// Ids of the model's pieces.
fn vocabulary(model: &Value) -> Result<HashMap<String, u64>, String> {
    let mut vocabulary = HashMap::new();
    match &model["vocab"] {
        Value::Array(entries) => {
            for (id, entry) in (0..).zip(entries) {
                let piece = entry[0].as_str().ok_or(BUG)?;
                vocabulary.insert(piece.to_owned(), id);
            }
        }
        Value::Object(entries) => {
            for (piece, id) in entries {
                vocabulary.insert(piece.clone(), id.as_u64().ok_or(BUG)?);
            }
        }
        _ => return Err(format!("a model of kind {}", model["type"])),
    }
    Ok(vocabulary)
}

fn added_tokens(file: &Value) -> Vec<String> {
    let tokens = file["added_tokens"].as_array().into_iter().flatten();
    let contents = tokens.filter_map(|token| token["content"].as_str());
    contents.map(str::to_owned).collect()
}

/// The pieces to keep.
fn choose(
    vocabulary: &HashMap<String, u64>,
    special: &[String],
    counts: &HashMap<String, usize>,
    size: usize,
) -> HashSet<String> {
    let mut characters: HashMap<String, usize> = HashMap::new();
    for (piece, count) in counts {
        let inside = piece.starts_with(INSIDE_WORD) && piece.len() > INSIDE_WORD.len();
        let bare = if inside {
            &piece[INSIDE_WORD.len()..]
        } else {
            piece
        };
        for character in bare.chars() {
            for single in [character.to_string(), format!("{INSIDE_WORD}{character}")] {
                if vocabulary.contains_key(&single) {
                    *characters.entry(single).or_default() += count;
                }
            }
        }
    }
    let by_count = |pieces: &HashMap<String, usize>| {
        let known = pieces
            .iter()
            .filter(|(piece, _)| vocabulary.contains_key(*piece));
        let mut ranked: Vec<(String, usize)> = known.map(|(p, n)| (p.clone(), *n)).collect();
        ranked.sort_by_key(|(piece, count)| (Reverse(*count), vocabulary[piece]));
        ranked.into_iter().map(|(piece, _)| piece)
    };
    let ranked = special
        .iter()
        .cloned()
        .chain(by_count(&characters))
        .chain(by_count(counts));
    let mut kept = HashSet::new();
    for piece in ranked {
        if kept.len() >= size.max(special.len()) {
            break;
        }
        kept.insert(piece);
    }
    kept
}

/// BPE reaches a piece by merging two others: these are kept too, and the alphabet, so that no text
/// has an unknown piece.
fn with_merged_pieces(
    mut kept: HashSet<String>,
    merges: &[Value],
    vocabulary: &HashMap<String, u64>,
) -> HashSet<String> {
    // A merge's halves are made by earlier merges, so one pass from the last to the first is
    // enough.
    for merge in merges.iter().rev() {
        if let Some((left, right)) = halves(merge)
            && kept.contains(&format!("{left}{right}"))
        {
            kept.insert(left);
            kept.insert(right);
        }
    }
    let alphabet = vocabulary.keys().filter(|piece| piece.chars().count() == 1);
    kept.extend(alphabet.cloned());
    kept
}

/// The two pieces of a merge, which is `["a", "b"]` or `"a b"`.
fn halves(merge: &Value) -> Option<(String, String)> {
    let (left, right) = match merge {
        Value::String(text) => text.split_once(' ')?,
        _ => (merge[0].as_str()?, merge[1].as_str()?),
    };
    Some((left.to_owned(), right.to_owned()))
}

fn rewrite_model(
    model: &mut Value,
    pieces: &[(&String, u64)],
    new_ids: &HashMap<String, usize>,
) -> Result<(), String> {
    if let Some(unknown) = model["unk_id"].as_u64() {
        let found = pieces.iter().position(|&(_, id)| id == unknown);
        model["unk_id"] = json!(found);
    }
    model["vocab"] = match model["vocab"].take() {
        Value::Array(mut entries) => {
            let kept = pieces.iter().map(|&(_, id)| entries[id as usize].take());
            Value::Array(kept.collect())
        }
        _ => {
            let numbered = pieces
                .iter()
                .map(|(piece, _)| ((*piece).clone(), json!(new_ids[*piece])));
            Value::Object(Map::from_iter(numbered))
        }
    };
    if let Some(merges) = model["merges"].as_array_mut() {
        merges.retain(|merge| {
            halves(merge).is_some_and(|(left, right)| {
                let all = [format!("{left}{right}"), left, right];
                all.iter().all(|piece| new_ids.contains_key(piece))
            })
        });
    }
    Ok(())
}

/// Writes the new ids of special tokens into a post-processor.
fn renumber_special_tokens(processor: &mut Value, new_ids: &HashMap<String, usize>) {
    for inner in processor["processors"].as_array_mut().into_iter().flatten() {
        renumber_special_tokens(inner, new_ids);
    }
    for key in ["sep", "cls"] {
        let id = processor[key][0]
            .as_str()
            .and_then(|token| new_ids.get(token));
        if let Some(id) = id {
            processor[key][1] = json!(id);
        }
    }
    let templates = processor["special_tokens"].as_object_mut();
    for token in templates.into_iter().flat_map(|tokens| tokens.values_mut()) {
        let names = token["tokens"].as_array().into_iter().flatten();
        let ids = names.filter_map(|name| new_ids.get(name.as_str()?));
        token["ids"] = json!(ids.collect::<Vec<_>>());
    }
}
