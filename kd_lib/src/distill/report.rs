//! The report of a distillation: teacher, baseline and distilled student on test. No model is
//! scored on test before; everything that was chosen was chosen on dev.

use super::budget::duration;
use super::curves::learning_curves;
use super::data_report::DataReport;
use super::document::{Block, Document};
use super::evidence::{Evidence, Tested};
use super::findings::Findings;
use super::forecast::Forecast;
use super::plan::{DistillPlan, Side};
use super::run_plan::DistillResult;
use super::suspicious_labels::shortened;
use crate::data::{Corpus, Example};
use crate::error::BUG;
use crate::evaluation::significance::Difference;
use crate::evaluation::{argmax, probabilities, reliability_bins};
use crate::store::{MeanSd, RunStore, Table};
use crate::training::ProgressCallback;
use crate::{Error, Result, files};
use ndarray::Array2;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Misclassified texts that are shown.
const SHOWN_MISTAKES: usize = 15;
/// Labels that are likely to be wrong in the report; a file has all.
const LISTED_LABELS: usize = 30;
/// Characters of each of their texts.
const LISTED_CHARACTERS: usize = 160;
/// The minimum detectable difference at a power of 80 %, in half widths of the 95 % interval:
/// (1.96 + 0.84) / 1.96 standard errors.
const DETECTABLE_HALF_WIDTHS: f64 = 1.43;
/// Smaller p-values are printed as "below" this one.
const SMALLEST_P: f64 = 0.0001;
/// Shares of the dev texts that the student would answer.
const COVERAGES: [f64; 5] = [1.0, 0.95, 0.9, 0.8, 0.7];

/// What a report is made from.
pub struct Report<'a> {
    /// The whole corpus.
    pub corpus: &'a Corpus,
    /// The plan.
    pub plan: &'a DistillPlan,
    /// What was trained.
    pub result: &'a DistillResult,
    /// What is in the texts.
    pub data: &'a DataReport,
    /// What was expected before training.
    pub forecast: Option<Forecast>,
    /// How the corpus was read.
    pub notices: &'a [String],
    /// The command line.
    pub command: &'a str,
}

impl Report<'_> {
    /// Reads test, writes `report.html` and `report.md` into the plan's folder, and says what was
    /// found.
    pub fn write(
        &self,
        store: &RunStore,
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<Findings> {
        let started = Instant::now();
        let evidence = Evidence::of(store, self.plan, self.result, folder, callback)?;
        let findings = Findings::of(&evidence, self.plan.settings.folds);
        let mut document = Document {
            title: format!("Distillation on {}", self.corpus.name),
            blocks: Vec::new(),
        };
        document.paragraph(findings.verdict());
        self.add_scores(&mut document, &evidence)?;
        add_differences(&mut document, &findings, self.forecast);
        self.add_candidates(&mut document)?;
        add_classes(&mut document, &evidence, self.plan.settings.folds);
        add_confidence(&mut document, &evidence)?;
        add_mistakes(&mut document, &evidence, self.data);
        self.add_use(&mut document);
        self.add_data(&mut document);
        self.add_provenance(&mut document, started.elapsed().as_secs_f64());
        files::write_text(&folder.join("report.md"), &document.markdown())?;
        files::write_text(&folder.join("report.html"), &document.html())?;
        Ok(findings)
    }

    fn add_scores(&self, document: &mut Document, evidence: &Evidence) -> Result<()> {
        document.heading("Scores on test");
        let mut table = Table::new(&[
            "model",
            if self.plan.settings.folds > 0 {
                "rounds"
            } else {
                "seeds"
            },
            "dev accuracy",
            "test accuracy",
            "test macro-F1",
            "parameters",
            "MB (fp32)",
            "ms for one text",
            "texts/s",
        ]);
        for (name, scores) in [
            ("most frequent class", evidence.references.majority),
            ("linear model over n-grams", evidence.references.linear),
            (
                "linear probe of the teacher before fine-tuning",
                evidence.references.linear_probe,
            ),
        ] {
            let mut cells = vec![name.to_owned(), String::new()];
            cells.push(format!("{:.4}", scores.dev));
            cells.push(format!("{:.4}", scores.test));
            cells.resize(table.head.len(), String::new());
            table.rows.push(cells.into_iter().map(Into::into).collect());
        }
        for models in evidence.sides() {
            let Some(first) = models.first() else {
                continue;
            };
            let mean = |metric: fn(&Tested) -> f64| {
                MeanSd::of(&models.iter().map(metric).collect::<Vec<_>>()).to_string()
            };
            let millions = first.runs[0].report.parameters as f64 / 1e6;
            let cells = [
                format!("{} ({})", first.name, networks(first)?),
                models.len().to_string(),
                mean(Tested::dev_accuracy),
                mean(|m| m.scores.accuracy),
                mean(|m| m.scores.macro_f1),
                format!("{millions:.1} M"),
                format!("{:.1}", millions * 4.0),
                format!("{:.1}", 1000.0 * first.seconds_per_text),
                format!("{:.0}", first.texts_per_second),
            ];
            table.rows.push(cells.into_iter().map(Into::into).collect());
        }
        document.table(table);
        let texts = evidence.corpus.test.len();
        let chosen = match self.plan.settings.folds {
            0 => format!(
                "{texts} test texts, read once, after everything was chosen on {} dev texts.",
                evidence.corpus.dev.len()
            ),
            folds => format!(
                "Cross-validation: {texts} texts in {folds} folds; each text is classified by models that \
                 were trained and chosen on the other folds."
            ),
        };
        document.paragraph(format!(
            "{chosen} Times were measured with the threads of the training, while other programs may have run."
        ));
        let suspicious = self.data.suspicious.as_ref();
        let suspicious = suspicious.map_or(0, |found| found.labels.len());
        if suspicious > 0 {
            document.paragraph(format!(
                "{suspicious} labels are likely to be wrong (below). Where such texts are tested, the \
                 accuracies above are too low. Correct them and run the command again."
            ));
        }
        Ok(())
    }

    fn add_candidates(&self, document: &mut Document) -> Result<()> {
        document.heading("Candidates");
        let mut table = Table::new(&[
            "side",
            "candidate",
            "dev accuracy",
            "dev macro-F1",
            "updates",
            "best update",
            "seconds",
            "chosen",
        ]);
        let cross_validated = self.plan.settings.folds > 0;
        if cross_validated {
            table.head.insert(0, "fold".into());
        }
        for (number, fold) in self.result.folds().enumerate() {
            for candidate in &fold.outcome.candidates {
                let report = &candidate.run.report;
                let mut cells = vec![
                    candidate.side.name().to_owned(),
                    report.recipe.name.clone(),
                    format!("{:.4}", report.dev.accuracy),
                    format!("{:.4}", report.dev.macro_f1),
                    report.steps.to_string(),
                    report.best_step.to_string(),
                    format!("{:.0}", report.seconds),
                    if candidate.chosen { "yes" } else { "" }.to_owned(),
                ];
                if cross_validated {
                    cells.insert(0, (number + 1).to_string());
                }
                table.rows.push(cells.into_iter().map(Into::into).collect());
            }
        }
        document.table(table);
        let mut left_out: BTreeMap<&String, usize> = BTreeMap::new();
        for sentence in self.result.folds().flat_map(|fold| &fold.outcome.left_out) {
            *left_out.entry(sentence).or_default() += 1;
        }
        if let (false, Some(seconds)) = (left_out.is_empty(), self.plan.refit_seconds) {
            document.paragraph(format!(
                "{} of the budget were reserved for training on all labelled texts (--refit), so this was \
                 left out:",
                duration(seconds)
            ));
        }
        for (sentence, times) in left_out {
            document.paragraph(if cross_validated {
                format!(
                    "{sentence} ({times} of {} folds)",
                    self.result.folds().count()
                )
            } else {
                sentence.clone()
            });
        }
        let first = &self.result.rounds[0][0].outcome;
        if first
            .teacher
            .as_ref()
            .is_some_and(|teacher| teacher.report.best_step == 0)
        {
            document.paragraph(
                "Fine-tuning did not raise the teacher's score on dev, so the teacher is the \
                 linear probe that it was before the first update.",
            );
        }
        let runs = first.candidates.iter().map(|candidate| &candidate.run);
        if let Some(svg) = learning_curves(first.teacher.iter().chain(runs))? {
            let which_fold = if cross_validated { ", first fold" } else { "" };
            let caption = format!("Accuracy on dev by number of updates{which_fold}");
            document.blocks.push(Block::Picture { svg, caption });
        }
        Ok(())
    }

    fn add_use(&self, document: &mut Document) {
        document.heading("Use");
        document.paragraph(format!(
            "The delivered student is the {} one: macro-F1 on dev is {:.4} for the baseline and {:.4} for \
             the distilled student.",
            self.result.preferred_side().name(),
            self.result.dev_macro_f1(Side::Baseline),
            self.result.dev_macro_f1(Side::Distilled)
        ));
        if self.result.refit.is_some() {
            document.paragraph(
                "This student was trained on all labelled texts, with the settings of the chosen one, for \
                 as many epochs as that one needed, and with its temperature. The scores and thresholds \
                 above are of students that were trained on fewer texts. No labelled text is left to test \
                 this one: its score on dev, which `kd runs` shows, is of texts that it was trained on.",
            );
        } else if self.plan.settings.folds > 0 {
            document.paragraph(
                "This student is that of the first fold. With --refit it is trained on all labelled \
                 texts.",
            );
        }
        let id = &self.result.student().report.id;
        document.blocks.push(Block::Code(format!(
            "kd predict {id} \"a text\"\nkd predict {id} - < texts.txt > predictions.jsonl"
        )));
        let first = &self.result.rounds[0][0].outcome;
        if let Some(teacher) = &first.teacher {
            document.paragraph(format!(
                "The teacher predicts too, if its size and time are acceptable: `kd predict {} \"a text\"`. \
                 The linear models of the first table are references only; they are not saved.",
                teacher.report.id
            ));
        }
    }

    fn add_data(&self, document: &mut Document) {
        document.heading("The texts");
        document.table(self.data.table(self.corpus, &self.plan.facts));
        let suspicious = self.data.suspicious.as_ref();
        if let Some(suspicious) = suspicious.filter(|found| !found.labels.is_empty()) {
            document.paragraph(
                "Texts whose label is likely to be wrong: a linear probe of the teacher before fine-tuning, \
                 trained on other texts, gives another class a probability of 0.7 or more. \
                 suspicious_labels.json lists all.",
            );
            document.table(suspicious.table(LISTED_LABELS, LISTED_CHARACTERS));
        }
    }

    /// `report_seconds`: what the report took.
    fn add_provenance(&self, document: &mut Document, report_seconds: f64) {
        document.heading("Provenance");
        let plan = self.plan;
        let first = &self.result.student().report;
        let environment = &first.environment;
        let mut table = Table::new(&["", ""]);
        let mut row = |name: &str, value: String| table.rows.push(vec![name.into(), value.into()]);
        row("command", self.command.to_owned());
        row("program", format!("kd_lib {}", env!("CARGO_PKG_VERSION")));
        row(
            "commit",
            first.commit.clone().unwrap_or_else(|| "unknown".into()),
        );
        row("processor", environment.processor.clone());
        row("vector extensions", environment.instructions.join(", "));
        row("libtorch", environment.libtorch.clone());
        row("threads", plan.speed.threads.to_string());
        row(
            "corpus",
            format!("{}, fingerprint {}", plan.corpus, plan.corpus_fingerprint),
        );
        row("budget", plan.settings.budget.to_string());
        row("planned", duration(plan.seconds()));
        row("taken", duration(self.result.seconds + report_seconds));
        document.table(table);
        let is_said = |notice: &&String| self.notices.iter().any(|said| said.ends_with(*notice));
        let further = first.notices.iter().filter(|notice| !is_said(notice));
        for notice in self.notices.iter().chain(further) {
            document.paragraph(notice.clone());
        }
    }
}

/// The networks of a side's runs, as recipes name them.
fn networks(models: &Tested) -> Result<String> {
    let mut kinds = BTreeSet::new();
    for run in &models.runs {
        let settings = serde_json::to_value(&run.report.recipe.model)
            .map_err(|e| Error::recipe("model", e.to_string(), BUG))?;
        kinds.extend(settings["kind"].as_str().map(str::to_owned));
    }
    Ok(kinds.into_iter().collect::<Vec<_>>().join(", "))
}

/// The two files of a report.
pub fn report_files(folder: &Path) -> [PathBuf; 2] {
    ["report.html", "report.md"].map(|name| folder.join(name))
}

fn add_differences(document: &mut Document, findings: &Findings, forecast: Option<Forecast>) {
    document.heading("What distillation brought");
    let Some(gain) = &findings.gain else { return };
    let half_width = (gain.interval.high - gain.interval.low) / 2.0;
    let mut table = Table::new(&["question", "answer"]);
    let mut row = |question: &str, answer: String| {
        table.rows.push(vec![question.into(), answer.into()]);
    };
    row(
        "distilled − baseline",
        format!(
            "{:+.1} points of accuracy, 95 % interval {:+.1} to {:+.1}, {}",
            100.0 * gain.mean,
            100.0 * gain.interval.low,
            100.0 * gain.interval.high,
            p_value(gain)
        ),
    );
    if let Some(forecast) = forecast {
        let is_held = (forecast.low..=forecast.high).contains(&gain.mean);
        let held = if is_held { "holds" } else { "does not hold" };
        let answer = format!("{forecast}; it {held} the measured difference");
        row("expected before training", answer);
    }
    row(
        "minimum detectable difference (found in four of five such tests)",
        format!(
            "about {:.1} points",
            100.0 * DETECTABLE_HALF_WIDTHS * half_width
        ),
    );
    row(
        "share of the gap between baseline and teacher that was recovered",
        match &findings.recovered {
            None if findings.teacher.is_none() => {
                "not known: the teacher's logits were read from a file".into()
            }
            None => "not reported: the gap is not distinguishable from zero".into(),
            Some(share) => format!(
                "{:.0} %, 95 % interval {:.0} to {:.0} %",
                100.0 * share.share,
                100.0 * share.interval.low,
                100.0 * share.interval.high
            ),
        },
    );
    document.table(table);
}

fn add_classes(document: &mut Document, evidence: &Evidence, folds: usize) {
    let corpus = &evidence.corpus;
    let models: Vec<&Tested> = evidence
        .sides()
        .into_iter()
        .filter_map(|side| side.first())
        .collect();
    document.heading("F1 of each class on test");
    let training = match folds {
        0 => "training texts",
        _ => "training texts, first fold",
    };
    let mut head = vec!["class", training, "test texts"];
    head.extend(models.iter().map(|model| model.name));
    let mut table = Table::new(&head);
    for (class, name) in corpus.labels.iter().enumerate() {
        let count = |split: &[Example]| split.iter().filter(|e| e.label == class).count();
        let mut cells = vec![
            name.clone(),
            count(&corpus.train).to_string(),
            count(&corpus.test).to_string(),
        ];
        for model in &models {
            let f1 = model
                .scores
                .classes
                .get(class)
                .map_or(0.0, |scores| scores.f1);
            cells.push(format!("{f1:.4}"));
        }
        table.rows.push(cells.into_iter().map(Into::into).collect());
    }
    document.table(table);
}

/// Calibration, and accuracy against coverage. Temperature and thresholds come from dev.
fn add_confidence(document: &mut Document, evidence: &Evidence) -> Result<()> {
    let student = &evidence.delivered_side()[0];
    document.heading("Can its probabilities be trusted?");
    let labels: Vec<usize> = evidence.corpus.test.iter().map(|e| e.label).collect();
    let error = |logits: &Array2<f32>| {
        let bins = reliability_bins(logits.view(), &labels);
        crate::evaluation::calibration::expected_calibration_error(&bins, labels.len())
    };
    let temperatures: Vec<String> = student
        .runs
        .iter()
        .filter_map(|run| run.report.temperature)
        .map(|temperature| format!("{temperature:.2}"))
        .collect();
    let scaling = if temperatures.is_empty() {
        String::new()
    } else {
        format!(
            " Its logits are divided by a temperature that fits dev ({}); without that, the error is \
             {:.4}.",
            temperatures.join(", "),
            error(&student.unscaled_logits)
        )
    };
    document.paragraph(format!(
        "Expected calibration error of the delivered student on test: {:.4}.{scaling}",
        error(&student.logits),
    ));
    let confidences = |logits: &Array2<f32>| -> Vec<f64> {
        let rows = probabilities(logits.view());
        rows.outer_iter()
            .map(|row| row.iter().copied().fold(0.0, f64::max))
            .collect()
    };
    let mut dev_confidences = confidences(&student.dev_logits()?);
    dev_confidences.sort_by(|a, b| b.total_cmp(a));
    let test_confidences = confidences(&student.logits);
    let mut table = Table::new(&[
        "abstain below probability",
        "answered on test",
        "accuracy of the answers",
    ]);
    for coverage in COVERAGES {
        let last = (dev_confidences.len() as f64 * coverage).ceil().max(1.0) as usize - 1;
        let threshold = if coverage < 1.0 {
            dev_confidences[last]
        } else {
            0.0
        };
        let answered = test_confidences
            .iter()
            .zip(&student.correct)
            .filter(|(p, _)| **p >= threshold);
        let answers: Vec<bool> = answered.map(|(_, correct)| *correct).collect();
        let right = answers.iter().filter(|correct| **correct).count();
        table.rows.push(vec![
            format!("{threshold:.3}").into(),
            format!(
                "{:.1} %",
                100.0 * answers.len() as f64 / test_confidences.len().max(1) as f64
            )
            .into(),
            format!("{:.4}", right as f64 / answers.len().max(1) as f64).into(),
        ]);
    }
    document.table(table);
    Ok(())
}

/// A p-value with four decimals, of which the last is the smallest that is told.
fn p_value(gain: &Difference) -> String {
    if gain.p < SMALLEST_P {
        return format!("p < {SMALLEST_P}");
    }
    let sign = if gain.at_floor() { "≤" } else { "=" };
    format!("p {sign} {:.4}", gain.p)
}

/// A test text whose class the student got wrong.
struct Mistake {
    /// The text's row in the test split.
    row: usize,
    /// The class that the student gave it.
    predicted: usize,
    /// The student's probability of that class.
    probability: f64,
}

/// The mistakes of which the student was most certain: errors of the labels are often among them.
fn add_mistakes(document: &mut Document, evidence: &Evidence, data: &DataReport) {
    let (corpus, student) = (&evidence.corpus, &evidence.delivered_side()[0]);
    document.heading("Mistakes that the delivered student was most certain of");
    let probabilities = probabilities(student.logits.view());
    let mut mistakes = Vec::new();
    for (row, correct) in student.correct.iter().enumerate() {
        if !correct {
            let predicted = argmax(student.logits.row(row));
            mistakes.push(Mistake {
                row,
                predicted,
                probability: probabilities[[row, predicted]],
            });
        }
    }
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let found = data.suspicious.iter().flat_map(|found| &found.labels);
    let suspicious: HashSet<(usize, &str)> = found.map(|l| (l.line, l.text.as_str())).collect();
    let mut table = Table::new(&[
        "line",
        "text",
        "label",
        "predicted",
        "probability",
        "label likely to be wrong",
    ]);
    for mistake in mistakes.into_iter().take(SHOWN_MISTAKES) {
        let example = &corpus.test[mistake.row];
        let text: Vec<&str> = example.input().texts().collect();
        let text = shortened(&text.join(" / "), LISTED_CHARACTERS);
        let is_suspicious = suspicious.contains(&(example.line, example.text.as_str()));
        table.rows.push(vec![
            example.line.to_string().into(),
            text.into(),
            corpus.labels[example.label].as_str().into(),
            corpus.labels[mistake.predicted].as_str().into(),
            format!("{:.3}", mistake.probability).into(),
            if is_suspicious { "yes" } else { "" }.into(),
        ]);
    }
    document.table(table);
}
