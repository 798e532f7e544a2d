//! How many connections are there to an endpoint, and who gets the next one?
//!
//! All workers share a [`Connections`]. A request that finds it full waits in one line with those of the other workers, and
//! gets either a permit to make a connection or a connection that another request has finished with. A connection that
//! comes free goes to the first of the line, whichever worker that is on.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::{Notify, oneshot};

use super::stream::Stream;
use crate::proxy_protocol::ProxyHeader;

/// The connections to one endpoint, of all workers.
#[derive(Debug)]
pub struct Connections {
    /// `u32::MAX` for no limit.
    limit: AtomicU32,
    /// Places in the line; those for whom a worker asks once for many requests included.
    waiting: AtomicU32,
    /// Requests that wait.
    queued: AtomicU32,
    /// Connections without a request.
    idle: AtomicU32,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    open: u32,
    waiters: VecDeque<Waiter>,
    /// Of each worker that has had a connection: told when somebody waits who could have one that is idle there.
    workers: Vec<Weak<Notify>>,
    next: u64,
}

/// What tells one who waits from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// The number of the worker's pool.
    pub pool: u64,
    /// A connection that begins with another is of no use.
    pub introduction: Option<ProxyHeader>,
    /// Whether only a new connection is of use, as for HTTP/2.
    pub is_new: bool,
    /// Its worker has no connection to the endpoint at all, so that nothing that ends there will help.
    pub is_starved: bool,
}

/// The first of the line, who is to get a connection.
#[derive(Debug)]
pub(super) struct Waiter {
    id: u64,
    pub wanted: Wanted,
    gets: oneshot::Sender<Got>,
}

/// What somebody who has waited gets.
#[derive(Debug)]
pub(super) enum Got {
    /// It may make a connection.
    Permit(ConnectionPermit),
    /// One from another worker, which is on no runtime.
    Moved(EndpointStream),
    /// One of its own worker: the worker's pool has it ready under this number.
    Local(u64),
}

/// A connection counts for as long as this is there: until its socket is closed, which holds it (`link`).
#[derive(Debug)]
pub struct ConnectionPermit(Arc<Connections>);

/// A connection to an endpoint that may have to count.
pub(super) type EndpointStream = Stream<ConnectionPermit>;

/// A connection without a request, for as long as this is there.
#[derive(Debug)]
pub(super) struct IdleMark(Arc<Connections>);

/// A request that waits.
#[derive(Debug)]
pub(super) struct Queued(Arc<Connections>);

/// As many requests wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

impl Connections {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(u32::MAX),
            waiting: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            idle: AtomicU32::new(0),
            line: Mutex::default(),
        })
    }

    /// How many there may be from now on. Those that are there stay.
    pub fn set_limit(self: &Arc<Self>, limit: u32) {
        if self.limit.swap(limit, Ordering::SeqCst) < limit {
            self.let_in();
        }
    }

    /// Whether somebody waits for one.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// How many wait for one.
    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// What a connection that comes free has to begin with for the first who waits to have it. None if nobody waits, or only
    /// a new one helps.
    pub(super) fn wanted(&self) -> Option<Option<ProxyHeader>> {
        let first = self.line().waiters.front()?.wanted;
        (!first.is_new).then_some(first.introduction)
    }

    /// Whether the first who waits is of a worker without any.
    pub fn has_starved(&self) -> bool {
        self.has_waiting() && self.line().waiters.front().is_some_and(|waiter| waiter.wanted.is_starved)
    }

    /// One more, if there is room and nobody waits. `worker` is told when idle ones are wanted.
    pub fn try_permit(self: &Arc<Self>, worker: &Arc<Notify>) -> Option<ConnectionPermit> {
        let mut line = self.line();
        line.know(worker);
        if !line.waiters.is_empty() || line.open >= self.limit.load(Ordering::SeqCst) {
            return None;
        }
        line.open += 1;
        Some(ConnectionPermit(self.clone()))
    }

    /// Counts a request that is going to wait, unless as many as `longest` do.
    pub fn queue(self: &Arc<Self>, longest: u32) -> Result<Queued, QueueFull> {
        // Taken back if it was one too many.
        let queued = Queued(self.clone());
        if self.queued.fetch_add(1, Ordering::Relaxed) < longest { Ok(queued) } else { Err(QueueFull) }
    }

    /// Waits in the line.
    pub fn wait(self: &Arc<Self>, wanted: Wanted, worker: &Arc<Notify>) -> InLine {
        let (gets, got) = oneshot::channel();
        let id = {
            let mut line = self.line();
            line.know(worker);
            line.next += 1;
            let waiter = Waiter { id: line.next, wanted, gets };
            match wanted.is_starved {
                true => line.waiters.push_front(waiter),
                false => line.waiters.push_back(waiter),
            }
            // Whoever lets go of a connection after this sees that somebody waits.
            self.waiting.fetch_add(1, Ordering::SeqCst);
            line.next
        };
        self.let_in();
        let waiting = InLine { connections: self.clone(), id, got };
        waiting.nudge(wanted, worker);
        waiting
    }

    /// The first of the line, who is to get a connection that comes free. Nobody, if a new connection is all that helps:
    /// then this one is to be closed.
    pub(super) fn next(&self, introduction: Option<ProxyHeader>) -> Option<Waiter> {
        let mut line = self.line();
        let first = line.waiters.front()?.wanted;
        if first.is_new || first.introduction != introduction {
            return None;
        }
        let waiter = line.waiters.pop_front();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        waiter
    }

    /// A connection is without a request.
    pub(super) fn idle(self: &Arc<Self>) -> IdleMark {
        self.idle.fetch_add(1, Ordering::SeqCst);
        IdleMark(self.clone())
    }

    /// Gives permits to those who wait, while there is room.
    fn let_in(self: &Arc<Self>) {
        while self.has_waiting() {
            let waiter = {
                let mut line = self.line();
                if line.open >= self.limit.load(Ordering::SeqCst) {
                    return;
                }
                let Some(waiter) = line.waiters.pop_front() else { return };
                self.waiting.fetch_sub(1, Ordering::SeqCst);
                line.open += 1;
                waiter
            };
            // Without the lock: if the one who waited has gone, the permit comes back at once.
            waiter.give(Got::Permit(ConnectionPermit(self.clone())));
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    fn know(&mut self, worker: &Arc<Notify>) {
        let is_it = |known: &Weak<Notify>| std::ptr::eq(known.as_ptr(), Arc::as_ptr(worker));
        if !self.workers.iter().any(is_it) {
            self.workers.retain(|known| known.strong_count() > 0);
            self.workers.push(Arc::downgrade(worker));
        }
    }
}

impl Waiter {
    /// Hands it over. False if whoever waited has gone; then it is dropped.
    pub fn give(self, got: Got) -> bool {
        self.gets.send(got).is_ok()
    }

    /// Whether whoever waited has gone.
    pub fn has_gone(&self) -> bool {
        self.gets.is_closed()
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.0.line().open -= 1;
        self.0.let_in();
    }
}

impl Drop for IdleMark {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody in the line. Gives up when dropped.
#[derive(Debug)]
pub(super) struct InLine {
    connections: Arc<Connections>,
    id: u64,
    got: oneshot::Receiver<Got>,
}

impl InLine {
    /// Tells the other workers that a connection is wanted, if one of them could let go of one.
    pub fn nudge(&self, wanted: Wanted, own: &Arc<Notify>) {
        if !wanted.is_starved && self.connections.idle.load(Ordering::SeqCst) == 0 {
            return;
        }
        let workers: Vec<_> = self.connections.line().workers.iter().filter_map(Weak::upgrade).collect();
        // Its own worker may have an idle one that begins with another introduction.
        workers.iter().filter(|worker| !wanted.is_starved || !Arc::ptr_eq(worker, own)).for_each(|worker| {
            worker.notify_one();
        });
    }

    /// What has come although nobody waits for it any more.
    pub fn give_up(&mut self) -> Option<Got> {
        let waiter = {
            let mut line = self.connections.line();
            let index = line.waiters.iter().position(|waiter| waiter.id == self.id);
            index.and_then(|index| line.waiters.remove(index))
        };
        match waiter {
            Some(_) => {
                self.connections.waiting.fetch_sub(1, Ordering::SeqCst);
                None
            }
            None => {
                self.got.close();
                self.got.try_recv().ok()
            }
        }
    }
}

impl Future for InLine {
    type Output = Option<Got>;

    /// None if the worker that was to hand its connection over could not.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Got>> {
        Pin::new(&mut self.got).poll(cx).map(Result::ok)
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        drop(self.give_up());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net,
        sync::atomic::AtomicBool,
        task::{Wake, Waker},
        thread,
    };

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::upstream::link::Link;

    const ANY: Wanted = Wanted { pool: 0, introduction: None, is_new: false, is_starved: false };

    fn poll(waiting: &mut InLine) -> Option<Option<Got>> {
        match Pin::new(waiting).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(got) => Some(got),
            Poll::Pending => None,
        }
    }

    fn permit(got: Option<Option<Got>>) -> ConnectionPermit {
        match got {
            Some(Some(Got::Permit(permit))) => permit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn those_who_wait_get_permits_in_order_and_one_without_any_comes_first() {
        let (connections, worker) = (Connections::new(), Arc::new(Notify::new()));
        connections.set_limit(1);
        let first = connections.try_permit(&worker).unwrap();
        let mut second = connections.wait(ANY, &worker);
        let mut third = connections.wait(ANY, &worker);
        let mut starved = connections.wait(Wanted { is_starved: true, is_new: true, ..ANY }, &worker);
        assert!(connections.has_starved() && connections.try_permit(&worker).is_none());
        assert!(connections.next(None).is_none(), "a connection of HTTP/1 is of no use to the first");
        drop(first);
        assert!(poll(&mut second).is_none() && poll(&mut third).is_none());
        drop(permit(poll(&mut starved)));
        drop(third);
        drop(permit(poll(&mut second)));
        assert!(!connections.has_waiting() && connections.try_permit(&worker).is_some());
        assert_eq!(connections.line().open, 0);
    }

    #[test]
    fn what_was_given_to_somebody_who_has_gone_comes_back() {
        let (connections, worker) = (Connections::new(), Arc::new(Notify::new()));
        connections.set_limit(1);
        let first = connections.try_permit(&worker).unwrap();
        let gone = connections.wait(ANY, &worker);
        let mut last = connections.wait(ANY, &worker);
        drop(first);
        drop(gone);
        assert!(matches!(poll(&mut last), Some(Some(Got::Permit(_)))));
        assert_eq!((connections.line().open, connections.has_waiting()), (0, false));
    }

    #[test]
    fn no_more_requests_wait_than_may() {
        let connections = Connections::new();
        let queued = connections.queue(1).unwrap();
        assert!(connections.queue(1).is_err());
        drop(queued);
        assert!(connections.queue(1).is_ok() && connections.queue(0).is_err());
    }

    /// Looks, when somebody is told that there is room, whether the connection before has ended.
    struct Look {
        endpoint: net::TcpStream,
        has_ended: AtomicBool,
    }

    impl Wake for Look {
        fn wake(self: Arc<Self>) {
            let has_ended = self.endpoint.peek(&mut [0]).is_ok_and(|length| length == 0);
            self.has_ended.store(has_ended, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn whoever_waits_is_let_in_once_the_socket_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut link =
            Link::<ConnectionPermit>::from(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
        let endpoint = listener.accept().await.unwrap().0.into_std().unwrap();
        let (connections, worker) = (Connections::new(), Arc::new(Notify::new()));
        connections.set_limit(1);
        link.hold(connections.try_permit(&worker));
        assert!(link.is_counted());
        let wanted = Wanted { pool: 0, introduction: None, is_new: true, is_starved: false };
        let mut waiting = connections.wait(wanted, &worker);
        let look = Arc::new(Look { endpoint, has_ended: AtomicBool::new(false) });
        let waker = Waker::from(look.clone());
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(link);
        assert!(matches!(waiting.await, Some(Got::Permit(_))));
        assert!(look.has_ended.load(Ordering::SeqCst), "it was told before the socket was closed");
    }

    #[test]
    fn nobody_is_forgotten_and_never_are_there_too_many() {
        const LIMIT: u32 = 3;
        let connections = Connections::new();
        connections.set_limit(LIMIT);
        let open = AtomicU32::new(0);
        thread::scope(|scope| {
            for number in 0..8 {
                let (connections, open) = (&connections, &open);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    let worker = Arc::new(Notify::new());
                    runtime.block_on(async {
                        for turn in 0..1000 {
                            let permit = match connections.try_permit(&worker) {
                                Some(permit) => permit,
                                None => {
                                    let mut waiting = connections.wait(ANY, &worker);
                                    // Some lose their patience.
                                    if (turn + number) % 5 == 0 {
                                        match poll(&mut waiting) {
                                            Some(Some(Got::Permit(permit))) => permit,
                                            _ => continue,
                                        }
                                    } else {
                                        match waiting.await {
                                            Some(Got::Permit(permit)) => permit,
                                            other => panic!("{other:?}"),
                                        }
                                    }
                                }
                            };
                            assert!(open.fetch_add(1, Ordering::SeqCst) < LIMIT);
                            thread::yield_now();
                            open.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    });
                });
            }
        });
        assert_eq!((connections.line().open, connections.has_waiting()), (0, false));
    }
}
