//! The students' part of a plan: the texts that only the teacher labels, and the pairs of a baseline
//! and a distilled student that share the time.

use super::Planner;
use super::student_cost::{EVALUATION_SHARE, StudentCost};
use crate::Result;
use crate::distill::plan::{FurtherSeed, Stage, StudentPair};
use crate::distill::recipes::{
    BATCH_SIZE, SEEDS, StudentKind, TransferTexts, UNBALANCED, baseline_recipe, distilled_recipe,
};
use crate::store::Recipe;

/// Share of the students' time for the first pair of candidates (and the pair with class weights),
/// if there is a TextCNN.
const FIRST_PAIR_SHARE: f64 = 0.75;
/// A smaller number of unlabelled texts is not tried.
const MIN_UNLABELLED: usize = 100;
/// Most augmented texts per text.
const MAX_AUGMENTATIONS: usize = 20;
/// Seconds for students below which there is no TextCNN.
const MIN_SECONDS_FOR_TEXTCNN: f64 = 300.0;
/// Largest share of the students' time for the pair of fastTexts.
const FASTTEXT_SHARE: f64 = 0.1;
/// Fewest updates with which a student is planned.
const MIN_UPDATES: f64 = 50.0;
/// Most epochs of the distilled student, over labelled, unlabelled and augmented texts.
const MAX_DISTILLED_EPOCHS: f64 = 6.0;
/// Fewest epochs over the transfer set that justify computing the teacher's logits.
const MIN_TRANSFER_EPOCHS: f64 = 3.0;
/// Most epochs of the baseline, over the labelled texts. It is also a floor for the cap of the
/// distilled student.
const MAX_BASELINE_EPOCHS: f64 = 20.0;
/// A floor for both caps, in examples: 400 updates.
const MIN_CAP_EXAMPLES: f64 = 400.0 * BATCH_SIZE as f64;

/// A pair's share of the time for students.
struct PairShare {
    kind: StudentKind,
    share: f64,
}

impl PairShare {
    fn new(kind: StudentKind, share: f64) -> PairShare {
        PairShare { kind, share }
    }
}

/// Plans the students of one fold.
pub(super) struct StudentPlanner<'a> {
    planner: Planner<'a>,
    teacher: &'a Recipe,
    transfer: TransferTexts,
}

impl<'a> StudentPlanner<'a> {
    /// Chooses the transfer set for students that have `seconds`, the teacher's logits included.
    pub fn new(planner: Planner<'a>, teacher: &'a Recipe, seconds: f64) -> StudentPlanner<'a> {
        let with = |transfer| StudentPlanner {
            planner,
            teacher,
            transfer,
        };
        let fits = |transfer: &TransferTexts| {
            let students = with(*transfer);
            students.reads_all_often_enough(seconds - students.logits_seconds())
        };
        let mut tried = transfer_texts_to_try(planner.facts.unlabelled_texts);
        with(tried.find(fits).unwrap_or(NO_TRANSFER_TEXTS))
    }

    /// The pairs that share `seconds`; none if not even the first fits.
    pub fn candidates(&self, seconds: f64) -> Result<Option<Vec<StudentPair>>> {
        let fasttexts = self.fasttext_pair(seconds)?;
        let for_others = seconds - fasttexts.as_ref().map_or(0.0, StudentPair::seconds);
        if for_others < self.least_seconds(StudentKind::Bilstm) {
            return Ok(None);
        }
        let shares = self.shares(for_others);
        let (first, others) = (&shares[0], &shares[1..]);
        let mut candidates = vec![self.first_pair(first.kind, for_others * first.share)?];
        candidates.extend(fasttexts);
        for pair in others {
            candidates.push(self.pair(pair.kind, for_others * pair.share)?);
        }
        Ok(Some(candidates))
    }

    fn labelled(&self) -> f64 {
        self.planner.facts.train_texts as f64
    }

    /// Labelled, unlabelled and augmented texts.
    fn all_texts(&self) -> f64 {
        self.transfer.texts_per_epoch(self.planner.facts)
    }

    pub fn logits_seconds(&self) -> f64 {
        self.all_texts() * self.planner.speed.teacher_forward
    }

    /// Whether the first distilled student reads each text three times if the students have
    /// `seconds`.
    fn reads_all_often_enough(&self, seconds: f64) -> bool {
        let for_others = seconds * (1.0 - FASTTEXT_SHARE);
        let pair_seconds = for_others * self.shares(for_others)[0].share;
        let (baseline, distilled) = (self.baseline_cost(), self.distilled_cost());
        let baseline_seconds = baseline.seconds(baseline.examples_within(pair_seconds / 2.0));
        let read = distilled.examples_within(pair_seconds - baseline_seconds);
        read >= MIN_TRANSFER_EPOCHS * self.all_texts()
    }

    fn distilled_cost(&self) -> StudentCost<'_> {
        let least = (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES);
        StudentCost {
            speed: self.planner.speed,
            dev_texts: self.planner.facts.dev_texts,
            update_seconds: self.planner.speed.student_update,
            texts_per_epoch: self.all_texts(),
            forward_seconds: self.planner.speed.student_forward(),
            max_examples: (MAX_DISTILLED_EPOCHS * self.all_texts()).max(least),
        }
    }

    fn baseline_cost(&self) -> StudentCost<'_> {
        StudentCost {
            speed: self.planner.speed,
            dev_texts: self.planner.facts.dev_texts,
            update_seconds: self.planner.speed.student_update,
            texts_per_epoch: self.labelled(),
            forward_seconds: self.planner.speed.student_forward(),
            max_examples: (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES),
        }
    }

    /// Seconds of the shortest useful pair.
    pub fn least_seconds(&self, kind: StudentKind) -> f64 {
        let least = MIN_UPDATES * BATCH_SIZE as f64;
        let distilled = self.distilled_cost().scaled_for(kind);
        let baseline = self.baseline_cost().scaled_for(kind);
        (distilled.seconds(least) + baseline.seconds(least)) / (1.0 - EVALUATION_SHARE)
    }

    /// The pairs that divide the time for students, the BiLSTMs first.
    fn shares(&self, seconds: f64) -> Vec<PairShare> {
        let mut bilstm_share = 1.0;
        let mut shares = Vec::new();
        let second = 1.0 - FIRST_PAIR_SHARE;
        if seconds >= MIN_SECONDS_FOR_TEXTCNN
            && seconds * second >= self.least_seconds(StudentKind::Textcnn)
        {
            bilstm_share = FIRST_PAIR_SHARE;
            shares.push(PairShare::new(StudentKind::Textcnn, second));
        }
        let half = bilstm_share / 2.0;
        if self.planner.facts.imbalance >= UNBALANCED
            && seconds * half >= self.least_seconds(StudentKind::BilstmClassWeights)
        {
            bilstm_share = half;
            shares.insert(0, PairShare::new(StudentKind::BilstmClassWeights, half));
        }
        shares.insert(0, PairShare::new(StudentKind::Bilstm, bilstm_share));
        shares
    }

    /// The pair of fastTexts, if a tenth of the students' seconds is enough for one. It takes so
    /// little time that leaving it out would save none.
    fn fasttext_pair(&self, for_students: f64) -> Result<Option<StudentPair>> {
        let seconds = for_students * FASTTEXT_SHARE;
        if seconds < self.least_seconds(StudentKind::Fasttext) {
            return Ok(None);
        }
        let pair = self.pair(StudentKind::Fasttext, seconds)?;
        Ok(Some(StudentPair {
            optional: false,
            ..pair
        }))
    }

    /// The first pair. Its distilled student waits for the teacher's logits.
    fn first_pair(&self, kind: StudentKind, seconds: f64) -> Result<StudentPair> {
        let mut pair = self.pair(kind, seconds)?;
        pair.distilled.seconds += self.logits_seconds();
        pair.optional = false;
        Ok(pair)
    }

    /// A baseline and a distilled student that take `seconds` together.
    pub fn pair(&self, kind: StudentKind, seconds: f64) -> Result<StudentPair> {
        let mut baseline = baseline_recipe(self.planner.settings, self.planner.facts, kind, 1.0)?;
        let mut distilled = distilled_recipe(
            baseline.clone(),
            self.planner.settings,
            self.planner.facts,
            self.teacher,
            self.transfer,
        );
        let baseline_cost = self.baseline_cost().scaled_for(kind);
        let baseline_seconds = baseline_cost.set_length(&mut baseline, seconds / 2.0);
        let distilled_cost = self.distilled_cost().scaled_for(kind);
        let distilled_seconds =
            distilled_cost.set_length(&mut distilled, seconds - baseline_seconds);
        Ok(StudentPair {
            baseline: Stage {
                recipe: baseline,
                seconds: baseline_seconds,
            },
            distilled: Stage {
                recipe: distilled,
                seconds: distilled_seconds,
            },
            optional: true,
        })
    }

    /// Further seeds of the two students that dev will choose; those that do not fit into the
    /// seconds that are left are spare. Their cost is that of the first pair.
    pub fn further_seeds(&self, first: &StudentPair, mut left: f64) -> Vec<FurtherSeed> {
        let mut further = Vec::new();
        for number in 1..SEEDS {
            let mut next = FurtherSeed {
                seed: self.planner.settings.teacher.seed.wrapping_add(number),
                baseline_seconds: first.baseline.seconds,
                distilled_seconds: first.distilled.seconds - self.logits_seconds(),
                spare: false,
            };
            left -= next.seconds();
            next.spare = left < 0.0;
            further.push(next);
        }
        further
    }
}

/// No unlabelled and no augmented text.
const NO_TRANSFER_TEXTS: TransferTexts = TransferTexts {
    unlabelled: 0,
    augmentations_per_text: 0,
};

/// Transfer sets from the largest to the smallest: unlabelled texts are real, so augmented ones are
/// given up first.
fn transfer_texts_to_try(unlabelled_texts: usize) -> impl Iterator<Item = TransferTexts> {
    let all_unlabelled = (0..=MAX_AUGMENTATIONS)
        .rev()
        .map(move |augmentations_per_text| TransferTexts {
            unlabelled: unlabelled_texts,
            augmentations_per_text,
        });
    // In twentieths: a plan needs no finer number. If not even 1/20 fits, halve further.
    let twentieths = (1..20).rev().map(move |n| unlabelled_texts * n / 20);
    let halves = std::iter::successors(Some(unlabelled_texts / 40), |half| Some(half / 2))
        .take_while(|half| *half >= MIN_UNLABELLED);
    let some_unlabelled = twentieths.chain(halves).map(|unlabelled| TransferTexts {
        unlabelled,
        augmentations_per_text: 0,
    });
    all_unlabelled.chain(some_unlabelled)
}
