//! How does a socket come into the file system, and how does it go?

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Mutex,
};

use socket2::{Domain, SockAddr, Socket, Type};

/// A socket in the file system. Its file goes when this does, unless it has become another's.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and number, for as long as the file is there.
    identity: Mutex<Option<(u64, u64)>>,
}

/// Binds a socket, at which `backlog` connections may wait to be accepted. A file that nobody listens on any more is taken over; one that somebody listens on, or that is no
/// socket, is an error.
///
/// The file is made beside its place and moved there when all is done, so that nobody can connect before its mode
/// is what it should be, and there is one at all times.
pub(super) fn bind(path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<(UnixListener, SocketFile)> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "somebody listens there"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let bound = bind_beside(path, &beside, mode, backlog);
    if bound.is_err() {
        // It need not have come so far that there is one.
        let _ = fs::remove_file(&beside);
    }
    bound
}

fn bind_beside(
    path: &Path,
    beside: &Path,
    mode: Option<u32>,
    backlog: i32,
) -> io::Result<(UnixListener, SocketFile)> {
    // Of a process that had this number before.
    let _ = fs::remove_file(beside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(beside)?)?;
    if let Some(mode) = mode {
        fs::set_permissions(beside, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)?;
    fs::rename(beside, path)?;
    let found = fs::symlink_metadata(path)?;
    let identity = Mutex::new(Some((found.dev(), found.ino())));
    Ok((socket.into(), SocketFile { path: path.to_owned(), identity }))
}

impl SocketFile {
    /// Lets others connect, or no more.
    pub fn set_mode(&self, mode: u32) -> io::Result<()> {
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode))
    }

    /// Removes the file: nobody will accept what connects to it.
    pub fn remove(&self) {
        let Some(identity) = self.identity.lock().expect("no holder of this lock panics").take() else {
            return;
        };
        let is_own =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == identity);
        if is_own && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the file of a socket");
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}
