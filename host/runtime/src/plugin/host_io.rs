//! What I/O can a call of a plugin wait for, and who does it?
//!
//! A call that may wait knows nothing of the worker that it runs on. It leaves what it waits for in its [`PendingIo`].
//! Whoever drives the call finds the request there, has it done by a [`HostIo`], and hands the result back. So the caller of
//! a plugin decides what the plugin reaches: the proxy sends requests and reads bodies, a test has them written down.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::oneshot, task::yield_now};

use super::{
    cost::{Cost, Meter},
    epoch::epoch,
    exchange::ExchangeSlot,
    offload::OffloadThread,
};
use crate::outgoing::{Outgoing, Received, SendError};

/// Does the I/O that a call waits for, each within the time that it is given.
pub trait HostIo {
    /// Sends a request, within the time that it says itself.
    fn send(&mut self, request: Outgoing) -> impl Future<Output = Result<Received, SendError>>;

    /// Reads the body of the request, up to so many bytes.
    fn request_body(
        &mut self,
        most: usize,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, BodyError>>;

    /// Reads the body of the response, up to so many bytes.
    fn response_body(
        &mut self,
        most: usize,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, BodyError>>;

    /// The call has ended: takes the body that the plugin wants in the place of the message's own, if it has made one.
    fn replace_body(&mut self, _exchange: &mut ExchangeSlot) {}
}

/// Why there is no body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    #[error("it is longer than the plugin may read")]
    TooLarge,
    #[error("it did not come in time")]
    TimedOut,
    #[error("it broke off")]
    Disconnected,
    #[error("there is none to be had")]
    Unavailable,
}

/// For a call that has nothing to wait for.
pub struct NoHostIo;

impl HostIo for NoHostIo {
    async fn send(&mut self, _: Outgoing) -> Result<Received, SendError> {
        Err(SendError::Denied)
    }

    async fn request_body(&mut self, _: usize, _: Duration) -> Result<Bytes, BodyError> {
        Err(BodyError::Unavailable)
    }

    async fn response_body(&mut self, _: usize, _: Duration) -> Result<Bytes, BodyError> {
        Err(BodyError::Unavailable)
    }
}

/// Where a call leaves what it waits for, and what it has used. Shared by the call and by whoever drives it.
#[derive(Debug, Default)]
pub(super) struct PendingIo(Mutex<Contents>);

#[derive(Debug, Default)]
struct Contents {
    asked: Option<Asked>,
    meter: Meter,
    /// The epoch in which it was left to wait, if it has,
    left_in: Option<u64>,
    /// and whether that was over when it went on, which it has not been looked at for.
    has_outwaited: bool,
    /// When the time for waiting is over; none if the call may not wait.
    until: Option<Instant>,
    /// How long the call has been away from the thread.
    waited: Duration,
    /// What it has taken on the offload thread.
    offloaded: Duration,
}

#[derive(Debug)]
enum Asked {
    Send(Box<Outgoing>, oneshot::Sender<Result<Received, SendError>>),
    RequestBody { most: usize, within: Duration, answer: oneshot::Sender<Result<Bytes, BodyError>> },
    ResponseBody { most: usize, within: Duration, answer: oneshot::Sender<Result<Bytes, BodyError>> },
}

/// A body that can be asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Request,
    Response,
}

impl PendingIo {
    /// A call begins that may wait for so long; not at all if absent.
    pub fn begin(&self, wait: Option<Duration>) {
        let until = wait.and_then(|wait| Instant::now().checked_add(wait));
        *self.contents() = Contents { until, ..Contents::default() };
    }

    /// Adds what the call, or the last one, has taken in its turns.
    pub fn add_to(&self, cost: &mut Cost) {
        let Contents { meter, waited, offloaded, .. } = &*self.contents();
        cost.is_offloaded = !offloaded.is_zero();
        cost.computed += if cost.is_offloaded { *offloaded } else { meter.sampled() };
        cost.seen_for += meter.used();
        cost.waited += *waited;
    }

    /// What is left of the time for waiting.
    fn left(&self) -> Option<Duration> {
        let until = self.contents().until?;
        Some(until.saturating_duration_since(Instant::now()))
    }

    /// Leaves a request and waits for its response.
    pub async fn send(&self, mut request: Outgoing) -> Result<Received, SendError> {
        let left = self.left().ok_or(SendError::Denied)?;
        if left.is_zero() {
            return Err(SendError::TimedOut);
        }
        request.timeout = request.timeout.min(left);
        let (answer, answered) = oneshot::channel();
        self.contents().asked = Some(Asked::Send(Box::new(request), answer));
        answered.await.unwrap_or(Err(SendError::Unreachable))
    }

    /// Asks for a body of at most so many bytes and waits for it.
    pub async fn body(&self, which: Which, most: usize) -> Result<Bytes, BodyError> {
        let within = self.left().ok_or(BodyError::Unavailable)?;
        if within.is_zero() {
            return Err(BodyError::TimedOut);
        }
        let (answer, answered) = oneshot::channel();
        self.contents().asked = Some(match which {
            Which::Request => Asked::RequestBody { most, within, answer },
            Which::Response => Asked::ResponseBody { most, within, answer },
        });
        answered.await.unwrap_or(Err(BodyError::Disconnected))
    }

    /// An epoch has passed, or a piece of something long. What the call has used so far, as [`Meter::look`] tells it, and
    /// whether it has run meanwhile and not waited.
    pub fn look(&self, now: Duration) -> (Duration, bool) {
        let Contents { meter, has_outwaited, .. } = &mut *self.contents();
        match std::mem::take(has_outwaited) {
            true => (meter.watch(now), false),
            false => (meter.look(now), true),
        }
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call goes on.
    fn resume(&self, cpu: fn() -> Duration) {
        let contents = &mut *self.contents();
        contents.meter.resume(cpu);
        contents.has_outwaited |= contents.left_in.take().is_some_and(|left_in| left_in != epoch());
    }

    /// The call has let go of the thread. What it waits for, if that is new.
    fn pause(&self, cpu: fn() -> Duration) -> Option<Asked> {
        let contents = &mut *self.contents();
        contents.meter.pause(cpu);
        contents.left_in = contents.asked.is_some().then(epoch);
        contents.asked.take()
    }
}

/// Runs a call to its end, and has done what it waits for. `cpu` tells the CPU time of the thread.
pub(super) async fn drive<T>(
    call: impl Future<Output = T>,
    pending_io: &PendingIo,
    io: &mut impl HostIo,
    cpu: fn() -> Duration,
) -> T {
    let mut call = pin!(call);
    loop {
        match take_turn(call.as_mut(), pending_io, cpu) {
            (Poll::Ready(outcome), _) => return outcome,
            (Poll::Pending, asked) => attend(asked, pending_io, io).await,
        }
    }
}

/// A call that can go on wherever it is taken.
pub(super) type Portable<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The same, on the offload thread from the moment at which the call has used up two turns here, so that it has computed for an
/// epoch; or from its beginning, if it `is_slow`.
pub(super) async fn drive_offloaded<T: Send + 'static>(
    mut call: Portable<T>,
    pending_io: &Arc<PendingIo>,
    io: &mut impl HostIo,
    offload: &OffloadThread,
    is_slow: bool,
    cpu: fn() -> Duration,
) -> T {
    let mut turns = if is_slow { 2 } else { 0 };
    loop {
        let turn = if turns >= 2 {
            let (given, since) = (pending_io.clone(), Instant::now());
            let work = move || {
                let turn = take_turn(call.as_mut(), &given, cpu);
                (turn, call)
            };
            let ((turn, again), took) = offload.run(work).await;
            call = again;
            let mut contents = pending_io.contents();
            contents.offloaded += took;
            contents.waited += since.elapsed().saturating_sub(took);
            turn
        } else {
            take_turn(call.as_mut(), pending_io, cpu)
        };
        match turn {
            (Poll::Ready(outcome), _) => return outcome,
            (Poll::Pending, asked) => {
                turns += u32::from(asked.is_none());
                if turns < 2 || asked.is_some() {
                    attend(asked, pending_io, io).await;
                }
            }
        }
    }
}

/// Has a call run until it lets go of the thread. What it waits for then, if that is new.
fn take_turn<T>(
    call: Pin<&mut (impl Future<Output = T> + ?Sized)>,
    pending_io: &PendingIo,
    cpu: fn() -> Duration,
) -> (Poll<T>, Option<Asked>) {
    pending_io.resume(cpu);
    // What it waits for is in its `PendingIo`, so nothing wakes it but who drives it.
    let polled = call.poll(&mut Context::from_waker(Waker::noop()));
    (polled, pending_io.pause(cpu))
}

/// Has done what a call waits for: if it is nothing, for its turn.
async fn attend(asked: Option<Asked>, pending_io: &PendingIo, io: &mut impl HostIo) {
    let since = Instant::now();
    // Nobody is there to take an answer only if the call has ended.
    match asked {
        Some(Asked::Send(request, answer)) => drop(answer.send(io.send(*request).await)),
        Some(Asked::RequestBody { most, within, answer }) => {
            drop(answer.send(io.request_body(most, within).await));
        }
        Some(Asked::ResponseBody { most, within, answer }) => {
            drop(answer.send(io.response_body(most, within).await));
        }
        // It has used up its turn. wasmtime would have it run again at once, but there is nothing to be had from
        // sockets while a task is ready: the runtime looks there only now and then, and when all have made way.
        None => yield_now().await,
    }
    pending_io.contents().waited += since.elapsed();
}

/// Runs a task to its end that waits for nothing but its turn.
///
/// A runtime around it is not to count what it does: the runtime would have it make way for others in the end, and it
/// cannot.
pub fn at_once<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(tokio::task::unconstrained(task));
    loop {
        if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_at_once_ends_inside_of_a_runtime_too() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            for number in 0..1000 {
                let (answer, answered) = oneshot::channel();
                answer.send(number).expect("somebody waits");
                assert_eq!(at_once(answered), Ok(number));
            }
        });
    }

    /// Answers every request with 204.
    struct Obliging(Vec<Duration>);

    impl HostIo for Obliging {
        async fn send(&mut self, request: Outgoing) -> Result<Received, SendError> {
            self.0.push(request.timeout);
            Ok(Received { status: 204, headers: http::HeaderMap::new(), body: Bytes::new() })
        }

        async fn request_body(&mut self, most: usize, _: Duration) -> Result<Bytes, BodyError> {
            if most < 4 { Err(BodyError::TooLarge) } else { Ok(Bytes::from_static(b"body")) }
        }

        async fn response_body(&mut self, _: usize, _: Duration) -> Result<Bytes, BodyError> {
            Err(BodyError::Unavailable)
        }
    }

    fn outgoing(timeout: u32) -> Outgoing {
        crate::plugin::client::outgoing("GET", "http://a/", Vec::new(), Vec::new(), timeout)
            .expect("it is a request")
    }

    fn driven<T>(pending_io: &PendingIo, io: &mut Obliging, call: impl Future<Output = T>) -> T {
        at_once(drive(call, pending_io, io, || Duration::ZERO))
    }

    #[test]
    fn a_call_gets_what_it_waits_for_within_its_time() {
        let (pending_io, mut io) = (PendingIo::default(), Obliging(Vec::new()));
        pending_io.begin(Some(Duration::from_secs(5)));
        let call = async {
            let sent = pending_io.send(outgoing(0)).await.map(|received| received.status);
            let short = pending_io.send(outgoing(20)).await.map(|received| received.status);
            (sent, short, pending_io.body(Which::Request, 4).await, pending_io.body(Which::Request, 3).await)
        };
        let (sent, short, body, long) = driven(&pending_io, &mut io, call);
        assert_eq!((sent, short), (Ok(204), Ok(204)));
        assert_eq!((body, long), (Ok(Bytes::from_static(b"body")), Err(BodyError::TooLarge)));
        assert!(io.0[0] <= Duration::from_secs(5), "{:?}", io.0);
        assert_eq!(io.0[1], Duration::from_millis(20));
    }

    #[test]
    fn a_call_that_may_not_wait_gets_nothing() {
        let (pending_io, mut io) = (PendingIo::default(), Obliging(Vec::new()));
        pending_io.begin(None);
        let sent = driven(&pending_io, &mut io, pending_io.send(outgoing(0)));
        assert_eq!(sent.map(drop), Err(SendError::Denied));
        pending_io.begin(Some(Duration::ZERO));
        let sent = driven(&pending_io, &mut io, pending_io.send(outgoing(0)));
        assert_eq!(sent.map(drop), Err(SendError::TimedOut));
        let body = driven(&pending_io, &mut io, pending_io.body(Which::Request, 4));
        assert_eq!(body, Err(BodyError::TimedOut));
        assert!(io.0.is_empty());
    }

    #[test]
    fn the_time_of_others_is_not_counted() {
        let pending_io = PendingIo::default();
        pending_io.begin(None);
        let at = |milliseconds: u64| Duration::from_millis(milliseconds);
        assert_eq!(pending_io.look(at(10)), (Duration::ZERO, true));
        assert_eq!(pending_io.look(at(11)), (at(1), true));
        pending_io.pause(|| Duration::from_millis(12));
        pending_io.resume(|| Duration::from_millis(20));
        assert_eq!(pending_io.look(at(21)), (at(3), true));
    }

    #[test]
    fn an_epoch_that_ends_while_a_call_waits_does_not_make_it_seen_running() {
        let (pending_io, mut io) = (PendingIo::default(), Obliging(Vec::new()));
        for passes in [false, true] {
            pending_io.begin(Some(Duration::from_secs(5)));
            let call = async {
                pending_io.send(outgoing(0)).await.expect("it is sent");
                // Here the plugin is looked at if an epoch has ended.
                passes.then(|| pending_io.look(Duration::from_millis(10)))
            };
            let mut call = pin!(call);
            let (_, asked) = take_turn(call.as_mut(), &pending_io, || Duration::ZERO);
            if passes {
                crate::plugin::epoch::pass();
            }
            at_once(attend(asked, &pending_io, &mut io));
            let (looked, _) = take_turn(call.as_mut(), &pending_io, || Duration::from_millis(12));
            assert_eq!(looked, Poll::Ready(passes.then_some((Duration::ZERO, false))));
            let mut cost = Cost::default();
            pending_io.add_to(&mut cost);
            assert_eq!(cost.computed, Duration::from_millis(if passes { 2 } else { 0 }));
        }
    }
}
