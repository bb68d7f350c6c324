//! `kd distill` with the default teacher is asked to stop at many moments: in training, evaluation,
//! teacher logits, final scoring and the wait for a lock. Each time it ends by itself within ten
//! seconds, and in the end its runs have the bytes of undisturbed ones. `KD_MOMENTS` sets the
//! number of moments (`make soak`: 200, at least 30 of each kind, on passes of over ten seconds);
//! they are drawn with a fixed seed.

use crate::common::{sample, teacher_weights};
use crate::program::{kd, result, text};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// After this time a process that was asked to stop is killed, and the test fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a message names each kind of moment.
const KINDS: [(&str, &str); 7] = [
    ("training", " updates;"),
    ("evaluation", "in an evaluation"),
    ("teacher logits", " texts' logits"),
    ("final scoring", "in the final scoring"),
    ("waiting", "in the wait for another process"),
    ("preparing", "before its first step"),
    ("preparing", "nothing is lost"),
];

/// How much is trained, and how often it is stopped.
struct Size {
    moments: usize,
    of_each_kind: usize,
    train_texts: usize,
    /// Of dev and of test.
    evaluated_texts: usize,
    teacher_epochs: usize,
}

impl Size {
    fn from_environment() -> Size {
        let moments = std::env::var("KD_MOMENTS").map_or(20, |n| n.parse().unwrap());
        match moments {
            100.. => Size {
                moments,
                of_each_kind: moments * 3 / 20,
                train_texts: 200,
                evaluated_texts: 2000,
                teacher_epochs: 2,
            },
            // Minutes on two slow cores.
            _ => Size {
                moments,
                of_each_kind: 1,
                train_texts: 80,
                evaluated_texts: 120,
                teacher_epochs: 1,
            },
        }
    }
}

/// A corpus of pairs of the sample's texts.
fn corpus(folder: &Path, size: &Size) -> PathBuf {
    let corpus = folder.join("corpus");
    std::fs::create_dir(&corpus).unwrap();
    std::fs::copy(sample().join("class.txt"), corpus.join("class.txt")).unwrap();
    for split in ["train", "dev", "test"] {
        let file = std::fs::read_to_string(sample().join(split).with_extension("txt")).unwrap();
        let lines: Vec<(&str, &str)> = file.lines().filter_map(|l| l.split_once('\t')).collect();
        let wanted = match split {
            "train" => size.train_texts,
            _ => size.evaluated_texts,
        };
        let mut joined = String::new();
        for number in 0..wanted {
            let (first, label) = lines[number % lines.len()];
            let (second, _) = lines[(number * 7 + number / lines.len()) % lines.len()];
            joined += &format!("{first}{second}\t{label}\n");
        }
        std::fs::write(corpus.join(split).with_extension("txt"), joined).unwrap();
    }
    corpus
}

fn distill(store: &Path, corpus: &Path, size: &Size) -> Command {
    let mut command = kd(store);
    command
        .arg("distill")
        .arg(corpus)
        .args(["--profile", "full"]);
    for setting in [
        "device=cpu",
        "data.max_length=32",
        "data.drop_leaks=false",
        "transfer.augmentations_per_text=3",
        &format!("teacher.train.epochs={}", size.teacher_epochs),
        "teacher.train.precision=fp32",
        "train.epochs=3",
        "model.hidden_size=32",
    ] {
        command.args(["--set", setting]);
    }
    command
}

/// A store with the default teacher's weights.
fn store(folder: &Path, name: &str) -> PathBuf {
    let store = folder.join(name);
    std::fs::create_dir(&store).unwrap();
    std::os::unix::fs::symlink(teacher_weights(), store.join("e5-small")).unwrap();
    store
}

/// The results of all runs of a store.
fn results(store: &Path) -> BTreeMap<String, Vec<(String, Vec<u8>)>> {
    let runs = std::fs::read_dir(store.join("runs")).unwrap();
    runs.map(|run| run.unwrap())
        .map(|run| (run.file_name().into_string().unwrap(), result(&run.path())))
        .collect()
}

/// Locks the run that is in work, as another process would.
fn hold_a_lock(store: &Path) -> Option<File> {
    let runs = std::fs::read_dir(store.join("runs")).ok()?;
    let mut runs = runs.map(|run| run.unwrap().path());
    let unfinished = runs.find(|run| !run.join("b3sums").exists())?;
    let lock = File::create(unfinished.join(".lock")).unwrap();
    lock.lock().unwrap();
    Some(lock)
}

/// How a process ended that was asked to stop.
struct Ended {
    status: ExitStatus,
    /// From the signal to the end; none if it ended before.
    reaction: Option<Duration>,
    last_line: String,
}

/// Starts the command, sends SIGTERM some time after its first line, and waits for its end.
fn stop_after(command: &mut Command, delay: Duration) -> Ended {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last_line = lines.next().map_or(String::new(), Result::unwrap);
    let reader = std::thread::spawn(move || lines.last().map(Result::unwrap));
    std::thread::sleep(delay);
    let mut reaction = None;
    if child.try_wait().unwrap().is_none() {
        let asked = Instant::now();
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", "TERM", &id])
                .status()
                .unwrap()
                .success()
        );
        while child.try_wait().unwrap().is_none() {
            if asked.elapsed() > PATIENCE {
                child.kill().unwrap();
                panic!("still running {PATIENCE:?} after SIGTERM; last line: {last_line}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        reaction = Some(asked.elapsed());
    }
    let status = child.wait().unwrap();
    last_line = reader.join().unwrap().unwrap_or(last_line);
    Ended {
        status,
        reaction,
        last_line,
    }
}

#[test]
fn a_distillation_that_is_stopped_at_many_moments_ends_with_the_bytes_of_an_undisturbed_one() {
    let size = Size::from_environment();
    let moments = size.moments;
    let folder = tempfile::tempdir().unwrap();
    let corpus = corpus(folder.path(), &size);
    let (whole, broken) = (
        store(folder.path(), "whole"),
        store(folder.path(), "broken"),
    );
    let output = distill(&whole, &corpus, &size).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected = results(&whole);

    let mut random = ChaCha8Rng::seed_from_u64(17);
    let mut stopped: BTreeMap<&str, usize> = BTreeMap::new();
    let mut longest: BTreeMap<&str, Duration> = BTreeMap::new();
    let mut compared = 0;
    for attempt in 1.. {
        let enough = KINDS[..5]
            .iter()
            .all(|(kind, _)| stopped.get(kind) >= Some(&size.of_each_kind));
        if enough && stopped.values().sum::<usize>() >= moments {
            break;
        }
        assert!(attempt < 20 * moments, "stopped so far: {stopped:?}");
        let _lock = (attempt % 6 == 0).then(|| hold_a_lock(&broken));
        let delay = Duration::from_millis(random.random_range(0..3000));
        let ended = stop_after(&mut distill(&broken, &corpus, &size), delay);
        if ended.status.success() {
            assert!(
                results(&broken) == expected,
                "other bytes after {stopped:?}"
            );
            compared += 1;
            std::fs::remove_dir_all(broken.join("runs")).unwrap();
            continue;
        }
        assert_eq!(ended.status.code(), Some(75), "{}", ended.last_line);
        let named = KINDS
            .iter()
            .find(|(_, words)| ended.last_line.contains(words));
        let (kind, _) = named.unwrap_or_else(|| panic!("{}", ended.last_line));
        *stopped.entry(kind).or_default() += 1;
        let longest = longest.entry(kind).or_default();
        *longest = ended.reaction.unwrap().max(*longest);
    }
    let output = distill(&broken, &corpus, &size).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        results(&broken) == expected,
        "other bytes after {stopped:?}"
    );
    compared += 1;
    println!(
        "stopped at {} moments ({stopped:?}); longest reactions {longest:.2?}; {compared} \
         distillations ended with the same bytes",
        stopped.values().sum::<usize>(),
    );
}
