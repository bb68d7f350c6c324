//! `tokenizer_config.json`: the settings that transformers gives a tokenizer whatever its
//! `tokenizer.json` says. For BertTokenizer and RobertaTokenizer whose normalizer or pre-tokenizer
//! stands alone, the ids are those of transformers 4.57 and 5.24. Other classes, a class that only
//! `config.json` names, truncation and padding are not read.

use crate::{Error, Result, files};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// Where transformers looks for the settings.
const FILE: &str = "tokenizer_config.json";
const BERT: [&str; 2] = ["BertTokenizer", "BertTokenizerFast"];
const ROBERTA: [&str; 2] = ["RobertaTokenizer", "RobertaTokenizerFast"];

/// The settings that decide a BERT's or RoBERTa's token ids. An absent one has the default that
/// transformers gives it.
#[derive(Debug, Deserialize, Default)]
pub(super) struct TokenizerConfig {
    #[serde(skip)]
    path: PathBuf,
    tokenizer_class: Option<String>,
    do_lower_case: Option<bool>,
    strip_accents: Option<bool>,
    tokenize_chinese_chars: Option<bool>,
    do_basic_tokenize: Option<bool>,
    add_prefix_space: Option<bool>,
}

impl TokenizerConfig {
    /// Reads the settings in a checkpoint's folder. Without the file, all are absent.
    pub(super) fn read(folder: &Path) -> Result<TokenizerConfig> {
        let path = folder.join(FILE);
        let config = if path.exists() {
            files::read_json(&path)?
        } else {
            TokenizerConfig::default()
        };
        Ok(TokenizerConfig { path, ..config })
    }

    fn has_class(&self, classes: [&str; 2]) -> bool {
        let class = self.tokenizer_class.as_deref();
        class.is_none_or(|class| classes.contains(&class))
    }

    /// Changes what `tokenizer.json` says where transformers would. Classes other than BERT's and
    /// RoBERTa's take `tokenizer.json` as it is.
    ///
    /// # Errors
    /// If `tokenizer.json` contradicts a default of transformers, and no setting is stated: then it
    /// is open which of the two the model was trained with.
    pub(super) fn apply_to(&self, tokenizer: &mut Tokenizer) -> Result<()> {
        if let Some(NormalizerWrapper::BertNormalizer(found)) = tokenizer.get_normalizer()
            && self.has_class(BERT)
        {
            let normalizer = self.normalizer(found)?;
            tokenizer.with_normalizer(Some(normalizer));
        }
        if let Some(PreTokenizerWrapper::ByteLevel(found)) = tokenizer.get_pre_tokenizer()
            && self.has_class(ROBERTA)
        {
            let key = "add_prefix_space";
            let space = self.decide(key, self.add_prefix_space, false, found.add_prefix_space)?;
            let pre_tokenizer = ByteLevel::new(space, found.trim_offsets, found.use_regex);
            tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        }
        Ok(())
    }

    fn normalizer(&self, found: &BertNormalizer) -> Result<BertNormalizer> {
        let lowercase = self.decide("do_lower_case", self.do_lower_case, true, found.lowercase)?;
        let chinese_chars = self.decide(
            "tokenize_chinese_chars",
            self.tokenize_chinese_chars,
            true,
            found.handle_chinese_chars,
        )?;
        // An absent value stands for that of lowercase.
        let strips = found.strip_accents.unwrap_or(lowercase);
        let strip_accents = self.decide("strip_accents", self.strip_accents, lowercase, strips)?;
        let stated = (strip_accents != lowercase).then_some(strip_accents);
        Ok(BertNormalizer::new(
            found.clean_text,
            chinese_chars,
            found
                .strip_accents
                .filter(|_| strips == strip_accents)
                .or(stated),
            lowercase,
        ))
    }

    /// The stated value, else the default, which must be that of `tokenizer.json`.
    fn decide(&self, key: &str, stated: Option<bool>, default: bool, found: bool) -> Result<bool> {
        if stated.is_none() && found != default {
            let problem = format!(
                "{key} is not stated. tokenizer.json says {found}, and transformers would \
                 take {default}"
            );
            let fix = format!("write {{\"{key}\": true}} or {{\"{key}\": false}} into this file");
            return Err(Error::file(&self.path, problem, fix));
        }
        Ok(stated.unwrap_or(default))
    }

    /// The normalizer of a checkpoint that has no `tokenizer.json`.
    ///
    /// # Errors
    /// If its tokenizer is not BERT's.
    pub(super) fn word_piece_normalizer(&self) -> Result<BertNormalizer> {
        let fix = "save its fast tokenizer as tokenizer.json beside the weights";
        if !self.has_class(BERT) {
            let class = self.tokenizer_class.as_deref().unwrap_or_default();
            let problem = format!("tokenizer_class {class:?} is not read from vocab.txt");
            return Err(Error::file(&self.path, problem, fix));
        }
        if self.do_basic_tokenize == Some(false) {
            let problem = "do_basic_tokenize = false is not read from vocab.txt";
            return Err(Error::file(&self.path, problem, fix));
        }
        Ok(BertNormalizer::new(
            true,
            self.tokenize_chinese_chars.unwrap_or(true),
            self.strip_accents,
            self.do_lower_case.unwrap_or(true),
        ))
    }
}
