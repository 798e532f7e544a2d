//! How is a file read without waiting for anybody, and no more of it than it may have?
//!
//! Folders that others can write to hold more than files: opening a FIFO waits for a writer, `/dev/zero` has no end, and to
//! open some devices is to use them. Everything that the proxy reads by path is read here: regular files only, opened without
//! blocking, and up to a size.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// The configuration, in bytes.
pub const CONFIGURATION: u64 = 16 << 20;
/// A file of settings beside a plugin.
pub const SETTINGS: u64 = 1 << 20;
/// A file of tests.
pub const TESTS: u64 = 4 << 20;
/// A signature in base64: 64 bytes, and room for white space.
pub const SIGNATURE: u64 = 4 << 10;
/// A secret.
pub const SECRET: u64 = 1 << 20;
/// Certificates, keys and what else TLS is made of.
pub const CERTIFICATES: u64 = 16 << 20;
/// A component, where no configuration says how large it may be.
pub const COMPONENT: u64 = 1 << 30;

/// What is in a regular file of at most `most` bytes. Fails with [`io::ErrorKind::FileTooLarge`] if there is more.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_to_end(&open(path, OFlags::empty())?, most)
}

/// The same of a file that is text in UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text in UTF-8"))
}

/// Opens a regular file for reading.
pub fn open(path: &Path, flags: OFlags) -> io::Result<fs::File> {
    // Looked at before it is opened, since opening some devices has effects; and again afterwards, since there may be
    // another by then.
    let found = match flags.contains(OFlags::NOFOLLOW) {
        true => fs::symlink_metadata(path)?,
        false => fs::metadata(path)?,
    };
    is_regular(found.file_type())?;
    let flags = (flags | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    is_regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// What is left of a file, if that is at most `most` bytes. Whatever the file says of its size does not count: it may grow.
pub fn read_to_end(file: &fs::File, most: u64) -> io::Result<Vec<u8>> {
    let expected = file.metadata()?.len().min(most);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default());
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > most {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {}", bytesize::ByteSize::b(most).display().iec()),
        )),
        false => Ok(bytes),
    }
}

fn is_regular(kind: fs::FileType) -> io::Result<()> {
    let what = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")),
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () if kind.is_symlink() => "a symbolic link",
        () => "something else",
    };
    let message = format!("it is {what}, and only regular files are read");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixListener};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "content").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink("/dev/zero", path("endless")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RUSR).unwrap();
        symlink(path("fifo"), path("link-to-fifo")).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        assert_eq!(read(&path("file"), 100).unwrap(), b"content");
        assert_eq!(read(&path("link"), 100).unwrap(), b"content");
        for (name, reason) in [
            ("endless", "it is a device"),
            ("fifo", "it is a FIFO"),
            ("link-to-fifo", "it is a FIFO"),
            ("socket", "it is a socket"),
            ("", "it is a directory"),
        ] {
            let error = read(&path(name), 100).unwrap_err().to_string();
            assert!(error.starts_with(reason), "{name}: {error}");
        }
        assert_eq!(read(&path("none"), 100).unwrap_err().kind(), io::ErrorKind::NotFound);
        let error = open(&path("link"), OFlags::NOFOLLOW).unwrap_err().to_string();
        assert!(error.starts_with("it is a symbolic link"), "{error}");
    }

    #[test]
    fn no_more_is_read_than_there_may_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, [b'x'; 100]).unwrap();
        assert_eq!(read(&path, 100).unwrap().len(), 100);
        let error = read(&path, 99).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "it is larger than 99 B");
        // One that says nothing of its size, as those of the kernel do.
        assert_eq!(read(Path::new("/proc/self/status"), 10).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(!read(Path::new("/proc/self/status"), 1 << 20).unwrap().is_empty());
    }
}
