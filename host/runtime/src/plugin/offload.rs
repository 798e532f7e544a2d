//! Where do calls run that take long?
//!
//! Each worker has an offload thread of low priority: it has the processor when others leave it, and little of it where they
//! do not. A call that is expected to compute for milliseconds goes there with all that it needs, and the worker serves other
//! requests until it comes back.

use std::{
    cell::OnceCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::setpriority_process;
use tokio::sync::oneshot;

use super::clocks::cpu_time;

/// The offload thread of a worker. It starts with the first call that goes there, and ends when this is dropped.
#[derive(Debug, Default)]
pub struct OffloadThread(OnceCell<Option<mpsc::Sender<Job>>>);

type Job = Box<dyn FnOnce() + Send>;

/// Has this thread make way for others when the machine is busy, though not so that it would starve.
pub fn make_way() {
    /// Beside a thread that never rests it has a tenth of a processor.
    const NICE: i32 = 10;
    // On Linux it is the thread's own.
    if let Err(error) = setpriority_process(None, NICE) {
        tracing::warn!(%error, "offloaded calls of plugins have the priority of requests");
    }
}

impl OffloadThread {
    /// Runs this there, after what has been given to it before, and also tells the processor time that it took. If nobody
    /// waits any more, it does not begin, and what comes of it is dropped there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> (T, Duration) {
        let work = move || {
            let began = cpu_time();
            let outcome = work();
            (outcome, cpu_time().saturating_sub(began))
        };
        let Some(jobs) = self.0.get_or_init(Self::start) else { return work() };
        let (answer, answered) = oneshot::channel();
        let job = move || {
            if !answer.is_closed() {
                drop(answer.send(catch_unwind(AssertUnwindSafe(work))));
            }
        };
        jobs.send(Box::new(job)).expect("the thread ends after this has been dropped");
        match answered.await.expect("every job answers whoever waits") {
            Ok(outcome) => outcome,
            // As if it had happened here.
            Err(panic) => resume_unwind(panic),
        }
    }

    /// None if there can be no thread: then its work is done by whoever has it.
    fn start() -> Option<mpsc::Sender<Job>> {
        let (jobs, received) = mpsc::channel::<Job>();
        let work = move || {
            make_way();
            for job in received {
                // What nobody waits for is dropped here, and might panic too. The panic has been told of.
                drop(catch_unwind(AssertUnwindSafe(job)));
            }
        };
        let started = thread::Builder::new().name("tollgate-slow".into()).spawn(work);
        started
            .inspect_err(
                |error| tracing::error!(%error, "calls of plugins that take long hold up their worker"),
            )
            .ok()
            .map(|_| jobs)
    }
}
