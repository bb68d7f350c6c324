//! `kd distill`: what is asked of the teacher, the student alone and the distilled student, from one list of settings.

use kd_lib::Result;
use kd_lib::recipe::Recipe;
use std::path::Path;

/// Keys that all three share: there is one corpus, and one machine.
const SHARED: [&str; 2] = ["data.", "device="];

/// Keys that only a student with a teacher has.
const TAUGHT: [&str; 4] = ["objective", "teaching", "transfer", "train.final_temperature"];

/// The three recipes. A setting of [`SHARED`] goes to all, one that begins with `teacher.` to the teacher, one of
/// [`TAUGHT`] to the distilled student, and any other to both students.
pub fn recipes(folder: &Path, profile: &str, set: &[String], seed: Option<u64>) -> Result<[Recipe; 3]> {
    let shared = |s: &&String| SHARED.iter().any(|key| s.starts_with(key));
    let mut teacher: Vec<String> = set.iter().filter(shared).cloned().collect();
    teacher.extend(set.iter().filter_map(|s| s.strip_prefix("teacher.")).map(str::to_owned));
    let student: Vec<String> = set.iter().filter(|s| !s.starts_with("teacher.")).cloned().collect();
    let alone: Vec<String> = student.iter().filter(|s| !TAUGHT.iter().any(|key| s.starts_with(key))).cloned().collect();
    let behind = teacher.iter().map(|s| format!("teacher.{s}"));
    let distilled: Vec<String> = student.iter().cloned().chain(behind).collect();
    let read = |name: &str, set: &[String]| Recipe::read(folder.join(name), profile, set);
    let seeded = |recipe: Recipe| seed.map_or(recipe.clone(), |seed| recipe.with_seed(seed));
    Ok([
        read("teacher.toml", &teacher)?,
        seeded(read("student.toml", &alone)?),
        seeded(read("distilled.toml", &distilled)?),
    ])
}
