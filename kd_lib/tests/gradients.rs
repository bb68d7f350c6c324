//! The gradients of an accumulation group match their definitions. Every combination of model,
//! accumulation, precision, objective and adversarial training trains, and the curve shows that
//! each part acted.

use crate::common::{
    TINY_STUDENT, batch, bilstm_settings, distance, lock_generator, recipe, sample, tiny_checkpoint,
};
use kd_lib::data::{Batch, Corpus, TokenizedSplit};
use kd_lib::models::{
    BiLstm, BiLstmSettings, Classifier, ForwardPass, Mode, ModelOutput, NormOver, Params,
    Perturbation, embed_tokens,
};
use kd_lib::objectives::{Kd, KdAsPublished, Objective, loss_of_logits};
use kd_lib::precision::{Parts, Precision, combine_parts};
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::training::gradients::group_gradients;
use kd_lib::training::progress::silent;
use kd_lib::training::{Adversarial, StepConfig, TrainData};
use tch::{Device, Kind, Tensor};

const FGM: Adversarial = Adversarial::Fgm {
    epsilon: 1.0,
    norm_over: NormOver::Matrix,
};
const KD: Kd = Kd {
    temperature: 4.0,
    hard_weight: 0.5,
    soft_weight: 0.5,
};

/// Mean of word vectors, squared so that the loss is not linear in them, → linear; in f64, without
/// dropout.
#[derive(Debug)]
struct Toy {
    params: Params,
    embedding: Tensor,
    weight: Tensor,
}

impl Toy {
    fn new() -> Toy {
        tch::manual_seed(3);
        let mut params = Params::on(Device::Cpu);
        let random = |size: [i64; 2]| Tensor::randn(size, (Kind::Double, Device::Cpu));
        let embedding = params.add("embedding", random([20, 6]), true);
        let weight = params.add("weight", random([3, 6]), true);
        Toy {
            params,
            embedding,
            weight,
        }
    }
}

impl Classifier for Toy {
    fn embed(&self, batch: &Batch, _: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        embed_tokens(&self.embedding, &batch.ids, perturbation)
    }

    fn forward(&self, inputs: &Tensor, batch: &Batch, _: &ForwardPass) -> ModelOutput {
        let mask = batch.mask.to_kind(Kind::Double).unsqueeze(2);
        let sum = (inputs.square() * mask).sum_dim_intlist([1i64].as_slice(), false, None);
        let mean = sum / batch.lengths.to_kind(Kind::Double).unsqueeze(1);
        ModelOutput {
            logits: mean.linear(&self.weight, None::<Tensor>),
            hidden: Vec::new(),
        }
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// Ten texts of several lengths, and a teacher's logits.
fn train_data(classes: i64) -> TrainData {
    let ids: Vec<Vec<i64>> = (0..10)
        .map(|r| (0..3 + r % 4).map(|i| (7 * r + 3 * i) % 20).collect())
        .collect();
    let labels = (0..10).map(|r| r % classes).collect();
    let teacher = Tensor::arange(10 * classes, (Kind::Double, Device::Cpu))
        .view([10, classes])
        .sin()
        * 3;
    TrainData {
        train: TokenizedSplit {
            ids,
            labels,
            ..TokenizedSplit::default()
        },
        dev: TokenizedSplit::default(),
        teacher_logits: Some(teacher),
        teacher_hidden: Vec::new(),
        lines: (1..=10).collect(),
        class_weights: None,
    }
}

fn config(adversarial: Option<Adversarial>) -> StepConfig<'static> {
    StepConfig {
        objective_parameters: &[],
        objective: &KD,
        precision: Precision::Fp32,
        adversarial,
        seed: 1,
        step: 0,
        loss_scale: 1.0,
    }
}

fn small_student(dropout: f64, pool_padding: bool) -> BiLstm {
    let settings = BiLstmSettings {
        pool_padding,
        ..bilstm_settings(8, 8, dropout)
    };
    BiLstm::new(&settings, 20, 3, Device::Cpu)
}

/// Each parameter's gradient over an accumulation group.
fn gradients(
    model: &dyn Classifier,
    config: &StepConfig,
    data: &TrainData,
    group: &[Vec<usize>],
) -> Vec<Tensor> {
    group_gradients(config, model, data, group)
        .unwrap()
        .gradients
}

fn relative(a: &[Tensor], b: &[Tensor]) -> f64 {
    let one = |(x, y): (&Tensor, &Tensor)| distance(x, y) / y.abs().max().double_value(&[]);
    a.iter().zip(b).map(one).fold(0.0, f64::max)
}

#[test]
fn a_group_with_a_smaller_last_micro_batch_has_the_gradient_of_one_large_batch() {
    let _lock = lock_generator();
    let (toy, data) = (Toy::new(), train_data(3));
    let whole = gradients(&toy, &config(None), &data, &[(0..10).collect()]);
    for group in [
        vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]],
        (0..10).map(|r| vec![r]).collect(),
    ] {
        let difference = relative(&gradients(&toy, &config(None), &data, &group), &whole);
        println!("{} micro-batches: {difference:.1e} relative", group.len());
        assert!(difference <= 1e-9);
    }
    let student = small_student(0.0, false);
    let whole = gradients(&student, &config(None), &data, &[(0..10).collect()]);
    let group = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    assert!(relative(&gradients(&student, &config(None), &data, &group), &whole) <= 1e-5);
}

#[test]
fn the_clean_pass_of_adversarial_training_is_the_ordinary_pass() {
    let _lock = lock_generator();
    let (student, data) = (small_student(0.3, false), train_data(3));
    let group = [(0..10).collect()];
    let loss = |adversarial| {
        let config = StepConfig {
            precision: Precision::Bf16,
            ..config(adversarial)
        };
        group_gradients(&config, &student, &data, &group)
            .unwrap()
            .metrics
            .loss
    };
    assert_eq!(loss(Some(FGM)), loss(None));
}

/// The gradients of a group under adversarial training, from the definition. Each micro-batch adds
/// its share of the clean gradient and of the gradient at E + r. Each step adds `alpha` times the
/// direction of the gradient at E + r to r, and projects r onto ‖r‖ ≤ `epsilon`.
fn expected_gradients(
    toy: &Toy,
    data: &TrainData,
    group: &[Vec<usize>],
    [alpha, epsilon]: [f64; 2],
    steps: usize,
) -> Vec<Tensor> {
    let rows: usize = group.iter().map(Vec::len).sum();
    let mut sums: Vec<Tensor> = toy.params.iter().map(|p| p.tensor.zeros_like()).collect();
    for micro in group {
        let share = micro.len() as f64 / rows as f64;
        let gradient = || gradients(toy, &config(None), data, std::slice::from_ref(micro));
        let clean = gradient();
        let (mut adversarial, mut r) = (
            clean.iter().map(Tensor::copy).collect::<Vec<_>>(),
            clean[0].zeros_like(),
        );
        for _ in 0..steps {
            r += &adversarial[0] / adversarial[0].norm() * alpha;
            r *= (epsilon / r.norm().double_value(&[])).min(1.0);
            let _ = tch::no_grad(|| toy.embedding.shallow_clone().g_add_(&r));
            adversarial = gradient();
            let _ = tch::no_grad(|| toy.embedding.shallow_clone().g_sub_(&r));
        }
        for (sum, (a, b)) in sums.iter_mut().zip(clean.iter().zip(&adversarial)) {
            *sum += (a + b) * share;
        }
    }
    sums
}

#[test]
fn adversarial_steps_follow_the_gradient_of_their_own_micro_batch() {
    let _lock = lock_generator();
    let (toy, data) = (Toy::new(), train_data(3));
    let group = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    let pgd = |epsilon| Adversarial::Pgd {
        epsilon,
        alpha: 0.3,
        steps: 3,
        norm_over: NormOver::Matrix,
    };
    for (adversarial, lengths, steps) in [
        (FGM, [1.0, 1.0], 1),
        (pgd(1.0), [0.3, 1.0], 3),
        (pgd(0.4), [0.3, 0.4], 3),
    ] {
        let expected = expected_gradients(&toy, &data, &group, lengths, steps);
        let before = toy.embedding.copy();
        assert!(
            relative(
                &gradients(&toy, &config(Some(adversarial)), &data, &group),
                &expected
            ) <= 1e-9,
            "{adversarial:?}"
        );
        assert_eq!(
            distance(&toy.embedding, &before),
            0.0,
            "the weights are unchanged"
        );
    }
}

#[test]
fn perturbations_have_the_norm_of_their_definition() {
    let _lock = lock_generator();
    let (toy, texts) = (Toy::new(), batch(&[vec![1, 2, 3], vec![4, 5], vec![6]]));
    for norm_over in [NormOver::Matrix, NormOver::Example] {
        let cases = [
            (
                Adversarial::Fgm {
                    epsilon: 0.5,
                    norm_over,
                },
                vec![0.5],
            ),
            // Three steps of 0.3 along one gradient: 0.3, 0.6, and then the radius.
            (
                Adversarial::Pgd {
                    epsilon: 0.7,
                    alpha: 0.3,
                    steps: 3,
                    norm_over,
                },
                vec![0.3, 0.6, 0.7],
            ),
        ];
        for (adversarial, norms) in cases {
            let mut perturbation = adversarial.zero_perturbation(&toy.embedding, &texts);
            assert_eq!(perturbation.norm(), 0.0);
            let gradient = perturbation.values.ones_like() * 7.0;
            for norm in norms {
                perturbation = adversarial.next_perturbation(&perturbation, &gradient);
                assert!(
                    (perturbation.norm() - norm).abs() < 1e-9,
                    "{adversarial:?}: {}",
                    perturbation.norm()
                );
            }
            let unmoved = adversarial.next_perturbation(
                &adversarial.zero_perturbation(&toy.embedding, &texts),
                &gradient.zeros_like(),
            );
            assert_eq!(unmoved.norm(), 0.0, "a gradient of zero has no direction");
        }
    }
}

/// Two updates of a tiny model with these settings, on a GPU if there is one.
fn two_steps(store: &RunStore, model: &str, settings: &[String]) -> Run {
    let tiny_teacher = [
        "model.checkpoint=tiny",
        "model.pooling=cls",
        "model.prefix=",
        "data.max_length=32",
        "device=auto",
    ];
    let base: &[&str] = if model == "bert" {
        &tiny_teacher
    } else {
        &TINY_STUDENT
    };
    let settings = settings.iter().map(String::as_str).chain(["device=auto"]);
    let settings: Vec<&str> = base.iter().copied().chain(settings).collect();
    let recipe = recipe(
        if model == "bert" {
            "teacher"
        } else {
            "student"
        },
        &settings,
    );
    let teacher = recipe
        .objective
        .objective()
        .unwrap()
        .needs_teacher()
        .then(|| {
            let more = [
                "train.epochs=1",
                "data.max_train_samples=64",
                "train.precision=fp32",
                "seed=9",
            ];
            Box::new(crate::common::recipe(
                "teacher",
                &[&tiny_teacher[..], &more].concat(),
            ))
        });
    store
        .run(
            &Recipe { teacher, ..recipe },
            &Corpus::open(sample()).unwrap(),
            &mut silent,
        )
        .unwrap()
}

#[test]
fn every_combination_trains_and_each_part_acts() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let adversarial_settings = [
        "",
        "{kind=\"fgm\",epsilon=1.0}",
        "{kind=\"pgd\",epsilon=1.0,alpha=0.3,steps=3}",
    ];
    let objectives = [
        "{kind=\"cross_entropy\"}",
        "{kind=\"kd\",temperature=4.0,hard_weight=0.5,soft_weight=0.5}",
    ];
    let mut combinations = 0;
    for model in ["bert", "bilstm"] {
        for accumulation in [1usize, 4] {
            for (precision, expected) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
                for objective in objectives {
                    let mut test_logits = std::collections::HashSet::new();
                    for adversarial in adversarial_settings {
                        let what = format!(
                            "{model} ×{accumulation} {precision} {adversarial} {objective}"
                        );
                        let mut settings = vec![
                            format!("train.gradient_accumulation_steps={accumulation}"),
                            format!("train.precision={precision}"),
                            format!("objective={objective}"),
                            format!("data.max_train_samples={}", 2 * 8 * accumulation),
                            "train.batch_size=8".into(),
                            "train.epochs=1".into(),
                        ];
                        settings.extend(
                            (!adversarial.is_empty()).then(|| format!("adversarial={adversarial}")),
                        );
                        let run = two_steps(&store, model, &settings);
                        assert_eq!(run.report.steps, 2, "{what}");
                        for point in run.curve().unwrap() {
                            assert_eq!(
                                (point.micro_batches, point.compute_dtype),
                                (accumulation, Some(expected)),
                                "{what}"
                            );
                            assert_eq!(
                                point.soft_loss > 0.0,
                                objective.contains("temperature"),
                                "{what}"
                            );
                            assert!(point.hard_loss > 0.0, "{what}");
                            assert_eq!(
                                point.perturbation_norm.is_some(),
                                !adversarial.is_empty(),
                                "{what}"
                            );
                            if let (Some(norm), Some(cosine)) =
                                (point.perturbation_norm, point.perturbation_cosine)
                            {
                                assert!(
                                    norm > 0.1 && cosine >= 0.99,
                                    "{what}: norm {norm}, cosine {cosine}"
                                );
                            }
                        }
                        test_logits.insert(
                            std::fs::read(run.folder().unwrap().join("test.safetensors")).unwrap(),
                        );
                        combinations += 1;
                    }
                    assert_eq!(
                        test_logits.len(),
                        3,
                        "plain training, FGM and PGD give three models"
                    );
                }
            }
        }
    }
    assert_eq!(combinations, 48);
}

#[test]
fn two_parts_keep_the_perturbation_that_one_part_rounds_away() {
    let _lock = lock_generator();
    // The published perturbation: ε = 1 over 5,000 × 300 values of N(0, 1), rounded to bf16.
    tch::manual_seed(4);
    let options = (Kind::Float, Device::Cpu);
    let (values, direction) = (
        Tensor::randn([5000, 300], options),
        Tensor::randn([5000, 300], options),
    );
    let moved = &values + &direction / direction.norm();
    let cosine = |parts: Parts| {
        let rounded = |x: &Tensor| combine_parts(&Precision::Bf16.round_inputs(x, parts), 300);
        let intended = (&moved - &values).flatten(0, -1);
        let seen = (rounded(&moved) - rounded(&values)).flatten(0, -1);
        (intended.dot(&seen) / (intended.norm() * seen.norm())).double_value(&[])
    };
    let [coarse, fine] = [cosine(Parts::One), cosine(Parts::Two)];
    println!("cosine to the intended perturbation: one part {coarse:.3}, two parts {fine:.5}");
    assert!(coarse < 0.8 && fine > 0.999);
}

#[test]
fn fp16_skips_updates_that_overflow_and_trains_with_the_others() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "train.precision=fp16",
        "data.max_train_samples=64",
        "train.batch_size=1",
        "train.epochs=12",
        "optimizer.learning_rate=2e-2",
        "model.dropout=0",
    ];
    let settings: Vec<&str> = TINY_STUDENT[..6].iter().copied().chain(more).collect();
    let corpus = Corpus::open(sample()).unwrap();
    let run = RunStore::new(folder.path())
        .run(&recipe("student", &settings), &corpus, &mut silent)
        .unwrap();
    let curve = run.curve().unwrap();
    let (first, last) = (curve[0], curve[curve.len() - 1]);
    println!(
        "{:?} skipped, loss {:.3} → {:.3}",
        last.skipped, first.loss, last.loss
    );
    assert_eq!(last.compute_dtype, Some(Precision::Fp16));
    assert_eq!(
        last.loss_scale.unwrap(),
        65536.0 / 2f64.powi(last.skipped.unwrap() as i32)
    );
    assert!(last.skipped.unwrap() > 0 && last.loss < 0.5 * first.loss);
}

#[test]
fn the_published_soft_loss_is_hintons_divided_by_classes_and_temperature_squared() {
    let _lock = lock_generator();
    let student = Tensor::randn([6, 10], (Kind::Float, Device::Cpu)) * 2;
    let (teacher, labels) = (
        &student.flip([1]) * 1.5,
        Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5]),
    );
    for temperature in [1.0, 5.0, 10.0, 20.0] {
        let soft = |objective: &dyn Objective| {
            let loss = loss_of_logits(objective, &student, &labels, Some(&teacher)).unwrap();
            loss.soft.double_value(&[])
        };
        let textbook = soft(&Kd {
            temperature,
            hard_weight: 1.0,
            soft_weight: 1.0,
        });
        let published = soft(&KdAsPublished {
            temperature,
            hard_weight: 1.0,
            soft_weight: 1.0,
        });
        let expected = 10.0 * temperature * temperature;
        assert!(
            (textbook / published / expected - 1.0).abs() < 1e-4,
            "{}",
            textbook / published
        );
    }
}

#[test]
fn with_the_published_pooling_logits_depend_on_the_other_texts_of_a_batch() {
    let _lock = lock_generator();
    let change = |pool_padding: bool| {
        tch::manual_seed(8);
        let student = small_student(0.0, pool_padding);
        let logits_of_first = |texts: &[Vec<i64>]| {
            student
                .logits(&batch(texts), Mode::Eval, Precision::Fp32)
                .get(0)
        };
        distance(
            &logits_of_first(&[vec![3, 4]]),
            &logits_of_first(&[vec![3, 4], vec![5, 6, 7, 8, 9]]),
        )
    };
    assert!(
        change(false) <= 1e-6 && change(true) > 1e-3,
        "{} {}",
        change(false),
        change(true)
    );
}
