//! Does an endpoint say that it is well?
//!
//! A check asks it now and then, whether it gets requests or not, over a connection of its own that is kept.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header, uri};
use http_body::Body;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{ConnectError, Endpoint, Event, Upstream, connect::dial, transport::Stream};
use crate::{
    config::{self, CheckProtocol, Protocol},
    telemetry::with_sources,
};

/// What is read of an answer's body at most.
const BODY: usize = 64 << 10;

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Exchange(#[from] hyper::Error),
    #[error("took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer does not hold what it should")]
    Body,
}

/// Checks an endpoint for as long as it runs, and tells the upstream.
pub(super) async fn run(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>, settings: config::Health) {
    let has_http2 = upstream.settings.protocol == Protocol::H2;
    let mut check = Check { endpoint: &endpoint, settings: &settings, has_http2, kept: None };
    // Not all at once.
    tokio::time::sleep(settings.interval.get().mul_f64(fastrand::f64() / 10.0)).await;
    loop {
        let began = Instant::now();
        let limit = settings.timeout.get();
        let result = match tokio::time::timeout(limit, check.once()).await {
            Ok(result) => result,
            Err(_) => Err(CheckError::TimedOut(limit)),
        };
        let event = match result {
            Ok(()) => Event::CheckPassed,
            Err(error) => {
                let error = with_sources(&error);
                tracing::debug!(upstream = %upstream.name, endpoint = %endpoint.authority, error, "check failed");
                Event::CheckFailed(error.into())
            }
        };
        upstream.note(&endpoint, event);
        let interval = settings.interval.get().mul_f64(0.9 + fastrand::f64() / 5.0);
        tokio::time::sleep_until(began + interval).await;
    }
}

struct Check<'a> {
    endpoint: &'a Endpoint,
    settings: &'a config::Health,
    /// Whether HTTP/2 is spoken.
    has_http2: bool,
    /// From the last check, if it can be used again.
    kept: Option<Kept>,
}

struct Kept {
    sender: http1::SendRequest<String>,
    connection: Pin<Box<http1::Connection<TokioIo<Stream>, String>>>,
}

impl Check<'_> {
    async fn once(&mut self) -> Result<(), CheckError> {
        match self.settings.protocol {
            CheckProtocol::Tcp => {
                dial(self.endpoint, Protocol::Auto).await?;
                Ok(())
            }
            CheckProtocol::Http if self.has_http2 => {
                let stream = TokioIo::new(dial(self.endpoint, Protocol::H2).await?);
                let tasks = Tasks::default();
                let (mut sender, connection) = http2::handshake(tasks.clone(), stream).await?;
                tasks.execute(async {
                    // Whoever asks is told of its failure.
                    let _ = connection.await;
                });
                let mut exchange = pin!(async {
                    let response = sender.send_request(self.request()).await?;
                    let status = response.status();
                    let (body, _) = read(response.into_body()).await?;
                    judge(self.settings, status, &body)
                });
                poll_fn(|cx| {
                    tasks.poll(cx);
                    exchange.as_mut().poll(cx)
                })
                .await
            }
            CheckProtocol::Http => {
                if let Some(kept) = self.kept.take() {
                    match self.ask(kept).await {
                        // It may have been closed since the last check.
                        Err(CheckError::Exchange(_)) => {}
                        result => return result,
                    }
                }
                let stream = TokioIo::new(dial(self.endpoint, Protocol::Auto).await?);
                let (sender, connection) = http1::handshake(stream).await?;
                self.ask(Kept { sender, connection: Box::pin(connection) }).await
            }
        }
    }

    async fn ask(&mut self, kept: Kept) -> Result<(), CheckError> {
        let Kept { mut sender, connection } = kept;
        let mut connection = Some(connection);
        let request = self.request();
        let settings = self.settings;
        let (result, is_whole) = {
            let mut exchange = pin!(async {
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let status = response.status();
                let (body, is_whole) = read(response.into_body()).await?;
                Ok::<_, CheckError>((judge(settings, status, &body), is_whole))
            });
            poll_fn(|cx| {
                if let Poll::Ready(result) = exchange.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                if let Some(running) = &mut connection
                    && running.as_mut().poll(cx).is_ready()
                {
                    connection = None;
                }
                exchange.as_mut().poll(cx)
            })
            .await?
        };
        if let Some(connection) = connection.filter(|_| is_whole) {
            self.kept = Some(Kept { sender, connection });
        }
        result
    }

    fn request(&self) -> Request<String> {
        let Self { endpoint, settings, .. } = self;
        let mut request = Request::new(String::new());
        *request.method_mut() = settings.method.clone();
        *request.uri_mut() = Uri::from(settings.path.clone());
        let host = settings.host.as_ref().unwrap_or(&endpoint.address);
        if self.has_http2 {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(self.endpoint.scheme());
            parts.authority = uri::Authority::try_from(host.as_bytes()).ok();
            parts.path_and_query = Some(settings.path.clone());
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
        let headers = request.headers_mut();
        let own =
            HeaderValue::from_static(concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)"));
        headers.insert(header::USER_AGENT, own);
        if !self.has_http2 {
            headers.insert(header::HOST, host.clone());
        }
        for (name, value) in &settings.headers {
            let name: HeaderName = name.get();
            headers.insert(name, value.clone());
        }
        request
    }
}

/// Runs what hyper spawns for a connection in the task of whoever uses it.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<Task>>>);

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Tasks {
    fn poll(&self, cx: &mut Context<'_>) {
        let all = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Tasks may spawn others.
        let mut tasks = std::mem::take(&mut *all());
        while !tasks.is_empty() {
            tasks.retain_mut(|task| task.as_mut().poll(cx).is_pending());
            let spawned = std::mem::take(&mut *all());
            if spawned.is_empty() {
                break;
            }
            tasks.extend(spawned);
        }
        *all() = tasks;
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(task));
    }
}

fn judge(settings: &config::Health, status: StatusCode, body: &[u8]) -> Result<(), CheckError> {
    if !settings.statuses.iter().any(|wanted| wanted.contains(status)) {
        return Err(CheckError::Status(status));
    }
    match &settings.body {
        Some(wanted) if memchr::memmem::find(body, wanted.as_bytes()).is_none() => Err(CheckError::Body),
        _ => Ok(()),
    }
}

/// The beginning of a body, and whether that is all of it.
async fn read(mut body: Incoming) -> Result<(Vec<u8>, bool), hyper::Error> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        bytes.extend_from_slice(frame?.data_ref().map_or(&[], |data| &data[..]));
        if bytes.len() > BODY {
            return Ok((bytes, false));
        }
    }
    Ok((bytes, true))
}
