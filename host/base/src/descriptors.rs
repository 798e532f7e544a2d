//! Are there file descriptors left, and who gets the last of them?
//!
//! The kernel gives out the lowest number that is free, so that the number of a new descriptor says how many are in use at
//! least. Connections are accepted only while enough are left for what they need toward endpoints, and endpoints are
//! connected to only while enough are left for a reload, the admin API and the log.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use tokio::sync::watch;

/// How many descriptors the process may have, as far as anybody has asked.
static LIMIT: AtomicU64 = AtomicU64::new(u64::MAX);

/// How many it has for itself, before there are connections.
static OWN: AtomicU64 = AtomicU64::new(0);

/// Told when there were none left for a connection to an endpoint.
static SHORTAGE: LazyLock<watch::Sender<()>> = LazyLock::new(|| watch::Sender::new(()));

/// Has the process open as many files as it may: a connection takes two, and systems begin with some thousand. Says how
/// many those are.
pub fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let mut current = limit.current;
    if current != limit.maximum {
        match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
            Ok(()) => current = limit.maximum,
            Err(error) => {
                tracing::warn!(%error, limit = limit.current, "cannot have more files open at once");
            }
        }
    }
    let current = current.unwrap_or(u64::MAX);
    LIMIT.store(current, Ordering::Relaxed);
    current
}

/// What is kept for what is neither a client's nor an endpoint's.
fn kept(limit: u64) -> u64 {
    (limit / 8).min(64)
}

/// Whether a descriptor of this number leaves enough for everything else than connections.
fn leaves_some(number: RawFd, limit: u64) -> bool {
    u64::try_from(number).is_ok_and(|number| number < limit - kept(limit))
}

/// Whether one more connection may be accepted after one of this number: what it needs toward an endpoint is left.
fn leaves_enough(number: RawFd, limit: u64) -> bool {
    u64::try_from(number).is_ok_and(|number| number < limit - kept(limit) - limit / 8)
}

/// An error if this descriptor is one of those that are kept.
pub fn leave_some(descriptor: &impl AsRawFd) -> io::Result<()> {
    match leaves_some(descriptor.as_raw_fd(), LIMIT.load(Ordering::Relaxed)) {
        true => Ok(()),
        false => Err(Errno::MFILE.into()),
    }
}

/// What is open now is the process's own: nobody has connected yet.
pub fn note_own() {
    // It is closed at once.
    if let Ok(lowest) = fcntl_dupfd_cloexec(io::stderr(), 0) {
        OWN.store(u64::try_from(lowest.as_raw_fd()).unwrap_or(0), Ordering::Relaxed);
    }
}

/// Connections of clients that there may be at once: each needs a second descriptor toward an endpoint.
pub fn most_clients() -> usize {
    let limit = LIMIT.load(Ordering::Relaxed);
    // Some more are needed in the course of time: for files that are watched, a reload, the admin API.
    let own = OWN.load(Ordering::Relaxed).saturating_add((limit / 16).min(64));
    let left = (limit - kept(limit)).saturating_sub(own);
    usize::try_from(left / 2).unwrap_or(usize::MAX).max(1)
}

/// Has everybody close connections that nobody uses.
pub fn report_shortage() {
    SHORTAGE.send_replace(());
}

/// Tells of each shortage from now on.
pub fn shortages() -> watch::Receiver<()> {
    SHORTAGE.subscribe()
}

/// Whether, after this descriptor, one more connection may be accepted.
pub fn may_accept_after(descriptor: &impl AsRawFd) -> bool {
    leaves_enough(descriptor.as_raw_fd(), LIMIT.load(Ordering::Relaxed))
}

/// The same at a moment when no descriptor has just been made. `any` is one that is open.
pub fn may_accept(any: &impl AsFd) -> bool {
    // It is closed at once.
    fcntl_dupfd_cloexec(any, 0).is_ok_and(|lowest| may_accept_after(&lowest))
}

/// Whether an error says that this process, or this machine, has too little of something. Nobody else is to blame for it.
pub fn is_shortage(error: &io::Error) -> bool {
    let Some(code) = error.raw_os_error() else { return false };
    // Out of descriptors, of memory for sockets, of local ports.
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    own.iter().any(|errno| errno.raw_os_error() == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_leave_room_for_endpoints_and_those_for_everything_else() {
        for (limit, accepting, connecting) in
            [(128, 96, 112), (1024, 832, 960), (1 << 20, 917_440, 1_048_512)]
        {
            let limit_of = |may: fn(RawFd, u64) -> bool| (0..).find(|number| !may(*number, limit)).unwrap();
            assert_eq!(limit_of(leaves_enough), accepting, "{limit}");
            assert_eq!(limit_of(leaves_some), connecting, "{limit}");
        }
        assert!(leaves_some(RawFd::MAX, u64::MAX) && leaves_enough(RawFd::MAX, u64::MAX), "without a limit");
    }

    #[test]
    fn what_is_missing_here_is_not_the_fault_of_others() {
        for (error, expected) in [
            (Errno::MFILE, true),
            (Errno::NFILE, true),
            (Errno::ADDRNOTAVAIL, true),
            (Errno::CONNREFUSED, false),
            (Errno::CONNRESET, false),
            (Errno::HOSTUNREACH, false),
        ] {
            assert_eq!(is_shortage(&error.into()), expected, "{error:?}");
        }
        assert!(!is_shortage(&io::ErrorKind::TimedOut.into()));
    }
}
