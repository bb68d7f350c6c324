//! Nothing lost, nothing silently different: the `kd` program killed, asked to stop, and started several times at once.
//! `KD_KILLS` sets how many kills there are (`make soak` asks for 50); moments are drawn by a fixed seed.

mod common;

use common::program::{TINY_TEACHER, finished, kd, result};
use common::{TINY_STUDENT, recipe, root, sample, tiny_checkpoint, turn};
use kd_lib::data::Corpus;
use kd_lib::lab::Lab;
use kd_lib::progress::{Tick, silent};
use kd_lib::run::Run;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Recipes that between them use dropout, accumulation, PGD, short numbers and a teacher.
fn recipes() -> [(&'static str, Vec<&'static str>); 4] {
    let student = |more: &[&'static str]| [&TINY_STUDENT[..], more].concat();
    let teacher = |more: &[&'static str]| [&TINY_TEACHER[..], more].concat();
    let distilled = [
        "teacher.model.weights=tiny",
        "teacher.model.pooling=cls",
        "teacher.model.prefix=",
        "teacher.device=cpu",
        "teacher.data.max_tokens=32",
        "teacher.train.epochs=1",
    ];
    [
        ("student", student(&["train.epochs=8"])),
        ("teacher", teacher(&["train.epochs=2", "train.batch=4", "train.accumulation=4"])),
        ("bilstm+pgd", [&student(&["train.epochs=3"])[..6], &["train.precision=bf16"]].concat()),
        ("bilstm+kd-t5", student(&distilled)),
    ]
}

/// Waits for the process, and kills it when `patience` is over; says whether it ended by itself.
fn kill_after(mut child: Child, patience: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap(); // SIGKILL
    child.wait().unwrap();
    None
}

#[test]
fn a_run_killed_at_any_moment_ends_with_the_bytes_of_one_that_was_not() {
    let wanted: usize = std::env::var("KD_KILLS").map_or(12, |n| n.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut killed = 0;
    for (recipe, settings) in recipes() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        {
            let _turn = turn(); // its weights are drawn in this process
            tiny_checkpoint(&whole.path().join("tiny"));
        }
        std::os::unix::fs::symlink(whole.path().join("tiny"), broken.path().join("tiny")).unwrap();
        let start = Instant::now();
        let expected = finished(&mut kd(whole.path(), recipe, &settings));
        let length = start.elapsed();
        let mut kills = 0;
        while kills < wanted.div_ceil(4) {
            let child =
                kd(broken.path(), recipe, &settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            match kill_after(child, length.mul_f64(random.random_range(0.05..0.95))) {
                None => kills += 1,
                // Finished in spite of it all: begin again, so that all kills are met.
                Some(status) => {
                    assert!(status.success(), "{recipe} failed after {kills} kills");
                    std::fs::remove_dir_all(broken.path().join("runs")).unwrap();
                }
            }
        }
        let run = finished(&mut kd(broken.path(), recipe, &settings));
        for ((name, ours), (_, theirs)) in result(&run).iter().zip(result(&expected)) {
            assert!(*ours == theirs, "{recipe}: {name} differs after {kills} kills");
        }
        assert_eq!(result(&run).len(), result(&expected).len());
        let left: Vec<_> = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(!left.iter().any(|n| n.to_string_lossy().starts_with(".writing-")), "{recipe}: {left:?}");
        killed += kills;
    }
    println!("{killed} of {killed} killed runs ended with the same bytes");
    assert!(killed >= wanted);
}

#[test]
fn a_signal_stops_a_run_within_its_update_and_the_same_command_goes_on() {
    for signal in ["TERM", "INT", "USR1"] {
        let lab = tempfile::tempdir().unwrap();
        let settings = [&TINY_STUDENT[..], &["train.epochs=60", "train.evaluate_every=100000"]].concat();
        let mut child = kd(lab.path(), "student", &settings).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        assert!(first.contains("step 1/"), "{first}");
        assert!(Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
        let rest: Vec<String> = said.lines().map(Result::unwrap).collect();
        let last = rest.last().unwrap();
        assert!(last.contains("stopped at") && last.contains("go on"), "{last}");
        let stopped: usize = last.split("stopped at ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let output = kd(lab.path(), "student", &settings).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && said.contains(&format!("step {}/", stopped + 1)), "{stopped}: {said}");
    }
}

#[test]
fn a_signal_between_two_trainings_stops_the_second_at_its_beginning() {
    let lab = tempfile::tempdir().unwrap();
    {
        let _turn = turn();
        tiny_checkpoint(&lab.path().join("tiny"));
    }
    let teacher = ["teacher.model.weights=tiny", "teacher.model.pooling=cls", "teacher.model.prefix="];
    let settings = [
        &teacher[..],
        &["model.embedding=12", "model.hidden=8", "device=cpu", "data.max_tokens=32", "train.epochs=60"],
    ]
    .concat();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd"));
    command.env("OMP_NUM_THREADS", "1").current_dir(root()).arg("--checkpoints").arg(lab.path());
    command.arg("distill").arg(sample()).args(["--profile", "smoke"]).args(settings.iter().flat_map(|s| ["--set", s]));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The teacher's last line: its weights and report are still to be written, and no training runs.
    let ended = |line: &str| {
        let step = line.split("step ").nth(1).and_then(|rest| rest.split(' ').next());
        line.contains("dev accuracy") && step.and_then(|s| s.split_once('/')).is_some_and(|(step, steps)| step == steps)
    };
    let before: Vec<String> = said.by_ref().take_while(|line| !ended(line)).collect();
    assert!(before.iter().all(|line| line.starts_with("bert-")), "{before:?}");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{rest:?}");
    let last = rest.last().unwrap();
    assert!(last.contains("bilstm-") && last.contains("stopped at"), "{rest:?}");
}

#[test]
fn of_six_launches_of_one_recipe_one_trains_and_all_return_its_report() {
    let lab = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..6).map(|_| kd(lab.path(), "student", &TINY_STUDENT).spawn().unwrap()).collect();
    let outputs: Vec<_> = children.into_iter().map(|c| c.wait_with_output().unwrap()).collect();
    let trained = outputs.iter().filter(|o| String::from_utf8_lossy(&o.stderr).contains("step 1/")).count();
    assert_eq!(trained, 1, "exactly one trains");
    assert!(outputs.iter().all(|o| o.status.success() && o.stdout == outputs[0].stdout), "the same run for all");
}

/// Damaged copies of a file's bytes: cut at 16 lengths, and `flips` of them with one bit turned.
fn damaged(bytes: &[u8], flips: usize, random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..16).map(|n| bytes[..bytes.len() * n / 16].to_vec()).collect();
    all.extend((0..flips).map(|_| {
        let mut copy = bytes.to_vec();
        copy[random.random_range(0..bytes.len())] ^= 1 << random.random_range(0..8);
        copy
    }));
    all
}

#[test]
fn a_damaged_state_is_noticed_and_the_one_before_it_gone_on_from() {
    let _turn = turn();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = recipe("student", &TINY_STUDENT);
    let corpus = Corpus::open(sample()).unwrap();
    let expected = Lab::at(whole.path()).run(&recipe, &corpus, &mut silent).unwrap();
    let lab = Lab::at(broken.path());
    let stop_at = |step: usize| move |t: &Tick| if t.step == step { ControlFlow::Break(()) } else { silent(t) };
    let _ = [3, 5].map(|step| lab.run(&recipe, &corpus, &mut stop_at(step)).unwrap_err());
    let folder = broken.path().join("runs").join(&expected.report.id);
    let states = || -> Vec<PathBuf> {
        let names = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
        let mut all: Vec<PathBuf> = names.filter(|p| p.to_string_lossy().contains("/state-")).collect();
        all.sort();
        all
    };
    let kept: Vec<(PathBuf, Vec<u8>)> = states().into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    assert_eq!(kept.len(), 2, "the last state and the one before it");
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut first = 0;
    for bytes in damaged(&kept[1].1, 1000, &mut random) {
        states().iter().for_each(|p| std::fs::remove_file(p).unwrap());
        std::fs::write(&kept[0].0, &kept[0].1).unwrap();
        std::fs::write(&kept[1].0, bytes).unwrap();
        let mut seen = |tick: &Tick| {
            first = tick.step;
            ControlFlow::Break(())
        };
        lab.run(&recipe, &corpus, &mut seen).unwrap_err();
        assert_eq!(first, 4, "went on from the state before the damaged one");
    }
    std::fs::write(&kept[1].0, b"").unwrap();
    states().iter().for_each(|p| std::fs::write(p, b"nothing").unwrap());
    let error = lab.run(&recipe, &corpus, &mut silent).unwrap_err().to_string();
    assert!(error.contains("damaged, like every state saved before it; remove the run's folder"), "{error}");
    states().iter().for_each(|p| std::fs::remove_file(p).unwrap());
    std::fs::write(&kept[0].0, &kept[0].1).unwrap();
    let run = lab.run(&recipe, &corpus, &mut silent).unwrap();
    assert!(result(&run.path) == result(&expected.path), "the same bytes in the end");
}

#[test]
fn a_finished_run_with_a_damaged_file_is_refused_by_that_file_s_name() {
    let _turn = turn();
    let lab = tempfile::tempdir().unwrap();
    let recipe = recipe("student", &[&TINY_STUDENT[..], &["train.epochs=1"]].concat());
    let run = Lab::at(lab.path()).run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent).unwrap().path;
    let listed = std::fs::read_to_string(run.join("b3sums")).unwrap();
    let names: Vec<&str> = listed.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut copies = 0;
    for name in names.iter().copied().chain(["b3sums"]) {
        let path = run.join(name);
        let sound = std::fs::read(&path).unwrap();
        for bytes in damaged(&sound, 1000, &mut random) {
            std::fs::write(&path, bytes).unwrap();
            let error = Run::open(&run).unwrap_err().to_string();
            // A changed name in the list is told by that name.
            assert!(error.contains("damaged") && (name == "b3sums" || error.contains(name)), "{name}: {error}");
            copies += 1;
        }
        std::fs::write(&path, sound).unwrap();
    }
    Run::open(&run).unwrap();
    println!("{copies} damaged copies, all noticed");
    let left = run.join("state-00000001-0123456789abcdef.safetensors"); // as by a kill right after the last seal
    std::fs::write(&left, "").unwrap();
    Lab::at(lab.path()).run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent).unwrap();
    assert!(!left.exists());
    let report = std::fs::read_to_string(run.join("report.json")).unwrap();
    std::fs::write(run.join("report.json"), report.replace("\"format\": 1", "\"format\": 2")).unwrap();
    kd_lib::files::seal(&run, "report.json").unwrap();
    let error = Run::open(&run).unwrap_err().to_string();
    assert!(error.contains("format 2") && error.contains("the program that wrote it"), "{error}");
}

#[test]
fn a_damaged_portion_of_a_teacher_s_answers_is_answered_again() {
    let _turn = turn();
    let lab = tempfile::tempdir().unwrap();
    tiny_checkpoint(&lab.path().join("tiny"));
    let teacher = recipe("teacher", &[&TINY_TEACHER[..], &["train.epochs=1"]].concat());
    let teacher = Lab::at(lab.path()).run(&teacher, &Corpus::open(sample()).unwrap(), &mut silent).unwrap();
    let texts = ["基金净值上涨", "球队晋级决赛"];
    let sound = kd_lib::teaching::logits(&teacher, &texts, &mut silent).unwrap();
    let parts = std::fs::read_dir(teacher.path.join("answers")).unwrap().map(|e| e.unwrap().path());
    let part = parts.into_iter().find(|p| p.to_string_lossy().contains("part-")).unwrap();
    let bytes = std::fs::read(&part).unwrap();
    for copy in damaged(&bytes, 100, &mut ChaCha8Rng::seed_from_u64(3)) {
        std::fs::write(&part, copy).unwrap();
        assert_eq!(kd_lib::teaching::logits(&teacher, &texts, &mut silent).unwrap(), sound);
    }
}
