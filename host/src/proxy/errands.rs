//! What does a plugin wait for, while a request waits for it?

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;

use super::Context;
use crate::{
    body::{Arriving, Leaving, Unread},
    clock::{Clock, Timer, before},
    live::Worker,
    plugin::{Begun, BodyError, Errands, Outgoing, Received, SendError},
    upstream::Origins,
};

/// What one call of a hook can have done, for the request that it is about.
pub(super) struct Call<'a> {
    pub worker: &'a Worker,
    pub origins: &'a Origins,
    /// In `on-request`.
    pub request: Option<&'a mut Arriving>,
    /// Whether the request's body tells when it has ended, as in HTTP/2.
    pub says_end: bool,
    /// In `on-response`.
    pub response: Option<&'a mut Leaving>,
    /// Until when the client waits, if it has said so.
    pub deadline: Option<&'a Timer>,
    /// What the call is recorded in, if it is.
    pub recorded: Option<&'a mut Begun>,
}

impl<'a> Call<'a> {
    /// Of a plugin, by its place in the snapshot's list. It has no bodies.
    pub fn of(
        context: &'a Context,
        place: usize,
        deadline: Option<&'a Timer>,
        recorded: Option<&'a mut Begun>,
    ) -> Self {
        Self {
            worker: &context.worker,
            origins: &context.generation.snapshot.plugins[place].origins,
            request: None,
            says_end: false,
            response: None,
            deadline,
            recorded,
        }
    }
}

impl Errands for Call<'_> {
    async fn send(&mut self, request: Outgoing) -> Result<Received, SendError> {
        let written = self.recorded.as_ref().map(|_| request.clone());
        let sending = self.origins.send(&self.worker.pool, &self.worker.clock, request);
        let answer = before(self.deadline, sending).await.unwrap_or(Err(SendError::TimedOut));
        if let (Some(recorded), Some(written)) = (&mut self.recorded, written) {
            recorded.sent(written, &answer);
        }
        answer
    }

    async fn request_body(&mut self, most: usize, within: Duration) -> Result<Bytes, BodyError> {
        let (body, says_end) = (self.request.as_mut().ok_or(BodyError::Unavailable)?, self.says_end);
        let reading = poll_fn(|cx| body.poll_whole(most, says_end, cx));
        let read = read(&self.worker.clock, within, self.deadline, reading).await;
        self.has_read(read)
    }

    async fn response_body(&mut self, most: usize, within: Duration) -> Result<Bytes, BodyError> {
        let body = self.response.as_mut().ok_or(BodyError::Unavailable)?;
        let reading = poll_fn(|cx| body.poll_whole(most, cx));
        let read = read(&self.worker.clock, within, self.deadline, reading).await;
        self.has_read(read)
    }
}

impl Call<'_> {
    fn has_read(&mut self, read: Result<Bytes, BodyError>) -> Result<Bytes, BodyError> {
        if let (Err(_), Some(recorded)) = (&read, &mut self.recorded) {
            recorded.missed_body();
        }
        read
    }
}

async fn read(
    clock: &Clock,
    within: Duration,
    deadline: Option<&Timer>,
    reading: impl Future<Output = Result<Bytes, Unread>>,
) -> Result<Bytes, BodyError> {
    let reading = before(deadline, clock.within(within, reading));
    match reading.await {
        Ok(Ok(Ok(whole))) => Ok(whole),
        Ok(Ok(Err(Unread::TooLarge))) => Err(BodyError::TooLarge),
        Ok(Ok(Err(Unread::Broken(error)))) => {
            tracing::debug!(%error, "a body broke off while a plugin read it");
            Err(BodyError::Disconnected)
        }
        Ok(Err(_)) | Err(_) => Err(BodyError::TimedOut),
    }
}
