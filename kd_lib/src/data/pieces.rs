//! The teacher's tokenizer: a Hugging Face tokenizer, the text prefix its model was trained with, and the
//! map from the tokenizer's ids to the embedding rows that were kept (see [`Pieces::keep_only`]).

use super::encoder::Cut;
use crate::{Error, Result, error::BUG, files};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{Tokenizer, TruncationParams};

/// A tokenizer with its prefix, its cut and its kept rows.
#[derive(Debug, Clone)]
pub struct Pieces {
    tokenizer: Tokenizer,
    settings: Settings,
    /// Tokenizer id → row; empty while every row is kept.
    row_of: HashMap<u32, i64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    prefix: String,
    max_tokens: usize,
    #[serde(default)]
    cut: Cut,
    pad: u32,
    unk: u32,
    /// Tokenizer ids of the kept rows, ascending; absent where all are kept.
    kept: Option<Vec<u32>>,
}

impl Pieces {
    /// Opens the tokenizer of a BERT checkpoint folder: `tokenizer.json`, else `vocab.txt` (WordPiece,
    /// lower-cased unless `tokenizer_config.json` says `do_lower_case: false`).
    pub fn open(folder: &Path, prefix: &str, max_tokens: usize, cut: Cut) -> Result<Pieces> {
        let json = folder.join("tokenizer.json");
        let tokenizer = if json.exists() { read_tokenizer(&json)? } else { word_piece(folder)? };
        let special = |names: [&str; 2]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let fix = "use the tokenizer that the checkpoint came with";
        let missing = |what: &str| Error::file(folder, format!("the tokenizer has no {what} token"), fix);
        let pad = special(["[PAD]", "<pad>"]).ok_or_else(|| missing("padding"))?;
        let unk = special(["[UNK]", "<unk>"]).ok_or_else(|| missing("unknown"))?;
        let settings = Settings { prefix: prefix.to_owned(), max_tokens, cut, pad, unk, kept: None };
        Pieces::assemble(folder, tokenizer, settings)
    }

    /// Opens what [`Pieces::write`] wrote.
    pub fn read(folder: &Path) -> Result<Pieces> {
        let settings = files::read_json(&folder.join("pieces.json"))?;
        Pieces::assemble(folder, read_tokenizer(&folder.join("tokenizer.json"))?, settings)
    }

    /// Writes `tokenizer.json` and `pieces.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("tokenizer.json");
        let text = self.tokenizer.to_string(false).map_err(Error::said(&path, BUG))?;
        files::write_text(&path, &text)?;
        files::write_json(&folder.join("pieces.json"), &self.settings)
    }

    fn assemble(folder: &Path, mut tokenizer: Tokenizer, settings: Settings) -> Result<Pieces> {
        let truncation = TruncationParams { max_length: settings.max_tokens, ..TruncationParams::default() };
        tokenizer.with_padding(None);
        // A cut in the middle is made on the ids, which must arrive whole.
        tokenizer
            .with_truncation(settings.cut.is_head().then_some(truncation))
            .map_err(Error::said(folder, "allow more tokens"))?;
        let kept = settings.kept.iter().flatten().enumerate();
        let row_of = kept.map(|(row, &id)| (id, row as i64)).collect();
        Ok(Pieces { tokenizer, settings, row_of })
    }

    /// Embedding rows of each text, special tokens included.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        Ok(self.tokenizer_ids(texts)?.into_iter().map(|ids| ids.into_iter().map(|id| self.row(id)).collect()).collect())
    }

    /// The tokenizer's own ids, before rows were dropped.
    pub fn tokenizer_ids(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>> {
        let inputs: Vec<String> = texts.iter().map(|t| format!("{}{t}", self.settings.prefix)).collect();
        let odd = Error::said(Path::new("tokenizer.json"), "is it the checkpoint's own tokenizer?");
        let encodings = self.tokenizer.encode_batch(inputs, true).map_err(odd)?;
        // The special tokens at both ends stay: one each, as every BERT has them.
        let Settings { cut, max_tokens, .. } = self.settings;
        Ok(encodings.iter().map(|e| cut.apply(e.get_ids().to_vec(), max_tokens, 1, 1)).collect())
    }

    /// The tokenizer's id of a single character as it stands within a word, where it knows it; else of what it reads
    /// instead, as a plain comma for a wide one.
    pub fn of_character(&self, character: &str) -> Option<u32> {
        let normalised = || self.tokenizer.encode(character, false).ok()?.get_ids().last().copied();
        self.tokenizer.token_to_id(character).or_else(normalised).filter(|&id| id != self.settings.unk)
    }

    /// Drops the rows that `texts` never use: of a multilingual vocabulary a Chinese corpus needs a
    /// twentieth. Outputs on these texts stay the same; other pieces are read as unknown afterwards.
    pub fn keep_only(&self, texts: &[&str]) -> Result<Pieces> {
        let mut used: BTreeSet<u32> = self.tokenizer_ids(texts)?.into_iter().flatten().collect();
        used.extend([self.settings.pad, self.settings.unk]);
        let settings = Settings { kept: Some(used.into_iter().collect()), ..self.settings.clone() };
        Pieces::assemble(Path::new("tokenizer.json"), self.tokenizer.clone(), settings)
    }

    /// Tokenizer ids of the kept rows, where rows were dropped; otherwise the checkpoint says how many there are.
    pub fn kept(&self) -> Option<&[u32]> {
        self.settings.kept.as_deref()
    }

    /// Row of the padding token.
    pub fn pad(&self) -> i64 {
        self.row(self.settings.pad)
    }

    fn row(&self, id: u32) -> i64 {
        match self.settings.kept {
            None => id.into(),
            Some(_) => *self.row_of.get(&id).unwrap_or_else(|| &self.row_of[&self.settings.unk]),
        }
    }
}

fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    Tokenizer::from_bytes(bytes).map_err(Error::said(path, "no tokenizer: fetch the checkpoint's own again"))
}

fn word_piece(folder: &Path) -> Result<Tokenizer> {
    #[derive(Deserialize, Default)]
    struct Config {
        do_lower_case: Option<bool>,
    }
    let path = folder.join("vocab.txt");
    if !path.exists() {
        let fix = "copy the one that the checkpoint came with";
        return Err(Error::file(folder, "no tokenizer.json and no vocab.txt", fix));
    }
    let config_path = folder.join("tokenizer_config.json");
    let config: Config = if config_path.exists() { files::read_json(&config_path)? } else { Config::default() };
    let fix = "a WordPiece vocabulary has one piece a line, [UNK], [CLS] and [SEP] among them";
    let bad = |e: &dyn std::fmt::Display| Error::file(&path, e.to_string(), fix);
    let model = WordPiece::from_file(&path.to_string_lossy()).unk_token("[UNK]".into()).build().map_err(|e| bad(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let id = |name: &str| {
        tokenizer.token_to_id(name).map(|id| (name.to_owned(), id)).ok_or_else(|| bad(&format!("no {name}")))
    };
    let post = BertProcessing::new(id("[SEP]")?, id("[CLS]")?);
    tokenizer
        .with_normalizer(Some(BertNormalizer::new(true, true, None, config.do_lower_case.unwrap_or(true))))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(post));
    Ok(tokenizer)
}
