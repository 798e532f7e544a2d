//! What is to be done when the last byte has gone?

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use http::{HeaderMap, StatusCode};

use super::{Connection, grpc, meter::Meter, record::Record, send::Sent};
use crate::{body::Observer, clock::Timer, live::Generation, telemetry::traffic::Bytes};

/// Goes with the body of a response, and settles what is left of a request.
#[derive(Debug)]
pub struct Afterwards {
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
}

impl Afterwards {
    pub(super) fn new(
        generation: Rc<Generation>,
        connection: Rc<Connection>,
        meter: Meter,
        sent: Option<Sent>,
        record: Option<Box<Record>>,
        status: StatusCode,
    ) -> Self {
        Self { generation, connection, meter, sent, record, status, passed: 0, stalled: None, uploaded: 0 }
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

    fn ended(self, is_complete: bool) {
        self.connection.set_answered();
        let duration = self.meter.started.elapsed();
        let (status, sent) = (self.status, self.sent.as_ref());
        let bytes = Bytes { of_request: sent.map_or(0, Sent::uploaded), of_response: self.passed };
        self.meter.count(&self.generation, status, bytes, duration, is_complete);
        self.connection.counts.requests.add(1);
        if let Some(record) = self.record {
            record.write(status, sent, bytes, duration, is_complete);
        }
        if let Some(sent) = self.sent.filter(|_| is_complete) {
            sent.finish();
        }
    }
}
