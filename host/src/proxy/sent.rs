//! What is held of a request that an endpoint has answered, until the response has ended?

use std::{rc::Rc, sync::Arc, time::Duration};

use crate::{
    body::{Upload, UploadState},
    clock::{Clock, Timer},
    upstream::{Endpoint, InFlight, Lease, Permit, Switched},
};

/// A request that an endpoint has answered: what is to be settled when the response has ended.
#[derive(Debug)]
pub struct Sent {
    pub in_flight: InFlight,
    /// Where the upstream gets only so many requests at once.
    pub _permit: Option<Permit>,
    /// Goes back to its pool, if all goes well.
    pub lease: Option<Lease>,
    pub upload: Option<Rc<Upload>>,
    /// How often the request was brought to an endpoint.
    pub attempts: usize,
    pub clock: Clock,
    /// How long the body of the response may be silent.
    pub silence: Duration,
    /// Until when the client waits for its end, if it has said so.
    pub deadline: Option<Timer>,
    /// What goes on in another protocol.
    pub switched: Option<Box<Switched>>,
    /// How long a tunnel may be silent.
    pub tunnel_silence: Duration,
}

impl Sent {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// Bytes of the request's body that have passed.
    pub fn uploaded(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.passed())
    }

    /// Whether the client still waits to be asked for the body of its request, and will not be.
    pub fn leaves_body(&self) -> bool {
        self.upload.as_ref().is_some_and(|upload| upload.state() == UploadState::Held)
    }

    /// The response is not going to be read, so nothing else can be on its connection.
    pub fn give_up_response(&mut self) {
        self.lease = None;
        self.switched = None;
    }

    /// The response has been read to its end.
    pub fn finish(mut self) {
        // A request that is still being written keeps its connection to itself.
        if self.upload.as_ref().is_none_or(|upload| upload.is_complete())
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abandon();
        }
    }
}
