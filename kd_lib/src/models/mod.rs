//! Networks: tokens in, [`ModelOutput`] out. A network is one file ([`bert`], [`bilstm`]): its
//! settings, their validation, its construction and its forward pass. Students share one file for
//! their tokenizer and their initial word vectors ([`student_embedding`]). The settings implement
//! [`Architecture`], the network implements [`Classifier`]. Nothing here knows a loss or
//! a recipe's file.

pub mod bert;
pub mod bilstm;
pub mod checkpoint;
pub mod fasttext;
pub mod layers;
pub mod params;
pub mod perturbation;
pub mod student_embedding;
pub mod textcnn;

pub use bert::{Bert, BertSettings, Pooling};
pub use bilstm::{BiLstm, BiLstmSettings};
pub use checkpoint::{BertConfig, Checkpoint};
pub use fasttext::FastTextSettings;
pub use layers::{Mode, embed_tokens};
pub use params::{Param, Params};
pub use perturbation::{NormOver, Perturbation};
pub use student_embedding::StudentEmbedding;
pub use textcnn::TextCnnSettings;

use crate::data::{Batch, DataConfig, TextInput, Tokenizer};
use crate::precision::{Parts, Precision};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Tensor};

/// What a network computes from a batch.
#[derive(Debug)]
pub struct ModelOutput {
    /// `[batch, classes]`, fp32.
    pub logits: Tensor,
    /// One pooled vector `[batch, width]` for each requested layer, in the order of the request.
    pub hidden: Vec<Tensor>,
}

/// How a forward pass is computed.
#[derive(Debug, Clone, Copy)]
pub struct ForwardPass<'a> {
    /// Whether dropout acts.
    pub mode: Mode,
    /// Dtype of the encoder's matrix products.
    pub precision: Precision,
    /// Layers whose pooled states are wanted: 0 is the embedding, 1 the first layer. No pooled
    /// state is computed if none is wanted.
    pub hidden_layers: &'a [usize],
}

impl ForwardPass<'_> {
    /// A pass without dropout that gives logits alone.
    pub fn evaluation(precision: Precision) -> ForwardPass<'static> {
        ForwardPass {
            mode: Mode::Eval,
            precision,
            hidden_layers: &[],
        }
    }
}

/// A text classifier in two halves: the embedding, and everything after it. Inputs are rounded to
/// the precision between the halves, and an adversarial perturbation acts in the first.
pub trait Classifier: Debug + Send {
    /// The embedded tokens, which the first matmul reads after rounding: fp32
    /// `[batch, seq, width]`. A perturbation is added to the word vectors.
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor;

    /// Logits (always fp32) and pooled hidden states from embedded tokens that
    /// [`Precision::round_inputs`] has rounded. `inputs` is `[batch, seq, width]`. In the
    /// adversarial passes under bf16 or fp16 it is `[batch, seq, 2 · width]`, see [`Parts::Two`].
    /// [`layers::Linear`] takes both. Another first layer repeats its weights
    /// ([`layers::repeat_for_parts`]) or adds the
    /// rounded values and their rounded remainders ([`crate::precision::combine_parts`]).
    fn forward(&self, inputs: &Tensor, batch: &Batch, pass: &ForwardPass) -> ModelOutput;

    /// Width of a layer's pooled state; none if there is no such layer.
    fn hidden_width(&self, _layer: usize) -> Option<i64> {
        None
    }

    /// The parameter that adversarial training perturbs, `[vocab, width]`; a fastText's has rows of
    /// n-grams too.
    fn word_embedding(&self) -> &Tensor;

    /// All parameters.
    fn params(&self) -> &Params;

    /// Logits `[batch, classes]`: both halves, without a perturbation.
    fn logits(&self, batch: &Batch, mode: Mode, precision: Precision) -> Tensor {
        let embedded = self.embed(batch, mode, None);
        let inputs = precision.round_inputs(&embedded, Parts::One);
        let pass = ForwardPass {
            mode,
            precision,
            hidden_layers: &[],
        };
        self.forward(&inputs, batch, &pass).logits
    }
}

/// Width of a layer's pooled state. `whose` names the model in the error.
///
/// # Errors
/// If the model has no such layer.
pub fn hidden_width(model: &dyn Classifier, layer: usize, whose: &str) -> Result<i64> {
    model.hidden_width(layer).ok_or_else(|| {
        let problem = format!("{whose} has no layer {layer}");
        let fix = "name a layer that the model has; 0 is its embedding";
        Error::recipe("objective", problem, fix)
    })
}

/// The number of a model's last layer that has a pooled state.
pub fn last_layer(model: &dyn Classifier) -> usize {
    let has_state = |layer: &usize| model.hidden_width(*layer).is_some();
    (0..).take_while(has_state).last().unwrap_or_default()
}

/// The texts that a tokenizer may be built from.
#[derive(Debug, Clone, Copy)]
pub struct TokenizerTexts<'a> {
    /// Labelled training texts of the run.
    pub train: &'a [TextInput<'a>],
    /// Real texts of the transfer set (no augmented ones).
    pub unlabelled: &'a [TextInput<'a>],
    /// All texts of the corpus: train, dev and test.
    pub full_corpus: &'a [TextInput<'a>],
}

/// Sizes that a network gets from its data: with these and its settings it can be built again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSizes {
    /// Rows of the word embedding.
    pub vocab_size: i64,
    /// Number of classes.
    pub num_labels: i64,
    /// The sizes of the checkpoint that the network is initialised from, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<BertConfig>,
}

/// Trained weights that a network may begin from.
#[derive(Debug, Clone, Copy, Default)]
pub struct InitialWeights<'a> {
    /// The checkpoint that [`Architecture::checkpoint`] names.
    pub checkpoint: Option<&'a Checkpoint>,
    /// Folder of the teacher's finished run, in a distillation.
    pub teacher: Option<&'a Path>,
}

/// The settings of one kind of network, and all that the rest of the crate needs of it. To add a
/// network, implement this and [`Classifier`], and add a variant to [`ModelConfig`]; a network of a
/// notebook or of another crate uses [`CustomModel`].
pub trait Architecture: Debug + Send + Sync {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    fn validate(&self, data: &DataConfig) -> Result<()>;

    /// How a student reads texts and which word vectors initialise its embedding, if its settings
    /// say so with a [`StudentEmbedding`]. Then the type need not implement `checkpoint`, `files`,
    /// `tokenizer` and `initialize`.
    fn student_embedding(&self) -> Option<StudentEmbedding<'_>> {
        None
    }

    /// Name of the checkpoint folder that the network needs.
    fn checkpoint(&self) -> Option<&str> {
        self.student_embedding()?.checkpoint()
    }

    /// Whether the network is initialised from its teacher's weights.
    fn initializes_from_teacher(&self) -> bool {
        false
    }

    /// The head that is initialised from a linear probe, if the settings ask for that.
    fn probed_head(&self, _sizes: &ModelSizes) -> Option<ProbedHead> {
        None
    }

    /// Other files whose bytes are part of the run's id.
    fn files(&self) -> Vec<PathBuf> {
        let vocab_file = self.student_embedding().and_then(|e| e.vocab_file);
        vocab_file.map(Path::to_path_buf).into_iter().collect()
    }

    /// The tokenizer for a run's texts. `checkpoint` is the one that
    /// [`Architecture::checkpoint`] names.
    ///
    /// # Errors
    /// If the network has neither a [`StudentEmbedding`] nor a tokenizer of its own.
    fn tokenizer(
        &self,
        data: &DataConfig,
        texts: &TokenizerTexts,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Tokenizer> {
        let Some(embedding) = self.student_embedding() else {
            let fix = "implement Architecture::tokenizer or Architecture::student_embedding";
            return Err(Error::recipe(
                "model.kind",
                "a network without a tokenizer",
                fix,
            ));
        };
        embedding.build_tokenizer(data, texts, checkpoint)
    }

    /// The network with random initial values from libtorch's generator.
    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>>;

    /// Replaces random initial values by trained ones, if the settings ask for that.
    fn initialize(
        &self,
        model: &dyn Classifier,
        tokenizer: &Tokenizer,
        sources: &InitialWeights,
    ) -> Result<()> {
        match self.student_embedding() {
            Some(embedding) => {
                embedding.initialize(model.word_embedding(), tokenizer, sources.checkpoint)
            }
            None => Ok(()),
        }
    }
}

/// A linear head on the pooled states of a layer, which can be initialised from a linear probe.
#[derive(Debug, Clone, Copy)]
pub struct ProbedHead {
    /// The layer.
    pub layer: usize,
    /// Name of the parameter `[class, width]`.
    pub weight: &'static str,
    /// Name of the parameter `[class]`.
    pub bias: &'static str,
}

/// Which network: `[model]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ModelConfig {
    /// A BERT checkpoint with a new classification head.
    Bert(BertSettings),
    /// Characters or subwords → embedding → bidirectional LSTM → max over time → linear.
    Bilstm(BiLstmSettings),
    /// Characters or subwords → embedding → convolutions → max over time → linear.
    Textcnn(TextCnnSettings),
    /// Characters or subwords and their n-grams → mean of their vectors → linear.
    Fasttext(FastTextSettings),
    /// A network that a notebook or another crate defines.
    Custom(CustomModel),
}

/// The kinds of [`ModelConfig`], as recipes name them.
pub const MODEL_KINDS: [&str; 5] = ["bert", "bilstm", "textcnn", "fasttext", "custom"];

impl ModelConfig {
    /// The settings as an architecture.
    ///
    /// # Errors
    /// If the network is a custom one that this program does not have.
    pub fn architecture(&self) -> Result<&dyn Architecture> {
        match self {
            ModelConfig::Bert(settings) => Ok(settings),
            ModelConfig::Bilstm(settings) => Ok(settings),
            ModelConfig::Textcnn(settings) => Ok(settings),
            ModelConfig::Fasttext(settings) => Ok(settings),
            ModelConfig::Custom(custom) => custom.architecture(),
        }
    }
}

/// A network of a notebook or of another crate. Its name, version and settings enter the run's id;
/// raise the version when the code changes, so that the run of the older code is not found.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomModel {
    /// The network's name.
    pub name: String,
    /// Version of its code.
    pub version: u32,
    /// Its settings.
    pub settings: serde_json::Value,
    #[serde(skip)]
    architecture: Option<Arc<dyn Architecture>>,
}

impl CustomModel {
    /// A recipe's model with an architecture of one's own. `settings` are stored in the recipe.
    pub fn config(
        name: &str,
        version: u32,
        settings: serde_json::Value,
        architecture: impl Architecture + 'static,
    ) -> ModelConfig {
        ModelConfig::Custom(CustomModel {
            name: name.to_owned(),
            version,
            settings,
            architecture: Some(Arc::new(architecture)),
        })
    }

    fn architecture(&self) -> Result<&dyn Architecture> {
        self.architecture.as_deref().ok_or_else(|| {
            let problem = format!(
                "{:?}, version {}, is not in this program",
                self.name, self.version
            );
            let fix = "open the run in the notebook or program that defines the model";
            Error::recipe("model.name", problem, fix)
        })
    }
}

impl PartialEq for CustomModel {
    fn eq(&self, other: &CustomModel) -> bool {
        (&self.name, self.version, &self.settings) == (&other.name, other.version, &other.settings)
    }
}

/// Widest layer: a larger number is a typing error.
const MAX_WIDTH: i64 = 10_000;

/// Refuses a layer without units, or a width that can only be a typing error.
pub fn check_width(key: &str, width: i64) -> Result<()> {
    if (1..=MAX_WIDTH).contains(&width) {
        return Ok(());
    }
    Err(Error::recipe(key, width.to_string(), "choose 1 to 10,000"))
}

/// Refuses a vocabulary without room for a character in addition to padding and `<UNK>`.
pub fn check_vocab_size(size: usize) -> Result<()> {
    if size >= 3 {
        return Ok(());
    }
    let fix = "choose 3 or more: padding and unknown characters take two entries";
    Err(Error::recipe("model.vocab_size", size.to_string(), fix))
}

/// Refuses a dropout that is not a probability below 1.
pub fn check_dropout(dropout: f64) -> Result<()> {
    if (0.0..1.0).contains(&dropout) {
        return Ok(());
    }
    let fix = "choose 0 or more, below 1";
    Err(Error::recipe("model.dropout", dropout.to_string(), fix))
}

/// Refuses a standard deviation of 0 or below, or one that is not finite.
pub fn check_embedding_init_std(std: f64) -> Result<()> {
    if std > 0.0 && std.is_finite() {
        return Ok(());
    }
    let fix = "choose a number above 0";
    Err(Error::recipe(
        "model.embedding_init_std",
        std.to_string(),
        fix,
    ))
}
