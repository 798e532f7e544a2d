//! What does a plugin get when it calls what it was granted?
//!
//! The interfaces of the contract that are granted by name, on the store's data. A component that imports one
//! without a grant is not loaded, so none of these is ever called by such a one.

use std::time::Duration;

use super::{
    bindings::tollgate::policy::{body, http_client, secret, store},
    capability::{Store, StoreError},
    client,
    exchange::Exchange,
    host_io::{BodyError, Which},
    state::State,
    taint::Taint,
    text::to_string,
};
use crate::outgoing::SendError;

impl From<StoreError> for store::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::Full,
            StoreError::TooLarge => Self::TooLarge,
            StoreError::WrongKind => Self::WrongKind,
        }
    }
}

impl State {
    fn store(&self) -> Result<&Store, store::Error> {
        self.surroundings.capabilities.store.as_ref().ok_or(store::Error::Unavailable)
    }
}

fn milliseconds(number: Option<u32>) -> Option<Duration> {
    number.map(|number| Duration::from_millis(number.into()))
}

impl store::Host for State {
    fn get(&mut self, key: String) -> Result<Option<Vec<u8>>, store::Error> {
        Ok(self.store()?.get(&key, self.now())?)
    }

    fn set(&mut self, key: String, value: Vec<u8>, ttl_ms: Option<u32>) -> Result<(), store::Error> {
        Ok(self.store()?.set(&key, value, milliseconds(ttl_ms), self.now())?)
    }

    fn compare_and_set(
        &mut self,
        key: String,
        old: Option<Vec<u8>>,
        new: Vec<u8>,
        ttl_ms: Option<u32>,
    ) -> Result<bool, store::Error> {
        let ttl = milliseconds(ttl_ms);
        Ok(self.store()?.compare_and_set(&key, old.as_deref(), new, ttl, self.now())?)
    }

    fn increment(&mut self, key: String, delta: i32, ttl_ms: Option<u32>) -> Result<i32, store::Error> {
        Ok(self.store()?.increment(&key, delta, milliseconds(ttl_ms), self.now())?)
    }

    fn take(
        &mut self,
        key: String,
        cost: u32,
        per_second: f64,
        burst: u32,
    ) -> Result<Option<u32>, store::Error> {
        Ok(self.store()?.take(&key, cost, per_second, burst, self.now())?)
    }

    fn tokens(&mut self, key: String, per_second: f64, burst: u32) -> Result<u32, store::Error> {
        Ok(self.store()?.tokens(&key, per_second, burst, self.now())?)
    }

    fn delete(&mut self, key: String) -> Result<(), store::Error> {
        self.store()?.delete(&key);
        Ok(())
    }
}

impl secret::Host for State {
    fn verify(&mut self, name: String, candidate: Vec<u8>) -> wasmtime::Result<bool> {
        let (capabilities, go_on) = self.at_length();
        capabilities.secrets.verify(&name, &candidate, go_on)
    }

    fn hmac_sha256(&mut self, name: String, message: Vec<u8>) -> wasmtime::Result<Option<Vec<u8>>> {
        let (capabilities, go_on) = self.at_length();
        Ok(capabilities.secrets.hmac_sha256(&name, &message, go_on)?.map(Vec::from))
    }
}

impl From<SendError> for http_client::Error {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Denied => Self::Denied,
            SendError::InvalidUrl => Self::InvalidUrl,
            SendError::InvalidRequest => Self::InvalidRequest,
            SendError::Unreachable => Self::Unreachable,
            SendError::TimedOut => Self::TimedOut,
            SendError::TooLarge => Self::TooLarge,
        }
    }
}

impl http_client::Host for State {
    async fn send(
        &mut self,
        outgoing: http_client::Outgoing,
    ) -> Result<http_client::Incoming, http_client::Error> {
        let http_client::Outgoing { method, url, headers, body, timeout_ms } = outgoing;
        let request = client::outgoing(&method, &url, headers, body, timeout_ms)?;
        let pending_io = self.pending_io.as_ref().ok_or(http_client::Error::Denied)?;
        let received = pending_io.send(request).await?;
        let headers =
            received.headers.iter().map(|(name, value)| (name.as_str().to_owned(), to_string(value)));
        Ok(http_client::Incoming {
            status: received.status,
            headers: headers.collect(),
            body: received.body.into(),
        })
    }

    fn allowed(&mut self, url: String) -> bool {
        self.surroundings.capabilities.origins.has(&url)
    }
}

impl From<BodyError> for body::Error {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge,
            BodyError::TimedOut => Self::TimedOut,
            BodyError::Disconnected => Self::Disconnected,
            BodyError::Unavailable => Self::Unavailable,
        }
    }
}

impl State {
    /// A body: as it is known, or as it is read now.
    async fn body(&mut self, which: Which) -> Result<Vec<u8>, body::Error> {
        let grant = self.surroundings.capabilities.body.unwrap_or_default();
        let most = match which {
            Which::Request => grant.request.as_usize(),
            Which::Response => grant.response.as_usize(),
        };
        let (exchange, pending_io) =
            self.exchange.as_ref().zip(self.pending_io.as_ref()).ok_or(body::Error::Unavailable)?;
        let known = match which {
            Which::Request => exchange.request_body(),
            Which::Response => exchange.response_body(),
        };
        if let Some(known) = known {
            let known = if known.len() <= most { Ok(known.to_vec()) } else { Err(body::Error::TooLarge) };
            self.reads_body(which);
            return known;
        }
        // A request has been sent when there is a response, and with it its body.
        let is_there = match which {
            Which::Request => exchange.response.is_none(),
            Which::Response => exchange.response.is_some(),
        };
        if !is_there {
            return Err(body::Error::Unavailable);
        }
        let content = pending_io.body(which, most).await?;
        let copy = content.to_vec();
        if let Some(exchange) = &mut self.exchange {
            match which {
                Which::Request => exchange.know_request_body(content),
                Which::Response => exchange.know_response_body(content),
            }
        }
        self.reads_body(which);
        Ok(copy)
    }

    fn reads_body(&mut self, which: Which) {
        match which {
            Which::Request => self.note_taint(Taint::reads_client),
            Which::Response => {}
        }
    }

    fn make(&mut self, of: &str, make: impl FnOnce(&mut Exchange) -> bool) {
        if !self.exchange.as_deref_mut().is_some_and(make) {
            self.complain(&format!("plugin set a body where there is none to be set: that of the {of}"));
        }
    }
}

impl body::Host for State {
    async fn request_body(&mut self) -> Result<Vec<u8>, body::Error> {
        self.body(Which::Request).await
    }

    fn set_request_body(&mut self, content: Vec<u8>) {
        if let Some(content) = self.keep_body(content) {
            self.make("request", |exchange| exchange.make_request_body(content));
        }
    }

    async fn response_body(&mut self) -> Result<Vec<u8>, body::Error> {
        self.body(Which::Response).await
    }

    fn set_response_body(&mut self, content: Vec<u8>) {
        self.note_taint(Taint::changes_response);
        if let Some(content) = self.keep_body(content) {
            self.make("response", |exchange| exchange.make_response_body(content));
        }
    }
}
