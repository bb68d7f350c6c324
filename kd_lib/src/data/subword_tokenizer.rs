//! A Hugging Face tokenizer, the text prefix that its model was trained with, and the map from the
//! tokenizer's ids to embedding rows. A teacher keeps the tokenizer of its checkpoint and may drop
//! embedding rows ([`SubwordTokenizer::keep_used_rows`]). A student's tokenizer has a smaller
//! vocabulary ([`SubwordTokenizer::shrink_vocabulary`]). See [`super::char_tokenizer`] for characters.

use super::batch::TokenizedSplit;
use super::shrink_vocabulary;
use super::text_input::TextInput;
use super::tokenizer_config::TokenizerConfig;
use super::truncation::{SpecialTokens, Truncation, longest_first};
use crate::{Error, Result, error::BUG, files};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::collections::{BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, EncodeInput, Encoding, Tokenizer};

/// The settings of a saved tokenizer, in the folder of its `tokenizer.json`.
const SETTINGS: &str = "tokenizer_settings.json";
/// Texts whose tokens are in memory at once while pieces are counted.
const ENCODED_TOGETHER: usize = 8192;

/// A tokenizer with its prefix, its truncation and its kept embedding rows.
#[derive(Debug, Clone)]
pub struct SubwordTokenizer {
    /// Neither truncates nor pads. Copies share it: that of a multilingual checkpoint takes a
    /// second to read, and as long to copy.
    tokenizer: Arc<Tokenizer>,
    settings: Settings,
    /// Tokenizer id → row; empty while every row is kept.
    row_of: HashMap<u32, i64>,
}

#[serde_inline_default]
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    prefix: String,
    max_length: usize,
    #[serde(default)]
    truncation: Truncation,
    pad_id: u32,
    unk_id: u32,
    /// Tokenizer ids of the kept rows, ascending; absent if all are kept.
    kept_ids: Option<Vec<u32>>,
    /// Whether the vocabulary was shrunk: then its ids are the rows of its model's embedding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pruned: bool,
    /// Whether special tokens stand around a text.
    #[serde_inline_default(true)]
    #[serde(skip_serializing_if = "bool::clone")]
    special_tokens: bool,
}

/// What the tokenizer makes of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubwordEncoding {
    /// Id of each token.
    pub ids: Vec<u32>,
    /// Of each token, which text of a pair it belongs to, as the tokenizer numbers them.
    pub token_types: Vec<u32>,
    /// Whether the input had more tokens.
    pub truncated: bool,
}

impl SubwordTokenizer {
    /// Opens the tokenizer of a BERT checkpoint folder: `tokenizer.json`, else `vocab.txt`
    /// (WordPiece). The settings of `tokenizer_config.json` that change token ids apply to both. It
    /// has no prefix and truncates nothing.
    pub fn open(folder: &Path) -> Result<SubwordTokenizer> {
        let json = folder.join("tokenizer.json");
        let tokenizer = if json.exists() {
            let mut tokenizer = read_tokenizer(&json)?;
            TokenizerConfig::read(folder)?.apply_to(&mut tokenizer)?;
            tokenizer
        } else {
            word_piece(folder)?
        };
        refuse_without_special_tokens(folder, &tokenizer)?;
        let special = |names: [&str; 2]| names.iter().find_map(|name| tokenizer.token_to_id(name));
        let fix = "use the tokenizer that the checkpoint came with";
        let missing =
            |what: &str| Error::file(folder, format!("the tokenizer has no {what} token"), fix);
        let pad_id = special(["[PAD]", "<pad>"]).ok_or_else(|| missing("padding"))?;
        let unk_id = special(["[UNK]", "<unk>"]).ok_or_else(|| missing("unknown"))?;
        let settings = Settings {
            prefix: String::new(),
            max_length: usize::MAX,
            truncation: Truncation::Head,
            pad_id,
            unk_id,
            kept_ids: None,
            pruned: false,
            special_tokens: true,
        };
        Ok(SubwordTokenizer::assemble(Arc::new(tokenizer), settings))
    }

    /// The same tokenizer with this prefix, which keeps at most `max_length` tokens of a text.
    pub fn with_limit(
        &self,
        prefix: &str,
        max_length: usize,
        truncation: Truncation,
    ) -> SubwordTokenizer {
        let settings = Settings {
            prefix: prefix.to_owned(),
            max_length,
            truncation,
            ..self.settings.clone()
        };
        SubwordTokenizer::assemble(self.tokenizer.clone(), settings)
    }

    /// Whether [`SubwordTokenizer::write`] wrote to this folder.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(SETTINGS).exists()
    }

    /// Opens what [`SubwordTokenizer::write`] wrote.
    pub fn read(folder: &Path) -> Result<SubwordTokenizer> {
        let settings = files::read_json(&folder.join(SETTINGS))?;
        let tokenizer = read_tokenizer(&folder.join("tokenizer.json"))?;
        Ok(SubwordTokenizer::assemble(Arc::new(tokenizer), settings))
    }

    /// Writes `tokenizer.json` and `tokenizer_settings.json`.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join("tokenizer.json");
        let text = self
            .tokenizer
            .to_string(false)
            .map_err(Error::in_file(&path, BUG))?;
        files::write_text(&path, &text)?;
        files::write_json(&folder.join(SETTINGS), &self.settings)
    }

    fn assemble(tokenizer: Arc<Tokenizer>, settings: Settings) -> SubwordTokenizer {
        let kept = settings.kept_ids.iter().flatten().enumerate();
        let row_of = kept.map(|(row, &id)| (id, row as i64)).collect();
        SubwordTokenizer {
            tokenizer,
            settings,
            row_of,
        }
    }

    /// Embedding rows of each text's tokens, special tokens included, without labels. Of a pair
    /// that is too long the longer text is cut first.
    pub fn encode<'a, T: Into<TextInput<'a>> + Copy>(&self, texts: &[T]) -> Result<TokenizedSplit> {
        let mut split = TokenizedSplit {
            pad_id: self.row(self.settings.pad_id),
            ..TokenizedSplit::default()
        };
        let pairs = texts.iter().any(|&text| text.into().text_pair.is_some());
        for part in texts.chunks(ENCODED_TOGETHER) {
            for encoding in self.tokenizer_encodings(part)? {
                let mut rows: Vec<i64> = encoding.ids.iter().map(|&id| self.row(id)).collect();
                if rows.is_empty() {
                    rows.push(self.row(self.settings.unk_id));
                }
                if encoding.truncated {
                    split.truncated.push(split.ids.len());
                }
                split.ids.push(rows);
                if pairs {
                    let types = encoding.token_types.iter().map(|&kind| kind.into());
                    split.token_types.push(types.collect());
                }
            }
        }
        Ok(split)
    }

    /// The tokenizer's own encodings, whose ids do not depend on dropped rows. The prefix stands
    /// before the text, or before the first text of a pair.
    pub fn tokenizer_encodings<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
    ) -> Result<Vec<SubwordEncoding>> {
        let mut inputs: Vec<EncodeInput> = Vec::new();
        for &text in texts {
            let input: TextInput = text.into();
            let first = format!("{}{}", self.settings.prefix, input.text);
            inputs.push(match input.text_pair {
                Some(second) => (first, second).into(),
                None => first.into(),
            });
        }
        let around = self.settings.special_tokens;
        let encode = || self.tokenizer.encode_batch(inputs, around);
        let encodings = without_panic(Path::new("tokenizer.json"), encode)?;
        Ok(encodings.iter().map(|e| self.truncated(e)).collect())
    }

    fn truncated(&self, encoding: &Encoding) -> SubwordEncoding {
        let Settings {
            truncation,
            max_length,
            special_tokens,
            ..
        } = self.settings;
        let (ids, token_types) = (encoding.get_ids(), encoding.get_type_ids());
        if truncation.is_head() {
            let kept = kept_tokens(encoding, max_length);
            return SubwordEncoding {
                truncated: kept.len() < ids.len(),
                ids: kept.iter().map(|&at| ids[at]).collect(),
                token_types: kept.iter().map(|&at| token_types[at]).collect(),
            };
        }
        let special = if special_tokens {
            SpecialTokens::BERT
        } else {
            SpecialTokens::NONE
        };
        SubwordEncoding {
            truncated: ids.len() > max_length,
            ids: truncation.apply(ids.to_vec(), max_length, special),
            token_types: truncation.apply(token_types.to_vec(), max_length, special),
        }
    }

    /// The tokenizer's id of a single character inside a word. If the tokenizer normalizes the
    /// character (a wide comma to a plain one), the id of the result; none if it is unknown.
    pub fn id_of_character(&self, character: &str) -> Option<u32> {
        let normalised = || {
            let encode = || self.tokenizer.encode(character, false);
            let encoding = without_panic(Path::new("tokenizer.json"), encode).ok()?;
            encoding.get_ids().last().copied()
        };
        self.tokenizer
            .token_to_id(character)
            .or_else(normalised)
            .filter(|&id| id != self.settings.unk_id)
    }

    /// Drops the embedding rows that `texts` never use: a Chinese corpus needs a twentieth of a
    /// multilingual vocabulary. Outputs on these texts stay the same. Other subwords become
    /// unknown.
    pub fn keep_used_rows<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
    ) -> Result<SubwordTokenizer> {
        let mut used: BTreeSet<u32> = BTreeSet::new();
        for part in texts.chunks(ENCODED_TOGETHER) {
            for encoding in self.tokenizer_encodings(part)? {
                used.extend(encoding.ids);
            }
        }
        used.extend([self.settings.pad_id, self.settings.unk_id]);
        let settings = Settings {
            kept_ids: Some(used.into_iter().collect()),
            ..self.settings.clone()
        };
        Ok(SubwordTokenizer::assemble(self.tokenizer.clone(), settings))
    }

    /// A tokenizer with at most `size` pieces, those that `texts` use most among them. Texts whose
    /// pieces are all kept are split as before, other pieces into smaller ones.
    pub fn shrink_vocabulary<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
        size: usize,
    ) -> Result<SubwordTokenizer> {
        let whole = self.with_limit(&self.settings.prefix, usize::MAX, Truncation::Head);
        let mut counts_by_id: HashMap<u32, usize> = HashMap::new();
        for part in texts.chunks(ENCODED_TOGETHER) {
            for encoding in whole.tokenizer_encodings(part)? {
                for id in encoding.ids {
                    *counts_by_id.entry(id).or_default() += 1;
                }
            }
        }
        let mut counts: HashMap<String, usize> = HashMap::new();
        for (id, count) in counts_by_id {
            *counts.entry(self.piece(id)).or_default() += count;
        }
        let path = Path::new("tokenizer.json");
        let file = self.tokenizer.to_string(false);
        let file = file.map_err(Error::in_file(path, BUG))?;
        let file = serde_json::from_str(&file).map_err(Error::in_file(path, BUG))?;
        let fix = "choose a checkpoint whose tokenizer is Unigram, WordPiece or BPE";
        let shrunk = shrink_vocabulary::shrink(file, &counts, size)
            .map_err(|problem| Error::file(path, problem, fix))?;
        let tokenizer = without_panic(path, || Tokenizer::from_bytes(shrunk.to_string()))?;
        let new_id = |old| tokenizer.token_to_id(&self.piece(old));
        let missing = || Error::file(path, "no padding or unknown token is left", BUG);
        let settings = Settings {
            pad_id: new_id(self.settings.pad_id).ok_or_else(missing)?,
            unk_id: new_id(self.settings.unk_id).ok_or_else(missing)?,
            pruned: true,
            ..self.settings.clone()
        };
        Ok(SubwordTokenizer::assemble(Arc::new(tokenizer), settings))
    }

    /// The same tokenizer, which puts no special tokens around a text.
    pub fn without_special_tokens(mut self) -> SubwordTokenizer {
        self.settings.special_tokens = false;
        self
    }

    /// Number of rows of the embedding that this tokenizer needs. None if all rows of its
    /// checkpoint's are kept.
    pub fn vocab_size(&self) -> Option<i64> {
        if self.settings.pruned {
            return Some(self.tokenizer.get_vocab_size(true) as i64);
        }
        self.kept_ids().map(|kept| kept.len() as i64)
    }

    /// The highest id of the whole tokenizer; none if it is empty.
    pub fn highest_id(&self) -> Option<u32> {
        self.tokenizer.get_vocab(true).values().copied().max()
    }

    /// The pieces of a shrunk vocabulary, by id.
    pub fn pieces(&self) -> Vec<String> {
        let size = self.tokenizer.get_vocab_size(true) as u32;
        (0..size).map(|id| self.piece(id)).collect()
    }

    /// The tokenizer's id of a piece.
    pub fn id_of_piece(&self, piece: &str) -> Option<u32> {
        self.tokenizer.token_to_id(piece)
    }

    /// The piece with this id of the tokenizer.
    pub fn piece(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }

    /// Whether this is the tokenizer's id of an unknown piece.
    pub fn is_unknown(&self, id: u32) -> bool {
        id == self.settings.unk_id
    }

    /// Whether the vocabulary was shrunk: then its ids are not those of its checkpoint.
    pub fn is_shrunk(&self) -> bool {
        self.settings.pruned
    }

    /// Whether another tokenizer needs the same rows of a checkpoint's embedding, in the same
    /// order.
    pub fn has_rows_of(&self, other: &SubwordTokenizer) -> bool {
        self.is_shrunk() == other.is_shrunk()
            && self.kept_ids() == other.kept_ids()
            && (!self.is_shrunk() || self.pieces() == other.pieces())
    }

    /// Tokenizer ids of the kept rows, if rows were dropped.
    pub fn kept_ids(&self) -> Option<&[u32]> {
        self.settings.kept_ids.as_deref()
    }

    fn row(&self, id: u32) -> i64 {
        match self.settings.kept_ids {
            None => id.into(),
            Some(_) => *self
                .row_of
                .get(&id)
                .unwrap_or_else(|| &self.row_of[&self.settings.unk_id]),
        }
    }
}

fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let mut tokenizer = without_panic(path, || Tokenizer::from_bytes(bytes))?;
    tokenizer.with_padding(None);
    tokenizer
        .with_truncation(None)
        .map_err(Error::in_file(path, BUG))?;
    Ok(tokenizer)
}

/// The positions of at most `max_length` tokens: the special ones, and the first ones of a text, or
/// of both texts of a pair.
fn kept_tokens(encoding: &Encoding, max_length: usize) -> Vec<usize> {
    let positions = 0..encoding.len();
    if encoding.len() <= max_length {
        return positions.collect();
    }
    let text_of = encoding.get_sequence_ids();
    let length = |text: usize| text_of.iter().filter(|&&of| of == Some(text)).count();
    let lengths = [length(0), length(1)];
    let special = encoding.len() - lengths[0] - lengths[1];
    let kept = longest_first(lengths[0], lengths[1], max_length.saturating_sub(special));
    let mut left = [kept.first, kept.second];
    let is_kept = |&position: &usize| match text_of[position] {
        None => true,
        Some(text) if left[text] == 0 => false,
        Some(text) => {
            left[text] -= 1;
            true
        }
    };
    positions.filter(is_kept).collect()
}

/// Calls the crate of tokenizers. It panics on some crafted files; a panic becomes an error.
fn without_panic<T>(path: &Path, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    let fix = "use the tokenizer that the checkpoint came with";
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(Error::in_file(path, fix)),
        Err(_) => Err(Error::file(path, "the tokenizer cannot be used", fix)),
    }
}

/// Refuses a tokenizer that does not put a BERT's special tokens around a text: outputs would
/// differ from the reference's, and an empty text would have no token.
fn refuse_without_special_tokens(folder: &Path, tokenizer: &Tokenizer) -> Result<()> {
    let around_nothing = without_panic(folder, || tokenizer.encode("", true))?;
    if around_nothing.len() >= 2 {
        return Ok(());
    }
    let problem = "the tokenizer puts no special tokens ([CLS] and [SEP]) around a text";
    let fix = "use the checkpoint's own tokenizer.json, whose post_processor adds them, or its \
               vocab.txt alone";
    Err(Error::file(folder, problem, fix))
}

fn word_piece(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("vocab.txt");
    if !path.exists() {
        let others = [
            "sentencepiece.bpe.model",
            "spiece.model",
            "tokenizer.model",
            "merges.txt",
        ];
        let fix = if others.iter().any(|name| folder.join(name).exists()) {
            "save its fast tokenizer as tokenizer.json: \
             AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        } else {
            "copy the one that the checkpoint came with"
        };
        return Err(Error::file(
            folder,
            "no tokenizer.json and no vocab.txt",
            fix,
        ));
    }
    let normalizer = TokenizerConfig::read(folder)?.word_piece_normalizer()?;
    let fix = "a WordPiece vocabulary has one subword a line, [UNK], [CLS] and [SEP] among them";
    let bad = |e: &dyn std::fmt::Display| Error::file(&path, e.to_string(), fix);
    let model = WordPiece::from_file(&path.to_string_lossy())
        .unk_token("[UNK]".into())
        .build()
        .map_err(|e| bad(&e))?;
    let mut tokenizer = Tokenizer::new(model);
    let id = |name: &str| {
        tokenizer
            .token_to_id(name)
            .map(|id| (name.to_owned(), id))
            .ok_or_else(|| bad(&format!("no {name}")))
    };
    let post = BertProcessing::new(id("[SEP]")?, id("[CLS]")?);
    tokenizer
        .with_normalizer(Some(normalizer))
        .with_pre_tokenizer(Some(BertPreTokenizer))
        .with_post_processor(Some(post));
    let added_path = folder.join("added_tokens.json");
    if added_path.exists() {
        let added: HashMap<String, u32> = files::read_json(&added_path)?;
        let unknown = |name: &&String| tokenizer.token_to_id(name.as_str()).is_none();
        if let Some(name) = added.keys().find(unknown) {
            let problem = format!("the token {name:?} is not in vocab.txt");
            let fix = "save the fast tokenizer as tokenizer.json, which holds added tokens";
            return Err(Error::file(&added_path, problem, fix));
        }
    }
    // As in transformers, a special token that a text spells out is that token.
    for name in ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] {
        if tokenizer.token_to_id(name).is_some() {
            tokenizer.add_special_tokens(&[AddedToken::from(name, true)]);
        }
    }
    Ok(tokenizer)
}
