//! Files in a folder that only this user writes: what others put there is neither followed nor read nor waited for.
use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PARTIAL: &str = "partial";
/// A partial file that is younger may not be locked yet.
const STALE: Duration = Duration::from_secs(60);
/// So many names are tried for a partial file; each has 64 random bits.
const TRIES: usize = 8;

/// Opens a regular file for reading; a FIFO or a device is refused, not waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    open(path, true, false)
}

/// Opens a regular file that this user, or the system's, wrote and no other can write: for reading, and for
/// [`write_at`] if it may be.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        check_owner("the folder", &fs::metadata(folder)?)?;
    }
    let file = open(path, false, true).or_else(|_| open(path, false, false))?;
    check_owner("it", &file.metadata()?)?;
    Ok(file)
}

fn open(path: &Path, follow: bool, write: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(write);
    system::no_surprise(&mut options, follow);
    let file =
        options.open(path).map_err(|e| if system::is_link(&e) { refused("it is a symbolic link") } else { e })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused("it is not a regular file")) }
}

/// Writes in the middle of a file, whose position for reading stays as it is.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    system::write_at(file, bytes, offset)
}

/// A file that is written under a random name and appears whole, or not at all.
pub(crate) struct NewFile {
    /// Where to write.
    pub(crate) file: File,
    /// Empty once there is nothing to remove.
    partial: PathBuf,
    path: PathBuf,
}

impl NewFile {
    /// Starts a file that is to appear at `path`. Its folder is made if it is missing, and refused if others can write it.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            let mut builder = DirBuilder::new();
            builder.recursive(true);
            system::private_folder(&mut builder);
            builder.create(folder)?;
            check_owner("the folder", &fs::metadata(folder)?)?;
            remove_stale(folder);
        }
        for _ in 0..TRIES {
            let partial = path.with_extension(format!("{:016x}.{PARTIAL}", RandomState::new().build_hasher().finish()));
            let mut options = OpenOptions::new();
            options.write(true).create_new(true); // fails on whatever is there, links included
            system::private_file(&mut options);
            match options.open(&partial) {
                Ok(file) => {
                    let new = Self { file, partial, path: path.to_owned() };
                    // While it is locked nobody takes it for a leftover; a file system without locks keeps leftovers.
                    let _ = new.file.try_lock();
                    return Ok(new);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
        Err(refused("no free name was found"))
    }

    /// Lets the file appear. It is on the disk before its name is, so that no crash leaves a name without content.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.partial, &self.path)?;
        self.partial.clear();
        if let Some(folder) = self.path.parent() {
            // The name may get lost in a crash if this fails, which costs a later load its time only.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.partial.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.partial); // a load that failed leaves nothing behind
        }
    }
}

/// Removes what processes left that ended while they wrote. As it is about disk space only, errors do not matter.
fn remove_stale(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == PARTIAL)
            && let Ok(file) = open_private(&path)
            && file
                .metadata()
                .and_then(|data| data.modified())
                .is_ok_and(|at| at.elapsed().is_ok_and(|age| age > STALE))
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(&path);
        }
    }
}

fn refused(reason: impl Into<String>) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, reason.into())
}

/// Refuses what another user than this one and the system's owns or may write.
fn check_owner(what: &str, data: &Metadata) -> io::Result<()> {
    match system::stranger(data) {
        None => Ok(()),
        Some(reason) => Err(refused(format!("{what} {reason}"))),
    }
}

#[cfg(unix)]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;
    use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};

    pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    pub(super) fn no_surprise(options: &mut OpenOptions, follow: bool) {
        options.custom_flags(if follow { libc::O_NONBLOCK } else { libc::O_NONBLOCK | libc::O_NOFOLLOW });
    }

    pub(super) fn is_link(error: &io::Error) -> bool {
        error.raw_os_error() == Some(libc::ELOOP)
    }

    pub(super) fn private_file(options: &mut OpenOptions) {
        options.mode(0o600);
    }

    pub(super) fn private_folder(builder: &mut DirBuilder) {
        builder.mode(0o700);
    }

    pub(super) fn stranger(data: &Metadata) -> Option<String> {
        // SAFETY: the call has no arguments and cannot fail.
        let user = unsafe { libc::geteuid() };
        let (owner, mode) = (data.uid(), data.mode() & 0o777);
        if owner != user && owner != 0 {
            return Some(format!("belongs to user {owner}, not to user {user}"));
        }
        (mode & 0o022 != 0).then(|| format!("can be written by other users (mode {mode:o}): take that right away"))
    }
}

#[cfg(not(unix))]
mod system {
    use std::fs::{DirBuilder, File, Metadata, OpenOptions};
    use std::io;

    pub(super) fn write_at(_: &File, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn no_surprise(_: &mut OpenOptions, _: bool) {}

    pub(super) fn is_link(_: &io::Error) -> bool {
        false
    }

    pub(super) fn private_file(_: &mut OpenOptions) {}

    pub(super) fn private_folder(_: &mut DirBuilder) {}

    pub(super) fn stranger(_: &Metadata) -> Option<String> {
        None
    }
}
