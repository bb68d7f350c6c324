//! From files to tensors: [`corpus`] (and its [`transfer`] set) → [`encoder`] (characters or word pieces) → [`batch`].
//! Nothing here knows a model or a loss.

pub mod batch;
pub mod corpus;
pub mod encoder;
pub mod format;
pub mod hygiene;
pub mod pieces;
pub mod transfer;
pub mod vocabulary;

pub use batch::{Batch, Encoded};
pub use corpus::{Corpus, Example, Split};
pub use encoder::{Cut, Encoder};
pub use hygiene::Hygiene;
pub use pieces::Pieces;
pub use transfer::{Extra, Transfer};
pub use vocabulary::Vocabulary;
