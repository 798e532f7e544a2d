//! What does a server of endpoints say, by HTTP and in JSON?
//!
//! Each question has a connection of its own: most are waited for, and they are few.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body::Body;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::super::{ConnectError, Endpoint, connect::dial, connections::EndpointStream};
use crate::{
    config::{self, Protocol},
    tls::Origination,
};

/// To a connection.
const CONNECT: Duration = Duration::from_secs(2);

/// What is read of an answer at most, or of one message of it.
const LARGEST: usize = 64 << 20;

/// Why a server has said nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::upstream) enum GatewayError {
    #[error("{0} cannot be reached")]
    Connect(String, #[source] ConnectError),
    #[error("{server} does not answer within {} s", limit.as_secs())]
    TimedOut { server: String, limit: Duration },
    #[error("{0} does not answer")]
    Exchange(String, #[source] hyper::Error),
    #[error("{0} answers {1}")]
    Status(String, StatusCode),
    #[error("{0} says too much")]
    TooLarge(String),
    #[error("{0} says what cannot be understood")]
    Json(String, #[source] serde_json::Error),
    #[error("{0} says nothing of {1}")]
    Missing(String, &'static str),
}

/// Servers of which each knows the same. If one fails, the next is asked.
pub(super) struct Gateway {
    servers: Vec<Endpoint>,
    turn: usize,
    /// What each question has in its head.
    pub headers: HeaderMap,
}

/// An answer whose body is still to come.
pub(super) struct GatewayResponse {
    server: String,
    pub headers: HeaderMap,
    body: Incoming,
    connection: Option<Connection>,
    buffer: BytesMut,
}

type Connection = Pin<Box<http1::Connection<TokioIo<EndpointStream>, String>>>;

impl Gateway {
    pub fn new(servers: &[config::Endpoint], tls: Option<&Arc<Origination>>) -> Self {
        let servers = servers.iter().map(|server| Endpoint::new(server, tls, None)).collect();
        Self { servers, turn: 0, headers: HeaderMap::new() }
    }

    /// Asks for a path; with a body it is sent as JSON. The head of the answer comes within `limit`.
    pub async fn ask(
        &mut self,
        path: &str,
        body: Option<&serde_json::Value>,
        limit: Duration,
    ) -> Result<GatewayResponse, GatewayError> {
        let server = &self.servers[self.turn % self.servers.len()];
        let name = format!("{}://{}", server.scheme(), server.authority);
        let asking = async {
            let stream = match timeout(CONNECT, dial(server, None, Protocol::H1)).await {
                Ok(stream) => stream.map_err(|error| GatewayError::Connect(name.clone(), error))?,
                Err(_) => return Err(GatewayError::TimedOut { server: name.clone(), limit: CONNECT }),
            };
            let lost = |error| GatewayError::Exchange(name.clone(), error);
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
            let mut connection = Some(Box::pin(connection));
            let request = self.request(server, path, body);
            let answering = async {
                sender.ready().await?;
                sender.send_request(request).await
            };
            let response = drive(&mut connection, answering).await.map_err(lost)?;
            let (head, body) = response.into_parts();
            if !head.status.is_success() {
                return Err(GatewayError::Status(name.clone(), head.status));
            }
            let buffer = BytesMut::new();
            Ok(GatewayResponse { server: name.clone(), headers: head.headers, body, connection, buffer })
        };
        let answer = match timeout(limit, asking).await {
            Ok(answer) => answer,
            Err(_) => Err(GatewayError::TimedOut { server: name.clone(), limit }),
        };
        if answer.is_err() {
            self.turn = self.turn.wrapping_add(1);
        }
        answer
    }

    /// Asks the next server from now on.
    pub fn give_up(&mut self) {
        self.turn = self.turn.wrapping_add(1);
    }

    fn request(&self, server: &Endpoint, path: &str, body: Option<&serde_json::Value>) -> Request<String> {
        let mut request = Request::new(body.map(ToString::to_string).unwrap_or_default());
        // A path is made of what the configuration has checked.
        *request.uri_mut() = path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        let headers = request.headers_mut();
        headers.clone_from(&self.headers);
        let own = HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (discovery)"));
        headers.insert(header::USER_AGENT, own);
        headers.insert(header::HOST, server.address.clone());
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *request.method_mut() = Method::POST;
        }
        request
    }
}

impl GatewayResponse {
    /// The whole of it.
    pub async fn json<T: DeserializeOwned>(mut self, limit: Duration) -> Result<T, GatewayError> {
        let reading = async {
            while self.more().await? {}
            Ok(())
        };
        let read = timeout(limit, reading).await;
        read.map_err(|_| GatewayError::TimedOut { server: self.server.clone(), limit })??;
        serde_json::from_slice(&self.buffer).map_err(|error| GatewayError::Json(self.server, error))
    }

    /// The next of several messages, a line each; none if there are no more.
    pub async fn message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, GatewayError> {
        loop {
            while let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1);
                if !line.trim_ascii().is_empty() {
                    let message = serde_json::from_slice(&line);
                    return message.map(Some).map_err(|error| GatewayError::Json(self.server.clone(), error));
                }
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Reads a piece of the body; false at its end.
    async fn more(&mut self) -> Result<bool, GatewayError> {
        let Self { body, connection, .. } = self;
        let frame = drive(connection, poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx))).await;
        let Some(frame) = frame else { return Ok(false) };
        let frame = frame.map_err(|error| GatewayError::Exchange(self.server.clone(), error))?;
        let data = frame.into_data().unwrap_or_else(|_trailers| Bytes::new());
        if self.buffer.len() + data.remaining() > LARGEST {
            return Err(GatewayError::TooLarge(self.server.clone()));
        }
        self.buffer.extend_from_slice(&data);
        Ok(true)
    }
}

/// Waits for what comes over a connection, and runs the connection meanwhile.
async fn drive<T>(connection: &mut Option<Connection>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(output);
        }
        if let Some(running) = connection
            && running.as_mut().poll(cx).is_ready()
        {
            *connection = None;
        }
        // It may be that this is what has just come.
        work.as_mut().poll(cx)
    })
    .await
}
