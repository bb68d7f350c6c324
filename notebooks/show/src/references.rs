//! Reference rows that keep a ladder honest: models with nothing of the student's in them, on the same texts and labels. A linear one over
//! character n-grams, by the crate `fasttext`; and a convolutional one, which also shows what it takes to bring a network of one's own:
//! it implements [`Classifier`] here, and [`kd_lib`]'s loop trains it. No tables, no pictures.

use crate::{OrStop, Study, unusable};
use fasttext::FastText;
use fasttext::args::Args;
use kd_lib::data::{Batch, Corpus, Encoder, Example, Split, Vocabulary};
use kd_lib::metrics::Scores;
use kd_lib::models::{Classifier, Mode, Params, words};
use kd_lib::recipe::{PrecisionChoice, Recipe};
use kd_lib::strategies::{Perturbation, Precision};
use kd_lib::tch::{Device, Kind, Tensor};
use kd_lib::update::Material;
use kd_lib::{Result, progress, run, train};
use std::path::Path;
use std::time::Duration;

/// What a choice is made by, and what is told of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracies {
    /// On dev.
    pub dev: f64,
    /// On test.
    pub test: f64,
}

/// Joulin et al. 2017 (fastText): one linear layer over the mean of the vectors of all character n-grams of up to `longest`, trained for
/// `epochs` on the labels. One thread, so that it is the same each time.
pub fn linear(corpus: &Corpus, longest: i32, epochs: i32) -> Result<Accuracies> {
    let place = Path::new("fasttext");
    let failed = |problem: String| unusable(place, &problem, "is there room in the folder of temporary files?");
    let file = tempfile::NamedTempFile::new().map_err(|e| failed(e.to_string()))?;
    let lines: Vec<String> = corpus.train.iter().map(|e| format!("__label__{} {}", e.label, spaced(&e.text))).collect();
    std::fs::write(file.path(), lines.join("\n") + "\n").map_err(|e| failed(e.to_string()))?;
    let mut args = Args { input: file.path().into(), word_ngrams: longest, ..Args::default() };
    args.apply_supervised_defaults();
    let args = Args { epoch: epochs, lr: 0.5, bucket: 500_000, thread: 1, verbose: 0, ..args };
    let model = FastText::train(args).map_err(|e| failed(e.to_string()))?;
    let right = |e: &&Example| {
        // With the end of a line, whose n-grams it was trained on: the crate's `predict` has none of them.
        let (mut words, mut labels) = (Vec::new(), Vec::new());
        model.dict().get_line_from_str(&(spaced(&e.text) + "</s>"), &mut words, &mut labels);
        let answers = model.predict_on_words(&words, 1, 0.0);
        answers.first().is_some_and(|p| p.label == format!("__label__{}", e.label))
    };
    let accuracy = |split: &[Example]| split.iter().filter(right).count() as f64 / split.len().max(1) as f64;
    Ok(Accuracies { dev: accuracy(&corpus.dev), test: accuracy(&corpus.test) })
}

/// Characters as fastText's words.
fn spaced(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).flat_map(|c| [c, ' ']).collect()
}

/// Characters that it knows at most.
const VOCABULARY: usize = 5000;
/// Numbers of a character's vector.
const EMBEDDING: i64 = 300;
/// Dropout before and after the convolutions.
const DROPOUT: f64 = 0.3;
/// Filters of each width.
const FILTERS: i64 = 256;
/// Characters that a filter sees.
const WIDTHS: [i64; 3] = [2, 3, 4];

/// Kim 2014: characters → embedding → convolutions of three widths → maximum over time → linear. Padding is exact: what a window sees past
/// a text's end are zeros, and windows without a character of the text do not count.
#[derive(Debug)]
pub struct TextCnn {
    params: Params,
    dropout: f64,
    embedding: Tensor,
    filters: [[Tensor; 2]; 3],
    classifier: [Tensor; 2],
}

impl TextCnn {
    /// Random first values from libtorch's generator: embedding N(0, 1), the others U(±1/√fan-in).
    pub fn new(vocabulary: i64, width: i64, classes: i64, dropout: f64) -> TextCnn {
        let mut params = Params::on(Device::Cpu);
        let new = |size: &[i64]| Tensor::empty(size, (Kind::Float, Device::Cpu));
        let mut layer = |name: &str, size: &[i64]| {
            let bound = 1.0 / (size[1..].iter().product::<i64>() as f64).sqrt();
            let weight = params.add(format!("{name}.weight"), new(size).uniform_(-bound, bound), true);
            [weight, params.add(format!("{name}.bias"), new(&size[..1]).uniform_(-bound, bound), false)]
        };
        let filters = WIDTHS.map(|w| layer(&format!("filters{w}"), &[FILTERS, width, w]));
        let classifier = layer("classifier", &[classes, FILTERS * WIDTHS.len() as i64]);
        let embedding = params.add("embedding.weight", new(&[vocabulary, width]).normal_(0.0, 1.0), true);
        TextCnn { params, dropout, embedding, filters, classifier }
    }
}

impl Classifier for TextCnn {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        mode.dropout(&words(&self.embedding, &batch.ids, perturbation), self.dropout)
    }

    fn classify(&self, inputs: &Tensor, batch: &Batch, mode: Mode, _: Precision) -> Tensor {
        let words = inputs.masked_fill(&batch.mask.logical_not().unsqueeze(2), 0.0).transpose(1, 2);
        let pooled = [0, 1, 2].map(|at| {
            let (width, [weight, bias]) = (WIDTHS[at], &self.filters[at]);
            let found = words.conv1d(weight, Some(bias), 1, width - 1, 1, 1).relu();
            let windows = Tensor::arange(found.size()[2], (Kind::Int64, found.device()));
            let beyond = windows.unsqueeze(0).ge_tensor(&(batch.lengths.unsqueeze(1) + (width - 1)));
            found.masked_fill(&beyond.unsqueeze(1), 0.0).amax([2i64].as_slice(), false)
        });
        let pooled = mode.dropout(&Tensor::cat(&pooled, 1), self.dropout);
        pooled.linear(&self.classifier[0], Some(&self.classifier[1]))
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

impl Study {
    /// The linear reference on the texts that `recipe` trains on.
    pub fn linear(&self, recipe: &Recipe, longest: i32, epochs: i32) -> Accuracies {
        self.lab.plan(recipe, &self.corpus).and_then(|plan| linear(&plan.corpus, longest, epochs)).or_stop()
    }

    /// The convolutional reference, trained as `recipe` trains its student (in fp32), interrupted or not.
    pub fn convolutional(&self, recipe: &Recipe) -> Accuracies {
        self.train_convolutional(recipe).or_stop()
    }

    fn train_convolutional(&self, recipe: &Recipe) -> Result<Accuracies> {
        let mut recipe = recipe.clone();
        // Its own settings name the folder too: others are another network.
        let widths = WIDTHS.map(|width| width.to_string()).join("+");
        recipe.name = format!("textcnn-{VOCABULARY}-{EMBEDDING}-{DROPOUT}-{FILTERS}-{widths}");
        (recipe.train.precision, recipe.transfer) = (PrecisionChoice::Fp32, None);
        let plan = self.lab.plan(&recipe, &self.corpus)?;
        let vocabulary = Vocabulary::build(plan.corpus.train.iter().map(|e| e.text.as_str()), VOCABULARY);
        let (size, classes) = (vocabulary.entries().len() as i64, self.corpus.labels.len() as i64);
        let encoder = Encoder::Characters { vocabulary, max_tokens: recipe.data.max_tokens, cut: recipe.data.cut };
        let encoded = |split| encoder.encode_split(plan.corpus.split(split));
        let material = Material { train: encoded(Split::Train)?, dev: encoded(Split::Dev)?, teacher: None };
        kd_lib::tch::manual_seed(recipe.seed as i64);
        let model = TextCnn::new(size, EMBEDDING, classes, DROPOUT);
        let folder = self.lab.checkpoints().join("references").join(&plan.id);
        std::fs::create_dir_all(&folder).map_err(|e| unusable(&folder, &e.to_string(), "make room, or allow it"))?;
        let mut say = progress::lines(std::io::stdout(), Duration::from_secs(10));
        train::train(&plan, &model, &material, &folder, &mut say)?;
        let accuracy = |split| -> Result<f64> {
            let encoded = encoded(split)?;
            let logits = train::evaluate(&model, &encoded, &plan.evaluation(&encoded), plan.precision);
            let labels: Vec<usize> = encoded.labels.iter().map(|&l| l as usize).collect();
            Ok(Scores::of(run::to_array(&logits)?.view(), &labels).accuracy)
        };
        Ok(Accuracies { dev: accuracy(Split::Dev)?, test: accuracy(Split::Test)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_lib::data::Encoded;

    #[test]
    fn a_text_s_logits_do_not_depend_on_its_neighbours() {
        let model = TextCnn::new(9, 6, 3, 0.5);
        let texts = Encoded { ids: vec![vec![2], vec![3, 4, 5, 6, 7, 8]], labels: vec![], pad: 0 };
        let of_first = |rows: &[usize]| {
            model.logits(&Batch::collate(&texts, rows, Device::Cpu), Mode::Eval, Precision::Fp32).get(0)
        };
        assert!((of_first(&[0]) - of_first(&[0, 1])).abs().max().double_value(&[]) < 1e-6);
    }

    #[test]
    fn n_grams_learn_what_two_characters_say_together() {
        let example = |(line, (text, label)): (usize, (&str, usize))| Example { text: text.into(), label, line };
        let texts = [("甲乙", 0), ("乙甲", 1)].repeat(40);
        let split: Vec<Example> = texts.into_iter().enumerate().map(example).collect();
        let labels = vec!["a".to_owned(), "b".to_owned()];
        let corpus = Corpus {
            name: "order".into(),
            labels,
            train: split.clone(),
            dev: split.clone(),
            test: split,
            fingerprint: "0".into(),
        };
        assert_eq!(linear(&corpus, 1, 20).unwrap().dev, 0.5, "without an order the two texts are one");
        assert_eq!(linear(&corpus, 2, 20).unwrap(), Accuracies { dev: 1.0, test: 1.0 });
    }
}
