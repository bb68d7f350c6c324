//! A convolutional student (Kim 2014, TextCNN): characters or subwords → embedding → convolutions
//! of several widths → max over time → linear. Padding is exact: a filter sees zeros past a text's
//! end, and windows without a token of the text do not count.

use super::layers::{Linear, Mode, embed_tokens, mean_embedding, new_linear, uniform};
use super::{
    Architecture, Classifier, ForwardPass, ModelOutput, ModelSizes, Params, Perturbation,
    StudentEmbedding, check_dropout, check_width,
};
use crate::data::{Batch, DataConfig};
use crate::precision::Precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Widest filter in tokens.
const MAX_FILTER: i64 = 64;

/// A TextCNN's `[model]` settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextCnnSettings {
    /// Width of a word vector: of a character's or a subword's.
    pub embedding_dim: i64,
    /// Filters of each width.
    pub num_filters: i64,
    /// Tokens that a filter sees, for each group of filters.
    pub filter_widths: Vec<i64>,
    /// Dropout on embedded tokens and pooled features.
    pub dropout: f64,
    /// Entries of the vocabulary that is built from the training texts, at most.
    pub vocab_size: usize,
    /// Standard deviation of the initial word vectors; 1, as in PyTorch, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_init_std: Option<f64>,
    /// Checkpoint folder whose word vectors initialise the embedding, projected on their principal
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained_embeddings: Option<String>,
    /// Checkpoint folder whose subwords split the texts; characters if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// The sizes of the recipe `textcnn`.
impl Default for TextCnnSettings {
    fn default() -> TextCnnSettings {
        TextCnnSettings {
            embedding_dim: 300,
            num_filters: 256,
            filter_widths: vec![2, 3, 4],
            dropout: 0.3,
            vocab_size: 5000,
            embedding_init_std: None,
            pretrained_embeddings: None,
            tokenizer: None,
        }
    }
}

impl TextCnnSettings {
    fn embedding(&self) -> StudentEmbedding<'_> {
        StudentEmbedding {
            vocab_size: self.vocab_size,
            vocab_file: None,
            tokenizer: self.tokenizer.as_deref(),
            pretrained_embeddings: self.pretrained_embeddings.as_deref(),
            embedding_init_std: self.embedding_init_std,
        }
    }
}

impl Architecture for TextCnnSettings {
    fn validate(&self, _: &DataConfig) -> Result<()> {
        check_width("model.embedding_dim", self.embedding_dim)?;
        check_width("model.num_filters", self.num_filters)?;
        let widths = &self.filter_widths;
        if widths.is_empty() || widths.iter().any(|w| !(1..=MAX_FILTER).contains(w)) {
            let fix = "give one width or more, each from 1 to 64 tokens";
            return Err(Error::recipe(
                "model.filter_widths",
                format!("{widths:?}"),
                fix,
            ));
        }
        check_dropout(self.dropout)?;
        self.embedding().validate()
    }

    fn student_embedding(&self) -> Option<StudentEmbedding<'_>> {
        Some(self.embedding())
    }

    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>> {
        Ok(Box::new(TextCnn::new(
            self,
            sizes.vocab_size,
            sizes.num_labels,
            device,
        )))
    }
}

/// The filters of one width.
#[derive(Debug)]
struct Filters {
    /// Tokens that a filter sees.
    width: i64,
    /// `[filters, embedding, width]`, as `conv1d` takes it.
    weight: Tensor,
    /// `[filters]`.
    bias: Tensor,
}

/// The convolutional student.
#[derive(Debug)]
pub struct TextCnn {
    params: Params,
    dropout: f64,
    embedding: Tensor,
    filters: Vec<Filters>,
    classifier: Linear,
}

impl TextCnn {
    /// A new student with PyTorch's initial values: embedding N(0, 1), filters and linear
    /// U(±1/√inputs), from libtorch's generator.
    pub fn new(
        settings: &TextCnnSettings,
        vocab_size: i64,
        num_labels: i64,
        device: Device,
    ) -> TextCnn {
        let TextCnnSettings {
            embedding_dim,
            num_filters,
            dropout,
            ..
        } = *settings;
        let mut params = Params::on(device);
        let vectors = Tensor::randn([vocab_size, embedding_dim], (Kind::Float, Device::Cpu));
        let embedding = params.add("embedding.weight", vectors, true);
        let mut filters = Vec::new();
        for &width in &settings.filter_widths {
            let bound = 1.0 / ((embedding_dim * width) as f64).sqrt();
            let size = [num_filters, embedding_dim, width];
            let name = format!("convolution{width}");
            filters.push(Filters {
                width,
                weight: params.add(format!("{name}.weight"), uniform(&size, bound), true),
                bias: params.add(
                    format!("{name}.bias"),
                    uniform(&[num_filters], bound),
                    false,
                ),
            });
        }
        let features = num_filters * filters.len() as i64;
        let classifier = new_linear(&mut params, "classifier", num_labels, features);
        params.mark_matmul_weights(|name| name.starts_with("convolution"));
        TextCnn {
            params,
            dropout,
            embedding,
            filters,
            classifier,
        }
    }

    /// The maximum over time of each filter's outputs, `[batch, filters]`, from embedded tokens
    /// `[batch, channels, seq]` that are zero past a text's end.
    fn max_over_time(
        &self,
        filters: &Filters,
        tokens: &Tensor,
        batch: &Batch,
        precision: Precision,
    ) -> Tensor {
        let Filters {
            width,
            weight,
            bias,
        } = filters;
        // Inputs of two parts (see `Precision::round_inputs`) have twice the channels.
        let parts = tokens.size()[1] / weight.size()[1];
        let weight = precision
            .cast(&weight.repeat([1, parts, 1]))
            .to_kind(tokens.kind());
        let bias = precision.cast(bias).to_kind(tokens.kind());
        let outputs = tokens.conv1d(&weight, Some(&bias), 1, width - 1, 1, 1);
        let outputs = precision.cast(&outputs).to_kind(Kind::Float).relu();
        let windows = Tensor::arange(outputs.size()[2], (Kind::Int64, outputs.device()));
        let end = batch.lengths.unsqueeze(1) + (width - 1);
        let past_end = windows.unsqueeze(0).ge_tensor(&end).unsqueeze(1);
        outputs
            .masked_fill(&past_end, 0.0)
            .amax([2i64].as_slice(), false)
    }
}

impl Classifier for TextCnn {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        let words = embed_tokens(&self.embedding, &batch.ids, perturbation);
        mode.dropout(&words, self.dropout)
    }

    /// Hidden layer 0 is the mean of the embedded tokens, layer 1 the pooled features.
    fn forward(&self, inputs: &Tensor, batch: &Batch, pass: &ForwardPass) -> ModelOutput {
        let padding = batch.mask.logical_not().unsqueeze(2);
        let tokens = inputs.masked_fill(&padding, 0.0).transpose(1, 2);
        let mut pooled = Vec::new();
        for filters in &self.filters {
            pooled.push(self.max_over_time(filters, &tokens, batch, pass.precision));
        }
        let pooled = Tensor::cat(&pooled, 1);
        let features = pass.mode.dropout(&pooled, self.dropout);
        let logits = self.classifier.forward(&features, Precision::Fp32);
        let hidden = pass.hidden_layers.iter().filter_map(|layer| match layer {
            0 => Some(mean_embedding(inputs, &self.embedding, &batch.mask)),
            1 => Some(pooled.shallow_clone()),
            _ => None,
        });
        ModelOutput {
            logits,
            hidden: hidden.collect(),
        }
    }

    fn hidden_width(&self, layer: usize) -> Option<i64> {
        match layer {
            0 => Some(self.embedding.size()[1]),
            1 => Some(self.classifier.weight.size()[1]),
            _ => None,
        }
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}
