//! Does an endpoint say that it is well?
//!
//! A check asks it now and then, whether it gets requests or not, over a connection of its own that is kept.

mod answer;
mod error;
mod grpc;

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Request, StatusCode, Uri, header, uri};
use hyper::{
    client::conn::{http1, http2},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use answer::{Read, Whole, read};
use error::CheckError;

use super::{Endpoint, Event, Upstream, connect::dial, connections::EndpointStream, head, http2_pool};
use crate::{
    config::{self, CheckProtocol, Protocol},
    proxy_protocol::ProxyHeader,
    telemetry::with_sources,
};

/// What checks call themselves.
const OWN_NAME: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");

/// Checks an endpoint for as long as it runs, and tells the upstream.
pub(super) async fn run(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>, settings: config::Health) {
    let protocol = upstream.settings.protocol;
    let introduction = own(&upstream);
    let mut check = Check { endpoint: &endpoint, introduction, settings: &settings, protocol, kept: None };
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
            Ok(()) => Some(Event::CheckPassed),
            Err(error) => {
                // What the proxy itself is short of says nothing of the endpoint.
                let is_own = matches!(&error, CheckError::Connect(error) if error.is_own());
                let error = with_sources(&error);
                tracing::debug!(upstream = %upstream.name, endpoint = %endpoint.authority, error, "check failed");
                (!is_own).then(|| Event::CheckFailed(error.into()))
            }
        };
        if let Some(event) = event {
            upstream.note(&endpoint, event);
        }
        // With what the beat adds, a tenth more or less.
        let interval = settings.interval.get();
        sleep_until(began + interval.mul_f64(0.9 + fastrand::f64() * 0.16), interval / 25).await;
    }
}

/// Sleeps until the next beat after `due`, 40 ms at most. Checks of one interval keep the same beat: where there are
/// many, one waking serves some of them.
async fn sleep_until(due: Instant, beat: Duration) {
    let beat = beat.clamp(Duration::from_millis(1), Duration::from_millis(40));
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
    let wait = due.saturating_duration_since(Instant::now());
    let over = (now + wait).as_nanos() % beat.as_nanos();
    let rest = beat - Duration::from_nanos(u64::try_from(over).unwrap_or(0));
    tokio::time::sleep(wait + rest).await;
}

/// Asks an endpoint for its load for as long as it runs.
pub(super) async fn ask_load(upstream: Arc<Upstream>, endpoint: Arc<Endpoint>, address: config::LoadAddress) {
    let settings = config::Health { path: address.path, ..config::Health::default() };
    let protocol = upstream.settings.protocol;
    let introduction = own(&upstream);
    let mut check = Check { endpoint: &endpoint, introduction, settings: &settings, protocol, kept: None };
    tokio::time::sleep(address.interval.get().mul_f64(fastrand::f64() / 10.0)).await;
    loop {
        let began = Instant::now();
        let limit = address.timeout.get();
        let result = match tokio::time::timeout(limit, check.fetch()).await {
            Ok(Ok((StatusCode::OK, body))) => {
                match endpoint.reported.note_answer(&body, address.pointer.as_deref()) {
                    true => Ok(()),
                    false => Err(CheckError::Body),
                }
            }
            Ok(Ok((status, _))) => Err(CheckError::Status(status)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(CheckError::TimedOut(limit)),
        };
        // What it has told grows old, and that is all.
        if let Err(error) = result {
            let (upstream, endpoint) = (&upstream.name, &endpoint.authority);
            tracing::debug!(%upstream, %endpoint, error = with_sources(&error), "no load told");
        }
        tokio::time::sleep_until(began + address.interval.get()).await;
    }
}

/// What an endpoint is told of whose connection a check is, where it wants to know.
fn own(upstream: &Upstream) -> Option<ProxyHeader> {
    upstream.settings.proxy_protocol.then_some(ProxyHeader::Own)
}

struct Check<'a> {
    endpoint: &'a Endpoint,
    introduction: Option<ProxyHeader>,
    settings: &'a config::Health,
    /// What is said of the upstream.
    protocol: Protocol,
    /// From the last check, if it can be used again.
    kept: Option<Kept>,
}

struct Kept {
    sender: http1::SendRequest<String>,
    connection: Pin<Box<http1::Connection<TokioIo<EndpointStream>, String>>>,
}

impl Check<'_> {
    async fn once(&mut self) -> Result<(), CheckError> {
        match self.settings.protocol {
            CheckProtocol::Tcp => {
                dial(self.endpoint, self.introduction, self.protocol).await?;
                Ok(())
            }
            CheckProtocol::Grpc => {
                let stream = dial(self.endpoint, self.introduction, Protocol::H2).await?;
                let answer =
                    over_http2(stream, grpc::request(self.endpoint, self.settings, OWN_NAME)).await?;
                grpc::judge(&answer)
            }
            CheckProtocol::Http => {
                let (status, body) = self.fetch().await?;
                judge(self.settings, status, &body)
            }
        }
    }

    /// Asks for the path, and returns the beginning of the answer's body with its status.
    async fn fetch(&mut self) -> Result<(StatusCode, Vec<u8>), CheckError> {
        if let Some(kept) = self.kept.take() {
            match self.ask(kept).await {
                // It has been closed since the last time, and nothing was asked.
                Err(CheckError::Unsent(_)) => {}
                result => return result,
            }
        }
        let stream = dial(self.endpoint, self.introduction, self.protocol).await?;
        let has_http2 = match self.protocol {
            Protocol::H1 => false,
            Protocol::H2 => true,
            Protocol::Auto => stream.has_agreed_on_http2(),
        };
        if self.protocol == Protocol::Auto {
            self.endpoint.note_spoken(has_http2);
        }
        if has_http2 {
            let Whole { head, body, .. } = over_http2(stream, self.request(true)).await?;
            return Ok((head.status, body));
        }
        let (sender, connection) = head::own_client().handshake(TokioIo::new(stream)).await?;
        self.ask(Kept { sender, connection: Box::pin(connection) }).await
    }

    async fn ask(&mut self, kept: Kept) -> Result<(StatusCode, Vec<u8>), CheckError> {
        let Kept { mut sender, connection } = kept;
        let mut connection = Some(connection);
        let request = self.request(false);
        let (status, bytes, is_whole) = {
            let mut exchange = pin!(async {
                sender.ready().await.map_err(CheckError::Unsent)?;
                let response = sender.try_send_request(request).await.map_err(|mut error| {
                    let is_unsent = error.take_message().is_some();
                    let error = error.into_error();
                    if is_unsent { CheckError::Unsent(error) } else { CheckError::Exchange(error) }
                })?;
                let status = response.status();
                let Read { bytes, is_whole, .. } = read(response.into_body()).await?;
                Ok::<_, CheckError>((status, bytes, is_whole))
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
        Ok((status, bytes))
    }

    fn request(&self, has_http2: bool) -> Request<String> {
        let Self { endpoint, settings, .. } = self;
        let mut request = Request::new(String::new());
        *request.method_mut() = settings.method.clone();
        *request.uri_mut() = Uri::from(settings.path.clone());
        let host = settings.host.as_ref().unwrap_or(&endpoint.host);
        if has_http2 {
            let mut parts = uri::Parts::default();
            parts.scheme = Some(self.endpoint.scheme());
            parts.authority = uri::Authority::try_from(host.as_bytes()).ok();
            parts.path_and_query = Some(settings.path.clone());
            *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        }
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, HeaderValue::from_static(OWN_NAME));
        if !has_http2 {
            headers.insert(header::HOST, host.clone());
        }
        for (name, value) in &settings.headers {
            let name: HeaderName = name.get();
            headers.insert(name, value.clone());
        }
        request
    }
}

/// Asks over a connection of HTTP/2, which is not kept.
async fn over_http2(stream: EndpointStream, request: Request<String>) -> Result<Whole, CheckError> {
    let tasks = Tasks::default();
    let (mut sender, connection) = http2::Builder::new(tasks.clone())
        .max_header_list_size(http2_pool::HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    tasks.execute(async {
        // Whoever asks is told of its failure.
        let _ = connection.await;
    });
    let mut exchange = pin!(async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let Read { bytes, trailers, .. } = read(body).await?;
        Ok(Whole { head, body: bytes, trailers })
    });
    poll_fn(|cx| {
        tasks.poll(cx);
        exchange.as_mut().poll(cx)
    })
    .await
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
