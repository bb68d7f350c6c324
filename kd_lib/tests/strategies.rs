//! The seats of the loop: every combination of strategies trains and shows that each part acted, and the gradients
//! of a window are what the definitions say.

mod common;

use common::{TINY_STUDENT, batch, distance, recipe, sample, tiny_checkpoint, turn};
use kd_lib::data::{Batch, Corpus, Encoded};
use kd_lib::lab::Lab;
use kd_lib::models::{BiLstm, BiLstmConfig, Classifier, Mode, Params, words};
use kd_lib::progress::silent;
use kd_lib::recipe::Recipe;
use kd_lib::strategies::{Attack, Objective, Perturbation, Precision, Scope};
use kd_lib::update::{Material, Seats, gradients};
use tch::{Device, Kind, Tensor};

const FGM: Attack = Attack::Fgm { epsilon: 1.0, scope: Scope::Matrix };

/// Mean of word vectors, squared so that the loss is not linear in them, → linear; in f64, without dropout.
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
        Toy { params, embedding, weight }
    }
}

impl Classifier for Toy {
    fn embed(&self, batch: &Batch, _: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        words(&self.embedding, &batch.ids, perturbation)
    }

    fn classify(&self, inputs: &Tensor, batch: &Batch, _: Mode, _: Precision) -> Tensor {
        let mask = batch.mask.to_kind(Kind::Double).unsqueeze(2);
        let sum = (inputs.square() * mask).sum_dim_intlist([1i64].as_slice(), false, None);
        (sum / batch.lengths.to_kind(Kind::Double).unsqueeze(1)).linear(&self.weight, None::<Tensor>)
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// Ten texts of several lengths, and a teacher's logits.
fn material(classes: i64) -> Material {
    let ids: Vec<Vec<i64>> = (0..10).map(|r| (0..3 + r % 4).map(|i| (7 * r + 3 * i) % 20).collect()).collect();
    let labels = (0..10).map(|r| r % classes).collect();
    let teacher = Tensor::arange(10 * classes, (Kind::Double, Device::Cpu)).view([10, classes]).sin() * 3;
    Material { train: Encoded { ids, labels, pad: 0 }, dev: Encoded::default(), teacher: Some(teacher) }
}

fn seats(attack: Option<Attack>) -> Seats {
    let objective = Objective::Distillation { temperature: 4.0, hard: 0.5, soft: 0.5 };
    Seats { objective, precision: Precision::Fp32, attack, seed: 1 }
}

fn small_student(dropout: f64, pool_padding: bool) -> BiLstm {
    let config = BiLstmConfig { vocabulary: 20, embedding: 8, hidden: 8, classes: 3, dropout, pool_padding };
    BiLstm::new(&config, Device::Cpu)
}

/// Each parameter's gradient over a window.
fn of_window(model: &dyn Classifier, seats: &Seats, material: &Material, window: &[Vec<usize>]) -> Vec<Tensor> {
    gradients(seats, model, material, window, 0, 1.0).unwrap().1
}

fn relative(a: &[Tensor], b: &[Tensor]) -> f64 {
    let one = |(x, y): (&Tensor, &Tensor)| distance(x, y) / y.abs().max().double_value(&[]);
    a.iter().zip(b).map(one).fold(0.0, f64::max)
}

#[test]
fn a_window_has_the_gradient_of_one_large_batch_its_ragged_tail_included() {
    let _turn = turn();
    let (toy, material) = (Toy::new(), material(3));
    let whole = of_window(&toy, &seats(None), &material, &[(0..10).collect()]);
    for window in [vec![vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]], (0..10).map(|r| vec![r]).collect()] {
        let difference = relative(&of_window(&toy, &seats(None), &material, &window), &whole);
        println!("{} micro-batches: {difference:.1e} relative", window.len());
        assert!(difference <= 1e-9);
    }
    let student = small_student(0.0, false);
    let whole = of_window(&student, &seats(None), &material, &[(0..10).collect()]);
    let window = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    assert!(relative(&of_window(&student, &seats(None), &material, &window), &whole) <= 1e-5);
}

#[test]
fn the_clean_pass_of_an_attack_is_the_pass_without_one() {
    let _turn = turn();
    let (student, material) = (small_student(0.3, false), material(3));
    let window = [(0..10).collect()];
    let loss = |attack| {
        let seats = Seats { precision: Precision::Bf16, ..seats(attack) };
        gradients(&seats, &student, &material, &window, 0, 1.0).unwrap().0.loss
    };
    assert_eq!(loss(Some(FGM)), loss(None));
}

/// The gradients of a window under an attack, from the definition: for each micro-batch its share of the clean gradient
/// and of that at E + r, where r goes along its own gradient at each place it reaches, pulled back to `epsilon`.
fn by_hand(toy: &Toy, data: &Material, window: &[Vec<usize>], [alpha, epsilon]: [f64; 2], steps: usize) -> Vec<Tensor> {
    let rows: usize = window.iter().map(Vec::len).sum();
    let mut sums: Vec<Tensor> = toy.params.iter().map(|p| p.tensor.zeros_like()).collect();
    for micro in window {
        let share = micro.len() as f64 / rows as f64;
        let here = || of_window(toy, &seats(None), data, std::slice::from_ref(micro));
        let clean = here();
        let (mut attacked, mut r) = (clean.iter().map(Tensor::copy).collect::<Vec<_>>(), clean[0].zeros_like());
        for _ in 0..steps {
            r += &attacked[0] / attacked[0].norm() * alpha;
            r *= (epsilon / r.norm().double_value(&[])).min(1.0);
            let _ = tch::no_grad(|| toy.embedding.shallow_clone().g_add_(&r));
            attacked = here();
            let _ = tch::no_grad(|| toy.embedding.shallow_clone().g_sub_(&r));
        }
        for (sum, (a, b)) in sums.iter_mut().zip(clean.iter().zip(&attacked)) {
            *sum += (a + b) * share;
        }
    }
    sums
}

#[test]
fn attacks_go_along_this_micro_batch_s_gradient_alone_step_by_step() {
    let _turn = turn();
    let (toy, material) = (Toy::new(), material(3));
    let window = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    let pgd = |epsilon| Attack::Pgd { epsilon, alpha: 0.3, steps: 3, scope: Scope::Matrix };
    for (attack, lengths, steps) in [(FGM, [1.0, 1.0], 1), (pgd(1.0), [0.3, 1.0], 3), (pgd(0.4), [0.3, 0.4], 3)] {
        let expected = by_hand(&toy, &material, &window, lengths, steps);
        let before = toy.embedding.copy();
        assert!(relative(&of_window(&toy, &seats(Some(attack)), &material, &window), &expected) <= 1e-9, "{attack:?}");
        assert_eq!(distance(&toy.embedding, &before), 0.0, "the weights are as they were, bit for bit");
    }
}

#[test]
fn perturbations_have_the_length_that_their_definition_says() {
    let _turn = turn();
    let (toy, texts) = (Toy::new(), batch(&[vec![1, 2, 3], vec![4, 5], vec![6]]));
    for scope in [Scope::Matrix, Scope::Example] {
        let attacks = [
            (Attack::Fgm { epsilon: 0.5, scope }, vec![0.5]),
            // Three steps of 0.3 along one gradient: 0.3, 0.6, and then the ball.
            (Attack::Pgd { epsilon: 0.7, alpha: 0.3, steps: 3, scope }, vec![0.3, 0.6, 0.7]),
        ];
        for (attack, lengths) in attacks {
            let mut perturbation = attack.start(&toy.embedding, &texts);
            assert_eq!(perturbation.norm(), 0.0);
            let gradient = perturbation.values.ones_like() * 7.0;
            for length in lengths {
                perturbation = attack.step(&perturbation, &gradient);
                assert!((perturbation.norm() - length).abs() < 1e-9, "{attack:?}: {}", perturbation.norm());
            }
            let stuck = attack.step(&attack.start(&toy.embedding, &texts), &gradient.zeros_like());
            assert_eq!(stuck.norm(), 0.0, "a zero gradient moves nothing");
        }
    }
}

/// Two updates of a model under these strategies, on a GPU where there is one; the smallest networks of their kinds.
fn two_steps(lab: &Lab, model: &str, settings: &[String]) -> kd_lib::run::Run {
    let tiny_teacher =
        ["model.weights=tiny", "model.pooling=cls", "model.prefix=", "data.max_tokens=32", "device=auto"];
    let base: &[&str] = if model == "bert" { &tiny_teacher } else { &TINY_STUDENT };
    let settings = settings.iter().map(String::as_str).chain(["device=auto"]);
    let settings: Vec<&str> = base.iter().copied().chain(settings).collect();
    let recipe = recipe(if model == "bert" { "teacher" } else { "student" }, &settings);
    let teacher = (recipe.objective.needs_teacher()).then(|| {
        let more = ["train.epochs=1", "data.train_examples=64", "train.precision=fp32", "seed=9"];
        Box::new(common::recipe("teacher", &[&tiny_teacher[..], &more].concat()))
    });
    lab.run(&Recipe { teacher, ..recipe }, &Corpus::open(sample()).unwrap(), &mut silent).unwrap()
}

#[test]
fn every_combination_trains_and_shows_that_each_part_acted() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let lab = Lab::at(folder.path());
    let attacks = ["", "{kind=\"fgm\",epsilon=1.0}", "{kind=\"pgd\",epsilon=1.0,alpha=0.3,steps=3}"];
    let objectives = ["{kind=\"cross_entropy\"}", "{kind=\"distillation\",temperature=4.0,hard=0.5,soft=0.5}"];
    let mut combinations = 0;
    for model in ["bert", "bilstm"] {
        for accumulation in [1usize, 4] {
            for (precision, seen) in [("fp32", Precision::Fp32), ("bf16", Precision::Bf16)] {
                for objective in objectives {
                    let mut answers = std::collections::HashSet::new();
                    for attack in attacks {
                        let what = format!("{model} ×{accumulation} {precision} {attack} {objective}");
                        let mut settings = vec![
                            format!("train.accumulation={accumulation}"),
                            format!("train.precision={precision}"),
                            format!("objective={objective}"),
                            format!("data.train_examples={}", 2 * 8 * accumulation),
                            "train.batch=8".into(),
                            "train.epochs=1".into(),
                        ];
                        settings.extend((!attack.is_empty()).then(|| format!("attack={attack}")));
                        let run = two_steps(&lab, model, &settings);
                        assert_eq!(run.report.steps, 2, "{what}");
                        for point in run.curve().unwrap() {
                            assert_eq!((point.micro_batches, point.products), (accumulation, Some(seen)), "{what}");
                            assert_eq!(point.soft > 0.0, objective.contains("distillation"), "{what}");
                            assert!(point.hard > 0.0, "{what}");
                            assert_eq!(point.perturbation_norm.is_some(), !attack.is_empty(), "{what}");
                            if let (Some(norm), Some(cosine)) = (point.perturbation_norm, point.perturbation_cosine) {
                                assert!(norm > 0.1 && cosine >= 0.99, "{what}: norm {norm}, cosine {cosine}");
                            }
                        }
                        answers.insert(std::fs::read(run.path.join("test.safetensors")).unwrap());
                        combinations += 1;
                    }
                    assert_eq!(answers.len(), 3, "no attack, FGM and PGD lead to three different models");
                }
            }
        }
    }
    assert_eq!(combinations, 48);
}

#[test]
fn rounding_in_two_parts_keeps_what_one_part_swallows() {
    let _turn = turn();
    // The published attack: ε = 1 over 5,000 × 300 values of N(0, 1), seen through bf16.
    tch::manual_seed(4);
    let options = (Kind::Float, Device::Cpu);
    let (values, direction) = (Tensor::randn([5000, 300], options), Tensor::randn([5000, 300], options));
    let moved = &values + &direction / direction.norm();
    let cosine = |fine: bool| {
        let seen = |x: &Tensor| kd_lib::strategies::precision::value(&Precision::Bf16.round(x, fine), 300);
        let (meant, seen) = ((&moved - &values).flatten(0, -1), (seen(&moved) - seen(&values)).flatten(0, -1));
        (meant.dot(&seen) / (meant.norm() * seen.norm())).double_value(&[])
    };
    let [coarse, fine] = [cosine(false), cosine(true)];
    println!("cosine to what was meant: one part {coarse:.3}, two parts {fine:.5}");
    assert!(coarse < 0.8 && fine > 0.999);
}

#[test]
fn fp16_skips_updates_that_overflow_and_learns_from_the_others() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let more = "train.precision=fp16 data.train_examples=64 train.batch=1 train.epochs=12 optimiser.learning_rate=2e-2 model.dropout=0";
    let settings: Vec<&str> = TINY_STUDENT[..6].iter().copied().chain(more.split(' ')).collect();
    let corpus = Corpus::open(sample()).unwrap();
    let run = Lab::at(folder.path()).run(&recipe("student", &settings), &corpus, &mut silent).unwrap();
    let curve = run.curve().unwrap();
    let (first, last) = (curve[0], curve[curve.len() - 1]);
    println!("{:?} skipped, loss {:.3} → {:.3}", last.skipped, first.loss, last.loss);
    assert_eq!(last.products, Some(Precision::Fp16));
    assert_eq!(last.loss_scale.unwrap(), 65536.0 / 2f64.powi(last.skipped.unwrap() as i32));
    assert!(last.skipped.unwrap() > 0 && last.loss < 0.5 * first.loss);
}

#[test]
fn the_published_soft_loss_is_the_textbook_one_divided_by_classes_and_temperature_squared() {
    let _turn = turn();
    let student = Tensor::randn([6, 10], (Kind::Float, Device::Cpu)) * 2;
    let (teacher, labels) = (&student.flip([1]) * 1.5, Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5]));
    for temperature in [1.0, 5.0, 10.0, 20.0] {
        let soft =
            |objective: Objective| objective.loss(&student, &labels, Some(&teacher)).unwrap().soft.double_value(&[]);
        let textbook = soft(Objective::Distillation { temperature, hard: 1.0, soft: 1.0 });
        let published = soft(Objective::DistillationPerElement { temperature, hard: 1.0, soft: 1.0 });
        let expected = 10.0 * temperature * temperature;
        assert!((textbook / published / expected - 1.0).abs() < 1e-4, "{}", textbook / published);
    }
}

#[test]
fn the_published_pooling_makes_a_text_s_logits_depend_on_its_batch_mates() {
    let _turn = turn();
    let change = |pool_padding: bool| {
        tch::manual_seed(8);
        let student = small_student(0.0, pool_padding);
        let of_first = |texts: &[Vec<i64>]| student.logits(&batch(texts), Mode::Eval, Precision::Fp32).get(0);
        distance(&of_first(&[vec![3, 4]]), &of_first(&[vec![3, 4], vec![5, 6, 7, 8, 9]]))
    };
    assert!(change(false) <= 1e-6 && change(true) > 1e-3, "{} {}", change(false), change(true));
}
