//! Nothing is lost, nothing is silently different: the `kd` program is killed, asked to stop, and
//! started several times at once. `KD_KILLS` sets the number of kills (`make soak`: 50); their
//! moments are drawn with a fixed seed.

use crate::common::{TINY_STUDENT, lock_generator, recipe, sample, tiny_checkpoint};
use crate::program::{TINY_TEACHER, finish, kd, kd_train, result};
use kd_lib::data::{Corpus, TextInput};
use kd_lib::store::teacher_logits::teacher_logits;
use kd_lib::store::{Run, RunStore};
use kd_lib::training::progress::{Progress, silent};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Recipes that together use dropout, gradient accumulation, PGD, bf16 and a teacher.
fn recipes() -> [(&'static str, Vec<&'static str>); 4] {
    let student = |more: &[&'static str]| [&TINY_STUDENT[..], more].concat();
    let teacher = |more: &[&'static str]| [&TINY_TEACHER[..], more].concat();
    let distilled = [
        "teacher.model.checkpoint=tiny",
        "teacher.model.pooling=cls",
        "teacher.model.prefix=",
        "teacher.device=cpu",
        "teacher.data.max_length=32",
        "teacher.train.epochs=1",
    ];
    [
        ("student", student(&["train.epochs=8"])),
        (
            "teacher",
            teacher(&[
                "train.epochs=2",
                "train.batch_size=4",
                "train.gradient_accumulation_steps=4",
            ]),
        ),
        (
            "bilstm+pgd",
            [
                &student(&["train.epochs=3"])[..6],
                &["train.precision=bf16"],
            ]
            .concat(),
        ),
        ("bilstm+kd-t5", student(&distilled)),
    ]
}

/// Waits for the process and kills it after `patience`. Returns its status if it ended by itself.
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
fn a_run_that_is_killed_at_any_moment_ends_with_the_bytes_of_an_undisturbed_run() {
    let wanted: usize = std::env::var("KD_KILLS").map_or(12, |n| n.parse().unwrap());
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut killed = 0;
    for (recipe, settings) in recipes() {
        let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        {
            let _lock = lock_generator(); // the checkpoint's weights are drawn in this process
            tiny_checkpoint(&whole.path().join("tiny"));
        }
        std::os::unix::fs::symlink(whole.path().join("tiny"), broken.path().join("tiny")).unwrap();
        let start = Instant::now();
        let expected = finish(&mut kd_train(whole.path(), recipe, &settings));
        let length = start.elapsed();
        let mut kills = 0;
        while kills < wanted.div_ceil(4) {
            let child = kd_train(broken.path(), recipe, &settings)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            match kill_after(child, length.mul_f64(random.random_range(0.05..0.95))) {
                None => kills += 1,
                // It finished before the kill: begin again, so that all kills happen.
                Some(status) => {
                    assert!(status.success(), "{recipe} failed after {kills} kills");
                    std::fs::remove_dir_all(broken.path().join("runs")).unwrap();
                }
            }
        }
        let run = finish(&mut kd_train(broken.path(), recipe, &settings));
        for ((name, ours), (_, theirs)) in result(&run).iter().zip(result(&expected)) {
            assert!(
                *ours == theirs,
                "{recipe}: {name} differs after {kills} kills"
            );
        }
        assert_eq!(result(&run).len(), result(&expected).len());
        let left: Vec<_> = std::fs::read_dir(&run)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|n| n.to_string_lossy().starts_with(".writing-")),
            "{recipe}: {left:?}"
        );
        killed += kills;
    }
    println!("{killed} of {killed} killed runs ended with the same bytes");
    assert!(killed >= wanted);
}

#[test]
fn a_signal_stops_a_run_within_its_update_and_the_same_command_continues() {
    for signal in ["TERM", "INT", "USR1", "HUP"] {
        let store = tempfile::tempdir().unwrap();
        let settings = [
            &TINY_STUDENT[..],
            &["train.epochs=60", "train.eval_every_samples=100000"],
        ]
        .concat();
        // These tests may themselves run under nohup.
        let default = ["env", "--default-signal=HUP"];
        let train = kd_train(store.path(), "student", &settings);
        let mut child = started_by(&default, &train).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        lines.read_line(&mut first).unwrap();
        assert!(first.contains("step 1/"), "{first}");
        assert!(
            Command::new("kill")
                .args(["-s", signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
        let rest: Vec<String> = lines.lines().map(Result::unwrap).collect();
        let last = rest.last().unwrap();
        assert!(
            last.contains("stopped at") && last.contains("continue"),
            "{last}"
        );
        let stopped: usize = last
            .split("stopped at ")
            .nth(1)
            .unwrap()
            .split(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap();
        let output = kd_train(store.path(), "student", &settings)
            .output()
            .unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        let continued = errors.contains(&format!("step {}/", stopped + 1));
        assert!(output.status.success() && continued, "{stopped}: {errors}");
    }
}

#[test]
fn a_signal_after_a_runs_last_update_stops_its_scoring_or_the_next_run() {
    let store = tempfile::tempdir().unwrap();
    {
        let _lock = lock_generator();
        tiny_checkpoint(&store.path().join("tiny"));
    }
    let teacher = [
        "teacher.model.checkpoint=tiny",
        "teacher.model.pooling=cls",
        "teacher.model.prefix=",
    ];
    let settings = [
        &teacher[..],
        &[
            "model.embedding_dim=12",
            "model.hidden_size=8",
            "device=cpu",
            "data.max_length=32",
            "train.epochs=60",
        ],
    ]
    .concat();
    let mut command = kd(store.path());
    command
        .arg("distill")
        .arg(sample())
        .args(["--profile", "smoke"])
        .args(settings.iter().flat_map(|s| ["--set", s]));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    // The teacher's last line: its scores are still to be computed, and nothing trains.
    let ended = |line: &str| {
        let step = line
            .split("step ")
            .nth(1)
            .and_then(|rest| rest.split(' ').next());
        line.contains("dev accuracy")
            && step
                .and_then(|s| s.split_once('/'))
                .is_some_and(|(step, steps)| step == steps)
    };
    let before: Vec<String> = lines.by_ref().take_while(|line| !ended(line)).collect();
    assert!(
        before.iter().all(|line| line.starts_with("teacher-")),
        "{before:?}"
    );
    assert!(
        Command::new("kill")
            .args(["-s", "TERM", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{rest:?}");
    let last = rest.last().unwrap();
    let stopped = [
        "in the final scoring",
        "before its first step",
        "nothing is lost",
    ];
    assert!(stopped.iter().any(|place| last.contains(place)), "{rest:?}");
}

/// The same command behind another program that starts it.
fn started_by(starter: &[&str], command: &Command) -> Command {
    let mut started = Command::new(starter[0]);
    started.args(&starter[1..]).arg(command.get_program());
    started.args(command.get_args());
    started.env("OMP_NUM_THREADS", "1");
    started.current_dir(command.get_current_dir().unwrap());
    started.stdout(Stdio::piped()).stderr(Stdio::piped());
    started
}

#[test]
fn a_run_under_nohup_goes_on_when_the_terminal_closes() {
    let store = tempfile::tempdir().unwrap();
    let train = kd_train(store.path(), "student", &TINY_STUDENT);
    let ignoring = ["env", "--ignore-signal=HUP"];
    let mut child = started_by(&ignoring, &train).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("step 1/"));
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", "HUP", &id]).status();
    assert!(sent.unwrap().success());
    let rest: Vec<String> = lines.map_while(Result::ok).collect();
    assert!(
        rest.iter().any(|line| line.contains("dev accuracy")),
        "{rest:?}"
    );
    assert!(child.wait().unwrap().success());
}

#[test]
fn of_six_processes_with_one_recipe_one_trains_and_all_print_its_run() {
    let store = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..6)
        .map(|_| {
            kd_train(store.path(), "student", &TINY_STUDENT)
                .spawn()
                .unwrap()
        })
        .collect();
    let outputs: Vec<_> = children
        .into_iter()
        .map(|c| c.wait_with_output().unwrap())
        .collect();
    let trained = outputs
        .iter()
        .filter(|o| String::from_utf8_lossy(&o.stderr).contains("step 1/"))
        .count();
    assert_eq!(trained, 1, "exactly one trains");
    assert!(
        outputs
            .iter()
            .all(|o| o.status.success() && o.stdout == outputs[0].stdout),
        "the same run for all"
    );
}

/// Damaged copies of a file's bytes: truncated to 16 lengths, and `flips` copies with one changed
/// bit.
fn damaged(bytes: &[u8], flips: usize, random: &mut ChaCha8Rng) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..16)
        .map(|n| bytes[..bytes.len() * n / 16].to_vec())
        .collect();
    all.extend((0..flips).map(|_| {
        let mut copy = bytes.to_vec();
        copy[random.random_range(0..bytes.len())] ^= 1 << random.random_range(0..8);
        copy
    }));
    all
}

#[test]
fn a_damaged_state_is_detected_and_the_run_continues_from_the_state_before_it() {
    let _lock = lock_generator();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = recipe("student", &TINY_STUDENT);
    let corpus = Corpus::open(sample()).unwrap();
    let expected = RunStore::new(whole.path())
        .run(&recipe, &corpus, &mut silent)
        .unwrap();
    let store = RunStore::new(broken.path());
    let stop_at = |step: usize| {
        move |t: &Progress| {
            if t.loss.is_some() && t.done == step {
                ControlFlow::Break(())
            } else {
                silent(t)
            }
        }
    };
    let _ = [3, 5].map(|step| store.run(&recipe, &corpus, &mut stop_at(step)).unwrap_err());
    let folder = broken.path().join("runs").join(&expected.report.id);
    let states = || -> Vec<PathBuf> {
        let names = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path());
        let mut all: Vec<PathBuf> = names
            .filter(|p| p.to_string_lossy().contains("/state-"))
            .collect();
        all.sort();
        all
    };
    let kept: Vec<(PathBuf, Vec<u8>)> = states()
        .into_iter()
        .map(|p| (p.clone(), std::fs::read(p).unwrap()))
        .collect();
    assert_eq!(kept.len(), 2, "the last state and the one before it");
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let mut first = 0;
    for bytes in damaged(&kept[1].1, 1000, &mut random) {
        states()
            .iter()
            .for_each(|p| std::fs::remove_file(p).unwrap());
        std::fs::write(&kept[0].0, &kept[0].1).unwrap();
        std::fs::write(&kept[1].0, bytes).unwrap();
        let mut seen = |progress: &Progress| {
            if progress.loss.is_none() {
                return ControlFlow::Continue(());
            }
            first = progress.done;
            ControlFlow::Break(())
        };
        store.run(&recipe, &corpus, &mut seen).unwrap_err();
        assert_eq!(
            first, 4,
            "it continues from the state before the damaged one"
        );
    }
    std::fs::write(&kept[1].0, b"").unwrap();
    states()
        .iter()
        .for_each(|p| std::fs::write(p, b"nothing").unwrap());
    let error = store
        .run(&recipe, &corpus, &mut silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("damaged, like every state saved before it; remove the run's folder"),
        "{error}"
    );
    states()
        .iter()
        .for_each(|p| std::fs::remove_file(p).unwrap());
    std::fs::write(&kept[0].0, &kept[0].1).unwrap();
    let run = store.run(&recipe, &corpus, &mut silent).unwrap();
    assert!(
        result(run.folder().unwrap()) == result(expected.folder().unwrap()),
        "the same bytes in the end"
    );
}

#[test]
fn the_error_of_a_finished_run_with_a_damaged_file_names_the_file() {
    let _lock = lock_generator();
    let store = tempfile::tempdir().unwrap();
    let recipe = recipe(
        "student",
        &[&TINY_STUDENT[..], &["train.epochs=1"]].concat(),
    );
    let run = RunStore::new(store.path());
    let run = run
        .run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent)
        .unwrap();
    let run = run.folder().unwrap().to_path_buf();
    let listed = std::fs::read_to_string(run.join("b3sums")).unwrap();
    let names: Vec<&str> = listed
        .lines()
        .map(|line| line.split_once("  ").unwrap().1)
        .collect();
    assert_eq!(names.len(), 9, "{names:?}");
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut copies = 0;
    for name in names.iter().copied().chain(["b3sums"]) {
        let path = run.join(name);
        let valid = std::fs::read(&path).unwrap();
        for bytes in damaged(&valid, 1000, &mut random) {
            std::fs::write(&path, bytes).unwrap();
            let error = Run::open(&run).unwrap_err().to_string();
            // The error of a changed name in the list has the changed name.
            assert!(
                error.contains("damaged") && (name == "b3sums" || error.contains(name)),
                "{name}: {error}"
            );
            copies += 1;
        }
        std::fs::write(&path, valid).unwrap();
    }
    Run::open(&run).unwrap();
    println!("{copies} damaged copies, all detected");
    // As after a kill behind the last write.
    let left = run.join("state-00000001-0123456789abcdef.safetensors");
    std::fs::write(&left, "").unwrap();
    RunStore::new(store.path())
        .run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent)
        .unwrap();
    assert!(!left.exists());
    let report = std::fs::read_to_string(run.join("report.json")).unwrap();
    std::fs::write(
        run.join("report.json"),
        report.replace("\"format\": 2", "\"format\": 3"),
    )
    .unwrap();
    kd_lib::store::run_files::write_checksums(&run).unwrap();
    let error = Run::open(&run).unwrap_err().to_string();
    assert!(
        error.contains("format 3") && error.contains("the program that wrote it"),
        "{error}"
    );
}

#[test]
fn the_logits_of_a_damaged_part_of_a_teachers_cache_are_computed_again() {
    let _lock = lock_generator();
    let store = tempfile::tempdir().unwrap();
    tiny_checkpoint(&store.path().join("tiny"));
    let teacher = recipe(
        "teacher",
        &[&TINY_TEACHER[..], &["train.epochs=1"]].concat(),
    );
    let teacher = RunStore::new(store.path())
        .run(&teacher, &Corpus::open(sample()).unwrap(), &mut silent)
        .unwrap();
    let texts = ["基金净值上涨", "球队晋级决赛"].map(TextInput::from);
    let valid = teacher_logits(&teacher, &texts, &mut silent).unwrap();
    let parts = std::fs::read_dir(teacher.folder().unwrap().join("predictions"))
        .unwrap()
        .map(|e| e.unwrap().path());
    let part = parts
        .into_iter()
        .find(|p| p.to_string_lossy().contains("part-"))
        .unwrap();
    let bytes = std::fs::read(&part).unwrap();
    for copy in damaged(&bytes, 100, &mut ChaCha8Rng::seed_from_u64(3)) {
        std::fs::write(&part, copy).unwrap();
        assert_eq!(
            teacher_logits(&teacher, &texts, &mut silent).unwrap(),
            valid
        );
    }
}
