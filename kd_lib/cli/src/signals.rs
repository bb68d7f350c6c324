//! Signals that ask a run to stop: SIGINT, SIGTERM, SIGUSR1 and SIGHUP. The run saves what it has
//! and ends with [`STOPPED`]; a second signal ends the process at once. The library knows nothing
//! of signals: it only asks its progress callback.

use anyhow::Result;
use kd_lib::training::Activity;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

/// Exit code after a signal (EX_TEMPFAIL): the same command continues. After one signal all that
/// was computed is saved; after a second one the run continues from its last saved state.
pub const STOPPED: u8 = 75;

/// Whether a signal has come. There is one for the whole process, so that a signal between two
/// training runs stops the second.
pub struct StopSignals(Arc<Flags>);

struct Flags {
    requested: AtomicBool,
    /// Nothing would be lost: the process need not wait for the next report.
    at_once: AtomicBool,
}

impl StopSignals {
    /// From now on the first signal asks the run to stop, or ends the process while nothing would
    /// be lost; the second ends the process. SIGHUP keeps being ignored if it was ignored at the
    /// start, as under nohup.
    pub fn catch() -> Result<StopSignals> {
        let mut caught = vec![SIGTERM, SIGINT, SIGUSR1];
        if !is_ignored(SIGHUP) {
            caught.push(SIGHUP);
        }
        let flags = Arc::new(Flags {
            requested: AtomicBool::new(false),
            at_once: AtomicBool::new(true),
        });
        let (mut signals, shared) = (Signals::new(caught)?, flags.clone());
        std::thread::spawn(move || {
            for _ in &mut signals {
                let second = shared.requested.swap(true, SeqCst);
                let at_once = shared.at_once.load(SeqCst);
                if !second && at_once {
                    note!("Error: stopped; nothing is lost: run the same command again");
                }
                if second || at_once {
                    signal_hook::low_level::exit(i32::from(STOPPED));
                }
            }
        });
        Ok(StopSignals(flags))
    }

    /// Whether a signal has come. `activity` is what the run begins or continues to do.
    pub fn requested_at(&self, activity: Activity) -> bool {
        // In this order: a signal between the two lines ends the process at once.
        self.0
            .at_once
            .store(activity == Activity::Preparing, SeqCst);
        self.0.requested.load(SeqCst)
    }
}

/// Whether the process was started with this signal ignored.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
