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
    is_busy: Cell<bool>,
    fault: Cell<Option<StatusCode>>,
    interim: RefCell<Vec<Bytes>>,
}

impl Connection {
    pub fn new(peer: Peer, listener: Arc<Listener>) -> Self {
        Self {
            peer,
            listener,
            is_busy: Cell::new(false),
            fault: Cell::new(None),
            interim: RefCell::default(),
        }
    }

    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.is_busy.get()
    }

    pub fn set_busy(&self, is_busy: bool) {
        self.is_busy.set(is_busy);
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
