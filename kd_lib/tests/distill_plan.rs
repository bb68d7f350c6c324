//! The rule behind a plan: arithmetic that must hold for every corpus, speed and budget.

use crate::common::{lock_generator, root, sample};
use kd_lib::data::Corpus;
use kd_lib::distill::folds::{FOLDS, reason_against_folds, suggested_folds};
use kd_lib::distill::plan_folder::{read_plan, write_plan};
use kd_lib::distill::run_stages::check_stages;
use kd_lib::distill::{
    Budget, CorpusFacts, DataReport, DistillPlan, DistillResult, Forecast, FurtherSeed,
    PlanSettings, Report, SecondsPerText, Side, Stage, StudentPair, SuspiciousLabels, make_plan,
    measure, run_plan, run_stages,
};
use kd_lib::models::ModelConfig;
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::training::progress::silent;
use kd_lib::training::{ClassWeights, Progress};
use proptest::prelude::*;
use std::ops::ControlFlow;

fn settings(budget: &str) -> PlanSettings {
    let teacher = Recipe::read(root().join("notebooks/recipes/teacher.toml"), "full", &[]);
    PlanSettings {
        budget: budget.parse().unwrap(),
        max_megabytes: 15.0,
        max_latency: None,
        teacher: teacher.unwrap(),
        unlabelled: None,
        folds: 0,
        refit: false,
    }
}

/// Settings for plans that are carried out: the teacher keeps two of its layers, and trains six
/// times as fast.
fn settings_to_train(budget: &str) -> PlanSettings {
    let few_layers = ["device=\"cpu\"".into(), "model.keep_layers=[1, 2]".into()];
    let recipe = root().join("notebooks/recipes/teacher.toml");
    PlanSettings {
        teacher: Recipe::read(recipe, "full", &few_layers).unwrap(),
        ..settings(budget)
    }
}

fn facts(train_texts: usize, classes: usize) -> CorpusFacts {
    CorpusFacts {
        train_texts,
        unlabelled_texts: 0,
        dev_texts: train_texts / 8 + 1,
        test_texts: 100,
        classes,
        max_length: 32,
        truncated: 0.0,
        unknown: 0.0,
        has_words: true,
        too_slow_networks: 0,
        imbalance: 1.0,
    }
}

/// Seconds a text, of two threads of an Intel Xeon on texts of some twenty tokens.
fn speed(factor: f64) -> SecondsPerText {
    SecondsPerText {
        threads: 2,
        teacher_update: 8e-3 * factor,
        teacher_forward: 2.4e-3 * factor,
        student_update: 9e-4 * factor,
        characters_factor: 3.0,
        textcnn_factor: 1.2,
        fasttext_factor: 0.02,
    }
}

fn planned(seconds: f64, texts: usize, factor: f64) -> kd_lib::Result<DistillPlan> {
    planned_with(settings("1m"), seconds, texts, 0, factor)
}

fn planned_with(
    settings: PlanSettings,
    seconds: f64,
    texts: usize,
    unlabelled_texts: usize,
    factor: f64,
) -> kd_lib::Result<DistillPlan> {
    let settings = PlanSettings {
        budget: Budget { seconds },
        unlabelled: (unlabelled_texts > 0).then(|| "texts.txt".into()),
        ..settings
    };
    let facts = CorpusFacts {
        unlabelled_texts,
        ..facts(texts, 6)
    };
    make_plan("corpus", "0", settings, facts, speed(factor))
}

proptest! {
    #[test]
    fn a_plan_fits_into_its_budget_or_says_how_much_it_needs(
        seconds in 20.0..40_000.0f64,
        texts in 60usize..200_000,
        unlabelled in prop_oneof![Just(0usize), 1usize..500_000],
        factor in 0.2..5.0f64,
        folds in prop_oneof![Just(0usize), 2usize..8],
        refit in any::<bool>(),
    ) {
        let settings = PlanSettings { folds, refit, ..settings("1m") };
        match planned_with(settings, seconds, texts, unlabelled, factor) {
            Ok(plan) => {
                prop_assert!(plan.seconds() <= seconds, "{}", plan.describe());
                prop_assert_eq!(plan.refit_seconds.is_some(), refit);
                prop_assert!(plan.teacher.is_some() && !plan.candidates[0].optional);
                prop_assert!(plan.candidates.is_sorted_by_key(|pair| pair.optional));
                for pair in &plan.candidates {
                    let (baseline, distilled) = (&pair.baseline.recipe, &pair.distilled.recipe);
                    prop_assert_eq!(&baseline.model, &distilled.model);
                    prop_assert_eq!(&baseline.adversarial, &distilled.adversarial);
                    prop_assert_eq!(&baseline.optimizer, &distilled.optimizer);
                }
                for stage in plan.stages() {
                    stage.recipe.validate().unwrap();
                    prop_assert!(stage.recipe.data.skip_test, "test is not read before the report");
                }
            }
            Err(error) => prop_assert!(error.to_string().contains("allow"), "{error}"),
        }
    }

    #[test]
    fn more_time_never_shortens_the_teachers_training(
        seconds in 60.0..20_000.0f64,
        texts in 500usize..50_000,
    ) {
        let read = |seconds| {
            let teacher = planned(seconds, texts, 1.0).ok()?.teacher?.recipe;
            let texts = teacher.data.max_train_samples.unwrap_or(texts);
            Some(texts as f64 * teacher.train.epochs)
        };
        if let (Some(less), Some(more)) = (read(seconds), read(2.0 * seconds)) {
            prop_assert!(more >= less, "{less} texts, {more} with twice the time");
        }
    }
}

#[test]
fn a_budget_that_is_too_short_names_one_that_is_enough() {
    let error = planned(30.0, 60_000, 3.0).unwrap_err().to_string();
    let enough = error.split("allow ").nth(1).unwrap();
    let enough: Budget = enough.split(" or more").next().unwrap().parse().unwrap();
    planned(enough.seconds, 60_000, 3.0).unwrap();
    let too_short = error.split("budget: ").nth(1).unwrap();
    let too_short: Budget = too_short.split(" is").next().unwrap().parse().unwrap();
    assert_eq!(too_short.seconds, 30.0, "{error}");
}

/// What a data report says of a teacher's linear probe that has this accuracy.
fn probed(accuracy: f64) -> SuspiciousLabels {
    SuspiciousLabels {
        searched: 150,
        held_out_accuracy: Some(accuracy),
        labels: Vec::new(),
    }
}

#[test]
fn a_gain_is_expected_if_the_probe_is_good_and_the_student_has_time() {
    let mut data = DataReport::of(&Corpus::open(sample()).unwrap(), false).unwrap();
    let [short, long] = [30.0, 3600.0].map(|seconds| planned(seconds, 2000, 0.3).unwrap());
    assert!(short.distilled_updates() < 300 && long.distilled_updates() >= 300);
    let linear = data.linear_dev;
    let mut gain = |lead: f64, plan: &DistillPlan| {
        data.suspicious = Some(probed(linear + lead));
        Forecast::of(&data, plan).unwrap().gain
    };
    assert!(gain(0.2, &long) > gain(0.1, &long) && gain(0.1, &long) > 0.0);
    assert_eq!(gain(0.2, &short), 0.0);
}

/// A plan for 1,200 training texts on a slow machine.
fn planned_in_folds(folds: usize, budget: &str) -> kd_lib::Result<DistillPlan> {
    let settings = PlanSettings {
        folds,
        ..settings(budget)
    };
    make_plan("c", "f", settings, facts(1200, 5), speed(8.0))
}

#[test]
fn folds_leave_the_students_fewer_updates() {
    let [without, with] = [0, 5].map(|folds| planned_in_folds(folds, "40m").unwrap());
    let recipe = with.distilled_recipe().unwrap();
    let transfer = recipe.transfer.as_ref();
    let augmentations = transfer.map_or(0, |transfer| transfer.augmentations_per_text);
    let batches = (1200 * (1 + augmentations)).div_ceil(64);
    let updates = (recipe.train.epochs * batches as f64).round() as usize;
    assert_eq!(with.distilled_updates(), updates);
    assert!(without.distilled_updates() > 3 * updates);
}

#[test]
fn folds_are_given_up_for_a_test_split_if_their_students_would_be_weak() {
    let short = planned_in_folds(5, "40m");
    let updates = short.as_ref().unwrap().distilled_updates();
    assert!(updates < 300, "{updates}");
    let why = reason_against_folds(&short, 150).unwrap();
    assert!(why.contains(&format!("{updates} updates")), "{why}");
    // A test split of few texts says even less than weak students do.
    assert_eq!(reason_against_folds(&short, 99), None);
    assert_eq!(reason_against_folds(&planned_in_folds(5, "8h"), 150), None);
    // A budget that is too short for folds may be long enough without them.
    let impossible = planned_in_folds(5, "60s");
    let why = reason_against_folds(&impossible, 150).unwrap();
    assert_eq!(why, impossible.unwrap_err().to_string());
}

#[test]
fn folds_are_suggested_for_a_small_corpus_whose_test_texts_nobody_chose() {
    let small = Corpus::open(sample()).unwrap();
    assert_eq!(suggested_folds(&small, true), FOLDS);
    assert_eq!(suggested_folds(&small, false), 0);
    let mut large = small.clone();
    large.train = small.train.iter().cycle().take(3000).cloned().collect();
    assert_eq!(suggested_folds(&large, true), 0);
}

#[test]
fn a_plan_that_was_edited_and_limits_without_a_meaning_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut edited = planned(1800.0, 2000, 1.0).unwrap();
    edited.candidates.clear();
    write_plan(&edited, folder.path(), 0.0).unwrap();
    let error = read_plan(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a plan without students"), "{error}");
    let mut without_threads = planned(1800.0, 2000, 1.0).unwrap();
    without_threads.speed.threads = 0;
    write_plan(&without_threads, folder.path(), 0.0).unwrap();
    let error = read_plan(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a plan with 0 threads"), "{error}");
    // A plan of an older program has other keys.
    let file = folder.path().join("plan.json");
    std::fs::write(&file, r#"{"format": 1, "stages": []}"#).unwrap();
    let error = read_plan(&file).unwrap_err().to_string();
    assert!(
        error.contains("a plan of format 1") && error.contains("plan anew"),
        "{error}"
    );
    for (megabytes, latency) in [(f64::INFINITY, None), (15.0, Some(f64::NAN))] {
        let settings = PlanSettings {
            max_megabytes: megabytes,
            max_latency: latency,
            ..settings("1h")
        };
        let error = make_plan("c", "f", settings, facts(2000, 5), speed(1.0)).unwrap_err();
        assert!(
            error.to_string().contains("choose a number above 0"),
            "{error}"
        );
    }
}

#[test]
fn a_corpus_without_test_texts_needs_folds() {
    let facts = CorpusFacts {
        test_texts: 0,
        ..facts(2000, 5)
    };
    let with_folds = |folds| {
        let settings = PlanSettings {
            folds,
            ..settings("1h")
        };
        make_plan("c", "f", settings, facts.clone(), speed(1.0))
    };
    let problem = with_folds(0).unwrap_err().to_string();
    assert!(problem.contains("there is no test text"), "{problem}");
    with_folds(5).unwrap();
}

#[test]
fn a_large_dev_split_leaves_the_teacher_time_to_train() {
    let facts = CorpusFacts {
        dev_texts: 10_000,
        ..facts(6500, 10)
    };
    let plan = make_plan("corpus", "0", settings("8m"), facts, speed(2.0)).unwrap();
    let teacher = &plan.teacher.as_ref().unwrap().recipe;
    assert!(
        teacher
            .data
            .max_dev_samples
            .is_some_and(|dev| (300..5000).contains(&dev))
    );
    let texts = teacher.data.max_train_samples.unwrap_or(6500);
    assert!(texts > 5000, "{}", plan.describe());
}

#[test]
fn a_plan_says_if_the_teacher_reads_a_part_of_the_texts() {
    let plan = planned(600.0, 60_000, 1.0).unwrap();
    let teacher = &plan.teacher.as_ref().unwrap().recipe;
    let texts = teacher.data.max_train_samples.unwrap();
    assert!(texts < 60_000);
    let said = format!("1 epoch over {texts} of the training texts");
    assert!(plan.describe().contains(&said), "{}", plan.describe());
}

#[test]
fn a_recipe_that_a_plan_wrote_takes_settings_of_its_teacher() {
    let folder = tempfile::tempdir().unwrap();
    write_plan(&planned(1800.0, 2000, 1.0).unwrap(), folder.path(), 0.0).unwrap();
    let written = std::fs::read_dir(folder.path()).unwrap();
    let names = written.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let distilled = names.into_iter().find(|name| name.contains("distilled"));
    let path = folder.path().join(distilled.unwrap());
    let set = ["teacher.train.epochs=7".to_owned()];
    let recipe = Recipe::read(&path, "full", &set).unwrap();
    assert_eq!(recipe.teacher.unwrap().train.epochs, 7.0);
}

#[test]
fn another_path_to_the_unlabelled_texts_reaches_every_recipe_of_a_plan() {
    let settings = PlanSettings {
        unlabelled: Some("/old/texts.txt".into()),
        ..settings("1h")
    };
    let facts = CorpusFacts {
        unlabelled_texts: 5000,
        ..facts(2000, 6)
    };
    let plan = make_plan("c", "f", settings, facts, speed(1.0)).unwrap();
    let moved = plan
        .clone()
        .with_unlabelled(std::path::Path::new("/new/texts.txt"));
    let text = |plan: &DistillPlan| serde_json::to_string(plan).unwrap();
    assert!(text(&plan).matches("/old/").count() > 2, "{}", text(&plan));
    assert_eq!(text(&moved), text(&plan).replace("/old/", "/new/"));
    let without = planned(1800.0, 2000, 1.0).unwrap();
    let same = without
        .clone()
        .with_unlabelled(std::path::Path::new("/new/texts.txt"));
    assert_eq!(same, without, "a plan without such texts has no file");
}

#[test]
fn the_teachers_seed_is_the_first_of_the_plan() {
    let settings = PlanSettings {
        teacher: settings("1h").teacher.with_seed(7),
        ..settings("1h")
    };
    let plan = make_plan("c", "f", settings, facts(2000, 6), speed(1.0)).unwrap();
    assert!(plan.stages().all(|stage| stage.recipe.seed == 7));
    let further: Vec<u64> = plan
        .further_seeds
        .iter()
        .map(|further| further.seed)
        .collect();
    assert_eq!(further, [8, 9]);
}

#[test]
fn unbalanced_classes_are_tried_with_class_weights_for_as_long_as_without() {
    let unbalanced = CorpusFacts {
        imbalance: 7.0,
        ..facts(2000, 5)
    };
    for (budget, number) in [("5m", 3), ("1h", 4)] {
        let plan = make_plan("c", "f", settings(budget), unbalanced.clone(), speed(1.0)).unwrap();
        for side in [Side::Baseline, Side::Distilled] {
            let candidates = plan.candidates.iter();
            let stages: Vec<&Stage> = candidates
                .map(|pair| match side {
                    Side::Baseline => &pair.baseline,
                    Side::Distilled => &pair.distilled,
                })
                .collect();
            assert_eq!(stages.len(), number, "{}", plan.describe());
            let stage = |kind: &str| {
                let named = stages
                    .iter()
                    .find(|stage| stage.recipe.name.ends_with(kind));
                &named.unwrap().recipe.train
            };
            let (first, weighted) = (stage("-bilstm"), stage("-class-weights"));
            assert_eq!(weighted.class_weights, Some(ClassWeights::Balanced));
            assert_eq!(first.class_weights, None);
            assert_eq!(first.epochs, weighted.epochs);
            assert_eq!(
                stage("-fasttext").class_weights,
                Some(ClassWeights::Balanced)
            );
        }
    }
    let balanced = make_plan("c", "f", settings("5m"), facts(2000, 5), speed(1.0)).unwrap();
    assert!(!balanced.describe().contains("class-weights"));
}

/// The fastText costs little and fits into every size that is accepted.
#[test]
fn a_fasttext_is_tried_on_both_sides_and_takes_a_tenth_of_the_time_at_most() {
    for (megabytes, has_words) in [(2.0, true), (15.0, false), (100.0, true)] {
        let settings = PlanSettings {
            max_megabytes: megabytes,
            ..settings("20m")
        };
        let facts = CorpusFacts {
            has_words,
            ..facts(20_000, 6)
        };
        let plan = make_plan("c", "f", settings, facts, speed(1.0)).unwrap();
        let all: f64 = plan.candidates.iter().map(StudentPair::seconds).sum();
        let mut tried = 0;
        for pair in &plan.candidates {
            let ModelConfig::Fasttext(settings) = &pair.baseline.recipe.model else {
                continue;
            };
            tried += 1;
            assert!(!pair.optional, "{}", plan.describe());
            assert!(pair.seconds() <= 0.1 * all, "{}", plan.describe());
            assert_eq!(settings.tokenizer.is_some(), has_words);
            let vectors = settings.vocab_size as i64 + settings.ngram_buckets;
            let bytes = 4.0 * (vectors * settings.embedding_dim + 33 * 6) as f64;
            assert!(bytes <= megabytes * 1e6, "{bytes} bytes of {megabytes} MB");
        }
        assert_eq!(tried, 1, "{}", plan.describe());
    }
}

#[test]
fn of_a_million_unlabelled_texts_as_many_are_used_as_there_is_time_for() {
    let used = |unlabelled| {
        let plan = planned_with(settings("1m"), 400.0, 6000, unlabelled, 1.0).unwrap();
        let transfer = plan.distilled_recipe().unwrap().transfer.clone();
        transfer.unwrap().max_unlabelled_samples.unwrap()
    };
    let (fewer, more) = (used(100_000), used(1_000_000));
    assert!(
        fewer > 0 && more * 2 > fewer,
        "{fewer} of 100,000, {more} of a million"
    );
}

#[test]
fn the_data_report_counts_repeats_and_contradictions_over_all_splits() {
    let mut corpus = Corpus::open(sample()).unwrap();
    let before = DataReport::of(&corpus, false).unwrap();
    let counts = [
        before.repeated,
        before.contradictions,
        before.near_duplicates,
        before.near_contradictions,
    ];
    assert_eq!(counts, [0; 4]);
    // The same text in two splits, with another label; and nearly the same text within a split.
    let mut copy = corpus.train[0].clone();
    copy.label = (copy.label + 1) % corpus.labels.len();
    corpus.test.push(copy);
    let mut nearly = corpus.dev[0].clone();
    nearly.text += "!";
    corpus.dev.push(nearly);
    let report = DataReport::of(&corpus, false).unwrap();
    assert_eq!([report.repeated, report.contradictions], [1, 1]);
    assert_eq!(report.near_duplicates, 4);
    assert_eq!(report.near_contradictions, 1);
    assert_eq!((report.near_leaks, report.quality.train_in_test), (1, 1));
}

#[test]
fn labels_that_were_changed_are_suspicious_and_are_kept_for_the_next_start() {
    let _guard = lock_generator();
    let mut corpus = Corpus::open(sample()).unwrap();
    let changed: Vec<usize> = (0..300).step_by(30).collect();
    for &row in &changed {
        corpus.train[row].label = (corpus.train[row].label + 3) % 10;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let (name, fingerprint) = (&corpus.name, &corpus.fingerprint);
    let settings = settings("10m");
    let plan = make_plan(name, fingerprint, settings, facts(300, 10), speed(1.0)).unwrap();
    let find = || SuspiciousLabels::find(&store, &plan, &corpus, folder.path(), &mut silent);
    let found = find().unwrap();
    assert_eq!(found.searched, 300);
    let lines: Vec<usize> = changed.iter().map(|&row| corpus.train[row].line).collect();
    let hits = found
        .labels
        .iter()
        .filter(|label| lines.contains(&label.line));
    let hits = hits.count();
    // With thirty texts a class the search is cautious.
    assert!(hits >= 2, "{:#?}", found.labels);
    assert!(found.labels.len() <= 2 * hits, "{:#?}", found.labels);
    assert_eq!(find().unwrap(), found, "read from the file");
}

/// The same plan with training runs of a few updates, without spare seeds.
fn shortened(mut plan: DistillPlan) -> DistillPlan {
    plan.further_seeds.retain(|further| !further.spare);
    if let Some(teacher) = &mut plan.teacher {
        teacher.recipe.train.eval_every_samples = 100;
        shorten_teacher(&mut teacher.recipe);
    }
    let pairs = plan.candidates.iter_mut();
    for stage in pairs.flat_map(|pair| [&mut pair.baseline, &mut pair.distilled]) {
        let recipe = &mut stage.recipe;
        recipe.train.eval_every_samples = 100;
        recipe.train.epochs = 1.0;
        if let Some(transfer) = &mut recipe.transfer {
            transfer.augmentations_per_text = 1;
        }
        if let Some(teacher) = &mut recipe.teacher {
            shorten_teacher(teacher);
        }
    }
    plan
}

fn shorten_teacher(recipe: &mut Recipe) {
    recipe.data.max_train_samples = Some(40);
    recipe.train.epochs = 1.0;
}

#[test]
fn a_stopped_distillation_continues_its_plan_and_a_copy_of_the_plan_gives_the_same_bytes() {
    let _guard = lock_generator();
    let corpus = Corpus::open(sample()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let pretrained = root().join("checkpoints");
    let store = RunStore::new(folder.path()).with_pretrained(&pretrained);
    let mut settings = settings_to_train("1m");
    let unlabelled = folder.path().join("texts.txt");
    let lines = [
        "新的一条",
        "",
        "新的一条",
        corpus.test[0].text.as_str(),
        "另一条",
    ];
    std::fs::write(&unlabelled, lines.join("\n")).unwrap();
    settings.unlabelled = Some(unlabelled);
    let (mut facts, measured) = measure(&store, &corpus, &settings).unwrap();
    assert_eq!((facts.train_texts, facts.classes), (300, 10));
    assert_eq!(facts.unlabelled_texts, 2, "usable lines");
    (settings.unlabelled, facts.unlabelled_texts) = (None, 0);
    assert!(!facts.has_words, "Chinese has no blanks");
    assert!(measured.student_update < measured.teacher_update);
    let too_fast = PlanSettings {
        max_latency: Some(1e-6),
        ..settings.clone()
    };
    let error = measure(&store, &corpus, &too_fast).unwrap_err().to_string();
    assert!(error.contains("allow"), "{error}");
    let plan = make_plan(
        &corpus.name,
        &corpus.fingerprint,
        settings,
        facts,
        speed(1.0),
    )
    .unwrap();
    let plan = shortened(plan);
    let place = folder.path().join("distilled/sample");
    write_plan(&plan, &place, 1.0).unwrap();
    let mut updates = 0;
    let mut stop_once = |progress: &Progress| {
        updates += usize::from(progress.loss.is_some());
        if updates == 5 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    run_stages(&store, &corpus, plan.clone(), &place, &mut stop_once).unwrap_err();
    let again = read_plan(&place).unwrap().unwrap();
    assert_eq!(again, plan);
    let trained = run_stages(&store, &corpus, again, &place, &mut silent).unwrap();
    assert!(trained.seconds > 1.0, "the seconds of both starts count");
    let data = DataReport::of(&corpus, false).unwrap();
    let weights =
        |run: &Run| std::fs::read(run.folder().unwrap().join("model.safetensors")).unwrap();
    let student = weights(&trained.distilled[0]);
    let result = DistillResult::single(corpus.clone(), trained);
    let best = result
        .dev_macro_f1(Side::Baseline)
        .max(result.dev_macro_f1(Side::Distilled));
    let delivered = &result.student().report;
    assert_eq!(delivered.dev.macro_f1, best);
    let report = Report {
        corpus: &corpus,
        plan: &plan,
        result: &result,
        data: &data,
        forecast: None,
        notices: &[],
        command: "kd distill",
    };
    let findings = report.write(&store, &place, &mut silent).unwrap();
    let report = std::fs::read_to_string(place.join("report.md")).unwrap();
    assert!(report.contains(&findings.verdict()) && report.contains("| distilled |"));
    let page = std::fs::read_to_string(place.join("report.html")).unwrap();
    assert!(page.contains("<polyline"), "learning curves");
    let page = page.replace("http://www.w3.org/2000/svg", "");
    assert!(
        !page.contains("http://") && !page.contains("src="),
        "the page is self-contained"
    );

    let other = tempfile::tempdir().unwrap();
    let elsewhere = RunStore::new(other.path()).with_pretrained(&pretrained);
    let copy = read_plan(&place.join("plan.json")).unwrap().unwrap();
    let place = other.path().join("distilled/copy");
    write_plan(&copy, &place, 0.0).unwrap();
    let second = run_stages(&elsewhere, &corpus, copy, &place, &mut silent).unwrap();
    assert!(student == weights(&second.distilled[0]));

    // Without time, what is finished is found again, and of a further seed neither side is trained.
    let mut late = second.plan.clone();
    late.settings.budget.seconds = 0.0;
    let further = |seed, spare| FurtherSeed {
        seed,
        baseline_seconds: 1.0,
        distilled_seconds: 1.0,
        spare,
    };
    late.further_seeds = vec![further(900, false), further(901, true)];
    let late = run_stages(&elsewhere, &corpus, late, &place, &mut silent).unwrap();
    assert_eq!((late.baseline.len(), late.distilled.len()), (1, 1));
    assert_eq!(late.candidates.len(), second.candidates.len());
    let skipped = |seed: &str| late.left_out.iter().any(|sentence| sentence.contains(seed));
    assert!(skipped("the chosen students with seed 900: skipped"));
    assert!(!skipped("901"), "a spare seed was not promised");
}

#[test]
fn what_stages_leave_out_of_the_texts_is_said_once_before_training() {
    let mut corpus = Corpus::open(sample()).unwrap();
    corpus.train.retain(|example| example.label != 0);
    let of_class = corpus.test.iter().find(|example| example.label == 0);
    corpus.train.push(of_class.unwrap().clone());
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let (name, fingerprint) = (&corpus.name, &corpus.fingerprint);
    let settings = settings_to_train("10m");
    let plan = make_plan(name, fingerprint, settings, facts(271, 10), speed(1.0)).unwrap();
    let notices = check_stages(&store, &corpus, &plan, &mut silent).unwrap();
    let about_class = notices
        .iter()
        .filter(|notice| notice.text.contains(&corpus.labels[0]));
    assert_eq!(about_class.count(), 1, "{notices:?}");
}

#[test]
fn folds_test_all_texts_and_a_refit_trains_on_all_of_them() {
    let _guard = lock_generator();
    let mut corpus = Corpus::open(sample()).unwrap();
    // A hundred texts, and twenty-five each.
    corpus.train = corpus.train.into_iter().step_by(3).collect();
    corpus.dev = corpus.dev.into_iter().step_by(4).collect();
    corpus.test = corpus.test.into_iter().step_by(4).collect();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let mut settings = settings_to_train("10m");
    settings.folds = 2;
    settings.refit = true;
    let (name, fingerprint) = (&corpus.name, &corpus.fingerprint);
    let plan = make_plan(name, fingerprint, settings, facts(60, 10), speed(1.0)).unwrap();
    assert!(plan.describe().contains("2 folds"), "{}", plan.describe());
    assert!(plan.seconds() <= 600.0);
    let mut plan = shortened(plan);
    plan.candidates.truncate(1);
    // Another round would take longer than this leaves.
    plan.settings.budget.seconds = 1.0;
    let place = folder.path().join("distilled/small");
    write_plan(&plan, &place, 0.0).unwrap();
    // Stopped in each fold, and in the refit.
    for stopped_in in ["fold-1", "fold-2", "refit"] {
        let mut stop = |progress: &Progress| {
            let is_there = match stopped_in {
                "refit" => progress.run.contains("refit"),
                fold => place.join(format!("round-1-{fold}")).exists(),
            };
            if is_there && progress.loss.is_some() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        run_plan(&store, &corpus, &plan, &place, &mut stop).unwrap_err();
    }
    let result = run_plan(&store, &corpus, &plan, &place, &mut silent).unwrap();
    assert_eq!((result.rounds.len(), result.rounds[0].len()), (1, 2));
    let student = result.student();
    let name = match result.preferred_side() {
        Side::Distilled => "distilled-bilstm-refit",
        _ => "baseline-bilstm-refit",
    };
    assert_eq!(student.report.recipe.name, name);
    assert_eq!(student.report.train_examples, 150);
    let notice = "25 of 25 texts of Dev are trained on";
    assert!(student.report.notices[0].starts_with(notice));
    // A refit has no text to choose weights or a temperature by: it takes the means of the folds.
    let folds = result.rounds[0].iter().map(|fold| &fold.trained);
    let all: Vec<&Run> = folds
        .flat_map(|fold| &fold.candidates)
        .map(|candidate| &candidate.run)
        .filter(|run| format!("{}-refit", run.report.recipe.name) == name)
        .collect();
    assert_eq!(all.len(), 2);
    let product: f64 = all
        .iter()
        .map(|run| run.report.temperature.unwrap())
        .product();
    assert!((student.report.temperature.unwrap() - product.sqrt()).abs() < 1e-9);
    let epochs = all.iter().map(|run| {
        let texts = run.report.train_examples + run.report.transfer_examples;
        run.report.best_step as f64 / texts.div_ceil(run.report.recipe.train.batch_size) as f64
    });
    let epochs = epochs.sum::<f64>() / 2.0;
    assert!((student.report.recipe.train.epochs - epochs).abs() < 1e-3);
    let mut data = DataReport::of(&corpus, false).unwrap();
    assert_eq!(Forecast::of(&data, &plan), None, "no probe of the teacher");
    data.suspicious = Some(probed(data.linear_dev + 0.1));
    let forecast = Forecast::find(&data, &plan, &place).unwrap();
    assert!(forecast.is_some());
    data.suspicious = Some(probed(0.0));
    let found = Forecast::find(&data, &plan, &place).unwrap();
    assert_eq!(found, forecast, "kept in the folder");
    let report = Report {
        corpus: &corpus,
        plan: &plan,
        result: &result,
        data: &data,
        forecast,
        notices: &[],
        command: "kd distill",
    };
    let findings = report.write(&store, &place, &mut silent).unwrap();
    assert_eq!(findings.gain.unwrap().seeds, 1);
    let report = std::fs::read_to_string(place.join("report.md")).unwrap();
    assert!(report.contains("150 texts in 2 folds"), "{report}");
    let expected = format!("| expected before training | {}; it ", forecast.unwrap());
    assert!(report.contains(&expected), "{report}");
    let again = run_plan(&store, &corpus, &plan, &place, &mut silent).unwrap();
    assert_eq!(again.student().report.id, student.report.id);
}
