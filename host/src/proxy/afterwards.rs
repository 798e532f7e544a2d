//! What is to be done when the last byte has gone?

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderMap, StatusCode};

use super::{
    connection::Connection, context::Context as Request, cut::Cut, grpc, meter::Meter, record::Record,
    send::Sent,
};
use crate::{
    body::{End, Observer},
    clock::Timer,
    live::{Generation, Worker},
    telemetry::traffic::Bytes,
};

/// Goes with the body of a response, and settles what is left of a request.
#[derive(Debug)]
pub struct Afterwards {
    worker: Rc<Worker>,
    /// Held to the end: a request sees one generation.
    generation: Rc<Generation>,
    connection: Rc<Connection>,
    meter: Meter,
    /// What an upstream answered, it was sent by.
    sent: Option<Sent>,
    record: Option<Box<Record>>,
    status: StatusCode,
    passed: u64,
    stalled: Option<Timer>,
    /// How far the request's body had come when that was last looked at.
    uploaded: u64,
    /// The client's own deadline is over.
    is_late: bool,
}

impl Afterwards {
    pub(super) fn new(
        request: Request,
        sent: Option<Sent>,
        record: Option<Box<Record>>,
        status: StatusCode,
    ) -> Self {
        let Request { worker, generation, connection, meter, .. } = request;
        let (passed, stalled, uploaded, is_late) = (0, None, 0, false);
        Self {
            worker,
            generation,
            connection,
            meter,
            sent,
            record,
            status,
            passed,
            stalled,
            uploaded,
            is_late,
        }
    }
}

impl Observer for Afterwards {
    fn passed(&mut self, bytes: usize) {
        self.passed += bytes as u64;
        if let Some(timer) = &self.stalled {
            timer.stop();
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Option<HeaderMap>> {
        let Some(sent) = &self.sent else { return Poll::Pending };
        if let Some(deadline) = &sent.deadline
            && deadline.poll(cx).is_ready()
        {
            self.is_late = true;
            return Poll::Ready(Some(grpc::late()));
        }
        let timer = self.stalled.get_or_insert_with(|| sent.clock.timer());
        if !timer.is_running() {
            timer.start(sent.silence);
        }
        while timer.poll(cx).is_ready() {
            // An upstream that still takes the request is not silent for nothing.
            if std::mem::replace(&mut self.uploaded, sent.uploaded()) == sent.uploaded() {
                return Poll::Ready(None);
            }
            timer.start(sent.silence);
        }
        Poll::Pending
    }

    fn ended(self, end: End<'_>) {
        let cut = match Cut::of_body(&end, &self.worker, &self.connection) {
            Some(Cut::UpstreamSilent) if self.is_late => Some(Cut::Deadline),
            cut => cut,
        };
        self.connection.set_answered();
        let duration = self.meter.started.elapsed();
        let (status, sent) = (self.status, self.sent.as_ref());
        let bytes = Bytes { of_request: sent.map_or(0, Sent::uploaded), of_response: self.passed };
        self.meter.count(&self.generation, status, bytes, duration, cut.is_none());
        self.connection.counts.requests.add(1);
        if let Some(record) = self.record {
            record.write(status, sent, bytes, duration, cut);
        }
        if let Some(sent) = self.sent.filter(|_| cut.is_none()) {
            sent.finish();
        }
    }
}
