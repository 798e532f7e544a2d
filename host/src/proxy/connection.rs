//! A connection to a client, as its requests see it: where the wire and the proxy meet.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use bytes::Bytes;
use http::StatusCode;

use super::Peer;
use crate::config::Listener;

/// One connection. Requests on it come one at a time.
#[derive(Debug)]
pub struct Connection {
    pub peer: Peer,
    /// The listener that accepted it, as it was configured then.
    pub listener: Arc<Listener>,
    stage: Cell<Stage>,
    fault: Cell<Option<StatusCode>>,
    interim: RefCell<Vec<Bytes>>,
}

/// How far the answer to the last request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Answering,
    Writing,
}

impl Connection {
    pub fn new(peer: Peer, listener: Arc<Listener>) -> Self {
        Self {
            peer,
            listener,
            stage: Cell::new(Stage::Idle),
            fault: Cell::new(None),
            interim: RefCell::default(),
        }
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.stage.get() != Stage::Idle
    }

    /// A request has come.
    pub fn begin(&self) {
        self.stage.set(Stage::Answering);
    }

    /// The last of the response has been made; not all of it need have been written.
    pub fn set_answered(&self) {
        self.stage.set(Stage::Writing);
    }

    /// Everything has been written that was made. Whether a response has ended with it.
    pub fn set_written(&self) -> bool {
        let has_ended = self.stage.get() == Stage::Writing;
        if has_ended {
            self.stage.set(Stage::Idle);
        }
        has_ended
    }

    /// The status for what the client has sent and must not have, or has not sent in time.
    pub fn fault(&self) -> Option<StatusCode> {
        self.fault.get()
    }

    pub fn set_fault(&self, status: StatusCode) {
        self.fault.set(Some(status));
    }

    /// Has an interim response written before anything else.
    pub fn push_interim(&self, response: Bytes) {
        self.interim.borrow_mut().push(response);
    }

    /// Interim responses that wait to be written.
    pub fn take_interim(&self) -> Vec<Bytes> {
        self.interim.take()
    }
}
