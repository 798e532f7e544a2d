//! What would become of a request, if it came now?
//!
//! [`explain`] goes the way of `forward` and asks the same functions in the same order, up to the point where the
//! request would be sent, and writes down what each says and how long it took. Plugins are really called. What has
//! an effect on others stays undone: nothing is sent, counted as traffic, stored, or taken of a limit, and nobody's
//! health is touched.

mod told;

pub use told::Explanation;

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
    Connection, Context, Error, Peer, cached, find_route, headers,
    hooks::{self, Decision},
    meter::Meter,
    secure,
};
use crate::{
    authority,
    body::Arriving,
    compress::Wishes,
    config::Listener,
    live::Worker,
    plugin::{Exchange, InHand},
    route::Objection,
    snapshot::{Route, Snapshot, Step, Target},
    telemetry::{Part, PerWorker, with_sources},
    tls::{HandshakeError, Protocol},
};
use told::{
    Before, Cached, Candidate, Changed, Compression, Limited, Near, Outcome, Picked, Prepared, Routed,
    Verdict, lines, shown,
};

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
    #[error("the method is none")]
    Method,
    #[error("the URL is none of `http` or `https` with a host")]
    Url,
    #[error("the header `{0}` is none")]
    Header(String),
    /// With those that there are.
    #[error("no listener takes {asked}: there are {listeners}; name the one that is meant with `listener`")]
    NoListener { asked: String, listeners: String },
    #[error("no listener is configured with this address: there are {0}")]
    UnknownListener(String),
    #[error("the client certificate is none in PEM, which begins with -----BEGIN CERTIFICATE-----")]
    Certificate,
    #[error(
        "the listener {0} asks no client for a certificate: leave it out, or name in the listener's `tls` who vouches for \
         clients, `client-ca`"
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
    let place = listener(&generation.snapshot, &question)?;
    let request = request(&question)?;
    let mut told = Explanation {
        generation: generation.snapshot.number,
        worker: worker.writer.number,
        listener: generation.snapshot.config.listeners[place].get_ref().address.to_string(),
        ..Explanation::default()
    };
    let connection = match connection(&worker, &generation.snapshot, place, &question)? {
        Ok(connection) => connection,
        Err(error) => {
            let reason = Some(error.to_string());
            told.outcome = Outcome { verdict: Verdict::Refused, reason, ..Outcome::default() };
            return Ok(told);
        }
    };
    let meter = Meter::start();
    let clock = worker.clock.clone();
    let scheme = Cell::new(connection.peer.scheme);
    let connection = Rc::new(connection);
    let context = Context { worker, generation, connection, meter, call: None, scheme };
    let walking = walk(&context, request, question.body.into(), &mut told);
    let outcome = clock.within(LONGEST, Box::pin(walking)).await.map_err(|_| Unexplained::TimedOut)?;
    told.outcome = outcome.unwrap_or_else(|error| Outcome {
        verdict: Verdict::Refused,
        status: Some(error.verdict().0.as_u16()),
        reason: Some(with_sources(&error)),
        ..Outcome::default()
    });
    told.micros = micros(context.meter.started);
    Ok(told)
}

/// The way of the request. What it comes to, unless the proxy refuses it.
async fn walk(
    context: &Context,
    mut head: request::Parts,
    body: Bytes,
    told: &mut Explanation,
) -> Result<Outcome, Error> {
    let Context { connection, generation, .. } = context;
    let length = Some(body.len() as u64);
    let mut body = Arriving::Made { content: body, was_read: true };
    let since = Instant::now();
    let before = head.headers.clone();
    match head.version {
        Version::HTTP_2 => headers::from_http2(&mut head, &connection.listener.limits)?,
        _ => headers::check_limits(&head, &connection.listener.limits)?,
    }
    let listener = &connection.listener;
    let (trusted, unusual) = (&listener.trusted_proxies, listener.underscores_in_headers);
    let mut prepared = headers::prepare(&mut head, &connection.peer, trusted, unusual, length)?;
    let host = head.headers.get(header::HOST).map(|host| authority::host_name(host).into_owned());
    let changed = Changed::between(&before, &head.headers);
    told.prepared = Some(Prepared {
        micros: micros(since),
        method: head.method.to_string(),
        scheme: prepared.came.scheme,
        host: host.clone().unwrap_or_default(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().map(str::to_owned),
        client: prepared.came.client.to_string(),
        is_https: prepared.came.by_tls(),
        removed: changed.removed,
        set: changed.set,
    });
    if let Some(response) = secure::redirect(connection, &head, &prepared)? {
        let reason = "it has come in clear, and the listener sends it to TLS";
        return Ok(Outcome::answered(&response.into_parts().0, reason));
    }
    if !secure::is_at_the_right_door(connection, &head) {
        return Err(Error::Misdirected);
    }
    if prepared.is_last_hop {
        let (head, ()) = http::Response::new(()).into_parts();
        return Ok(Outcome::answered(&head, "`Max-Forwards` has come to zero"));
    }
    let since = Instant::now();
    let route = find_route(context, &head);
    told.route = Some(routed(context, route, host.as_deref().unwrap_or_default(), &head, micros(since)));
    let route = route.ok_or(Error::NoRoute)?;
    let is_upgrade = match prepared.offer.take() {
        Some(offer) => offer.accept(&route.upgrades, &mut head)?,
        None => false,
    };
    let mut target = &generation.snapshot.upstreams[route.upstream];
    let mut exchange = Exchange::new(
        head,
        prepared.came.client,
        prepared.came.scheme,
        route.name.clone(),
        target.upstream.name.clone(),
    );
    exchange.asked_host = prepared.came.host;
    exchange.certificate = connection.peer.certificate.clone();
    exchange.journal = Some(Arc::default());
    cached::follow(route, &mut exchange);
    let mut exchange = InHand::new(exchange);
    let wishes =
        route.compress.as_ref().map(|settings| Wishes::of(settings, &route.name, &mut exchange.request));
    told.response_hooks = names(&generation.snapshot, route.on_response.iter().map(|step| step.place));
    match ask(context, route, &mut exchange, (!is_upgrade).then_some(&mut body), told).await? {
        Decision::Next => {}
        Decision::Forward(place) => target = &generation.snapshot.upstreams[place],
        Decision::Reply(reply) => {
            let by = told.plugins.last().map(|asked| asked.name.clone()).unwrap_or_default();
            let response = hooks::on_reply(context, route, &mut exchange, reply).await?;
            let (head, content) = response.into_parts();
            let length = http_body::Body::size_hint(&content).exact();
            told.compression = wishes.as_ref().map(|wishes| Compression::of(wishes, &head, length));
            return Ok(Outcome {
                verdict: Verdict::Replied,
                body_bytes: length.and_then(|length| usize::try_from(length).ok()),
                ..Outcome::answered(&head, &format!("the plugin `{by}` replies"))
            });
        }
    }
    if let Some(rules) = route.cache.as_ref().filter(|_| !is_upgrade) {
        let since = Instant::now();
        let foreseen = cached::foresee(context, rules, target, &exchange, &mut body).await?;
        told.cache = Some(Cached::of(&foreseen, micros(since)));
        if foreseen.what?.is_from_cache()
            && let Some((stored, _)) = foreseen.stored
        {
            let (mut head, ()) = http::Response::new(()).into_parts();
            (head.status, head.headers) = (stored.status, stored.headers.clone());
            told.compression =
                wishes.as_ref().map(|wishes| Compression::of(wishes, &head, Some(stored.body.len())));
            return Ok(Outcome {
                verdict: Verdict::FromCache,
                ..Outcome::answered(&head, "what is stored answers")
            });
        }
    }
    told.compression = wishes.as_ref().map(Compression::foreseen);
    let picked = pick(context, target, &mut exchange);
    let endpoint = picked.endpoint.clone();
    let is_none_usable = !picked.endpoints.iter().any(|candidate| candidate.is_usable);
    told.pick = Some(picked);
    let endpoint = endpoint.ok_or(if is_none_usable { Error::NoEndpoint } else { Error::Overloaded })?;
    Ok(Outcome {
        verdict: Verdict::Sent,
        upstream: Some(target.upstream.name.to_string()),
        endpoint: Some(endpoint),
        target: Some(exchange.request.uri.to_string()),
        headers: shown(&exchange.request.headers),
        ..Outcome::default()
    })
}

/// Asks the request hooks as [`hooks::on_request`] does, and writes down what each has changed.
async fn ask(
    context: &Context,
    route: &Route,
    exchange: &mut InHand,
    mut body: Option<&mut Arriving>,
    told: &mut Explanation,
) -> Result<Decision, Error> {
    let snapshot = &context.generation.snapshot;
    let mut decision = Decision::Next;
    for (number, step) in route.on_request.iter().enumerate() {
        let before = Before::of(exchange);
        let since = Instant::now();
        let (slot, answer) = hooks::ask(context, route, step, exchange, body.as_deref_mut(), None).await;
        let mut asked = before.asked(&snapshot.plugins[step.place].plugin.name, exchange, micros(since));
        let result = match answer {
            Ok(Decision::Next) => Ok(()),
            Ok(Decision::Reply(reply)) => {
                (asked.verdict, asked.status) = ("reply", Some(reply.status.as_u16()));
                told.plugins.push(asked);
                let rest = route.on_request[number + 1..].iter().map(|step: &Step| step.place);
                told.not_asked = names(snapshot, rest);
                return Ok(Decision::Reply(reply));
            }
            Ok(forward @ Decision::Forward(_)) => {
                (asked.verdict, asked.upstream) = ("forward", Some(exchange.upstream.to_string()));
                decision = forward;
                Ok(())
            }
            Err(error) => {
                (asked.verdict, asked.error) = ("failed", Some(with_sources(&error)));
                let calls = step.calls.of(context.generation.writer);
                let result = hooks::by_policy(slot, calls, error);
                asked.is_passed_over = result.is_ok();
                result
            }
        };
        told.plugins.push(asked);
        result?;
    }
    Ok(decision)
}

/// Which endpoint would get it, as [`super::send`] would find it first. Nobody is occupied by it.
fn pick(context: &Context, target: &Target, exchange: &mut InHand) -> Picked {
    let snapshot = &context.generation.snapshot;
    let upstream = &target.upstream;
    let roster = upstream.roster();
    let most = upstream.settings.limits.endpoint_requests;
    let is_full = |active: u32| most.is_some_and(|most| active >= most.get());
    let since = Instant::now();
    let mut tried = Vec::new();
    let chosen = loop {
        match hooks::choose(context, target, &roster, exchange, &tried) {
            Some((place, _)) if is_full(roster.usable()[place].endpoint.active()) => {
                tried.push(u32::try_from(place).unwrap_or(u32::MAX));
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
        endpoint: chosen.map(|(place, _)| roster.usable()[place].endpoint.authority.to_string()),
        by: chosen.and_then(|(_, by)| names(snapshot, by).pop()),
        is_panicking: roster.is_panicking(),
        limit: upstream.load().map(|load| Limited {
            requests: load.requests,
            limit: load.limit,
            waiting: load.waiting,
        }),
        endpoints: roster.all().iter().map(candidate).collect(),
        logs: lines(exchange.journal.as_deref()),
    }
}

/// Which route takes it, and which did not, though they were near.
fn routed(
    context: &Context,
    route: Option<&Route>,
    host: &str,
    head: &request::Parts,
    micros: f64,
) -> Routed {
    /// As many as a person looks at.
    const NEAR: usize = 8;
    let snapshot = &context.generation.snapshot;
    let near = snapshot.table.near(host, head.uri.path(), &head.method, &head.headers, NEAR + 1);
    let is_other = |place: usize| route.is_none_or(|route| !std::ptr::eq(route, &snapshot.routes[place]));
    let near = near.into_iter().filter(|(place, _)| is_other(*place)).take(NEAR);
    Routed {
        micros,
        name: route.map(|route| route.name.to_string()),
        upstream: route.map(|route| snapshot.upstreams[route.upstream].upstream.name.to_string()),
        near: near
            .map(|(place, objection)| Near {
                name: snapshot.routes[place].name.to_string(),
                objection: match objection {
                    None => "it matches, and another is closer".to_owned(),
                    Some(Objection::Host) => "it is for another host".to_owned(),
                    Some(Objection::Path) => "it is for another path".to_owned(),
                    Some(Objection::Method) => format!("it does not take {}", head.method),
                    Some(Objection::Header(name)) => format!("it wants another `{name}`"),
                },
            })
            .collect(),
    }
}

/// The listener that the request would come to: a place in the configuration.
fn listener(snapshot: &Snapshot, question: &Question) -> Result<usize, Unexplained> {
    let listeners: Vec<&Listener> = snapshot.config.listeners.iter().map(toml::Spanned::get_ref).collect();
    let all = || {
        let scheme = |listener: &Listener| if listener.tls.is_some() { "https" } else { "http" };
        let shown = listeners.iter().map(|listener| format!("{} ({})", listener.address, scheme(listener)));
        shown.collect::<Vec<_>>().join(", ")
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
    place: usize,
    question: &Question,
) -> Result<Result<Connection, HandshakeError>, Unexplained> {
    let listener = Arc::new(snapshot.config.listeners[place].get_ref().clone());
    let address = SocketAddr::new(question.client.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
    let caller = crate::address::Caller::from(address);
    let is_trusted = listener.trusted_proxies.holds(caller.client());
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    let mut peer = Peer::new(caller, scheme, is_trusted);
    let counts = Part::new(Arc::<PerWorker<_>>::default(), worker.writer);
    let termination = snapshot.terminations[place].as_ref();
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
        return Ok(Ok(if question.http2 { connection.to_http2() } else { connection }));
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

fn names(snapshot: &Snapshot, places: impl IntoIterator<Item = usize>) -> Vec<String> {
    places.into_iter().map(|place| snapshot.plugins[place].plugin.name.to_string()).collect()
}

fn micros(since: Instant) -> f64 {
    (since.elapsed().as_nanos() as f64 / 100.0).round() / 10.0
}
