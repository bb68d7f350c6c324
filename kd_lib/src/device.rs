//! Which device computes, and what it is. The linker drops `libtorch_cuda` (`--as-needed`), so
//! this module opens the library when an NVIDIA driver is present. It does not open it otherwise,
//! because opening it costs start-up time. See [`crate::precision`] for dtypes.

use crate::{Error, Result};
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tch::{Cuda, Device, Kind};

/// Opens `libtorch_cuda` if an NVIDIA driver is loaded. Returns whether it is open.
pub fn open_cuda_if_present() -> bool {
    Path::new("/proc/driver/nvidia/version").exists() && open_cuda().is_ok()
}

/// Opens `libtorch_cuda` whether or not there is a driver.
pub fn open_cuda() -> Result<()> {
    let path = beside_libtorch("libtorch_cuda.so");
    // SAFETY: the library is libtorch's own, of the build that is already loaded; its initialisers
    // register the CUDA back end and nothing else. It stays open for the life of the process.
    let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) };
    let fix = "install the CUDA build of libtorch, or set device = \"cpu\"";
    std::mem::forget(library.map_err(Error::in_file(&path, fix))?);
    Ok(())
}

/// The path of a library in the folder from which libtorch was loaded.
fn beside_libtorch(name: &str) -> PathBuf {
    let _ = tch::get_num_threads(); // libtorch is loaded once this has run
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let loaded = maps
        .lines()
        .filter_map(|l| l.split_whitespace().last())
        .find(|p| p.ends_with("/libtorch_cpu.so"));
    loaded.map_or_else(
        || PathBuf::from(name),
        |p| Path::new(p).with_file_name(name),
    )
}

/// The device that a recipe's `device` names.
pub fn choose(name: &str) -> Result<Device> {
    let fix = "write auto, cpu or cuda:N";
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(if open_cuda_if_present() {
            Device::cuda_if_available()
        } else {
            Device::Cpu
        }),
        _ => {
            let number = if name == "cuda" {
                Some("0")
            } else {
                name.strip_prefix("cuda:")
            };
            let index: usize = number
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| Error::recipe("device", format!("{name:?}"), fix))?;
            open_cuda()?;
            if index as i64 >= Cuda::device_count() {
                let fix = "check the driver with nvidia-smi, or set device = \"cpu\"";
                let problem = format!("{name:?}, but {} GPUs are visible", Cuda::device_count());
                return Err(Error::recipe("device", problem, fix));
            }
            Ok(Device::Cuda(index))
        }
    }
}

/// Whether a device multiplies matrices of this kind in hardware. For bf16 the products must also be
/// no slower than those of fp32. They are about half as fast on an Intel processor with AVX-512 bf16
/// and without AMX.
pub fn multiplies(device: Device, kind: Kind) -> bool {
    match kind {
        Kind::BFloat16 => device.is_cuda() || PROCESSOR.bf16,
        Kind::Half => device.is_cuda() || PROCESSOR.fp16,
        _ => true,
    }
}

/// The 16-bit formats whose matrices are multiplied in hardware: bf16 where that is no slower than
/// fp32, fp16 where there is an instruction for it.
#[derive(Debug, PartialEq)]
struct FastFormats {
    bf16: bool,
    fp16: bool,
}

/// Those of this processor. They are read once, because every cast asks for them.
static PROCESSOR: LazyLock<FastFormats> =
    LazyLock::new(|| fast_formats(&processor_field("vendor_id"), &processor_field("flags")));

/// Those of a processor with this vendor and these flags, as `/proc/cpuinfo` names them.
fn fast_formats(vendor: &str, flags: &str) -> FastFormats {
    let is_fast = has_flag(flags, "amx_bf16") || vendor != "GenuineIntel";
    FastFormats {
        bf16: has_flag(flags, "avx512_bf16") && is_fast,
        fp16: has_flag(flags, "avx512_fp16"),
    }
}

fn has_flag(flags: &str, wanted: &str) -> bool {
    flags.split(' ').any(|flag| flag == wanted)
}

const EXTENSIONS: [&str; 4] = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"];
const SMI: [&str; 2] = ["--query-gpu=name", "--format=csv,noheader"];

/// What a run was computed on. Two runs of a recipe have the same bytes if all of this agrees,
/// their teachers have the same weights, and the number of threads did not change while they
/// trained.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// `cpu` or `cuda`.
    pub device: String,
    /// The GPU's name, or the processor's name, family and model (clouds give many processors the
    /// same name).
    pub processor: String,
    /// Vector extensions that decide which kernels libtorch uses.
    pub instructions: Vec<String>,
    /// Threads within an operation.
    pub threads: i64,
    /// libtorch's version, as pinned.
    pub libtorch: String,
    /// This crate's version.
    pub kd_lib: String,
}

impl Environment {
    /// The environment of this process.
    pub fn of(device: Device) -> Environment {
        let flags = processor_field("flags");
        let has = |wanted: &&str| has_flag(&flags, wanted);
        let processor = match device {
            Device::Cuda(n) => output_of(
                Command::new("nvidia-smi")
                    .args(SMI)
                    .arg(format!("--id={n}")),
            )
            .unwrap_or_default(),
            _ => ["model name", "cpu family", "model"]
                .map(processor_field)
                .join(" · "),
        };
        Environment {
            device: if device.is_cuda() {
                "cuda".into()
            } else {
                "cpu".into()
            },
            processor,
            instructions: EXTENSIONS
                .into_iter()
                .filter(has)
                .map(str::to_owned)
                .collect(),
            threads: i64::from(tch::get_num_threads()),
            libtorch: torch_version(),
            kd_lib: env!("CARGO_PKG_VERSION").into(),
        }
    }
}

/// The commit of a project: what its file `checkpoints/commit` says, for a project without its
/// repository, else what git says. `checkpoints` is the folder of that file.
pub fn commit(project: &Path, checkpoints: &Path) -> Option<String> {
    if let Ok(stated) = std::fs::read_to_string(checkpoints.join("commit")) {
        return Some(stated.trim().to_owned());
    }
    let here = Path::new(".");
    let folder = if project == Path::new("") {
        here
    } else {
        project
    };
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]);
    output_of(git.current_dir(folder))
}

/// What a command prints, if it succeeds.
fn output_of(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The version in the Python package of libtorch, or in a plain libtorch's `build-version`.
fn torch_version() -> String {
    let library = beside_libtorch("libtorch_cpu.so");
    let folder = library
        .parent()
        .and_then(Path::parent)
        .unwrap_or(Path::new("."));
    let python = std::fs::read_to_string(folder.join("version.py")).unwrap_or_default();
    let stated = python
        .lines()
        .find(|l| l.starts_with("__version__"))
        .and_then(|l| l.split('\'').nth(1));
    let plain = std::fs::read_to_string(folder.join("build-version")).unwrap_or_default();
    stated.map_or_else(|| plain.trim().to_owned(), str::to_owned)
}

fn processor_field(name: &str) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut fields = info.lines().filter_map(|line| line.split_once(':'));
    fields
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_is_multiplied_by_processors_on_which_it_is_fast() {
        let cases = [
            (
                "GenuineIntel",
                "avx2 avx512_bf16 avx512_fp16 amx_bf16",
                true,
                true,
            ),
            ("GenuineIntel", "avx2 avx512_bf16 avx512_fp16", false, true),
            ("AuthenticAMD", "avx2 avx512_bf16", true, false),
            ("AuthenticAMD", "avx2 avx512f", false, false),
        ];
        for (vendor, flags, bf16, fp16) in cases {
            let expected = FastFormats { bf16, fp16 };
            assert_eq!(fast_formats(vendor, flags), expected, "{vendor}: {flags}");
        }
    }
}
