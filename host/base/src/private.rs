//! What is on disk that nobody else may touch?
//!
//! Compiled plugins and the keys that the proxy has made itself: whoever can write to them is this user.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

use crate::file;

/// Makes the folder if it is not there. An error if others can write to it.
pub fn open_folder(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    if !is_ours_alone(&fs::metadata(folder)?) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the folder belongs to another user or others can write to it",
        ));
    }
    Ok(())
}

/// Opens a file for reading, unless others can write to it or it is a link.
pub fn open(path: &Path) -> io::Result<fs::File> {
    let file = file::open(path, OFlags::NOFOLLOW)?;
    if !is_ours_alone(&file.metadata()?) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write to the file"));
    }
    Ok(file)
}

/// What is in a file of at most `most` bytes, under the same conditions.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    file::read_to_end(&open(path)?, most)
}

/// Writes a file that only this user can read. Several processes may do this at once: each renames a whole file
/// of its own into place.
pub fn write(path: &Path, pieces: &[&[u8]]) -> io::Result<()> {
    let unfinished = path.with_extension(format!("{}-{:x}", std::process::id(), fastrand::u64(..)));
    let result = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| pieces.iter().try_for_each(|piece| file.write_all(piece)))
        .and_then(|()| fs::rename(&unfinished, path));
    if result.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    result
}

fn is_ours_alone(metadata: &fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & 0o022 == 0
}
