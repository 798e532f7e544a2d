//! How does an error become a response?

use std::sync::Arc;

use http::{HeaderValue, Method, Response, Uri, header};

use super::{
    context::Context,
    error::{self, Blame, Disposition, Error},
    grpc,
    record::Record,
};
use crate::{
    body::Content,
    telemetry::{sampled, with_sources},
};

/// An error that ends a request, and what is known of the request.
pub(super) struct Failure {
    pub error: Error,
    pub request_id: Option<HeaderValue>,
    /// The client may still wait to be asked for the body.
    pub leaves_body: bool,
    /// The method and the target, where no record has them.
    pub asked: Option<(Method, Uri)>,
    /// The upstream that it was for, once that is known.
    pub upstream: Option<Arc<str>>,
}

impl Failure {
    /// One of a request of which nothing more is known.
    pub fn of(error: Error) -> Self {
        Self { error, request_id: None, leaves_body: false, asked: None, upstream: None }
    }

    /// The response to the client, and a line in the log that says more.
    pub fn into_response(self, context: &Context, mut record: Option<&mut Record>) -> Response<Content> {
        let Context { connection, generation, meter, call, .. } = context;
        let Self { mut error, request_id, leaves_body, asked, upstream } = self;
        let kind = (meter.route(), error.kind());
        let Disposition { status, blame, limit, ends_connection, is_passing, .. } = error.disposition();
        connection.counts.refused_with(status);
        if let Some(limit) = limit {
            connection.counts.reached(limit);
        }
        let refusal = call.is_some().then(|| grpc::refusal(&error, status));
        let request = request_id.as_ref().and_then(|id| id.to_str().ok());
        let client = connection.peer.address;
        // What a plugin prints is limited in the log, and has no place in a line for each request.
        let printed = error.take_printed();
        let error = with_sources(&error);
        if let Some(record) = record.as_deref_mut() {
            record.refused(&error);
        }
        match blame {
            Blame::Client => tracing::debug!(%client, request, error, "request failed"),
            Blame::Upstream | Blame::Plugin | Blame::Proxy => {
                let asked = asked.as_ref().map(|(method, uri)| (method, uri));
                let asked = record.as_deref().map(Record::asked).or(asked);
                let (method, uri) = asked.unzip();
                let route = meter.route().map(|index| &generation.snapshot.routes[index]);
                // With all upstreams down this would be a line for each request, which the access log has already.
                sampled!(
                    warn, of: kind,
                    %client,
                    request,
                    method = method.map(Method::as_str),
                    uri = uri.map(tracing::field::display),
                    route = route.map(|route| &*route.name),
                    upstream = upstream.as_deref(),
                    status = status.as_u16(),
                    error,
                    printed,
                    "request failed"
                );
            }
        }
        if let Some(refusal) = refusal {
            return refusal;
        }
        let mut response = error::problem(status, request_id.as_ref());
        if is_passing {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if ends_connection || leaves_body || connection.fault().is_some() {
            connection.ends_with(&mut response);
        }
        response.map(Content::Whole)
    }
}
