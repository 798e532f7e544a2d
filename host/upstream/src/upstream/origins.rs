//! What does a plugin ask of others?
//!
//! Its requests go to the origins that it was granted, over connections from the worker's own pool, by the same TLS
//! as everything else. A response that says where else to look is a response like any other.

use std::{future::poll_fn, path::Path, pin::pin, rc::Rc, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;

use super::{ConnectError, Delivery, Endpoint, Lease, NotDelivered, Pool, Terms, Tls, Upstream, deliver};
use crate::{
    body::RequestBody,
    clock::Clock,
    config::{self, Problem, UpstreamTls},
    outgoing::{Outgoing, Received, SendError, Target},
    telemetry::sampled,
    tls::Origination,
};

/// Where a plugin may send requests.
#[derive(Debug)]
pub struct Origins {
    granted: Vec<config::HttpGrant>,
    list: Vec<Origin>,
}

#[derive(Debug)]
struct Origin {
    target: Target,
    upstream: Arc<Upstream>,
    endpoint: Arc<Endpoint>,
    /// Bytes of a response's body.
    most: usize,
}

impl Origins {
    /// Makes what is granted ready. Paths are relative to `folder`; what `previous` has of the same is taken over.
    ///
    /// The error names everything that is wrong.
    pub fn new(
        plugin: &str,
        grants: &[toml::Spanned<config::HttpGrant>],
        folder: &Path,
        previous: Option<&Self>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut list = Vec::new();
        for grant in grants {
            let (index, grant) = (grant.span(), grant.get_ref());
            match Origin::new(plugin, grant, folder, previous) {
                Ok(Some(origin)) => list.push(origin),
                Ok(None) => {
                    problems.push(Problem::at(index, "this is no origin that a request can be sent to"));
                }
                Err(faults) => problems.extend(faults),
            }
        }
        let granted = grants.iter().map(|grant| grant.get_ref().clone()).collect();
        if problems.is_empty() { Ok(Self { granted, list }) } else { Err(problems) }
    }

    /// The endpoints to which connections are kept.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.list.iter().map(|origin| &origin.endpoint)
    }

    /// Sends a request, if it may be sent, and waits for the whole of its response.
    pub async fn send(
        &self,
        pool: &Rc<Pool>,
        clock: &Clock,
        request: Outgoing,
    ) -> Result<Received, SendError> {
        let origin = self.list.iter().find(|origin| origin.target == request.target);
        let origin = origin.ok_or(SendError::Denied)?;
        let limit = request.timeout;
        // In a box, since it is more than whoever waits for it should keep ready.
        let sending = Box::pin(origin.send(pool, request));
        clock.within(limit, sending).await.unwrap_or(Err(SendError::TimedOut))
    }
}

impl Origin {
    fn new(
        plugin: &str,
        grant: &config::HttpGrant,
        folder: &Path,
        previous: Option<&Origins>,
    ) -> Result<Option<Self>, Vec<Problem>> {
        let Some(target) = grant.target() else { return Ok(None) };
        let name = format!("{target} of the plugin {plugin}");
        let known = previous.and_then(|previous| previous.of(grant));
        let tls = match grant.origin.is_https {
            false => None,
            true => {
                let default = UpstreamTls::default();
                let settings = grant.tls.as_ref().unwrap_or(&default);
                let known = known.and_then(|known| known.upstream.tls().endpoints.as_ref());
                Some(Origination::load(&name, settings, folder, known)?)
            }
        };
        let tls = Tls { endpoints: tls, sources: None };
        let mut endpoint = grant.origin.clone();
        endpoint.reach = if grant.private { config::Reach::Anywhere } else { config::Reach::public() };
        let settings = config::Upstream::of(endpoint);
        let upstream = match known {
            Some(known) if known.upstream.is_same(&settings, &tls) => known.upstream.clone(),
            known => Upstream::new(name.into(), &settings, tls, known.map(|known| &*known.upstream)),
        };
        let endpoint = upstream.roster().all().first().map(|entry| entry.endpoint.clone());
        let most = grant.response.as_usize();
        Ok(endpoint.map(|endpoint| Self { target, upstream, endpoint, most }))
    }

    async fn send(&self, pool: &Rc<Pool>, outgoing: Outgoing) -> Result<Received, SendError> {
        let mut request = OfPlugin { origin: self, outgoing: &outgoing };
        match deliver(pool, &self.upstream, &self.endpoint, &mut request).await {
            Ok((lease, response)) => self.receive(lease, response).await,
            Err(NotDelivered::NoConnection(error)) => Err(self.refused(&error)),
            Err(NotDelivered::Failed(error)) => Err(error),
            Err(NotDelivered::Unread(error)) => Err(self.unanswered(&error)),
        }
    }

    fn unanswered(&self, error: &hyper::Error) -> SendError {
        tracing::debug!(origin = %self.target, %error, "no answer for a plugin");
        SendError::Unreachable
    }

    /// The request in the form in which it goes over a connection.
    fn request(&self, outgoing: &Outgoing) -> Result<Request<RequestBody>, SendError> {
        let has_body = !outgoing.body.is_empty();
        let mut request = Request::new(RequestBody::Whole(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.uri_mut() = outgoing.path.clone().into();
        let headers = request.headers_mut();
        *headers = outgoing.headers.clone();
        let host = self.target.authority().ok_or(SendError::InvalidUrl)?;
        headers.insert(header::HOST, host);
        if has_body || matches!(outgoing.method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(header::CONTENT_LENGTH, outgoing.body.len().into());
        }
        Ok(request)
    }

    /// What a plugin is told of a connection that could not be made; the operator is told more.
    fn refused(&self, error: &ConnectError) -> SendError {
        let origin = &self.upstream.name;
        if let ConnectError::NotPublic(_) = error {
            let help = "write it as { url = \"...\", private = true } if it is to be reached all the same";
            sampled!(warn, of: origin, %origin, %error, help, "a plugin's request was not sent");
            return SendError::Denied;
        }
        tracing::debug!(%origin, %error, "no connection for a plugin");
        if error.is_time_out() { SendError::TimedOut } else { SendError::Unreachable }
    }

    async fn receive(&self, lease: Lease, response: Response<Incoming>) -> Result<Received, SendError> {
        let (head, body) = response.into_parts();
        if head.status == StatusCode::SWITCHING_PROTOCOLS || lease.check(&head).is_err() {
            return Err(SendError::Unreachable);
        }
        // Two readers could see another end of it (RFC 9112, section 6.1).
        let is_ambiguous = head.headers.contains_key(header::TRANSFER_ENCODING)
            && head.headers.contains_key(header::CONTENT_LENGTH);
        let body = collect(body, self.most).await?;
        if !is_ambiguous {
            lease.finish();
        }
        Ok(Received { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// A request of a plugin. What may have been read is not sent again: that is for the plugin to decide.
struct OfPlugin<'a> {
    origin: &'a Origin,
    outgoing: &'a Outgoing,
}

impl Delivery for OfPlugin<'_> {
    type Response = Response<Incoming>;
    type Error = SendError;

    fn terms(&self) -> Terms<'_> {
        Terms::default()
    }

    async fn over(&mut self, lease: &mut Lease) -> Result<Response<Incoming>, NotDelivered<SendError>> {
        let request = self.origin.request(self.outgoing).map_err(NotDelivered::Failed)?;
        lease.send(request, false, None).await.map_err(|mut error| {
            match error.take_message().is_some() || lease.is_unread() {
                true => NotDelivered::Unread(error.into_error()),
                false => NotDelivered::Failed(self.origin.unanswered(error.error())),
            }
        })
    }
}

impl Origins {
    fn of(&self, grant: &config::HttpGrant) -> Option<&Origin> {
        let index = self.granted.iter().position(|known| known == grant)?;
        self.list.get(index)
    }
}

async fn collect(body: Incoming, most: usize) -> Result<Bytes, SendError> {
    if body.size_hint().lower() > most as u64 {
        return Err(SendError::TooLarge);
    }
    let mut body = pin!(body);
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| SendError::Unreachable)?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > most {
                return Err(SendError::TooLarge);
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}
