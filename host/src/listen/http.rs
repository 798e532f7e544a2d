//! How does a connection become requests?

use std::{
    cell::Cell,
    convert::Infallible,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderValue, Request, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::Client,
    http2, tls,
    wire::{Refused, SCRATCH, Scratch, Wire},
};
use crate::{
    body::ClientBody,
    config::Listener,
    live::Worker,
    proxy::{self, Answered, Connection, Refusal, Tunnel, Turn},
    socket::Socket,
    telemetry::{
        Part,
        traffic::{FailedHandshake, Limit, ListenerCounts},
        with_sources,
    },
    tls::Termination,
};

/// Serves the connections of one worker.
#[derive(Clone)]
pub(super) struct Server {
    worker: Rc<Worker>,
    scratch: Scratch,
}

impl Server {
    pub fn new(worker: Rc<Worker>) -> Self {
        let scratch = vec![0; SCRATCH].into_boxed_slice();
        Self { worker, scratch: Rc::new(scratch.into()) }
    }

    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Serves a connection by TLS to its end, the handshake included.
    pub async fn serve_tls(
        self,
        stream: Socket,
        client: Client,
        listener: Arc<Listener>,
        counts: Part<ListenerCounts>,
        termination: Arc<Termination>,
    ) {
        let limit = listener.timeouts.handshake.get();
        let address = client.address;
        // In a box, since a handshake needs more memory than what comes after it.
        let opened = self.worker.clock.within(limit, Box::pin(tls::open(stream, &termination))).await;
        let (stream, session) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) => {
                tracing::debug!(client = %address, error = with_sources(&error), "no TLS connection");
                counts.did_not_shake_hands(error.kind());
                if let tls::OpenError::Clear(stream) = error {
                    let status = StatusCode::BAD_REQUEST;
                    counts.refused_with(status);
                    let (client, reason) = (address.client(), "plain HTTP where TLS is spoken");
                    Refusal { client, tls: None, version: None, head: &[], status: Some(status), reason }
                        .write(&self.worker);
                    tls::refuse(stream, &self.worker.clock).await;
                }
                return;
            }
            Err(error) => {
                counts.did_not_shake_hands(FailedHandshake::Late);
                counts.reached(Limit::HandshakeTime);
                tracing::debug!(client = %address, %error, "TLS handshake given up");
                return;
            }
        };
        counts.shook_hands(session.version, session.is_resumed);
        let mut peer = client.peer("https");
        peer.certificate = session.client.clone();
        let connection = Rc::new(Connection::secure(peer, listener, counts, session));
        self.serve(stream, connection).await;
    }

    /// Serves a connection to its end, in the version of HTTP that was agreed on or that it begins with.
    pub async fn serve(
        self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        connection: Rc<Connection>,
    ) {
        let (worker, scratch) = (self.worker.clone(), self.scratch.clone());
        let Some(turn) = connection.turn.clone() else {
            return http2::serve(worker, scratch, stream, Vec::new(), connection).await;
        };
        if let Some((stream, begun)) = self.serve_http1(stream, connection.clone(), turn).await {
            http2::serve(worker, scratch, stream, begun, connection.without_turn().into()).await;
        }
    }

    /// Gives back a socket on which HTTP/2 is spoken, and what has come from it.
    async fn serve_http1<S: AsyncRead + AsyncWrite + Unpin + 'static>(
        self,
        stream: S,
        connection: Rc<Connection>,
        turn: Rc<Turn>,
    ) -> Option<(S, Vec<u8>)> {
        let Self { worker, scratch } = self;
        let limits = &connection.listener.limits;
        let mut builder = http1::Builder::new();
        // Whatever waits is timed by `Wire`, which knows what it waits for.
        builder.header_read_timeout(None).max_buf_size(limits.headers.as_usize().max(8 << 10));
        if limits.header_count > HEADERS {
            builder.max_headers(limits.header_count);
        }
        let wire = Wire::new(stream, connection.clone(), turn.clone(), scratch.clone(), &worker.clock);
        // With what the connection goes on when the last response has been written.
        let opened: Rc<Cell<Option<Box<Tunnel>>>> = Rc::default();
        let service = {
            let (turn, opened) = (turn.clone(), opened.clone());
            let (worker, connection) = (worker.clone(), connection.clone());
            service_fn(move |request: Request<Incoming>| {
                // Not in the future: hyper may read on before it polls that.
                turn.begin(request.version());
                let (worker, connection, opened) = (worker.clone(), connection.clone(), opened.clone());
                async move {
                    let request = request.map(|body| ClientBody::new(body, None));
                    let leaving = worker.clone();
                    let Answered { mut response, tunnel } = proxy::handle(worker, connection, request).await;
                    match tunnel {
                        Some(tunnel) => opened.set(Some(tunnel)),
                        // Not later: a client that is not told sends its next request into a closed connection.
                        None if leaving.is_leaving() => {
                            response
                                .headers_mut()
                                .insert(header::CONNECTION, HeaderValue::from_static("close"));
                        }
                        None => {}
                    }
                    Ok::<_, Infallible>(response)
                }
            })
        };
        let mut serving = builder.serve_connection(wire, service);
        // So that a drain finds the connection when it is idle.
        let drained = worker.clock.timer();
        let mut is_ending = false;
        let result = poll_fn(|cx| {
            let polled = Pin::new(&mut serving).poll(cx);
            if polled.is_ready() || is_ending {
                return polled;
            }
            if worker.is_draining() && !turn.is_busy() && !drained.is_running() {
                drained.start(LINGER);
            }
            if drained.poll(cx).is_pending() {
                return polled;
            }
            if turn.is_busy() {
                // A request has come after all, whose response ends the connection.
                drained.stop();
                let _: Poll<()> = drained.poll(cx);
                return polled;
            }
            is_ending = true;
            Pin::new(&mut serving).graceful_shutdown();
            Pin::new(&mut serving).poll(cx)
        })
        .await;
        let http1::Parts { io, read_buf, .. } = serving.into_parts();
        let wire = match io.into_http2() {
            Ok(begun) => return Some(begun),
            Err(wire) => wire,
        };
        if let Some(refused) = wire.refused() {
            let (status, head, reason) = match refused {
                Refused::Here { status, head, why } => (status, head, why),
                Refused::ByHyper(status) => {
                    connection.counts.refused_with(status);
                    (status, &*read_buf, result.as_ref().err().map(innermost).unwrap_or_default())
                }
            };
            let client = connection.peer.address.client();
            let tls = connection.tls.as_ref().map(|session| session.version);
            Refusal { client, tls, version: None, head, status: Some(status), reason: &reason }
                .write(&worker);
        }
        match (result, opened.take()) {
            (Err(error), _) => {
                tracing::debug!(client = %connection.peer.address, %error, "connection ended");
            }
            (Ok(()), Some(tunnel)) => {
                let (stream, kept) = wire.into_rest();
                let begun = if kept.is_empty() { read_buf } else { [&read_buf[..], &kept].concat().into() };
                tunnel.run(stream, begun, &scratch).await;
                return None;
            }
            (Ok(()), None) => {}
        }
        wire.close(&worker.clock).await;
        None
    }
}

/// How long an idle connection is kept when the proxy drains: the client's next request may be on its way, and is answered.
const LINGER: Duration = Duration::from_secs(1);

/// Headers that hyper reads without asking for memory.
const HEADERS: usize = 100;

/// What an error comes from in the end.
fn innermost(error: &hyper::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
