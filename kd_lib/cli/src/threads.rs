//! Threads of the program: how many, and how long they wait for one another by spinning.

use crate::arguments::KdCommand;
use kd_lib::threads::{ThreadControl, ThreadPolicy};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// What libtorch's threads read when the process starts.
const SPIN_COUNT: &str = "GOMP_SPINCOUNT";
/// Short waits cost a quiet machine nothing, and a busy one much less than the default.
const SHORT: &str = "3000";

/// The number that was asked for, by the option or by `OMP_NUM_THREADS` (of a list, as OpenMP allows
/// it, the first), else the free cores.
pub fn policy(asked: Option<u16>) -> ThreadPolicy {
    let variable = std::env::var("OMP_NUM_THREADS").ok();
    let number = asked.or_else(|| variable?.split(',').next()?.trim().parse().ok());
    match number {
        Some(threads) if threads > 0 => ThreadPolicy::Fixed(usize::from(threads)),
        _ => ThreadPolicy::FreeCores,
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
