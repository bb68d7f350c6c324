//! How many threads compute. libtorch's threads wait for one another by spinning, so a pass on two
//! threads, while another program is busy, takes several times the time of a pass on one. A
//! [`ThreadControl`] therefore counts the cores that other processes leave free, again and again.
//!
//! `kd` and the notebooks make a [`ThreadPolicy`] from `--threads` and `OMP_NUM_THREADS`.
//! `RunStore::with_threads` hands it to the trainer and to the teacher's logits. Each starts a
//! [`ThreadControl`], and may change the number at a saved state, or between two files of the
//! logits.
//!
//! Another number of threads gives other bits: matrix products and the gradients of layer norm sum
//! in another order. So the number belongs to a run's saved state and to its report.

use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

/// Who decides the number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThreadPolicy {
    /// The caller: libtorch's number is left as it is.
    #[default]
    Unchanged,
    /// This number.
    Fixed(usize),
    /// As many as there are free cores, measured while the work goes on.
    FreeCores,
}

/// From this update on, a run had this number of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadChange {
    /// Updates made before.
    pub step: usize,
    /// Threads.
    pub threads: usize,
}

/// Interval between two measurements of the load.
const INTERVAL: Duration = Duration::from_secs(5);
/// The first look, when nothing else is known.
const FIRST_LOOK: Duration = Duration::from_millis(200);
/// The number changes when it is wrong by more than this many cores, so that it does not go up and
/// down with every small program.
const TOLERANCE: f64 = 0.6;

/// Chooses the number of threads, and changes it while the work goes on.
#[derive(Debug)]
pub struct ThreadControl {
    policy: ThreadPolicy,
    threads: usize,
    last: Usage,
}

impl ThreadControl {
    /// Sets libtorch's number of threads. A continued run keeps the number that it had, `saved`,
    /// unless the policy fixes another one.
    pub fn start(policy: ThreadPolicy, saved: Option<usize>) -> ThreadControl {
        let cores = cores();
        let threads = match (policy, saved) {
            (ThreadPolicy::Unchanged, _) => tch::get_num_threads() as usize,
            (ThreadPolicy::Fixed(threads), _) => threads,
            (ThreadPolicy::FreeCores, Some(saved)) => saved,
            (ThreadPolicy::FreeCores, None) => {
                let before = Usage::now();
                std::thread::sleep(FIRST_LOOK);
                let now = Usage::now();
                let free = free_cores(now.allowed, cores, now.others_since(&before));
                wanted_threads(free, cores, cores)
            }
        };
        let control = ThreadControl {
            policy,
            threads,
            last: Usage::now(),
        };
        control.apply();
        control
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Looks at the load, if the last look is some seconds ago. Returns whether another number is
    /// wanted from now on; [`ThreadControl::apply`] sets it.
    pub fn reconsider(&mut self) -> bool {
        if self.policy != ThreadPolicy::FreeCores || self.last.at.elapsed() < INTERVAL {
            return false;
        }
        let now = Usage::now();
        let cores = cores();
        let free = free_cores(now.allowed, cores, now.others_since(&self.last));
        self.last = now;
        let wanted = wanted_threads(free, cores, self.threads);
        let changes = wanted != self.threads;
        self.threads = wanted;
        changes
    }

    /// Sets libtorch's number of threads.
    pub fn apply(&self) {
        if self.policy != ThreadPolicy::Unchanged {
            tch::set_num_threads(self.threads as i32);
        }
    }
}

/// The cores that are free for this process, while others keep `others` cores busy. A container
/// with a quota is allowed to run on all cores of a machine, but only on `at_one_time` of them at
/// once.
fn free_cores(allowed: usize, at_one_time: usize, others: f64) -> f64 {
    (allowed.max(at_one_time) as f64 - others).min(at_one_time as f64)
}

/// The number of threads for work that has `current` now, if `free` of the `cores` are free.
fn wanted_threads(free: f64, cores: usize, current: usize) -> usize {
    if (free - current as f64).abs() < TOLERANCE {
        return current.min(cores);
    }
    free.round().clamp(1.0, cores as f64) as usize
}

/// The cores that this process may use at one time.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

/// Seconds of processor time that were used until a moment.
#[derive(Debug)]
struct Usage {
    at: Instant,
    /// Cores on which this process is allowed to run.
    allowed: usize,
    /// By all processes, on these cores.
    all: f64,
    /// By this process.
    own: f64,
}

impl Usage {
    fn now() -> Usage {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let allowed = allowed_cores(&read("/proc/self/status"));
        Usage {
            at: Instant::now(),
            allowed: allowed.len(),
            all: busy_seconds(&read("/proc/stat"), &allowed),
            own: own_seconds(&read("/proc/self/stat")),
        }
    }

    /// The mean number of cores that other processes have kept busy.
    fn others_since(&self, before: &Usage) -> f64 {
        let used = (self.all - before.all) - (self.own - before.own);
        let seconds = (self.at - before.at).as_secs_f64();
        (used / seconds).max(0.0)
    }
}

/// The kernel's unit of processor time, on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// Busy seconds of the allowed cores, from `/proc/stat`.
fn busy_seconds(stat: &str, allowed: &[usize]) -> f64 {
    let mut busy = 0.0;
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().unwrap_or_default();
        let number = name.strip_prefix("cpu").and_then(|n| n.parse().ok());
        if !number.is_some_and(|number: usize| allowed.contains(&number)) {
            continue;
        }
        let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal
        let is_busy = [0, 1, 2, 5, 6, 7];
        busy += is_busy.iter().filter_map(|&i| ticks.get(i)).sum::<f64>();
    }
    busy / TICKS_PER_SECOND
}

/// The numbers of the cores in `Cpus_allowed_list`, for example `0-3,8`.
fn allowed_cores(status: &str) -> Vec<usize> {
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
        .unwrap_or_default();
    let mut cores = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
            cores.extend(first..=last);
        }
    }
    cores
}

/// Seconds of user and system time of this process, from `/proc/self/stat`.
fn own_seconds(stat: &str) -> f64 {
    // The program's name, in brackets, may hold spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = |index: usize| fields.split_whitespace().nth(index)?.parse::<f64>().ok();
    let (user, system) = (ticks(11), ticks(12));
    (user.unwrap_or_default() + system.unwrap_or_default()) / TICKS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_the_cores_that_others_leave_free() {
        // On two cores: idle, a small program, a busy one, two busy ones.
        let wanted = |others, current| wanted_threads(free_cores(2, 2, others), 2, current);
        assert_eq!([wanted(0.0, 1), wanted(0.0, 2)], [2, 2]);
        assert_eq!([wanted(0.5, 1), wanted(0.5, 2)], [1, 2]);
        assert_eq!([wanted(1.0, 1), wanted(1.0, 2)], [1, 1]);
        assert_eq!([wanted(2.0, 1), wanted(2.0, 2)], [1, 1]);
        // Two training runs that began on two threads each leave one another one core.
        assert_eq!(wanted(2.0 / 3.0, 2), 1);
        assert_eq!(wanted_threads(free_cores(16, 16, 3.2), 16, 16), 13);
        // A container that may use 4 of 64 cores at once, while others keep 10 or 63 busy.
        assert_eq!(
            [free_cores(64, 4, 10.0), free_cores(64, 4, 63.0)],
            [4.0, 1.0]
        );
    }

    #[test]
    fn processor_time_is_read_from_the_kernels_files() {
        let stat = "cpu 9 9 9 9\ncpu0 100 0 50 900 7 0 0 0 0 0\ncpu1 200 0 0 900 0 0 0 0\n";
        let status = "Name:\tkd\nCpus_allowed_list:\t0,2-3\n";
        assert_eq!(allowed_cores(status), [0, 2, 3]);
        assert_eq!(busy_seconds(stat, &allowed_cores(status)), 1.5);
        let own = "12 (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 250 50 0 0";
        assert_eq!(own_seconds(own), 3.0);
    }

    #[test]
    fn a_busy_process_beside_this_one_is_seen() {
        let before = Usage::now();
        let mut child = std::process::Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(600));
        let others = Usage::now().others_since(&before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(others > 0.3, "{others}");
    }

    #[test]
    fn a_continued_run_keeps_its_number_unless_another_is_fixed() {
        let before = tch::get_num_threads();
        let kept = ThreadControl::start(ThreadPolicy::FreeCores, Some(1)).threads();
        let fixed = ThreadControl::start(ThreadPolicy::Fixed(2), Some(1)).threads();
        tch::set_num_threads(before);
        assert_eq!([kept, fixed], [1, 2]);
        assert_eq!(
            ThreadControl::start(ThreadPolicy::Unchanged, Some(7)).threads(),
            before as usize
        );
    }
}
