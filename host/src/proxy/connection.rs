//! A connection to a client, as its requests see it: where the wire and the proxy meet.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, Version, header};

use super::identity::Peer;
use crate::{
    address::Caller,
    config::Listener,
    proxy_protocol::ProxyHeader,
    telemetry::{
        Part,
        traffic::{Limit, ListenerCounts},
    },
    tls::{Protocol, Session},
    upstream::Client,
};

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub peer: Peer,
    /// The listener that accepted it, as it was configured then.
    pub listener: Arc<Listener>,
    /// What is counted at it.
    pub counts: Part<ListenerCounts>,
    /// What the handshake has settled, if TLS is spoken.
    pub tls: Option<Rc<Session>>,
    /// `Strict-Transport-Security`, if responses to clients that came by TLS are to carry it.
    pub hsts: Option<HeaderValue>,
    /// In HTTP/1, where requests come one at a time; in HTTP/2 each has a stream to itself.
    pub turn: Option<Rc<Turn>>,
    /// The limit for which the client is being given up.
    given_up: Cell<Option<Limit>>,
    /// Whose connections to endpoints are, that it has authenticated.
    pub client: Rc<Client>,
}

impl Connection {
    /// One that speaks HTTP/1, unless its first bytes turn out to be those of HTTP/2.
    pub fn http1(peer: Peer, listener: Arc<Listener>, counts: Part<ListenerCounts>) -> Self {
        let hsts = strict_transport_security(&listener);
        let (turn, client, given_up) = (Some(Rc::default()), Rc::default(), Cell::default());
        Self { peer, listener, counts, tls: None, hsts, turn, given_up, client }
    }

    /// One by TLS.
    pub fn secure(
        peer: Peer,
        listener: Arc<Listener>,
        counts: Part<ListenerCounts>,
        session: Session,
    ) -> Self {
        let turn = match session.protocol {
            Protocol::Http1 => Some(Rc::default()),
            Protocol::Http2 => None,
        };
        let hsts = strict_transport_security(&listener);
        let (client, given_up) = (Rc::default(), Cell::default());
        Self { peer, listener, counts, tls: Some(session.into()), hsts, turn, given_up, client }
    }

    /// The same one for requests that take no turns on it: those of HTTP/2, and those of the proxy itself.
    pub fn without_turn(&self) -> Self {
        Self {
            peer: self.peer.clone(),
            listener: self.listener.clone(),
            counts: self.counts.clone(),
            tls: self.tls.clone(),
            hsts: self.hsts.clone(),
            turn: None,
            given_up: Cell::default(),
            client: self.client.clone(),
        }
    }

    /// Says that the connection ends with this response, where there is nothing else on it.
    ///
    /// A client that waits to be asked for its body, and is not, may send it all the same or go on with another
    /// request: nobody can tell which (RFC 9110, section 10.1.1).
    pub(super) fn ends_with<B>(&self, response: &mut Response<B>) {
        if self.turn.is_some() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }

    /// Notes that the client has come up against a limit for which its connection, or the stream that is being
    /// dropped, is given up.
    pub fn give_up(&self, limit: Limit) {
        self.counts.reached(limit);
        self.given_up.set(Some(limit));
    }

    /// The stream that was given up is gone, and others go on.
    pub fn go_on(&self) {
        self.given_up.set(None);
    }

    /// The limit for which the client is being given up, if it is.
    pub(super) fn given_up(&self) -> Option<Limit> {
        self.given_up.get()
    }

    /// What an upstream is told of a connection that is made for this client of the connection: without a port, where
    /// that is another's client.
    pub(super) fn introduction(&self, client: Caller<IpAddr>) -> ProxyHeader {
        let Caller::Ip(address) = client else { return ProxyHeader::Unknown };
        let own = match self.peer.address {
            Caller::Ip(own) if own.ip().to_canonical() == address => own.port(),
            _ => 0,
        };
        let source = SocketAddr::new(address, own);
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let destination = self.peer.destination.or_else(|| self.listener.address.ip()).unwrap_or(unknown);
        let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
        ProxyHeader::Client { source, destination }
    }

    /// The status for what the client has sent and must not have, or has not sent in time.
    pub fn fault(&self) -> Option<StatusCode> {
        self.turn.as_ref()?.fault()
    }

    /// The last of a response has been made; not all of it need have been written.
    pub fn set_answered(&self) {
        if let Some(turn) = &self.turn {
            turn.set_answered();
        }
    }
}

/// The request of HTTP/1 whose turn it is, as the wire sees it.
#[derive(Default)]
pub struct Turn {
    stage: Cell<TurnState>,
    fault: Cell<Option<StatusCode>>,
    interim: RefCell<Vec<Bytes>>,
    version: Cell<&'static [u8]>,
}

impl std::fmt::Debug for Turn {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Turn").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// How far the answer to the last request has come.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum TurnState {
    #[default]
    Idle,
    Answering,
    Writing,
}

impl Turn {
    /// Whether a request is being answered.
    pub fn is_busy(&self) -> bool {
        self.stage.get() != TurnState::Idle
    }

    /// A request has come.
    pub fn begin(&self, version: Version) {
        // While an earlier response is being written, nobody can tell where the next begins.
        let is_known = version == Version::HTTP_10 && !self.is_busy();
        self.version.set(if is_known { b"HTTP/1.1" } else { b"" });
        self.stage.set(TurnState::Answering);
    }

    /// What is to be written in the place of as many of the next bytes, if those are hyper's `HTTP/1.0`: the version in a
    /// response is the proxy's own, also where the client's is older (RFC 9110, section 2.5).
    pub fn version(&self) -> &'static [u8] {
        self.version.get()
    }

    /// So much has been written where [`Turn::version`] stands.
    pub fn set_version_written(&self, bytes: usize) {
        let version = self.version.get();
        self.version.set(&version[bytes.min(version.len())..]);
    }

    /// The last of the response has been made; not all of it need have been written.
    pub fn set_answered(&self) {
        self.stage.set(TurnState::Writing);
    }

    /// Everything has been written that was made. Whether a response has ended with it.
    pub fn set_written(&self) -> bool {
        let has_ended = self.stage.get() == TurnState::Writing;
        if has_ended {
            self.stage.set(TurnState::Idle);
        }
        has_ended
    }

    /// The status for what the client has sent and must not have, or has not sent in time.
    pub fn fault(&self) -> Option<StatusCode> {
        self.fault.get()
    }

    pub fn set_fault(&self, status: StatusCode) {
        self.fault.set(Some(status));
    }

    /// Has an interim response written before anything else.
    pub fn push_interim(&self, response: Bytes) {
        self.interim.borrow_mut().push(response);
    }

    /// Interim responses that wait to be written.
    pub fn take_interim(&self) -> Vec<Bytes> {
        self.interim.take()
    }
}

/// RFC 6797, section 6.1.
fn strict_transport_security(listener: &Listener) -> Option<HeaderValue> {
    let hsts = listener.hsts.as_ref()?.get_ref();
    let mut value = format!("max-age={}", hsts.max_age.get().as_secs());
    if hsts.include_subdomains {
        value += "; includeSubDomains";
    }
    if hsts.preload {
        value += "; preload";
    }
    HeaderValue::try_from(value).ok()
}
