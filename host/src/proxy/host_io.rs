//! What does a plugin wait for, while a request waits for it?

use std::{future::poll_fn, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};

use super::context::Context;
use crate::{
    body::{Arriving, Content, Leaving, Unread},
    clock::{Clock, Timer, before},
    outgoing::{Outgoing, Received, SendError},
    plugin::{Begun, BodyError, Exchange, ExchangeSlot, HostIo},
};

/// What a plugin can wait for in one call of a hook, for the message that the call is about.
pub(super) struct MessageIo<'a, 'e> {
    pub context: &'a Context,
    /// The plugin's, in the snapshot's list.
    pub index: usize,
    body: Body<'e>,
    /// Until when the client waits, if it has said so.
    deadline: Option<&'e Timer>,
    /// What the call is recorded in, if it is.
    pub recorded: Option<Box<Begun>>,
}

/// The body of the message, if it has one that a plugin may read and replace.
pub(super) enum Body<'a> {
    None,
    Request(&'a mut Arriving),
    Response(&'a mut LeavingBody),
}

/// The body of a response on its way through the hooks.
pub(super) struct LeavingBody {
    body: Leaving,
    /// Whether it stands in the place of one that was not read to its end.
    pub is_left: bool,
}

impl LeavingBody {
    pub fn new(content: Content) -> Self {
        Self { body: Leaving::Untouched(content), is_left: false }
    }

    /// Puts something else in its place.
    pub fn replace(&mut self, content: Content) {
        self.is_left |= !self.body.is_read();
        self.body = Leaving::Untouched(content);
    }

    /// As it goes on.
    pub fn into_content(self) -> Content {
        self.body.into_content()
    }
}

impl<'a, 'e> MessageIo<'a, 'e> {
    /// Of a plugin, by its place in the snapshot's list.
    pub fn new(context: &'a Context, index: usize, body: Body<'e>, deadline: Option<&'e Timer>) -> Self {
        Self { context, index, body, deadline, recorded: None }
    }
}

impl HostIo for MessageIo<'_, '_> {
    async fn send(&mut self, request: Outgoing) -> Result<Received, SendError> {
        let written = self.recorded.as_ref().map(|_| request.clone());
        let Context { worker, generation, .. } = self.context;
        let origins = &generation.snapshot.plugins[self.index].origins;
        let sending = origins.send(&worker.pool, &worker.clock, request);
        let answer = before(self.deadline, sending).await.unwrap_or(Err(SendError::TimedOut));
        if let (Some(recorded), Some(written)) = (&mut self.recorded, written) {
            recorded.sent(written, &answer);
        }
        answer
    }

    async fn request_body(&mut self, most: usize, within: Duration) -> Result<Bytes, BodyError> {
        let Body::Request(body) = &mut self.body else { return Err(BodyError::Unavailable) };
        // As in HTTP/2, where requests do not come one at a time.
        let says_end = self.context.connection.turn.is_none();
        let reading = poll_fn(|cx| body.poll_whole(most, says_end, cx));
        let read = read(&self.context.worker.clock, within, self.deadline, reading).await;
        self.has_read(read)
    }

    async fn response_body(&mut self, most: usize, within: Duration) -> Result<Bytes, BodyError> {
        let Body::Response(body) = &mut self.body else { return Err(BodyError::Unavailable) };
        let reading = poll_fn(|cx| body.body.poll_whole(most, cx));
        let read = read(&self.context.worker.clock, within, self.deadline, reading).await;
        self.has_read(read)
    }

    fn replace_body(&mut self, exchange: &mut ExchangeSlot) {
        match &mut self.body {
            // There is nothing that it could stand in the place of.
            Body::None => drop(exchange.take_made_request_body()),
            Body::Request(body) => {
                if let Some(content) = exchange.take_made_request_body() {
                    replace_request(exchange, body, content);
                }
            }
            Body::Response(body) => {
                if let Some(content) = exchange.take_made_response_body()
                    && let Some(content) = reframe(exchange, content)
                {
                    body.replace(Content::Whole(content));
                }
            }
        }
    }
}

impl MessageIo<'_, '_> {
    fn has_read(&mut self, read: Result<Bytes, BodyError>) -> Result<Bytes, BodyError> {
        if let (Err(_), Some(recorded)) = (&read, &mut self.recorded) {
            recorded.missed_body();
        }
        read
    }
}

/// Has a request go on with this content, and its head say how long that is.
fn replace_request(exchange: &mut Exchange, body: &mut Arriving, content: Bytes) {
    let had_content = !http_body::Body::is_end_stream(body);
    exchange.request.headers.remove(header::TRANSFER_ENCODING);
    if had_content || !content.is_empty() {
        exchange.request.headers.insert(header::CONTENT_LENGTH, content.len().into());
    }
    body.make(content);
}

/// Has the head of a response say how long the content is that was put in its place; none where there can be none
/// (RFC 9110, section 6.4.1).
fn reframe(exchange: &mut Exchange, content: Bytes) -> Option<Bytes> {
    let is_head = exchange.request.method == Method::HEAD;
    let parts = &mut exchange.response.as_mut()?.parts;
    let (headers, status): (&mut HeaderMap, _) = (&mut parts.headers, parts.status);
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return None;
    }
    headers.remove(header::TRAILER);
    headers.insert(header::CONTENT_LENGTH, content.len().into());
    (!is_head).then_some(content)
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
