//! Tensors of a checkpoint, read where they lie: in the page cache of its files, or in memory that a caller owns.
use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use memmap2::Mmap;
use safetensors::{Dtype as FileType, SafeTensors};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};
use crate::machine::numbers::{from_bfloat16, from_float16};
use crate::machine::private_files::open_regular;
use crate::machine::vectors::zeros;

/// Seconds after which what programs changed in a mapped file has been noted, too.
#[cfg(unix)]
const SETTLED: i64 = 60;

/// Memory that a caller owns and keeps in place.
pub type Memory = Box<dyn AsRef<[u8]> + Send + Sync>;

/// Bytes in which tensors lie.
enum TensorBytes {
    File(Mmap),
    Memory(Memory),
}

impl TensorBytes {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Memory(memory) => (**memory).as_ref(),
        }
    }
}

struct Entry {
    source: usize,
    bytes: Range<usize>,
    dtype: FileType,
    shape: Vec<usize>,
}

/// Named tensors and what they lie in.
pub struct Checkpoint {
    files: Vec<(PathBuf, Metadata)>,
    sources: Vec<TensorBytes>,
    entries: HashMap<String, Entry>,
}

/// How the values of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorType {
    /// 32-bit floating point.
    Float32,
    /// IEEE 16-bit floating point.
    Float16,
    /// The upper half of a float32.
    Bfloat16,
}

impl TensorType {
    fn of_file(file: FileType) -> Option<Self> {
        match file {
            FileType::F32 => Some(Self::Float32),
            FileType::F16 => Some(Self::Float16),
            FileType::BF16 => Some(Self::Bfloat16),
            _ => None,
        }
    }

    fn file(self) -> FileType {
        match self {
            Self::Float32 => FileType::F32,
            Self::Float16 => FileType::F16,
            Self::Bfloat16 => FileType::BF16,
        }
    }

    /// Bytes of a value.
    fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }
}

/// A tensor in memory: its values lie row after row.
pub struct MemoryTensor {
    /// Name as in a file.
    pub name: String,
    /// Type of the values.
    pub dtype: TensorType,
    /// Shape.
    pub shape: Vec<usize>,
    /// The values.
    pub bytes: Memory,
}

/// A tensor seen as a matrix: its first dimension are the rows, the others together the columns.
#[derive(Clone, Copy)]
pub struct Tensor<'a> {
    name: &'a str,
    bytes: &'a [u8],
    dtype: TensorType,
    /// First dimension.
    pub rows: usize,
    /// Product of the other dimensions.
    pub(crate) columns: usize,
}

impl Checkpoint {
    /// Maps the files and reads their headers.
    pub fn open(paths: &[String]) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), sources: Vec::new(), entries: HashMap::new() };
        for path in paths {
            let refuse = |reason: &dyn std::fmt::Display| Error::file(path, reason);
            let file = open_regular(Path::new(path)).map_err(|e| refuse(&e))?;
            checkpoint.files.push((path.into(), file.metadata().map_err(|e| refuse(&e))?));
            // SAFETY: the map is only read; as with every mapped file, nobody may cut the file short meanwhile.
            let map = unsafe { Mmap::map(&file) }.map_err(|e| refuse(&e))?;
            let tensors = SafeTensors::deserialize(&map).map_err(|e| refuse(&e))?;
            for (name, view) in tensors.iter() {
                let start = view.data().as_ptr() as usize - map.as_ptr() as usize;
                let entry = Entry {
                    source: checkpoint.sources.len(),
                    bytes: start..start + view.data().len(),
                    dtype: view.dtype(),
                    shape: view.shape().to_vec(),
                };
                checkpoint.entries.insert(name.to_owned(), entry);
            }
            checkpoint.sources.push(TensorBytes::File(map));
        }
        Ok(checkpoint)
    }

    /// Takes tensors that lie in memory. They are read while a model is loaded, its embeddings also afterwards.
    pub fn from_memory(tensors: Vec<MemoryTensor>) -> Result<Self> {
        let mut checkpoint = Self { files: Vec::new(), sources: Vec::new(), entries: HashMap::new() };
        for tensor in tensors {
            let given = (*tensor.bytes).as_ref().len();
            let expected = tensor.shape.iter().try_fold(tensor.dtype.size(), |size, &side| size.checked_mul(side));
            if Some(given) != expected {
                let (name, expected) = (&tensor.name, expected.unwrap_or(usize::MAX));
                return Err(Error::value(format!("tensor {name}: {given} bytes given, {expected} expected")));
            }
            let entry = Entry {
                source: checkpoint.sources.len(),
                bytes: 0..given,
                dtype: tensor.dtype.file(),
                shape: tensor.shape,
            };
            checkpoint.entries.insert(tensor.name, entry);
            checkpoint.sources.push(TensorBytes::Memory(tensor.bytes));
        }
        Ok(checkpoint)
    }

    /// What tells the files from others: path, size and time of the last change. `None` for tensors in memory, and
    /// where the system does not say.
    pub(crate) fn identity(&self) -> Option<String> {
        let mut identity = String::new();
        for (path, data) in &self.files {
            let path = fs::canonicalize(path).ok()?;
            let changed = data.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            identity += &format!("{path:?} {} {};", data.len(), changed.as_nanos());
        }
        (!identity.is_empty()).then_some(identity)
    }

    /// Changes whenever the system has noted a change of a file: it keeps a time that nobody can set back. 0 if that says
    /// nothing: a time so near may be that of several changes, and some systems keep none.
    pub(crate) fn stamp(&self) -> u64 {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;

            let now = std::time::SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
            if self.files.iter().all(|(_, data)| data.ctime() < now - SETTLED) {
                let known: Vec<_> =
                    self.files.iter().map(|(_, d)| (d.dev(), d.ino(), d.len(), d.ctime(), d.ctime_nsec())).collect();
                return xxh3_64_with_seed(format!("{known:?}").as_bytes(), 0).max(1);
            }
        }
        0
    }

    /// Hash of all bytes. A hundred megabytes take some 10 ms if the system has them in memory.
    pub(crate) fn content(&self) -> u64 {
        self.sources.iter().fold(0, |seed, source| xxh3_64_with_seed(source.bytes(), seed))
    }

    /// Gives the pages that were read back to the system; what is read again comes from its page cache.
    pub fn release(&self) {
        #[cfg(unix)]
        for source in &self.sources {
            if let TensorBytes::File(map) = source {
                // Advice only, so the outcome does not matter.
                // SAFETY: the map is of a file and never written, so dropped pages come back as they were.
                let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
            }
        }
    }

    /// The tensor called `name`, with or without the leading `model.`, if it is there.
    pub(crate) fn find(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor<'_>>> {
        let short = name.strip_prefix("model.").unwrap_or(name);
        let Some((name, entry)) = self.entries.get_key_value(name).or_else(|| self.entries.get_key_value(short)) else {
            return Ok(None);
        };
        if entry.shape != shape {
            let given = &entry.shape;
            return Err(Error::value(format!(
                "tensor {name} has shape {given:?}, the configuration implies {shape:?}"
            )));
        }
        let given = entry.dtype;
        let dtype = TensorType::of_file(given).ok_or_else(|| {
            Error::value(format!("tensor {name} has dtype {given:?}; the engine reads F32, F16 and BF16"))
        })?;
        let bytes = &self.sources[entry.source].bytes()[entry.bytes.clone()];
        let columns = shape[1..].iter().product();
        Ok(Some(Tensor { name, bytes, dtype, rows: shape[0], columns }))
    }

    /// The tensor called `name`, or an error that names it.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor<'_>> {
        self.find(name, shape)?.ok_or_else(|| {
            Error::value(format!(
                "the checkpoint has no tensor {name}; expected a SmolVLM or Idefics3 checkpoint with the tensor names of \
                 Transformers"
            ))
        })
    }

    /// A small tensor as float32, all values finite.
    pub(crate) fn vector(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, shape)?;
        let mut values = zeros(tensor.rows * tensor.columns)?;
        for (row, out) in values.chunks_exact_mut(tensor.columns).enumerate() {
            tensor.read_finite(row, out)?;
        }
        Ok(values)
    }
}

impl Tensor<'_> {
    /// Converts one row to float32.
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        let size = self.dtype.size();
        let bytes = &self.bytes[row * self.columns * size..][..self.columns * size];
        match self.dtype {
            TensorType::Float32 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *o = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
            }
            TensorType::Bfloat16 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = from_bfloat16(u16::from_le_bytes([b[0], b[1]]));
                }
            }
            TensorType::Float16 => {
                for (o, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *o = from_float16(u16::from_le_bytes([b[0], b[1]]));
                }
            }
        }
    }

    /// Converts one row and refuses NaN and infinity.
    pub(crate) fn read_finite(&self, row: usize, out: &mut [f32]) -> Result<()> {
        self.read(row, out);
        // Bits, and no early end: a loop over floats in their order, or up to the first bad value, would not vectorise.
        const EXPONENT: u32 = 0x7f80_0000;
        let bad = |x: &f32| x.to_bits() & EXPONENT == EXPONENT;
        if !out.iter().fold(false, |any, x| any | bad(x)) {
            return Ok(());
        }
        let name = self.name;
        Err(Error::value(format!("tensor {name} holds NaN or infinity in row {row}; the checkpoint is damaged")))
    }
}
