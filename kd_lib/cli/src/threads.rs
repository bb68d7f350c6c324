//! Threads of the program: how many, and how long they wait for one another by spinning.

use crate::arguments::KdCommand;
use anyhow::{Result, bail};
use kd_lib::threads::{ThreadControl, ThreadPolicy};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The number of threads that OpenMP programs read.
const VARIABLE: &str = "OMP_NUM_THREADS";
/// More threads are a typing error.
const MAX_THREADS: usize = 1024;
/// What libtorch's threads read when the process starts.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// Short waits cost a quiet machine nothing, and a busy one much less than the default.
const SHORT: &str = "3000";

/// The number that was asked for, by the option or by `OMP_NUM_THREADS` (of a list, as OpenMP allows
/// it, the first), else the free cores.
pub fn policy(asked: Option<u16>) -> Result<ThreadPolicy> {
    if let Some(threads) = asked {
        return Ok(ThreadPolicy::Fixed(usize::from(threads)));
    }
    let Some(variable) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) else {
        return Ok(ThreadPolicy::FreeCores);
    };
    let variable = variable.to_string_lossy();
    let first = variable.split(',').next().unwrap_or_default().trim();
    match first.parse() {
        Ok(threads @ 1..=MAX_THREADS) => Ok(ThreadPolicy::Fixed(threads)),
        _ => bail!("{VARIABLE}={variable}: give a number from 1 to {MAX_THREADS}, or unset it"),
    }
}

/// Sets the number of threads for the whole process.
pub fn set_once(policy: ThreadPolicy) {
    ThreadControl::start(policy, None);
}

/// For `train` and `distill`: sets `GOMP_SPINCOUNT` and executes this program again in the same
/// process, because libgomp reads the variable only at the start. It does nothing if the caller set
/// `GOMP_SPINCOUNT` or `OMP_WAIT_POLICY`.
pub fn reexec_with_short_spin(command: &KdCommand) {
    let trains = matches!(command, KdCommand::Train(_) | KdCommand::Distill(_));
    let decided = [SPIN_COUNT, "OMP_WAIT_POLICY"]
        .iter()
        .any(|name| std::env::var_os(name).is_some());
    if !trains || decided {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        // It returns only if it failed; the program then goes on as it is.
        let _ = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(SPIN_COUNT, SHORT)
            .exec();
    }
}
