//! Texts beside the labelled ones, and what teachers say of them: made once, read once, lost never.

mod common;

use common::{TINY_STUDENT, recipe, sample, tiny_checkpoint};
use kd_lib::data::transfer::Way;
use kd_lib::data::{Corpus, Example, Split, Transfer};
use kd_lib::lab::Lab;
use kd_lib::progress::{Tick, silent};
use kd_lib::recipe::Recipe;
use kd_lib::run::Run;
use kd_lib::{Error, files, teaching};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

fn transfer(made: usize, ways: &[Way]) -> Transfer {
    Transfer { file: None, rest: false, made, ways: ways.to_vec(), keep_labels: false }
}

#[test]
fn a_made_text_is_new_and_comes_from_its_source() {
    let corpus = Corpus::open(sample()).unwrap();
    let held: HashSet<&str> = [Split::Train, Split::Dev, Split::Test]
        .iter()
        .flat_map(|&s| corpus.split(s))
        .map(|e| e.text.as_str())
        .collect();
    for way in [Way::Mask, Way::Crop, Way::Splice, Way::Swap, Way::Graft] {
        let extras = transfer(3, &[way]).gather(&corpus, &[]).unwrap();
        let texts: HashSet<&str> = extras.iter().map(|e| e.text.as_str()).collect();
        assert!(extras.len() > 2 * corpus.train.len(), "{way:?} made {} texts", extras.len());
        assert_eq!(texts.len(), extras.len(), "{way:?}: no text twice");
        assert!(texts.is_disjoint(&held), "{way:?}: none that the corpus holds");
        assert!(extras.iter().all(|e| e.made && e.label.is_none()), "labelled by the teacher alone");
        assert_eq!(extras, transfer(3, &[way]).gather(&corpus, &[]).unwrap(), "the same each time");
    }
    let sources: Vec<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    let crops = transfer(1, &[Way::Crop]).gather(&corpus, &[]).unwrap();
    assert!(crops.iter().all(|crop| sources.iter().any(|s| s.contains(&crop.text))));
    // A graft replaces at most four characters in a row, by as many that stand in a row elsewhere.
    for graft in transfer(1, &[Way::Graft]).gather(&corpus, &[]).unwrap() {
        let text: Vec<char> = graft.text.chars().collect();
        let from_one = sources.iter().map(|s| s.chars().collect::<Vec<char>>()).any(|source| {
            let differs: Vec<usize> = (0..text.len()).filter(|&at| source.get(at) != text.get(at)).collect();
            let span = differs.first().zip(differs.last()).map_or(0, |(first, last)| last - first + 1);
            let new: String = text[differs.first().copied().unwrap_or(0)..][..span].iter().collect();
            source.len() == text.len() && span <= 4 && sources.iter().any(|other| other.contains(&new))
        });
        assert!(from_one, "{}", graft.text);
    }
}

#[test]
fn a_made_text_is_no_held_out_one_with_a_blank_at_its_end() {
    let mut corpus = Corpus::open(sample()).unwrap();
    let texts = ["甲乙 丙丁", "甲乙", "丙丁", "甲 丁", "丙丁 甲乙"];
    let examples: Vec<Example> =
        texts.iter().enumerate().map(|(line, text)| Example { text: (*text).into(), label: 0, line }).collect();
    (corpus.train, corpus.dev, corpus.test) = (examples[..1].to_vec(), examples[1..3].to_vec(), examples[3..].to_vec());
    for way in [Way::Crop, Way::Splice, Way::Swap, Way::Graft] {
        let extras = transfer(50, &[way]).gather(&corpus, &[]).unwrap();
        assert!(extras.iter().all(|e| !texts.contains(&e.text.trim())), "{way:?}: {extras:?}");
    }
}

#[test]
fn what_is_left_out_joins_without_labels_and_a_file_line_by_line() {
    let corpus = Corpus::open(sample()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines.txt");
    let held_out = corpus.test[0].text.replace(' ', "\t");
    std::fs::write(&lines, format!("从未见过\t的一行\n\n{held_out}\n从未见过 的一行\n")).unwrap();
    let share = format!("data.labelled={}", 40.0 / corpus.train.len() as f64);
    let settings = ["transfer.rest=true", &share, "data.drop_leaks=false", "train.epochs=4", "train.stretch=0.5"];
    let file = format!("transfer.file={}", lines.display());
    let soft = "objective={kind=\"logit_mse\",hard=0.0,soft=1.0}";
    let recipe = recipe("student", &[&settings[..], &[&file, soft]].concat());
    let recipe = Recipe { teacher: pair(&[]).teacher, ..recipe };
    let plan = lab(folder.path()).plan(&recipe, &corpus).unwrap();
    assert_eq!(plan.corpus.train.len(), 40);
    assert_eq!(plan.extras[0].text, "从未见过 的一行", "once, and neither the empty line nor a test text");
    assert!(plan.extras.iter().all(|e| corpus.test.iter().all(|held_out| held_out.text != e.text)));
    assert!(plan.extras.iter().all(|e| e.label.is_none() && !e.made));
    let distinct: HashSet<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    assert!(plan.extras.len() > distinct.len() - 41 - corpus.hygiene().train_in_dev - corpus.hygiene().train_in_test);
    assert_eq!(plan.steps_per_epoch, (40 + plan.extras.len()).div_ceil(recipe.train.batch));
    assert_eq!(plan.steps, 2 * plan.steps_per_epoch, "half of four epochs");
}

/// A tiny teacher's recipe, and a tiny student's that learns from it.
fn pair(settings: &[&str]) -> Recipe {
    let bert = ["model.weights=tiny", "model.pooling=cls", "model.prefix=", "data.max_tokens=32", "device=cpu"];
    let brief = ["train.epochs=1", "train.precision=fp32", "data.train_examples=64"];
    let teacher = recipe("teacher", &[&bert[..], &brief].concat());
    let soft = ["objective={kind=\"logit_mse\",hard=0.0,soft=1.0}", "data.train_examples=64"];
    Recipe { teacher: Some(Box::new(teacher)), ..recipe("student", &[&TINY_STUDENT, &soft[..], settings].concat()) }
}

fn lab(folder: &Path) -> Lab {
    tiny_checkpoint(&folder.join("tiny"));
    Lab::at(folder)
}

fn said(run: &Run) -> Vec<String> {
    let log = std::fs::read_to_string(run.path.join("log.txt")).unwrap();
    log.lines().filter(|l| l.contains("asked about")).map(str::to_owned).collect()
}

#[test]
fn a_teacher_reads_a_text_once_whoever_asks() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let lab = lab(folder.path());
    let recipes = [pair(&[]), pair(&["transfer.made=2"]), pair(&["transfer.made=2", "seed=5"])];
    for recipe in &recipes {
        lab.run(recipe, &corpus, &mut silent).unwrap();
    }
    let teacher = lab.run(recipes[0].teacher.as_ref().unwrap(), &corpus, &mut silent).unwrap();
    let extras = lab.plan(&recipes[1], &corpus).unwrap().extras.len();
    let counts: Vec<String> =
        said(&teacher).iter().map(|l| l.split(": ").nth(1).unwrap().replace(" asked about", "")).collect();
    let all = 64 + extras;
    assert_eq!(
        counts,
        [
            "64 texts to read of 64".into(),
            format!("{extras} texts to read of {all}"),
            format!("0 texts to read of {all}")
        ]
    );
    // One bit of a portion turns: its texts alone are read again, and the answers are the same within rounding.
    let texts: Vec<&str> = corpus.train.iter().take(50).map(|e| e.text.as_str()).collect();
    let before = teaching::logits(&teacher, &texts, &mut silent).unwrap();
    let mut portions = std::fs::read_dir(teacher.path.join("answers")).unwrap().map(|e| e.unwrap().path());
    let first = portions.find(|p| p.to_string_lossy().contains("-000000-")).unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let after = teaching::logits(&teacher, &texts, &mut silent).unwrap();
    assert!(common::distance(&before, &after) < 1e-5);
    let unread: Vec<usize> =
        said(&teacher).iter().map(|l| l.split(' ').nth(1).unwrap().parse().unwrap()).skip(3).collect();
    assert!(unread[1] > 0 && unread.iter().sum::<usize>() == 50, "first those never read, then those lost: {unread:?}");
    // While another run makes the teacher read, who needs nothing new is answered.
    let reading = std::fs::File::open(teacher.path.join("answers/.lock")).unwrap();
    reading.lock().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
    std::thread::spawn(move || {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        tell.send(teaching::logits(&teacher, &texts, &mut silent)).unwrap();
    });
    let meanwhile = told.recv_timeout(Duration::from_secs(60)).expect("it waits").unwrap();
    assert_eq!(meanwhile, after);
}

#[test]
fn a_teacher_trained_anew_does_not_pass_for_the_one_before() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let lab = lab(folder.path());
    let [student, half] = ["train.stretch=1.0", "train.stretch=2.0"].map(|setting| pair(&[setting]));
    let teacher = *student.teacher.clone().unwrap();
    let [first, other] =
        [teacher.clone(), teacher.with_seed(7)].map(|recipe| lab.run(&recipe, &corpus, &mut silent).unwrap());
    let finished = lab.run(&student, &corpus, &mut silent).unwrap();
    let told = std::fs::read_to_string(finished.path.join("taught_by.json")).unwrap();
    assert!(told.contains(&first.report.id));
    let id = lab.plan(&half, &corpus).unwrap().id;
    let mut stop = |tick: &Tick| if tick.run == id { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    assert!(matches!(lab.run(&half, &corpus, &mut stop), Err(Error::Stopped { .. })));
    let texts = ["基金净值上涨", "球队晋级决赛"];
    let [said, by_other] = [&first, &other].map(|run| teaching::logits(run, &texts, &mut silent).unwrap());
    assert!(common::distance(&said, &by_other) > 1e-3);
    // As if it had been trained again where numbers round otherwise: other weights, the same id.
    std::fs::copy(other.path.join("model.safetensors"), first.path.join("model.safetensors")).unwrap();
    files::seal(&first.path, "report.json").unwrap();
    let again = teaching::logits(&first, &texts, &mut silent).unwrap();
    assert!(common::distance(&again, &by_other) < 1e-5, "what was said before is not its");
    for recipe in [&student, &half] {
        for refused in [lab.run(recipe, &corpus, &mut silent).map(Some), lab.recall(recipe, &corpus)] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("trained anew") && refused.contains(&first.report.id), "{refused}");
        }
    }
    // Before its first update a run has learnt nothing of its teacher.
    for entry in std::fs::read_dir(folder.path().join("runs").join(id)).unwrap().map(Result::unwrap) {
        let is_state = entry.file_name().to_string_lossy().starts_with("state-");
        is_state.then(|| std::fs::remove_file(entry.path()).unwrap());
    }
    let anew = lab.run(&half, &corpus, &mut silent).unwrap();
    assert_ne!(std::fs::read_to_string(anew.path.join("taught_by.json")).unwrap(), told);
    let shelf = folder.path().join("shelf");
    let kept = finished.keep(&shelf).and_then(|kept| kept.keep(&shelf)).unwrap(); // a copy may be kept over itself
    assert_eq!(std::fs::read_to_string(kept.path.join("taught_by.json")).unwrap(), told);
    assert_eq!(std::fs::read_to_string(finished.path.join("taught_by.json")).unwrap(), told);
}

#[test]
fn a_teacher_whose_weights_are_away_teaches_what_it_has_said() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let lab = lab(folder.path());
    let student = pair(&[]);
    let there = lab.run(&student, &corpus, &mut silent).unwrap();
    let teacher = lab.run(student.teacher.as_ref().unwrap(), &corpus, &mut silent).unwrap();
    std::fs::remove_file(teacher.path.join("model.safetensors")).unwrap();
    let longer = lab.run(&pair(&["train.stretch=2.0"]), &corpus, &mut silent).unwrap();
    let told = |run: &Run| std::fs::read_to_string(run.path.join("taught_by.json")).unwrap();
    assert_eq!(told(&longer), told(&there));
    let refused = teaching::logits(&teacher, &["没有见过的一行"], &mut silent).unwrap_err().to_string();
    assert!(refused.contains("model.safetensors") && refused.contains("No such file"), "{refused}");
}

#[test]
fn several_teachers_are_averaged_and_a_fold_is_answered_by_who_did_not_learn_it() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let lab = lab(folder.path());
    let averaged = pair(&["teaching={seeds=[1,2]}"]);
    let mean = lab.run(&averaged, &corpus, &mut silent).unwrap();
    assert_eq!(mean.report.teacher.unwrap().split('+').count(), 2);
    let folded = pair(&["teaching={folds=2}"]);
    lab.run(&folded, &corpus, &mut silent).unwrap();
    let parts: Vec<HashSet<String>> = folded
        .teachers()
        .iter()
        .map(|t| lab.plan(t, &corpus).unwrap().corpus.train.into_iter().map(|e| e.text).collect())
        .collect();
    assert!(parts[0].is_disjoint(&parts[1]) && parts.iter().all(|p| p.len() > 16));
    let asked: usize = folded
        .teachers()
        .iter()
        .zip(&parts)
        .map(|(t, learned)| {
            let teacher = lab.run(t, &corpus, &mut silent).unwrap();
            let count: usize = said(&teacher)[0].split(' ').nth(1).unwrap().parse().unwrap();
            assert!(count + learned.len() <= 64, "asked about none that it learned");
            count
        })
        .sum();
    assert_eq!(asked, parts.iter().map(HashSet::len).sum::<usize>());
    let texts: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
    let says = |recipe: &Recipe, texts: &[&str]| {
        teaching::logits(&lab.run(recipe, &corpus, &mut silent).unwrap(), texts, &mut silent).unwrap()
    };
    let taught = |recipe: &Recipe| {
        let teachers =
            recipe.teachers().iter().map(|t| lab.run(t, &corpus, &mut silent)).collect::<Result<Vec<_>, _>>();
        teaching::taught(&recipe.teaching, &teachers.unwrap(), &texts, &mut silent).unwrap()
    };
    let [one, other] = [&averaged, &folded].map(|recipe| [0, 1].map(|k| says(&recipe.teachers()[k], &texts)));
    assert!(common::distance(&one[0], &one[1]) > 1e-3, "two teachers that say the same prove nothing");
    assert!(common::distance(&taught(&averaged), &((&one[0] + &one[1]) / 2.0)) < 1e-6);
    let of_fold = taught(&folded);
    for (row, text) in texts.iter().enumerate() {
        // The k-th teacher was trained without the k-th part.
        let k = usize::from(parts[0].contains(*text));
        assert!(common::distance(&of_fold.get(row as i64), &other[k].get(row as i64)) < 1e-6, "{text}");
    }
    let mut few = corpus.clone();
    few.train.truncate(8);
    let crumbs = pair(&["teaching={folds=8}"]);
    assert!(lab.run(&crumbs, &few, &mut silent).is_ok(), "a fold may be empty");
}

#[test]
fn a_blind_run_never_looks_at_test() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let recipe = recipe("student", &[&TINY_STUDENT, &["data.blind=true"][..]].concat());
    let run = Lab::at(folder.path()).run(&recipe, &corpus, &mut silent).unwrap();
    let report = std::fs::read_to_string(run.path.join("report.json")).unwrap();
    assert!(report.contains("\"dev\": {") && !report.contains("\"test\""), "{report}");
    assert!(!run.path.join("test.safetensors").exists() && run.logits(Split::Dev).is_ok());
    let kept = run.keep(&folder.path().join("shelf")).unwrap();
    assert!(kept.report == run.report && !kept.path.join("test.csv").exists());
    let kd = |verb: &[&str]| {
        let mut kd = std::process::Command::new(env!("CARGO_BIN_EXE_kd"));
        let output = kd.arg("--checkpoints").arg(folder.path()).args(verb).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    assert!(kd(&["list"]).contains("dev accuracy") && kd(&["test", &run.report.id]).contains("left test alone"));
    assert!(kd(&["test", &run.report.id, "--dev"]).contains("accuracy"));
}

#[test]
fn the_temperature_goes_to_its_last_value_in_a_straight_line() {
    let (folder, corpus) = (tempfile::tempdir().unwrap(), Corpus::open(sample()).unwrap());
    let settings =
        ["objective={kind=\"distillation\",temperature=8.0,hard=0.5,soft=0.5}", "train.final_temperature=2.0"];
    let plan = lab(folder.path()).plan(&pair(&settings), &corpus).unwrap();
    let at = |step: usize| plan.seats(step).objective.temperature();
    assert_eq!((at(0), at(plan.steps / 2), at(plan.steps)), (8.0, 5.0, 2.0));
    assert!(lab(folder.path()).plan(&pair(&[settings[0], "train.final_temperature=0.0"]), &corpus).is_err());
}
