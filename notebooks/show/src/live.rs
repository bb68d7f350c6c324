//! A picture that grows while a cell trains. A kernel sends what a cell shows at the cell's end, so the picture takes
//! another way: the training cell rewrites a small SVG below `checkpoints/live`, and a few lines of script in an earlier
//! cell's output ask the notebook server for it. Where there is no such server nothing grows, and the lines that a
//! training cell prints tell the same.

use crate::plot;
use kd_lib::progress::Tick;
use kd_lib::{Result, files};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two pictures.
const EVERY: Duration = Duration::from_millis(500);
/// Points of a curve; beyond, every other one is dropped.
const POINTS: usize = 400;

/// The picture of what one kernel trains.
#[derive(Debug)]
pub(crate) struct Live {
    path: PathBuf,
    run: String,
    loss: Vec<(f64, f64)>,
    dev: [Vec<(f64, f64)>; 2],
    /// One tick in so many is a point.
    stride: usize,
    drawn: Option<Instant>,
}

impl Live {
    /// A picture of its own for this process; those of processes that have ended are removed.
    pub fn below(checkpoints: &Path) -> Live {
        let folder = checkpoints.join("live");
        for old in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let process = old.path().file_stem().map(|pid| Path::new("/proc").join(pid));
            if process.is_some_and(|process| !process.exists()) {
                let _ = std::fs::remove_file(old.path());
            }
        }
        let path = folder.join(format!("{}.svg", std::process::id()));
        Live { path, run: String::new(), loss: Vec::new(), dev: Default::default(), stride: 1, drawn: None }
    }

    /// What asks a server that serves `root` for the picture, as HTML; of one that lies elsewhere, that it will not grow.
    pub fn window(&self, root: &Path) -> String {
        let Ok(path) = self.path.strip_prefix(root) else {
            return "<em>No curves grow here: the runs are outside the folder of Cargo.toml, which JupyterLab serves.</em>".into();
        };
        let (name, path) = (std::process::id(), path.display());
        format!(
            r#"<div id="live-{name}"><em>While a later cell trains, its curves grow here (in JupyterLab, started by <code>make lab</code>).</em></div>
<script>(() => {{
  const box = document.getElementById("live-{name}"), config = document.getElementById("jupyter-config-data");
  const base = config ? JSON.parse(config.textContent).baseUrl : "/";
  const timer = setInterval(async () => {{
    if (!box.isConnected) return clearInterval(timer);
    const answer = await fetch(`${{base}}files/{path}?${{Date.now()}}`);
    if (answer.ok) box.innerHTML = await answer.text();
  }}, 500);
}})();</script>"#
        )
    }

    /// Takes a tick in; redraws when it is time.
    pub fn note(&mut self, tick: &Tick) -> Result<()> {
        if self.run != tick.run {
            let path = std::mem::take(&mut self.path);
            *self =
                Live { path, run: tick.run.into(), loss: Vec::new(), dev: Default::default(), stride: 1, drawn: None };
        }
        let at = tick.step as f64;
        if tick.step.is_multiple_of(self.stride) {
            self.loss.extend(tick.loss.map(|loss| (at, loss)));
        }
        if self.loss.len() > POINTS {
            self.stride *= 2;
            self.loss.retain(|point| (point.0 as usize).is_multiple_of(self.stride));
        }
        for (curve, figure) in self.dev.iter_mut().zip(tick.dev.into_iter().flatten()) {
            curve.push((at, figure));
        }
        let due = tick.dev.is_some() || tick.step == tick.steps || self.drawn.is_none_or(|d| d.elapsed() > EVERY);
        if !due {
            return Ok(());
        }
        self.drawn = Some(Instant::now());
        let said = format!(
            "{}: {} of {} · {:.0} texts a second · {:.0} s left",
            tick.run,
            tick.step,
            tick.steps,
            tick.speed,
            tick.left.as_secs_f64().ceil()
        );
        files::write_text(&self.path, &plot::growing(&said, &self.loss, &self.dev)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tick(run: &str, step: usize, dev: Option<[f64; 2]>) -> Tick<'_> {
        let loss = Some(1.0 / step as f64);
        Tick { run, step, steps: 5000, loss, speed: 80.0, left: Duration::from_secs(9), dev }
    }

    #[test]
    fn the_picture_grows_stays_small_and_begins_anew_with_another_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut live = Live::below(folder.path());
        let mut sizes = Vec::new();
        for step in 1..=5000 {
            live.note(&tick("bert", step, (step % 1000 == 0).then_some([0.5, 0.4]))).unwrap();
            if step % 1000 == 0 {
                sizes.push(std::fs::read_to_string(&live.path).unwrap());
            }
        }
        assert!(sizes.windows(2).all(|pair| pair[0] != pair[1]) && live.loss.len() <= POINTS);
        assert!(sizes[4].starts_with("<svg") && sizes[4].contains("bert: 5000 of 5000 · 80 texts a second · 9 s left"));
        assert!(sizes.iter().all(|svg| svg.len() < 200_000));
        live.note(&tick("bilstm", 1, None)).unwrap();
        assert_eq!((live.loss.len(), live.dev[0].len()), (1, 0));
        assert!(live.window(folder.path()).contains(&format!("files/live/{}.svg?", std::process::id())));
        let elsewhere = live.window(Path::new("/elsewhere"));
        assert!(elsewhere.contains("No curves grow here") && !elsewhere.contains(folder.path().to_str().unwrap()));
    }

    #[test]
    fn pictures_of_ended_processes_are_swept() {
        let folder = tempfile::tempdir().unwrap();
        let (old, own) = (folder.path().join("live/4194999.svg"), std::process::id());
        files::write_text(&old, "<svg/>").unwrap();
        files::write_text(&folder.path().join(format!("live/{own}.svg")), "<svg/>").unwrap();
        Live::below(folder.path());
        assert!(!old.exists() && folder.path().join(format!("live/{own}.svg")).exists());
    }
}
