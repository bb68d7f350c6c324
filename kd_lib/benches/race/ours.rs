//! kd_lib's side of the comparison.

use super::RoundResult;
use super::common::{peak_memory, recipe, store};
use super::works::{self, Opened, WORKS, Work};
use anyhow::{Context, Result};
use kd_lib::data::{Batch, Corpus};
use kd_lib::models::Mode;
use kd_lib::precision::Precision;
use std::io::BufRead;
use std::path::Path;
use std::process::Command;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// This program, started again as a contender.
pub fn command(work: &Work, corpus: &Path, precision: &str) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("contend")
        .arg(work.name)
        .arg(corpus)
        .arg(precision);
    Ok(command)
}

/// For each line of standard input, a round of work; prints what it took.
pub fn contend(name: &str, corpus: &Path, precision: &str) -> Result<()> {
    let work = WORKS
        .iter()
        .find(|work| work.name == name)
        .context("no such work")?;
    let mut round: Box<dyn FnMut(usize) -> Result<(f64, usize)>> = if work.evaluate {
        predictions(work, corpus, precision)?
    } else {
        steps(work, corpus, precision)?
    };
    for line in std::io::stdin().lock().lines() {
        let (seconds, texts) = round(line?.trim().parse()?)?;
        let result = RoundResult {
            seconds,
            texts,
            peak: peak_memory()?,
        };
        println!("{}", serde_json::to_string(&result)?);
    }
    Ok(())
}

type Round = Box<dyn FnMut(usize) -> Result<(f64, usize)>>;

fn steps(work: &Work, corpus: &Path, precision: &str) -> Result<Round> {
    let recipe = recipe(work.recipe, &[&format!("train.precision={precision}")])?;
    let mut timer = store().step_timer(&recipe, &Corpus::open(corpus)?)?;
    Ok(Box::new(move |batches| {
        let (start, mut texts) = (Instant::now(), 0);
        for _ in 0..batches {
            texts += timer.time_step()?.size.texts;
        }
        finish(timer.planned.device);
        Ok((start.elapsed().as_secs_f64(), texts))
    }))
}

fn predictions(work: &'static Work, corpus: &Path, precision: &str) -> Result<Round> {
    let Opened { plan, tokenizer } = works::open(work, corpus, precision)?;
    let model = works::build(&plan, &tokenizer)?;
    model.params().round(plan.precision);
    let split = tokenizer.encode_split(&plan.corpus.train)?;
    let all = work.chosen(&split, true);
    let mut done = 0;
    Ok(Box::new(move |batches| {
        let chosen: Vec<Vec<usize>> = (0..batches)
            .map(|at| all[(done + at) % all.len()].clone())
            .collect();
        done += batches;
        let start = Instant::now();
        let _guard = tch::no_grad_guard();
        for rows in &chosen {
            let batch = Batch::collate(&split, rows, plan.device);
            let _ = model
                .logits(&batch, Mode::Eval, plan.precision)
                .argmax(-1, false);
        }
        finish(plan.device);
        Ok((
            start.elapsed().as_secs_f64(),
            chosen.iter().map(Vec::len).sum(),
        ))
    }))
}

/// Waits until a GPU has finished.
fn finish(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// Operations a second of a matrix product of 2048 × 768 × 3072, in fp32 and in 16 bits.
pub fn matrix_products(device: Device, precision: Precision) -> [f64; 2] {
    const TIMES: usize = 8;
    let half = if precision == Precision::Fp16 {
        Kind::Half
    } else {
        Kind::BFloat16
    };
    [Kind::Float, half].map(|kind| {
        let [a, b] = [[2048, 768], [768, 3072]]
            .map(|size| Tensor::randn(size, (Kind::Float, device)).to_kind(kind));
        let mut rates: Vec<f64> = (0..15)
            .map(|_| {
                let start = Instant::now();
                (0..TIMES).for_each(|_| drop(a.matmul(&b)));
                finish(device);
                (2 * TIMES * 2048 * 768 * 3072) as f64 / start.elapsed().as_secs_f64()
            })
            .collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    })
}
