//! From files to tensors: [`corpus`] or [`import`](mod@import) ([`splits`] draws what is missing) →
//! [`config`] (the selection of examples) and the [`transfer_set`] → [`tokenizer`] (characters or
//! subwords) → [`batch`]. Nothing here knows a model or a loss.

pub mod batch;
pub mod char_tokenizer;
pub mod columns;
pub mod config;
pub mod corpus;
pub mod csv_rows;
pub mod data_quality;
pub mod import;
pub mod lines;
pub mod near_duplicates;
pub(crate) mod shrink_vocabulary;
pub mod splits;
pub mod subword_tokenizer;
pub mod text_files;
pub mod text_input;
pub mod text_stream;
pub mod text_table;
pub mod tokenizer;
mod tokenizer_config;
pub mod transfer_set;
pub mod transfer_text;
pub mod truncation;
pub(crate) mod unlabelled;

pub use batch::{Batch, TokenizedSplit};
pub use char_tokenizer::{CharTokenizer, Vocabulary};
pub use columns::ColumnOptions;
pub use config::{DataConfig, Selection};
pub use corpus::{Corpus, Split};
pub use data_quality::DataQuality;
pub use import::import;
pub use subword_tokenizer::SubwordTokenizer;
pub use text_files::Example;
pub use text_input::TextInput;
pub use tokenizer::Tokenizer;
pub use transfer_set::{Augmentation, AugmentationUnit, TransferConfig};
pub use transfer_text::TransferText;
pub use truncation::Truncation;
