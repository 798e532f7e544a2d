//! What is known of a client from its handshake?

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use rustls::{HandshakeKind, ProtocolVersion, ServerConnection, pki_types::CertificateDer};

use super::certificate::Certificates;
use crate::config::ForwardedCertificate;

/// A protocol that TLS may carry, as agreed on by ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// All there are, the most wanted first.
    pub const ALL: [Protocol; 2] = [Self::Http2, Self::Http1];

    /// Its name in ALPN.
    pub const fn name(self) -> &'static [u8] {
        match self {
            Self::Http1 => b"http/1.1",
            Self::Http2 => b"h2",
        }
    }
}

/// What a handshake has settled.
#[derive(Debug)]
pub struct Session {
    /// HTTP/1.1 for a client that does not say.
    pub protocol: Protocol,
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Whether it goes on from a session of before.
    pub is_resumed: bool,
    /// The client's certificate, verified.
    pub client: Option<Arc<ClientCertificate>>,
    /// The name that the client asked for, in lower case.
    server_name: Option<Box<str>>,
    certificates: Arc<Certificates>,
}

/// A client's certificate, which somebody whom the listener trusts has vouched for.
#[derive(Debug)]
pub struct ClientCertificate {
    pub der: CertificateDer<'static>,
    /// For `Client-Cert`, if it is to be forwarded.
    pub forwarded: Option<HeaderValue>,
    /// For `Client-Cert-Chain`, if that is to be forwarded and is not empty.
    pub chain: Option<HeaderValue>,
}

impl Session {
    pub(super) fn new(
        connection: &ServerConnection,
        certificates: Arc<Certificates>,
        forward: ForwardedCertificate,
    ) -> Self {
        let agreed = connection.alpn_protocol();
        let protocol = Protocol::ALL.into_iter().find(|protocol| Some(protocol.name()) == agreed);
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            _ => "",
        };
        let client = connection.peer_certificates().and_then(|chain| ClientCertificate::new(chain, forward));
        Self {
            protocol: protocol.unwrap_or(Protocol::Http1),
            version,
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client: client.map(Arc::new),
            server_name: connection.server_name().map(Into::into),
            certificates,
        }
    }

    /// What a handshake would settle in which a client asks for this name, in lower case, and shows this certificate.
    pub(super) fn expected(
        server_name: Option<&str>,
        protocol: Protocol,
        client: Option<ClientCertificate>,
        certificates: Arc<Certificates>,
    ) -> Self {
        let (server_name, client) = (server_name.map(Into::into), client.map(Arc::new));
        Self { protocol, version: "1.3", is_resumed: false, client, server_name, certificates }
    }

    /// Whether requests for this host may come on this connection: the one it was opened for, and those that the
    /// certificate is for which the client got. `host` is in lower case and without a port. A client that has
    /// asked for no name, and a host that is an address, which nobody can ask for, are let pass.
    pub fn is_for(&self, host: &str) -> bool {
        let Some(opened_for) = &self.server_name else { return true };
        **opened_for == *host || is_address(host) || self.certificates.are_for(opened_for, host)
    }
}

fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.parse::<IpAddr>().is_ok()
}

impl ClientCertificate {
    pub(super) fn new(chain: &[CertificateDer<'static>], forward: ForwardedCertificate) -> Option<Self> {
        let (certificate, rest) = chain.split_first()?;
        // A byte sequence of RFC 8941, section 3.3.5.
        let item = |der: &CertificateDer<'_>| format!(":{}:", BASE64_STANDARD.encode(der));
        let value = |text: String| HeaderValue::try_from(text).expect("base64 is visible ASCII");
        let is_forwarded = forward != ForwardedCertificate::Nothing;
        let has_chain = forward == ForwardedCertificate::Chain && !rest.is_empty();
        Some(Self {
            forwarded: is_forwarded.then(|| value(item(certificate))),
            chain: has_chain.then(|| value(rest.iter().map(item).collect::<Vec<_>>().join(", "))),
            der: certificate.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_forwarded_as_far_as_is_asked() {
        let chain = [&b"one"[..], b"two", b"three"].map(CertificateDer::from);
        let forwarded = |chain, forward| {
            let client = ClientCertificate::new(chain, forward).unwrap();
            let text = |value: Option<HeaderValue>| value.map(|value| value.to_str().unwrap().to_owned());
            (text(client.forwarded), text(client.chain))
        };
        let leaf = Some(":b25l:".to_owned());
        assert_eq!(forwarded(&chain, ForwardedCertificate::Nothing), (None, None));
        assert_eq!(forwarded(&chain, ForwardedCertificate::Certificate), (leaf.clone(), None));
        let rest = Some(":dHdv:, :dGhyZWU=:".to_owned());
        assert_eq!(forwarded(&chain, ForwardedCertificate::Chain), (leaf.clone(), rest));
        assert_eq!(forwarded(&chain[..1], ForwardedCertificate::Chain), (leaf, None));
    }
}
