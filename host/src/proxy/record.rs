//! What is written down of a request?

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, Method, Request, StatusCode, Uri, Version, header, request};

use super::{
    connection::Connection,
    cut::Cut,
    identity::{self, Came},
    sent::Sent,
};
use crate::{
    cache::Served,
    plugin::{Completed, Exchange, ExchangeSlot, Outcomes},
    snapshot::Route,
    telemetry::traffic::Bytes,
    upstream::Endpoint,
};

/// What the line in the access log will say, so far, and what plugins will be told.
#[derive(Debug)]
pub(super) struct Record {
    /// Whether there is to be a line.
    is_logged: bool,
    completion: Option<Completion>,
    client: String,
    /// By which the client came, as far as is known.
    scheme: &'static str,
    /// The version of TLS, if it is spoken.
    tls: Option<&'static str>,
    method: Method,
    uri: Uri,
    version: Version,
    host: String,
    request: String,
    route: Option<Arc<str>>,
    upstream: Option<Arc<str>>,
    /// The last endpoint that it was brought to in vain, and how often it was brought to one until then.
    failed: Option<(Arc<Endpoint>, usize)>,
    /// What the cache did.
    cache: Option<Served>,
    /// What brought a response that goes on without it.
    served: Option<(String, usize)>,
    /// Why the answer is the proxy's own.
    error: Option<String>,
}

/// What plugins are told beyond the line in the log, and who is.
struct Completion {
    listeners: Arc<[Arc<Outcomes>]>,
    target: String,
    notes: Notes,
    /// How long it took to get an answer from the upstream.
    upstream: Duration,
}

impl std::fmt::Debug for Completion {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Completion").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What plugins have noted of a request, once its exchange has ended.
type Notes = Rc<Cell<Vec<(String, String)>>>;

/// The exchange of a request of which plugins may be told when it has ended.
pub(super) struct RecordedExchange {
    exchange: ExchangeSlot,
    notes: Option<Notes>,
}

impl RecordedExchange {
    /// One of which nobody is told.
    pub fn new(exchange: Exchange) -> Self {
        Self { exchange: ExchangeSlot::new(exchange), notes: None }
    }
}

impl Deref for RecordedExchange {
    type Target = ExchangeSlot;

    fn deref(&self) -> &ExchangeSlot {
        &self.exchange
    }
}

impl DerefMut for RecordedExchange {
    fn deref_mut(&mut self) -> &mut ExchangeSlot {
        &mut self.exchange
    }
}

impl Drop for RecordedExchange {
    fn drop(&mut self) {
        // It is not there where a call was given up, and then nobody is told either.
        if let (Some(notes), Some(exchange)) = (&self.notes, self.exchange.there()) {
            notes.set(exchange.notes().to_vec());
        }
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

impl Record {
    pub fn new<B>(request: &Request<B>, connection: &Connection) -> Self {
        Self {
            is_logged: true,
            completion: None,
            client: connection.peer.address.client().to_string(),
            scheme: connection.peer.scheme,
            tls: connection.tls.as_ref().map(|session| session.version),
            method: request.method().clone(),
            uri: target(request),
            version: request.version(),
            host: text(request.headers(), header::HOST)
                .or_else(|| request.uri().authority().map(ToString::to_string))
                .unwrap_or_default(),
            request: String::new(),
            route: None,
            upstream: None,
            failed: None,
            cache: None,
            served: None,
            error: None,
        }
    }

    /// Of a request that has no line in the log.
    pub fn unlogged(exchange: &Exchange, connection: &Connection) -> Self {
        let head = &exchange.request;
        Self {
            is_logged: false,
            completion: None,
            client: exchange.client.to_string(),
            scheme: exchange.scheme,
            tls: connection.tls.as_ref().map(|session| session.version),
            method: head.method.clone(),
            uri: head.uri.clone(),
            version: head.version,
            host: exchange
                .authority()
                .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
                .unwrap_or_default(),
            request: text(&head.headers, identity::X_REQUEST_ID).unwrap_or_default(),
            route: None,
            upstream: None,
            failed: None,
            cache: None,
            served: None,
            error: None,
        }
    }

    /// Has plugins told of the request when it has ended.
    pub fn follow(&mut self, exchange: Exchange, route: &Route) -> RecordedExchange {
        let notes = Notes::default();
        self.completion = Some(Completion {
            listeners: route.on_complete.clone(),
            target: exchange.request.uri.to_string(),
            notes: notes.clone(),
            upstream: Duration::ZERO,
        });
        RecordedExchange { exchange: ExchangeSlot::new(exchange), notes: Some(notes) }
    }

    /// Notes whose request it is, how it came, and the id that it goes by.
    pub fn identified(&mut self, request: &request::Parts, came: &Came) {
        self.client = came.client.to_string();
        self.scheme = came.scheme;
        if let Some(host) = &came.host {
            self.host = String::from_utf8_lossy(host.as_bytes()).into_owned();
        }
        let id = request.headers.get(identity::X_REQUEST_ID);
        self.request = id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    }

    /// Notes why the response is the proxy's own.
    pub fn refused(&mut self, error: &str) {
        self.error = Some(error.to_owned());
    }

    /// Notes where a request goes.
    pub fn goes_to_upstream(&mut self, exchange: &Exchange) {
        self.route = Some(exchange.route.clone());
        self.upstream = Some(exchange.upstream.clone());
    }

    /// Notes an attempt that has brought no response, or none to be passed on.
    pub fn attempt_failed(&mut self, endpoint: &Arc<Endpoint>, attempts: usize) {
        self.failed = Some((endpoint.clone(), attempts));
    }

    /// Notes what the cache did.
    pub fn cached(&mut self, what: Served) {
        self.cache = Some(what);
    }

    /// Notes which endpoint a response came from that goes to the client without its connection.
    pub fn served_by(&mut self, endpoint: &Endpoint, attempts: usize) {
        self.served = Some((endpoint.authority.as_str().to_owned(), attempts));
    }

    /// Notes that an upstream has answered, after a time that began at `since`.
    pub fn answered(&mut self, since: Instant) {
        if let Some(completion) = &mut self.completion {
            completion.upstream += since.elapsed();
        }
    }

    /// The method and what was asked for.
    pub fn asked(&self) -> (&Method, &Uri) {
        (&self.method, &self.uri)
    }

    /// Writes the line, and tells plugins. With why it did not come to its end, if it did not.
    pub fn write(
        mut self,
        status: StatusCode,
        sent: Option<&Sent>,
        bytes: Bytes,
        duration: Duration,
        cut: Option<Cut>,
    ) {
        let served = self.served.as_ref().map(|(endpoint, attempts)| (endpoint.as_str(), *attempts));
        let failed =
            || self.failed.as_ref().map(|(endpoint, attempts)| (endpoint.authority.as_str(), *attempts));
        let sent = sent.map(|sent| (sent.endpoint().authority.as_str(), sent.attempts));
        let (endpoint, attempts) = sent.or(served).or_else(failed).unzip();
        if let Some(completion) = self.completion.take() {
            let endpoint = endpoint.map(str::to_owned);
            self.tell(completion, status, endpoint, attempts.unwrap_or_default(), bytes, duration);
        }
        if !self.is_logged {
            return;
        }
        tracing::info!(
            target: "access",
            client = self.client,
            scheme = self.scheme,
            tls = self.tls,
            method = self.method.as_str(),
            host = self.host,
            uri = %self.uri,
            version = version(self.version),
            status = status.as_u16(),
            route = self.route.as_deref(),
            upstream = self.upstream.as_deref(),
            endpoint,
            attempts,
            cache = self.cache.map(Served::name),
            bytes_in = bytes.of_request,
            bytes_out = bytes.of_response,
            complete = cut.is_none(),
            reason = cut.map(Cut::name),
            error = self.error,
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            request = self.request,
            "answered"
        );
    }

    fn tell(
        &self,
        completion: Completion,
        status: StatusCode,
        endpoint: Option<String>,
        attempts: usize,
        bytes: Bytes,
        duration: Duration,
    ) {
        let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or_default().to_owned();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let outcome = Arc::new(Completed {
            request_id: self.request.clone(),
            time_ms: (now.saturating_sub(duration).as_micros() as f64 / 1e3).round(),
            method: self.method.as_str().to_owned(),
            authority: self.host.clone(),
            target: completion.target,
            client_address: self.client.clone(),
            route: name(&self.route),
            upstream: name(&self.upstream),
            status: status.as_u16(),
            endpoint,
            attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
            from_cache: self.cache.is_some_and(Served::is_from_cache),
            bytes_in: bytes.of_request,
            bytes_out: bytes.of_response,
            duration,
            upstream_duration: completion.upstream,
            notes: completion.notes.take(),
        });
        completion.listeners.iter().for_each(|outcomes| outcomes.leave(outcome.clone()));
    }
}

/// As it was asked for; in HTTP/2, where scheme and host always stand beside it, without those.
fn target<B>(request: &Request<B>) -> Uri {
    let path = request.uri().path_and_query().filter(|_| request.version() == Version::HTTP_2);
    path.map_or_else(|| request.uri().clone(), |path| path.clone().into())
}

/// As the contract with plugins writes it.
fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
