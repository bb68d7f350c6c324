//! Our side of the race.

use super::Answer;
use super::common::{lab, peak, recipe};
use super::works::{self, WORKS, Work};
use anyhow::{Context, Result};
use kd_lib::data::{Corpus, Encoder};
use kd_lib::models::{BiLstmConfig, Blueprint, Pooling};
use std::io::BufRead;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// This program, started again as a contender.
pub fn command(work: &Work, corpus: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("contend").arg(work.name).arg(corpus);
    Ok(command)
}

/// Answers each line of standard input with a round of work.
pub fn contend(name: &str, corpus: &Path) -> Result<()> {
    let work = WORKS.iter().find(|work| work.name == name).context("no such work")?;
    let mut round: Box<dyn FnMut(usize) -> Result<(f64, usize)>> =
        if work.evaluate { reads(work, corpus)? } else { steps(work, corpus)? };
    for line in std::io::stdin().lock().lines() {
        let (seconds, texts) = round(line?.trim().parse()?)?;
        println!("{}", serde_json::to_string(&Answer { seconds, texts, peak: peak()? })?);
    }
    Ok(())
}

type Round = Box<dyn FnMut(usize) -> Result<(f64, usize)>>;

fn steps(work: &Work, corpus: &Path) -> Result<Round> {
    let mut rehearsal = lab().rehearse(&recipe(work.recipe, &[])?, &Corpus::open(corpus)?)?;
    Ok(Box::new(move |batches| {
        let mut sum = (0.0, 0);
        for _ in 0..batches {
            let (seconds, texts) = rehearsal.update()?;
            sum = (sum.0 + seconds, sum.1 + texts);
        }
        Ok(sum)
    }))
}

fn reads(work: &'static Work, corpus: &Path) -> Result<Round> {
    let (plan, encoder) = works::open(work, corpus)?;
    let classes = plan.corpus.labels.len() as i64;
    let blueprint = match (&encoder, &plan.checkpoint) {
        (Encoder::Pieces(pieces), Some((_, config))) => {
            let mut config = config.clone();
            config.vocab_size = pieces.rows().map_or(config.vocab_size, |rows| rows as i64);
            Blueprint::Bert { config, pooling: Pooling::Mean, classes }
        }
        (Encoder::Characters { vocabulary, .. }, _) => {
            let vocabulary = vocabulary.size() as i64;
            Blueprint::Bilstm {
                config: BiLstmConfig {
                    vocabulary,
                    embedding: 300,
                    hidden: 384,
                    classes,
                    dropout: 0.3,
                    pool_padding: false,
                },
            }
        }
        _ => anyhow::bail!("no checkpoint"),
    };
    let model = blueprint.build(Device::Cpu);
    let split = encoder.encode_split(&plan.corpus.train)?;
    let all = work.chosen(&split, true);
    let mut done = 0;
    Ok(Box::new(move |batches| {
        let chosen: Vec<Vec<usize>> = (0..batches).map(|at| all[(done + at) % all.len()].clone()).collect();
        done += batches;
        let start = Instant::now();
        let _guard = tch::no_grad_guard();
        for rows in &chosen {
            let batch = kd_lib::data::Batch::collate(&split, rows, Device::Cpu);
            let _ = model.logits(&batch, kd_lib::models::Mode::Eval, plan.precision).argmax(-1, false);
        }
        Ok((start.elapsed().as_secs_f64(), chosen.iter().map(Vec::len).sum()))
    }))
}

/// What a plain matrix product of 2048 × 768 × 3072 reaches here in fp32 and in bf16, operations a second.
pub fn matrix_products() -> [f64; 2] {
    [Kind::Float, Kind::BFloat16].map(|kind| {
        let [a, b] =
            [[2048, 768], [768, 3072]].map(|size| Tensor::randn(size, (Kind::Float, Device::Cpu)).to_kind(kind));
        let mut rates: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                let _ = a.matmul(&b);
                2.0 * 2048.0 * 768.0 * 3072.0 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    })
}
