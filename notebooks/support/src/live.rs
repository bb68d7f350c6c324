//! A live plot of what a cell trains. A kernel sends a cell's output when the cell ends, so the
//! plot takes another way: the training cell rewrites a small SVG below `checkpoints/live`, and a
//! few lines of script in an earlier cell's output request it from the notebook server. Without
//! such a server there is no live plot; the lines that a training cell prints say the same.

use crate::plot;
use kd_lib::training::{Activity, DevScores, Progress};
use kd_lib::{Result, files};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two redraws.
const EVERY: Duration = Duration::from_millis(500);
/// Points of a curve; beyond, every other one is dropped.
const POINTS: usize = 400;

/// The live plot of one kernel.
#[derive(Debug)]
pub(crate) struct LivePlot {
    path: PathBuf,
    run: String,
    loss: Vec<(f64, f64)>,
    dev: Vec<(f64, DevScores)>,
    /// One update in so many is a point.
    stride: usize,
    drawn: Option<Instant>,
}

impl LivePlot {
    /// This process's plot. Plots of processes that have ended are removed.
    pub fn below(checkpoints: &Path) -> LivePlot {
        let folder = checkpoints.join("live");
        for old in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let process = old
                .path()
                .file_stem()
                .map(|pid| Path::new("/proc").join(pid));
            if process.is_some_and(|process| !process.exists()) {
                let _ = std::fs::remove_file(old.path());
            }
        }
        let path = folder.join(format!("{}.svg", std::process::id()));
        LivePlot {
            path,
            run: String::new(),
            loss: Vec::new(),
            dev: Vec::new(),
            stride: 1,
            drawn: None,
        }
    }

    /// HTML that requests the plot from a server that serves `root`.
    pub fn html(&self, root: &Path) -> String {
        let Ok(path) = self.path.strip_prefix(root) else {
            return "<em>No live plot here: the runs are outside the folder of Cargo.toml, which \
                    JupyterLab serves.</em>"
                .into();
        };
        let (name, path) = (std::process::id(), path.display());
        format!(
            r#"<div id="live-{name}"><em>While a later cell trains, its curves appear here (in JupyterLab,
started by <code>make lab</code>).</em></div>
<script>(() => {{
  const box = document.getElementById("live-{name}");
  const config = document.getElementById("jupyter-config-data");
  const base = config ? JSON.parse(config.textContent).baseUrl : "/";
  const timer = setInterval(async () => {{
    if (!box.isConnected) return clearInterval(timer);
    const answer = await fetch(`${{base}}files/{path}?${{Date.now()}}`);
    if (answer.ok) box.innerHTML = await answer.text();
  }}, 500);
}})();</script>"#
        )
    }

    /// Adds a point; redraws when it is due.
    pub fn update(&mut self, progress: &Progress) -> Result<()> {
        if !matches!(
            progress.activity,
            Activity::Training | Activity::TeacherLogits
        ) {
            return Ok(());
        }
        if self.run != progress.run {
            let path = std::mem::take(&mut self.path);
            *self = LivePlot {
                path,
                run: progress.run.into(),
                loss: Vec::new(),
                dev: Vec::new(),
                stride: 1,
                drawn: None,
            };
        }
        let at = progress.done as f64;
        if progress.done.is_multiple_of(self.stride) {
            self.loss.extend(progress.loss.map(|loss| (at, loss)));
        }
        if self.loss.len() > POINTS {
            self.stride *= 2;
            self.loss
                .retain(|point| (point.0 as usize).is_multiple_of(self.stride));
        }
        self.dev.extend(progress.dev.map(|dev| (at, dev)));
        let due = progress.dev.is_some()
            || progress.done == progress.total
            || self.drawn.is_none_or(|d| d.elapsed() > EVERY);
        if !due {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        let line = format!(
            "{}: {} of {} · {:.0} examples/s · {:.0} s left",
            progress.run,
            progress.done,
            progress.total,
            progress.examples_per_second,
            progress.time_left.as_secs_f64().ceil()
        );
        files::write_text(&self.path, &plot::live(&line, &self.loss, &self.dev)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(run: &str, done: usize, dev: Option<DevScores>) -> Progress<'_> {
        Progress {
            done,
            total: 5000,
            loss: Some(1.0 / done as f64),
            examples_per_second: 80.0,
            time_left: Duration::from_secs(9),
            dev,
            ..Progress::begin(run, Activity::Training)
        }
    }

    #[test]
    fn the_plot_grows_stays_small_and_restarts_with_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut live = LivePlot::below(folder.path());
        let mut sizes = Vec::new();
        for step in 1..=5000 {
            live.update(&progress(
                "bert",
                step,
                (step % 1000 == 0).then_some(DevScores {
                    accuracy: 0.5,
                    macro_f1: 0.4,
                }),
            ))
            .unwrap();
            if step % 1000 == 0 {
                sizes.push(std::fs::read_to_string(&live.path).unwrap());
            }
        }
        assert!(sizes.windows(2).all(|pair| pair[0] != pair[1]) && live.loss.len() <= POINTS);
        assert!(
            sizes[4].starts_with("<svg")
                && sizes[4].contains("bert: 5000 of 5000 · 80 examples/s · 9 s left")
        );
        assert!(sizes.iter().all(|svg| svg.len() < 200_000));
        live.update(&progress("bilstm", 1, None)).unwrap();
        assert_eq!((live.loss.len(), live.dev.len()), (1, 0));
        assert!(
            live.html(folder.path())
                .contains(&format!("files/live/{}.svg?", std::process::id()))
        );
        let elsewhere = live.html(Path::new("/elsewhere"));
        assert!(
            elsewhere.contains("No live plot here")
                && !elsewhere.contains(folder.path().to_str().unwrap())
        );
    }

    #[test]
    fn plots_of_ended_processes_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (old, own) = (folder.path().join("live/4194999.svg"), std::process::id());
        files::write_text(&old, "<svg/>").unwrap();
        files::write_text(&folder.path().join(format!("live/{own}.svg")), "<svg/>").unwrap();
        LivePlot::below(folder.path());
        assert!(!old.exists() && folder.path().join(format!("live/{own}.svg")).exists());
    }
}
