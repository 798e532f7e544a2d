//! What would become of a request, if it came now?
//!
//! [`explain`] has it go through the phases of any request, up to the point where it would be sent, and writes down what each
//! step says and how long it took. Plugins are really called. What has
//! an effect on others stays undone: nothing is sent, counted as traffic, stored, or taken of a limit, and nobody's
//! health is touched.

mod collect;
mod report;

pub(super) use collect::{Before, Explaining};
pub use report::Explanation;

use std::{
    cell::Cell,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version, header, request};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::Deserialize;

use super::{
    cached::Foreseen,
    connection::Connection,
    context::Context,
    error::Error,
    flight::{Admission, Arrival},
    headers, hooks,
    identity::Peer,
    meter::Meter,
    observer::Observer,
};
use crate::{
    body::{Arriving, Asked},
    cache::{Served, policy::Time},
    config::Listener,
    live::Worker,
    plugin::ExchangeSlot,
    snapshot::{Snapshot, Target},
    telemetry::{Part, PerWorker, with_sources},
    tls::{HandshakeError, Protocol},
};
use collect::names;
use report::{Cached, Candidate, Compression, Limited, Outcome, Picked, Verdict, lines, micros, redacted};

/// A request that has not come.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Question {
    method: String,
    /// Absolute. By TLS, its host is the name that the client asks for.
    url: String,
    /// In order, names repeated where they are; `Host` is that of the URL if it is not among them.
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    body: String,
    /// Whose connection it is; of this machine if absent.
    client: Option<IpAddr>,
    /// The address of a listener as it is configured; by scheme and port of the URL if absent.
    listener: Option<String>,
    /// What the client shows by TLS where it is asked: certificates in PEM, its own first.
    client_certificate: Option<String>,
    #[serde(default)]
    http2: bool,
}

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unexplained {
    #[error("invalid method")]
    Method,
    #[error("the URL is not `http` or `https` with a host")]
    Url,
    #[error("invalid header `{0}`")]
    Header(String),
    /// With those that there are.
    #[error("no listener takes {asked}: there are {listeners}; name the one that is meant with `listener`")]
    NoListener { asked: String, listeners: String },
    #[error("no listener is configured with this address: there are {0}")]
    UnknownListener(String),
    #[error("the client certificate is not PEM, which begins with -----BEGIN CERTIFICATE-----")]
    Certificate,
    #[error(
        "the listener {0} asks no client for a certificate: leave it out, or name the CA of clients in the \
         listener's `tls`, `client-ca`"
    )]
    NotAsked(String),
    #[error("it takes too long")]
    TimedOut,
    #[error("the proxy is stopping")]
    Stopping,
}

/// Tells what would become of a request on this worker, by the generation in force.
pub async fn explain(worker: Rc<Worker>, question: Question) -> Result<Explanation, Unexplained> {
    /// Plugins may wait, each as long as its table says.
    const LONGEST: Duration = Duration::from_secs(60);
    let generation = worker.generation();
    let index = listener(&generation.snapshot, &question)?;
    let request = request(&question)?;
    let mut report = Explanation {
        generation: generation.snapshot.number,
        worker: worker.writer.number,
        listener: generation.snapshot.config.listeners[index].get_ref().address.to_string(),
        ..Explanation::default()
    };
    let connection = match connection(&worker, &generation.snapshot, index, &question)? {
        Ok(connection) => connection,
        Err(error) => {
            let reason = Some(error.to_string());
            report.outcome = Outcome { verdict: Verdict::Refused, reason, ..Outcome::default() };
            return Ok(report);
        }
    };
    let meter = Meter::start();
    let clock = worker.clock.clone();
    let scheme = Cell::new(connection.peer.scheme);
    let connection = Rc::new(connection);
    let context = Context { worker, generation, connection, meter, call: None, scheme };
    let mut observer = Observer::Explanation(Box::new(Explaining::new(report)));
    let following = follow(&context, request, question.body.into(), &mut observer);
    let outcome = clock.within(LONGEST, Box::pin(following)).await.map_err(|_| Unexplained::TimedOut)?;
    let mut report = observer.into_report();
    report.outcome = outcome.unwrap_or_else(|error| Outcome {
        verdict: Verdict::Refused,
        status: Some(error.disposition().status.as_u16()),
        reason: Some(with_sources(&error)),
        ..Outcome::default()
    });
    report.micros = micros(context.meter.started);
    Ok(report)
}

/// Has the request go through its phases, up to the point where it would be sent. What it comes to, unless the proxy refuses
/// it.
async fn follow(
    context: &Context,
    head: request::Parts,
    body: Bytes,
    observer: &mut Observer,
) -> Result<Outcome, Error> {
    let length = Some(body.len() as u64);
    if head.version != Version::HTTP_2 {
        headers::check_limits(&head, &context.connection.listener.limits)?;
    }
    let body = Arriving::Made { content: body, client: Asked::OnceRead };
    let mut arrival = Arrival::of(context, head, body, length);
    let mut flight = match arrival.admit(observer).await? {
        Admission::Granted { route, came, is_upgrade } => arrival.set_out(route, came, is_upgrade, observer),
        Admission::Answered { response, reason } => {
            return Ok(Outcome::answered(&response.into_parts().0, reason));
        }
    };
    if let Some(reply) = flight.decide().await? {
        let (head, content) = reply.into_parts();
        let length = http_body::Body::size_hint(&content).exact();
        let compression = flight.wishes.as_ref().map(|wishes| Compression::of(wishes, &head, length));
        let mut by = String::new();
        flight.observer.explain(|report| {
            report.compression = compression;
            by.extend(report.plugins.last().map(|asked| asked.name.clone()));
        });
        return Ok(Outcome {
            verdict: Verdict::Replied,
            body_bytes: length.and_then(|length| usize::try_from(length).ok()),
            ..Outcome::answered(&head, &format!("the plugin `{by}` replies"))
        });
    }

    let since = Instant::now();
    if let Some(foreseen) = flight.foresee().await? {
        flight.observer.explain(|report| report.cache = Some(cache(&foreseen, micros(since))));
        if foreseen.what?.is_from_cache()
            && let Some((stored, _)) = foreseen.stored
        {
            let (mut head, ()) = http::Response::new(()).into_parts();
            (head.status, head.headers) = (stored.status, stored.headers.clone());
            let length = Some(stored.body.len());
            let compression = flight.wishes.as_ref().map(|wishes| Compression::of(wishes, &head, length));
            flight.observer.explain(|report| report.compression = compression);
            return Ok(Outcome {
                verdict: Verdict::FromCache,
                ..Outcome::answered(&head, "what is stored answers")
            });
        }
    }
    let compression = flight.wishes.as_ref().map(Compression::foreseen);
    flight.observer.explain(|report| report.compression = compression);
    let picked = pick(context, flight.target, &mut flight.exchange);
    let endpoint = picked.endpoint.clone();
    let is_none_usable = !picked.endpoints.iter().any(|candidate| candidate.is_usable);
    flight.observer.explain(|report| report.pick = Some(picked));
    let endpoint = endpoint.ok_or(if is_none_usable { Error::NoEndpoint } else { Error::Overloaded })?;
    Ok(Outcome {
        verdict: Verdict::Sent,
        upstream: Some(flight.target.upstream.name.to_string()),
        endpoint: Some(endpoint),
        target: Some(flight.exchange.request.uri.to_string()),
        headers: redacted(&flight.exchange.request.headers),
        ..Outcome::default()
    })
}

/// What the cache would do.
fn cache(foreseen: &Foreseen, micros: f64) -> Cached {
    let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
    let stored = foreseen.stored.as_ref().map(|(stored, now): &(_, Time)| (&stored.freshness, *now));
    Cached {
        micros,
        key: foreseen.key.as_str().to_owned(),
        decision: foreseen.what.as_ref().map_or("refused", |what| what.name()),
        forward: match &foreseen.what {
            Ok(Served::Forwarded(forward)) => Some(forward.name()),
            Ok(_) | Err(_) => None,
        },
        age_seconds: stored.map(|(freshness, now)| seconds(freshness.age(now))),
        left_seconds: stored.map(|(freshness, now)| freshness.lifetime as f64 - seconds(freshness.age(now))),
        not_stored: foreseen.obstacle,
    }
}

/// Which endpoint would get it, as [`super::send`] would find it first. Nobody is occupied by it.
fn pick(context: &Context, target: &Target, exchange: &mut ExchangeSlot) -> Picked {
    let snapshot = &context.generation.snapshot;
    let upstream = &target.upstream;
    let roster = upstream.roster();
    let most = upstream.settings.limits.endpoint_requests;
    let is_full = |active: u32| most.is_some_and(|most| active >= most.get());
    let since = Instant::now();
    let mut tried = Vec::new();
    let chosen = loop {
        match hooks::choose(context, target, &roster, exchange, &tried) {
            Some((index, _)) if is_full(roster.usable()[index].endpoint.active()) => {
                tried.push(u32::try_from(index).unwrap_or(u32::MAX));
            }
            chosen => break chosen,
        }
    };
    let micros = micros(since);
    let candidate = |entry: &crate::upstream::Entry| {
        let is_one = |usable: &crate::upstream::Entry| Arc::ptr_eq(&usable.endpoint, &entry.endpoint);
        let (is_usable, active) = (roster.usable().iter().any(is_one), entry.endpoint.active());
        let objection = match is_usable {
            false => Some(format!("it is {}", entry.state.name())),
            true => is_full(active).then(|| "it has as many requests as it may have".to_owned()),
        };
        Candidate {
            address: entry.endpoint.authority.to_string(),
            state: entry.state.name(),
            weight: entry.weight,
            active,
            is_usable,
            objection,
        }
    };
    Picked {
        micros,
        upstream: upstream.name.to_string(),
        balance: names(snapshot, target.balancers.iter().copied()),
        endpoint: chosen.map(|(index, _)| roster.usable()[index].endpoint.authority.to_string()),
        by: chosen.and_then(|(_, by)| names(snapshot, by).pop()),
        is_panicking: roster.is_panicking(),
        limit: upstream.load().map(|load| Limited {
            requests: load.requests,
            limit: load.limit,
            waiting: load.waiting,
        }),
        endpoints: roster.all().iter().map(candidate).collect(),
        logs: lines(exchange.purpose.journal()),
    }
}

/// The listener that the request would come to: a place in the configuration.
fn listener(snapshot: &Snapshot, question: &Question) -> Result<usize, Unexplained> {
    let listeners: Vec<&Listener> = snapshot.config.listeners.iter().map(toml::Spanned::get_ref).collect();
    let all = || {
        let scheme = |listener: &Listener| if listener.tls.is_some() { "https" } else { "http" };
        let redacted =
            listeners.iter().map(|listener| format!("{} ({})", listener.address, scheme(listener)));
        redacted.collect::<Vec<_>>().join(", ")
    };
    if let Some(address) = &question.listener {
        let is_it = |listener: &&Listener| listener.address.to_string() == *address;
        return listeners.iter().position(is_it).ok_or_else(|| Unexplained::UnknownListener(all()));
    }
    let uri: Uri = question.url.parse().map_err(|_| Unexplained::Url)?;
    let is_https = uri.scheme_str() == Some("https");
    let fits = |listener: &Listener| listener.tls.is_some() == is_https;
    let written = uri.port_u16();
    let port = written.unwrap_or(if is_https { 443 } else { 80 });
    let has_port = |listener: &Listener| listener.address.ip().is_some_and(|own| own.port() == port);
    let closest = listeners.iter().position(|listener| fits(listener) && has_port(listener));
    // Where no port is asked for, or one by chance is listened on, any is as good.
    let may_be_meant = |listener: &Listener| {
        fits(listener) && (written.is_none() || listener.address.ip().is_some_and(|own| own.port() == 0))
    };
    let any = || listeners.iter().position(|listener| may_be_meant(listener));
    closest.or_else(any).ok_or_else(|| Unexplained::NoListener {
        asked: match (uri.scheme_str(), written) {
            (Some(scheme), Some(port)) => format!("{scheme} on port {port}"),
            (scheme, _) => scheme.unwrap_or("a URL without a scheme").to_owned(),
        },
        listeners: all(),
    })
}

/// The connection that it would come by. What is counted at it is nobody's.
fn connection(
    worker: &Worker,
    snapshot: &Snapshot,
    index: usize,
    question: &Question,
) -> Result<Result<Connection, HandshakeError>, Unexplained> {
    let listener = Arc::new(snapshot.config.listeners[index].get_ref().clone());
    let address = SocketAddr::new(question.client.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
    let caller = crate::address::Caller::from(address);
    let is_trusted = listener.trusted_proxies.holds(caller.client());
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let mut peer = Peer::new(caller, scheme, is_trusted);
    let counts = Part::new(Arc::<PerWorker<_>>::default(), worker.writer);
    let termination = snapshot.terminations[index].as_ref();
    let chain = question.client_certificate.as_deref().map(|pem| {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().unwrap_or_default();
        match termination {
            _ if chain.is_empty() => Err(Unexplained::Certificate),
            Some(termination) if termination.asks_clients() => Ok(chain),
            Some(_) | None => Err(Unexplained::NotAsked(listener.address.to_string())),
        }
    });
    let chain = chain.transpose()?.unwrap_or_default();
    let Some(termination) = termination else {
        let connection = Connection::http1(peer, listener, counts);
        return Ok(Ok(if question.http2 { connection.without_turn() } else { connection }));
    };
    let uri: Uri = question.url.parse().map_err(|_| Unexplained::Url)?;
    let name = uri.host().map(|host| host.trim_end_matches('.').to_ascii_lowercase());
    // Nobody can ask for an address.
    let name = name.filter(|name| !name.starts_with('[') && name.parse::<IpAddr>().is_err());
    let protocol = if question.http2 { Protocol::Http2 } else { Protocol::Http1 };
    Ok(termination.expected(name.as_deref(), protocol, &chain).map(|session| {
        peer.certificate = session.client.clone();
        Connection::secure(peer, listener, counts, session)
    }))
}

/// The head of the request as it would come.
fn request(question: &Question) -> Result<request::Parts, Unexplained> {
    let Question { method, url, headers, body, http2, .. } = question;
    let uri: Uri = url.parse().map_err(|_| Unexplained::Url)?;
    let authority = match (uri.scheme_str(), uri.authority()) {
        (Some("http" | "https"), Some(authority)) => authority.as_str().to_owned(),
        _ => return Err(Unexplained::Url),
    };
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::from_bytes(method.as_bytes()).map_err(|_| Unexplained::Method)?;
    for (name, value) in headers {
        let wrong = || Unexplained::Header(name.clone());
        let field = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
        head.headers.try_append(field, value).map_err(|_| wrong())?;
    }
    // The length is that of the body which is there.
    for name in [header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        head.headers.remove(name);
    }
    if !body.is_empty() {
        head.headers.insert(header::CONTENT_LENGTH, body.len().into());
    }
    if *http2 {
        (head.version, head.uri) = (Version::HTTP_2, uri);
        return Ok(head);
    }
    if !head.headers.contains_key(header::HOST) {
        let host = HeaderValue::try_from(authority).map_err(|_| Unexplained::Url)?;
        head.headers.insert(header::HOST, host);
    }
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    head.uri = target.parse().map_err(|_| Unexplained::Url)?;
    Ok(head)
}
