//! What is written down of a request?

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{Method, Request, StatusCode, Uri, Version, header, request};

use super::{Connection, headers, send::Sent};
use crate::{address::Caller, plugin::Exchange, telemetry::traffic::Bytes, upstream::Endpoint};

/// What the line in the access log will say, so far.
#[derive(Debug)]
pub(super) struct Record {
    client: String,
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
    cache: Option<&'static str>,
    /// What brought a response that goes on without it.
    served: Option<(String, usize)>,
}

impl Record {
    pub fn new<B>(request: &Request<B>, connection: &Connection) -> Self {
        let text = |name| {
            request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        Self {
            client: connection.peer.address.client().to_string(),
            tls: connection.tls.as_ref().map(|session| session.version),
            method: request.method().clone(),
            uri: target(request),
            version: request.version(),
            host: text(header::HOST)
                .or_else(|| request.uri().authority().map(ToString::to_string))
                .unwrap_or_default(),
            request: String::new(),
            route: None,
            upstream: None,
            failed: None,
            cache: None,
            served: None,
        }
    }

    /// The line.
    pub fn write(
        self,
        status: StatusCode,
        sent: Option<&Sent>,
        bytes: Bytes,
        duration: Duration,
        is_complete: bool,
    ) {
        let served = self.served.as_ref().map(|(endpoint, attempts)| (endpoint.as_str(), *attempts));
        let failed =
            || self.failed.as_ref().map(|(endpoint, attempts)| (endpoint.authority.as_str(), *attempts));
        let sent = sent.map(|sent| (sent.endpoint().authority.as_str(), sent.attempts));
        let (endpoint, attempts) = sent.or(served).or_else(failed).unzip();
        tracing::info!(
            target: "access",
            client = self.client,
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
            cache = self.cache,
            bytes_in = bytes.of_request,
            bytes_out = bytes.of_response,
            complete = is_complete,
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            request = self.request,
            "answered"
        );
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

/// Notes the id that a request goes by.
pub(super) fn identified(record: &mut Option<Box<Record>>, request: &request::Parts, client: Caller<IpAddr>) {
    let Some(record) = record else { return };
    record.client = client.to_string();
    let id = request.headers.get(headers::X_REQUEST_ID);
    record.request = id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
}

/// Notes where a request goes.
pub(super) fn routed(record: &mut Option<Box<Record>>, exchange: &Exchange) {
    let Some(record) = record else { return };
    record.route = Some(exchange.route.clone());
    record.upstream = Some(exchange.upstream.clone());
}

/// Notes an attempt that has brought no answer, or none to be passed on.
pub(super) fn failed(record: &mut Option<Box<Record>>, endpoint: &Arc<Endpoint>, attempts: usize) {
    let Some(record) = record else { return };
    record.failed = Some((endpoint.clone(), attempts));
}

/// Notes what the cache did.
pub(super) fn cached(record: &mut Option<Box<Record>>, what: &'static str) {
    let Some(record) = record else { return };
    record.cache = Some(what);
}

/// Notes what brought a response that goes to the client without it.
pub(super) fn served(record: &mut Option<Box<Record>>, sent: &Sent) {
    let Some(record) = record else { return };
    record.served = Some((sent.endpoint().authority.as_str().to_owned(), sent.attempts));
}
