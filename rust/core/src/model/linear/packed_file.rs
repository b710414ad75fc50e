//! Packed weights: made from a checkpoint, or read from the file in which an earlier load kept them.
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::machine::private_files::{NewFile, open_private, write_at};
use crate::machine::team::Team;
use crate::model::checkpoint::Tensor;
use crate::model::kernels::{GROUP, Kernels, PANEL};
use crate::model::linear::{Linear, Order, Storage};

/// Raise it whenever the bytes of packed weights get another meaning; a test below notices most such changes.
const LAYOUT: u32 = 3;
const MAGIC: &[u8; 8] = b"FSVPACK2";

/// What packed weights are made from.
pub(crate) struct Origin<'a> {
    /// See [`key`].
    pub(crate) key: u64,
    /// See [`crate::model::checkpoint::Checkpoint::stamp`]: the same stamp is the same content. 0 says nothing.
    pub(crate) stamp: u64,
    /// Hashes the bytes of all weights, for when the stamps differ.
    pub(crate) content: &'a dyn Fn() -> u64,
}

/// Where the weights of a load come from.
enum PackedSource {
    Checkpoint,
    /// A file that is read from start to end.
    File(File),
    /// The checkpoint; what is packed is also written. `None` after a failure to write.
    Both(Option<NewFile>),
}

/// What became of the file of packed weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// None was asked for.
    Off,
    /// The weights were read from it.
    Read,
    /// It was written.
    Written,
    /// It was there and could not be used, for this reason; it was written anew.
    Replaced(String),
    /// It could not be written, for this reason.
    Failed(String),
}

/// Gives the linear layers of a model, in the order in which a model asks for them.
pub(crate) struct Packer<'a> {
    kernels: &'static Kernels,
    storage: Storage,
    team: &'a mut Team,
    source: PackedSource,
    failure: Option<String>,
}

fn describe(path: &Path, e: &std::io::Error) -> String {
    format!("{}: {e}", path.display())
}

impl<'a> Packer<'a> {
    /// Packs from the checkpoint.
    pub(crate) fn new(kernels: &'static Kernels, team: &'a mut Team) -> Self {
        Self { kernels, storage: Storage::Float32, team, source: PackedSource::Checkpoint, failure: None }
    }

    /// Reads from the file at `path`, which must have been made from the same; `None` if there is no file.
    pub(crate) fn reading(
        kernels: &'static Kernels,
        team: &'a mut Team,
        path: &Path,
        origin: &Origin<'_>,
    ) -> Result<Option<Self>> {
        let mut file = match open_private(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(damaged(describe(path, &e))),
        };
        let mut head = [0; 32];
        let whole = file.read_exact(&mut head).is_ok();
        let word = |index: usize| head[8 * index..][..8].try_into().map_or(0, u64::from_le_bytes);
        if !whole || head[..8] != MAGIC[..] || word(1) != origin.key {
            return Err(damaged("it starts with other bytes".into()));
        }
        if origin.stamp == 0 || word(2) != origin.stamp {
            if word(3) != (origin.content)() {
                return Err(damaged("it was made from other weights".into()));
            }
            // The next load need not hash; if the file cannot be written it will.
            let _ = write_at(&file, &origin.stamp.to_le_bytes(), 16);
        }
        Ok(Some(Self { source: PackedSource::File(file), ..Self::new(kernels, team) }))
    }

    /// Packs from the checkpoint and writes what is packed to a file at `path`, which appears whole or not at all.
    pub(crate) fn writing(kernels: &'static Kernels, team: &'a mut Team, path: &Path, origin: &Origin<'_>) -> Self {
        let start = || -> std::io::Result<NewFile> {
            let mut new = NewFile::create(path)?;
            new.file.write_all(MAGIC)?;
            for word in [origin.key, origin.stamp, (origin.content)()] {
                new.file.write_all(&word.to_le_bytes())?;
            }
            Ok(new)
        };
        let (new, failure) = match start() {
            Ok(new) => (Some(new), None),
            Err(e) => (None, Some(describe(path, &e))),
        };
        Self { source: PackedSource::Both(new), failure, ..Self::new(kernels, team) }
    }

    /// Packs the layers to come like this.
    pub(crate) fn pack_for(&mut self, storage: Storage) {
        self.storage = storage;
    }

    /// The next layer.
    pub(crate) fn linear(&mut self, weights: &[Tensor<'_>], order: Order, bias: Vec<f32>) -> Result<Linear> {
        let mut linear = Linear::zeroed(weights, order, bias, (self.kernels, self.storage))?;
        if let PackedSource::File(file) = &mut self.source {
            read(file, linear.packed_mut())?;
            return Ok(linear);
        }
        linear.pack_weights(weights, order, self.team)?;
        if let PackedSource::Both(new) = &mut self.source
            && let Some(file) = new.as_mut().map(|new| &mut new.file)
            && let Err(e) = write(file, linear.packed())
        {
            self.failure = Some(e.to_string());
            *new = None;
        }
        Ok(linear)
    }

    /// Ends the load: `Err` if the file that was read holds more than the model.
    pub(crate) fn finish(mut self) -> Result<Outcome> {
        match std::mem::replace(&mut self.source, PackedSource::Checkpoint) {
            PackedSource::Checkpoint => Ok(Outcome::Off),
            PackedSource::File(mut file) => match file.read(&mut [0]) {
                Ok(0) => Ok(Outcome::Read),
                _ => Err(damaged("it is longer than the model".into())),
            },
            PackedSource::Both(new) => {
                if let Some(Err(e)) = new.map(NewFile::finish) {
                    self.failure = Some(e.to_string());
                }
                Ok(self.failure.take().map_or(Outcome::Written, Outcome::Failed))
            }
        }
    }
}

fn damaged(reason: String) -> Error {
    Error::packed(reason)
}

fn read(file: &mut File, bytes: &mut [u8]) -> Result<()> {
    let mut head = [0; 16];
    file.read_exact(&mut head).map_err(|_| damaged("it ends early".into()))?;
    if head[..8] != (bytes.len() as u64).to_le_bytes()[..] {
        return Err(damaged("a layer has another size".into()));
    }
    file.read_exact(bytes).map_err(|_| damaged("it ends early".into()))?;
    if head[8..] != xxh3_64(bytes).to_le_bytes()[..] {
        return Err(damaged("a checksum is wrong".into()));
    }
    Ok(())
}

fn write(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(&(bytes.len() as u64).to_le_bytes())?;
    file.write_all(&xxh3_64(bytes).to_le_bytes())?;
    file.write_all(bytes)
}

/// Hash of all that decides the bytes of packed weights: `identity` of the checkpoint's files, names and shapes of its
/// tensors, and how the layers of the two stacks are laid out.
pub(crate) fn key(identity: &str, tensors: &[(String, Vec<usize>)], storages: [Storage; 2]) -> u64 {
    let layouts = storages.map(|storage| storage.kind().layout());
    let all = format!("{LAYOUT} {PANEL} {GROUP} {layouts:?} {tensors:?} {identity}");
    xxh3_64(all.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::checkpoint::{Checkpoint, MemoryTensor, TensorType};
    use crate::model::kernels::available;

    fn checkpoint() -> Checkpoint {
        let values: Vec<u8> =
            (0..70 * 300).flat_map(|i: i32| ((i * 37 % 101 - 50) as f32 / 64.0).to_le_bytes()).collect();
        Checkpoint::from_memory(vec![MemoryTensor {
            name: "w".into(),
            dtype: TensorType::Float32,
            shape: vec![70, 300],
            bytes: Box::new(values),
        }])
        .expect("consistent")
    }

    #[test]
    fn the_layout_is_the_one_of_its_number() {
        let checkpoint = checkpoint();
        let mut team = Team::new(2).expect("two threads");
        let weight = checkpoint.tensor("w", &[70, 300]).expect("there");
        // Another number or hash? Then files that were written before are read wrongly: raise LAYOUT.
        assert_eq!(LAYOUT, 3);
        for &storage in Storage::ALL {
            let mut packer = Packer::new(available()[0], &mut team);
            packer.pack_for(storage);
            let layer = packer.linear(&[weight], Order::Concatenated, Vec::new());
            let hash = xxh3_64(layer.expect("finite").packed());
            assert_eq!(hash, storage.kind().golden_hash(), "{storage:?}");
        }
    }

    #[test]
    fn storages_pack_the_same_bytes_if_their_layouts_have_one_name() {
        for (a, b) in Storage::ALL.iter().flat_map(|a| Storage::ALL.iter().map(move |b| (a.kind(), b.kind()))) {
            assert_eq!(a.layout() == b.layout(), a.golden_hash() == b.golden_hash(), "{} {}", a.layout(), b.layout());
        }
    }

    #[test]
    fn written_weights_come_back_and_damage_is_noticed() {
        let folder = std::env::temp_dir().join(format!("fsv-packed-{}", std::process::id()));
        let path = folder.join("some/place.packed");
        let checkpoint = checkpoint();
        let weight = checkpoint.tensor("w", &[70, 300]).expect("there");
        let mut team = Team::new(1).expect("one thread");
        let origin = |key| Origin { key, stamp: 0, content: &|| 11 };
        let load = |packer: Result<Option<Packer<'_>>>| -> Result<(Vec<u8>, Outcome)> {
            let mut packer = packer?.expect("a packer");
            packer.pack_for(Storage::Int8Pairs);
            let layer = packer.linear(&[weight], Order::Concatenated, vec![1.0; 70])?;
            Ok((layer.packed().to_vec(), packer.finish()?))
        };
        let kernels = available()[0];
        assert!(Packer::reading(kernels, &mut team, &path, &origin(7)).expect("no file is no error").is_none());
        let made = load(Ok(Some(Packer::writing(kernels, &mut team, &path, &origin(7))))).expect("kept");
        assert_eq!(made.1, Outcome::Written);
        let read = load(Packer::reading(kernels, &mut team, &path, &origin(7))).expect("read");
        assert_eq!(read, (made.0.clone(), Outcome::Read));
        assert!(load(Packer::reading(kernels, &mut team, &path, &origin(8))).is_err(), "another key");
        let changed = Origin { content: &|| 12, ..origin(7) };
        assert!(load(Packer::reading(kernels, &mut team, &path, &changed)).is_err(), "other content");
        let settled = Origin { stamp: 5, ..origin(7) };
        assert!(load(Packer::reading(kernels, &mut team, &path, &settled)).is_ok(), "equal content");
        let trusted = Origin { content: &|| panic!("the stamp is known"), ..settled };
        assert!(load(Packer::reading(kernels, &mut team, &path, &trusted)).is_ok(), "equal stamp");

        let whole = fs::read(&path).expect("there");
        for place in [0, 9, 25, 33, 41, 60, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[place] ^= 4;
            fs::write(&path, changed).expect("writable");
            assert!(load(Packer::reading(kernels, &mut team, &path, &origin(7))).is_err(), "byte {place}");
        }
        for length in [0, 10, 30, whole.len() - 1] {
            fs::write(&path, &whole[..length]).expect("writable");
            assert!(load(Packer::reading(kernels, &mut team, &path, &origin(7))).is_err(), "{length} bytes");
        }
        fs::write(&path, [&whole[..], &[0]].concat()).expect("writable");
        assert!(load(Packer::reading(kernels, &mut team, &path, &origin(7))).is_err(), "one byte more");
        let blocked = path.join("below a file");
        let failed = load(Ok(Some(Packer::writing(kernels, &mut team, &blocked, &origin(7))))).expect("packed");
        assert!(matches!(failed.1, Outcome::Failed(_)));
        assert_eq!(failed.0, made.0);
        fs::remove_dir_all(folder).expect("ours");
    }
}
