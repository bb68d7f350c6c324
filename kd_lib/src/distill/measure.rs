//! What a plan depends on: the corpus in numbers, and how long this machine takes for a text.
//! Nothing is written. Of dev and test only the size counts, and which other texts recur there.

use super::facts::{CorpusFacts, PlanSettings, SecondsPerText};
use super::recipes::{NETWORK_WIDTHS, StudentKind, baseline_recipe, teacher_recipe};
use super::run_plan::FOLD_SEED;
use crate::data::splits::{draw_at_most, folds};
use crate::data::text_input::TextKey;
use crate::data::unlabelled::UnlabelledFile;
use crate::data::{Corpus, Example, Truncation};
use crate::models::ModelConfig;
use crate::store::RunStore;
use crate::store::step_timer::{StepTime, StepTimer};
use crate::{Error, Result};
use std::collections::HashSet;
use std::time::Instant;

/// Updates, and forward passes of the teacher, that are timed at least, after one that warms up.
const MIN_STEPS: usize = 3;
/// The same, at most.
const MAX_STEPS: usize = 15;
/// The share of the budget for the timed updates of one recipe, and for the timed passes of the
/// teacher, beyond the least number.
const TIMED_SHARE: f64 = 0.005;
/// Training texts whose lengths are measured.
const MEASURED_TEXTS: usize = 2000;
/// Lengths are rounded up to a multiple of this.
const LENGTH_STEP: usize = 16;
/// The share of the texts that a plan does not truncate.
const UNCUT_SHARE: f64 = 0.95;
/// Longest sequence that a plan chooses.
const LONGEST: usize = 256;
/// A text with more spaces than one in this many characters is made of words.
const CHARACTERS_PER_SPACE: usize = 12;

/// Measures a corpus and this machine. Under cross-validation the first fold is measured.
pub fn measure(
    store: &RunStore,
    corpus: &Corpus,
    settings: &PlanSettings,
) -> Result<(CorpusFacts, SecondsPerText)> {
    let first_fold;
    let corpus = match settings.folds {
        0 => corpus,
        number => {
            first_fold = folds(corpus, number, FOLD_SEED)?.swap_remove(0).corpus;
            &first_fold
        }
    };
    let mut facts = corpus_facts(store, corpus, settings)?;
    if let Some(milliseconds) = settings.max_latency {
        facts.too_slow_networks = too_slow_networks(store, corpus, settings, &facts, milliseconds)?;
    }
    let teacher = teacher_recipe(settings, &facts, 1.0, None);
    let seconds = TIMED_SHARE * settings.budget.seconds;
    let mut timer = store.step_timer(&teacher, corpus)?;
    let teacher_update = seconds_per_text(&mut timer, seconds, StepTimer::time_step)?;
    let teacher_forward = seconds_per_text(&mut timer, seconds, StepTimer::time_forward)?;
    drop(timer);
    let student_seconds = |kind| -> Result<f64> {
        let recipe = baseline_recipe(settings, &facts, kind, 1.0)?;
        let mut timer = store.step_timer(&recipe, corpus)?;
        seconds_per_text(&mut timer, seconds, StepTimer::time_step)
    };
    let student_update = student_seconds(StudentKind::Bilstm)?;
    let speed = SecondsPerText {
        threads: tch::get_num_threads() as usize,
        teacher_update,
        teacher_forward,
        student_update,
        characters_factor: match facts.has_words {
            true => 1.0, // no plan uses it
            false => student_seconds(StudentKind::BilstmCharacters)? / student_update,
        },
        textcnn_factor: student_seconds(StudentKind::Textcnn)? / student_update,
        fasttext_factor: student_seconds(StudentKind::Fasttext)? / student_update,
    };
    Ok((facts, speed))
}

/// The median over the steps (updates or forward passes) that fit into `seconds`, since another
/// program may hold the processor during one. Texts of a step have other lengths than those of the
/// next, so seconds are counted per padded token.
fn seconds_per_text(
    timer: &mut StepTimer,
    seconds: f64,
    time: impl Fn(&mut StepTimer) -> Result<StepTime>,
) -> Result<f64> {
    time(timer)?;
    let started = Instant::now();
    let mut per_token = Vec::new();
    while per_token.len() < MIN_STEPS
        || (per_token.len() < MAX_STEPS && started.elapsed().as_secs_f64() < seconds)
    {
        let step = time(timer)?;
        per_token.push(step.seconds / step.size.padded_tokens.max(1) as f64);
    }
    per_token.sort_unstable_by(f64::total_cmp);
    let median = per_token[per_token.len() / 2];
    let epoch = timer.epoch_size()?;
    Ok(median * epoch.padded_tokens as f64 / epoch.texts.max(1) as f64)
}

/// Number of network widths, widest first, that take longer than `milliseconds` for the longest
/// text, as any kind of student.
fn too_slow_networks(
    store: &RunStore,
    corpus: &Corpus,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    milliseconds: f64,
) -> Result<usize> {
    let mut kinds = vec![StudentKind::Bilstm, StudentKind::Textcnn];
    if !facts.has_words {
        kinds.push(StudentKind::BilstmCharacters);
    }
    let mut fastest = f64::INFINITY;
    for too_slow_networks in 0..NETWORK_WIDTHS.len() {
        let facts = CorpusFacts {
            too_slow_networks,
            ..facts.clone()
        };
        let mut slowest = 0.0f64;
        for &kind in &kinds {
            let recipe = baseline_recipe(settings, &facts, kind, 1.0)?;
            let seconds = store.step_timer(&recipe, corpus)?.time_one_text();
            slowest = slowest.max(1000.0 * seconds);
        }
        if slowest <= milliseconds {
            return Ok(too_slow_networks);
        }
        fastest = fastest.min(slowest);
    }
    let problem = format!("{milliseconds} ms for one text");
    let fix = format!("allow {:.1} ms or more on this machine", fastest * 1.2);
    Err(Error::option("max-latency", problem, fix))
}

fn corpus_facts(store: &RunStore, corpus: &Corpus, settings: &PlanSettings) -> Result<CorpusFacts> {
    let ModelConfig::Bert(bert) = &settings.teacher.model else {
        let fix = "name a recipe of a BERT";
        return Err(Error::recipe("teacher.model.kind", "not a BERT", fix));
    };
    let checkpoint = store.checkpoint(&bert.checkpoint)?;
    let longest = LONGEST.min(checkpoint.config.longest_sequence() as usize);
    let whole = checkpoint.tokenizer()?;
    let tokenizer = whole.with_limit(&bert.prefix, longest, Truncation::Head);
    let selected = settings.teacher.data.select(corpus)?.corpus;
    let measured = draw_at_most(selected.train.iter(), MEASURED_TEXTS);
    let texts: Vec<_> = measured.map(Example::input).collect();
    let encodings = tokenizer.tokenizer_encodings(&texts)?;
    let mut lengths: Vec<usize> = encodings.iter().map(|e| e.ids.len()).collect();
    lengths.sort_unstable();
    let tokens = || encodings.iter().flat_map(|encoding| &encoding.ids);
    let unknown = tokens().filter(|&&id| tokenizer.is_unknown(id)).count();
    let at = ((lengths.len() as f64 * UNCUT_SHARE).ceil() as usize).clamp(1, lengths.len());
    let max_length = lengths[at - 1].next_multiple_of(LENGTH_STEP).min(longest);
    let longer = lengths
        .iter()
        .filter(|&&length| length > max_length || length == longest);
    let (mut characters, mut spaces) = (0, 0);
    for text in texts.iter().flat_map(|input| input.texts()) {
        characters += text.chars().count();
        spaces += text.matches(char::is_whitespace).count();
    }
    Ok(CorpusFacts {
        train_texts: selected.train.len(),
        unlabelled_texts: match &settings.unlabelled {
            Some(path) => {
                let mut seen: HashSet<TextKey> =
                    corpus.examples().map(|e| e.input().key()).collect();
                UnlabelledFile::open(path, corpus)?.usable(&mut seen)?.len()
            }
            None => 0,
        },
        dev_texts: selected.dev.len(),
        test_texts: selected.test.len(),
        classes: corpus.labels.len(),
        max_length,
        truncated: longer.count() as f64 / lengths.len() as f64,
        unknown: unknown as f64 / tokens().count().max(1) as f64,
        has_words: spaces * CHARACTERS_PER_SPACE > characters,
        imbalance: imbalance(&selected.train, corpus.labels.len()),
        too_slow_networks: 0,
    })
}

fn imbalance(examples: &[Example], classes: usize) -> f64 {
    let mut texts = vec![0usize; classes];
    examples.iter().for_each(|e| texts[e.label] += 1);
    let largest = texts.iter().max().copied().unwrap_or_default();
    let smallest = texts.iter().min().copied().unwrap_or_default();
    largest as f64 / smallest.max(1) as f64
}
