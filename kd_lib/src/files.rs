//! Files on disk: atomic writes, hashes, content-addressed names, locks, and tensors as safetensors.
//! Nothing here knows what the files mean.

use crate::{Error, Result, error::BUG};
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensorError, SafeTensors};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tch::{Kind, Tensor};

/// Characters of a hash in a file's name.
const HASH: usize = 16;

/// Writes `path` through a temporary file in its folder: write → fsync → rename → fsync of the
/// folder, so that a reader sees the old file or the new one, never half of either.
pub fn write_atomically(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    write_under_computed_name(path, fill, |path, _| Ok(path.to_path_buf())).map(drop)
}

/// The same, under a name that is computed from the written bytes.
fn write_under_computed_name(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
    final_path: impl FnOnce(&Path, &Path) -> Result<PathBuf>,
) -> Result<PathBuf> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    // Ordinary permissions, as the umask leaves them, so that colleagues can read a run's files.
    let ordinary = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    let temporary = tempfile::Builder::new()
        .prefix(".writing-")
        .permissions(ordinary)
        .tempfile_in(folder)
        .map_err(Error::io(folder))?;
    fill(temporary.path())?;
    File::open(temporary.path())
        .and_then(|f| f.sync_all())
        .map_err(Error::io(path))?;
    let path = final_path(path, temporary.path())?;
    temporary
        .persist(&path)
        .map_err(|e| Error::io(&path)(e.error))?;
    File::open(folder)
        .and_then(|f| f.sync_all())
        .map_err(Error::io(folder))?;
    Ok(path)
}

/// Removes the temporary files that killed writers left in a folder.
pub fn remove_temporary_files(folder: &Path) -> Result<()> {
    let mut leftovers = sorted_entries(folder)?
        .into_iter()
        .filter(|path| file_name(path).starts_with(".writing-"));
    leftovers.try_for_each(|path| std::fs::remove_file(&path).map_err(Error::io(&path)))
}

/// The entries of a folder, sorted by name.
pub fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(Error::io(folder))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    Ok(paths)
}

/// A path's file name; empty if it is not UTF-8.
pub fn file_name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

/// Between two attempts to get a lock.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);

/// Locks a folder for this process. Another process waits here until the first one ends; the
/// kernel releases the lock however it ends. `waiting` is called again and again during the wait,
/// and its error ends the wait.
pub fn lock_folder(folder: &Path, waiting: &mut dyn FnMut() -> Result<()>) -> Result<File> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let path = folder.join(".lock");
    let file = File::create(&path).map_err(Error::io(&path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => waiting()?,
            Err(TryLockError::Error(cause)) => return Err(Error::io(&path)(cause)),
        }
        std::thread::sleep(LOCK_INTERVAL);
    }
}

/// Writes text atomically.
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, |temporary| {
        std::fs::write(temporary, text).map_err(Error::io(path))
    })
}

/// Writes a value as indented JSON, atomically.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(Error::in_file(path, BUG))?;
    write_text(path, &(text + "\n"))
}

/// Reads a value from JSON.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    serde_json::from_str(&text).map_err(Error::in_file(
        path,
        "not the JSON expected here: remove the file and create it again",
    ))
}

/// The folder that holds another one, by its path as it is written: `..` of a symbolic link is the
/// parent of what the link names.
pub fn parent_as_written(folder: &Path) -> PathBuf {
    match folder.file_name() {
        Some(_) => folder.with_file_name(""),
        None => folder.join(".."),
    }
}

/// Writes a text to a file of the user's. What is there already is not overwritten, unless it is
/// the same text.
///
/// # Errors
/// If something else is there.
pub fn write_export(path: &Path, text: &str) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        let same =
            path.is_file() && std::fs::read(path).is_ok_and(|there| there == text.as_bytes());
        let fix = "name a new file, or remove this one";
        return if same {
            Ok(())
        } else {
            Err(Error::file(path, "exists and would be overwritten", fix))
        };
    }
    write_text(path, text)
}

/// blake3 of a file's bytes, as hex.
///
/// # Errors
/// If it is no regular file: a pipe can be read only once.
pub fn hash_file(path: &Path) -> Result<String> {
    if !std::fs::metadata(path).map_err(Error::io(path))?.is_file() {
        let fix = "save what it gives in a file, and name that";
        return Err(Error::file(path, "not a regular file", fix));
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap(path).map_err(Error::io(path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// Named tensors and the file's text metadata.
#[derive(Debug, Default)]
pub struct TensorFile {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// The header's `__metadata__`.
    pub metadata: HashMap<String, String>,
    /// Tensors of a dtype that libtorch's bindings do not know, and the dtype.
    unsupported: BTreeMap<String, String>,
}

impl TensorFile {
    /// Reads a safetensors file; every offset in its header is checked before a byte is used.
    pub fn read(path: &Path) -> Result<TensorFile> {
        TensorFile::read_where(path, |_| true)
    }

    fn read_where(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<TensorFile> {
        let bad = |e: &dyn std::fmt::Display| {
            Error::file(
                path,
                format!("not a sound safetensors file ({e})"),
                "download or create the file again",
            )
        };
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the map is read-only and lives for this function alone; our own writers replace
        // files by renaming, so the mapped bytes do not change under it.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(&e))?;
        let views = SafeTensors::deserialize(&bytes).map_err(|e| bad(&e))?;
        let (mut tensors, mut unsupported) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in views.iter().filter(|(name, _)| wanted(name)) {
            let Some(kind) = kind_of(view.dtype()) else {
                unsupported.insert(name.to_owned(), format!("{:?}", view.dtype()));
                continue;
            };
            let size: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            // Copied into libtorch's aligned memory: a matrix library may take another path, and
            // give other bits, on memory that is not.
            let tensor = Tensor::f_from_data_size(view.data(), &size, kind)?;
            tensors.insert(name.to_owned(), tensor);
        }
        Ok(TensorFile {
            tensors,
            metadata: header.metadata().clone().unwrap_or_default(),
            unsupported,
        })
    }

    /// The names of a safetensors file's tensors.
    pub fn names(path: &Path) -> Result<Vec<String>> {
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: as in `read_where`.
        let bytes = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        let fix = "not a sound safetensors file: download or create it again";
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(Error::in_file(path, fix))?;
        Ok(header.offset_keys())
    }

    /// Reads one tensor of a safetensors file.
    pub fn read_one(path: &Path, name: &str) -> Result<Tensor> {
        TensorFile::read_where(path, |other| other == name)?.take(path, name)
    }

    /// Takes a tensor out by name; `path` is only for the message.
    pub fn take(&mut self, path: &Path, name: &str) -> Result<Tensor> {
        if let Some(format) = self.unsupported.get(name) {
            let fix = "save it as F32, F16 or BF16";
            return Err(Error::file(
                path,
                format!("{name:?} has the format {format}"),
                fix,
            ));
        }
        let fix = "is this a checkpoint of another architecture?";
        self.tensors
            .remove(name)
            .ok_or_else(|| Error::file(path, format!("no tensor named {name:?}"), fix))
    }
}

/// An f16 matrix `[row, width]` in a safetensors file that is mapped into memory: only the rows
/// that are read are loaded.
#[derive(Debug)]
pub struct MappedMatrix {
    map: memmap2::Mmap,
    /// Offset of the first value in the file.
    start: usize,
    /// Number of rows.
    pub rows: usize,
    /// Values of a row.
    pub width: usize,
}

impl MappedMatrix {
    /// Opens the matrix of this name in a file.
    pub fn open(path: &Path, name: &str) -> Result<MappedMatrix> {
        let fix = "remove the file, so that it is computed again";
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: as in `TensorFile::read`; our writers replace files by renaming.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(Error::io(path))?;
        let views = SafeTensors::deserialize(&map).map_err(Error::in_file(path, fix))?;
        let view = views.tensor(name).map_err(Error::in_file(path, fix))?;
        let (&[rows, width], Dtype::F16) = (view.shape(), view.dtype()) else {
            return Err(Error::file(
                path,
                format!("{name} is not an f16 matrix"),
                fix,
            ));
        };
        let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
        Ok(MappedMatrix {
            map,
            start,
            rows,
            width,
        })
    }

    /// The bytes of a row, two for each value.
    pub fn row(&self, row: usize) -> &[u8] {
        let bytes = 2 * self.width;
        let from = self.start + row * bytes;
        &self.map[from..from + bytes]
    }
}

/// Writes tensors as one safetensors file, atomically.
pub fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
) -> Result<()> {
    write_tensors_with_metadata(path, tensors, HashMap::new())
}

/// Writes tensors and text metadata as one safetensors file, atomically.
pub fn write_tensors_with_metadata<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<()> {
    write_atomically(path, tensor_writer(path, tensors, metadata)?)
}

/// A function that writes tensors and metadata into a file.
fn tensor_writer<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<impl FnOnce(&Path) -> Result<()>> {
    let stored: Vec<(String, StoredTensor)> = tensors
        .into_iter()
        .map(|(name, tensor)| Ok((name, StoredTensor::new(tensor)?)))
        .collect::<Result<_>>()?;
    let bad = move |e: SafeTensorError| {
        Error::file(path, e.to_string(), "check that the disk is not full")
    };
    Ok(move |temporary: &Path| {
        let mut views = Vec::new();
        for (name, tensor) in &stored {
            let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data);
            views.push((name, view.map_err(bad)?));
        }
        safetensors::serialize_to_file(views, (!metadata.is_empty()).then_some(metadata), temporary)
            .map_err(bad)
    })
}

/// A tensor as safetensors stores it.
struct StoredTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl StoredTensor {
    /// Kinds that no file of this project holds, such as booleans, become fp32.
    fn new(tensor: &Tensor) -> Result<StoredTensor> {
        let tensor = tensor.detach().to_device(tch::Device::Cpu).contiguous();
        let dtype = match tensor.kind() {
            Kind::BFloat16 => Dtype::BF16,
            Kind::Double => Dtype::F64,
            Kind::Half => Dtype::F16,
            Kind::Uint8 => Dtype::U8,
            Kind::Int64 => Dtype::I64,
            _ => Dtype::F32,
        };
        let tensor = tensor.to_kind(kind_of(dtype).unwrap_or(Kind::Float));
        let mut data = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut data, tensor.numel())?;
        Ok(StoredTensor {
            dtype,
            shape: tensor.size().iter().map(|&n| n as usize).collect(),
            data,
        })
    }
}

/// Writes tensors under a name that contains the hash of the file's bytes, so that damage is
/// detected: `STEM.EXT` becomes `STEM-HASH.EXT`. Returns the path with the hash.
pub fn write_content_addressed<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (String, &'a Tensor)>,
    metadata: HashMap<String, String>,
) -> Result<PathBuf> {
    let hashed = |path: &Path, written: &Path| {
        let part = |part: Option<&std::ffi::OsStr>| {
            part.unwrap_or_default().to_string_lossy().into_owned()
        };
        let (stem, extension) = (part(path.file_stem()), part(path.extension()));
        Ok(path.with_file_name(format!(
            "{stem}-{}.{extension}",
            &hash_file(written)?[..HASH]
        )))
    };
    write_under_computed_name(path, tensor_writer(path, tensors, metadata)?, hashed)
}

/// The content-addressed files of a folder whose names begin with `prefix`, last name first.
pub fn content_addressed(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let paths = sorted_entries(folder).unwrap_or_default().into_iter().rev();
    paths
        .filter(|path| file_name(path).starts_with(prefix))
        .collect()
}

/// Whether a content-addressed file's bytes match the hash in its name.
pub fn matches_its_name(path: &Path) -> bool {
    let stem = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let expected = stem.rsplit('-').next().unwrap_or_default();
    hash_file(path).is_ok_and(|hash| hash.starts_with(expected) && expected.len() == HASH)
}

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
