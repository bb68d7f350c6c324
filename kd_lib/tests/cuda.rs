//! CUDA stays reachable: the library that the linker drops is in the process once it is asked for, and not
//! before. On a machine with a GPU, a run trains on it.

mod common;

use common::{TINY_STUDENT, recipe, sample, tiny_checkpoint};
use kd_lib::device;

fn loaded() -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains("libtorch_cuda")
}

#[test]
fn libtorch_cuda_is_loaded_when_asked_for_and_a_gpu_trains() {
    if !device::open_cuda_if_present() {
        assert!(!loaded(), "without a driver nothing is loaded");
        device::open_cuda().unwrap();
    }
    assert!(loaded());
    if !tch::Cuda::is_available() {
        println!("no GPU here: training on one was not tried");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let recipe = recipe("student", &[&TINY_STUDENT[..], &["device=cuda:0", "train.precision=auto"]].concat());
    let run = kd_lib::lab::Lab::at(folder.path())
        .run(&recipe, &kd_lib::data::Corpus::open(sample()).unwrap(), &mut kd_lib::progress::silent)
        .unwrap();
    assert_eq!(run.report.environment.device, "cuda");
    tiny_checkpoint(&folder.path().join("tiny"));
    let weights = format!("model.weights={}", folder.path().join("tiny").display());
    let settings =
        ["model.pooling=cls", "model.prefix=", "train.epochs=1", "data.max_tokens=32", "device=cuda:0", &weights];
    let corpus = kd_lib::data::Corpus::open(sample()).unwrap();
    let teacher = common::recipe("teacher", &settings);
    let run = kd_lib::lab::Lab::at(folder.path()).run(&teacher, &corpus, &mut kd_lib::progress::silent).unwrap();
    assert_eq!(run.report.environment.device, "cuda");
}
