//! Certificates that are made for a test, and clients that look at them.

use std::{net::SocketAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{Client, client::Stream, soon};

/// Somebody who vouches for certificates.
pub struct Authority {
    /// None if it is somebody else's.
    issuer: Option<Issuer<'static, KeyPair>>,
    /// Its own certificate, in PEM.
    pub certificate: String,
}

/// A certificate with its key, both in PEM.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::new(Vec::new()).expect("no name is wrong");
        params.distinguished_name.push(rcgen::DnType::CommonName, "Authority of a test");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate can be made").pem();
        Self { issuer: Some(Issuer::new(params, key)), certificate }
    }

    /// One who has been there before, by its certificate in PEM.
    pub fn known(certificate: &str) -> Self {
        Self { issuer: None, certificate: certificate.to_owned() }
    }

    /// A certificate for these names, for servers and clients.
    pub fn vouch(&self, names: &[&str]) -> Identity {
        self.vouch_for(names, |_| {})
    }

    /// The same with something peculiar about it.
    pub fn vouch_for(&self, names: &[&str], peculiar: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().expect("a key can be made");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names are names");
        peculiar(&mut params);
        let issuer = self.issuer.as_ref().expect("the key of the authority is known");
        let certificate = params.signed_by(&key, issuer).expect("a certificate can be made").pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Those who are believed by whoever believes this authority.
    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(one(&self.certificate)).expect("it is an authority");
        roots.into()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Identity {
    /// Writes `<name>.pem` and `<name>.key`.
    pub fn write(&self, folder: &Path, name: &str) {
        // Whole, and then into place, as a careful deployment does.
        for (content, kind) in [(&self.key, "key"), (&self.certificate, "pem")] {
            let unfinished = folder.join(format!("{name}.{kind}.tmp"));
            std::fs::write(&unfinished, content).expect("a file can be written");
            std::fs::rename(unfinished, folder.join(format!("{name}.{kind}")))
                .expect("a file can be renamed");
        }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        one(&self.certificate)
    }

    /// A server with this certificate; with `clients`, only for clients that those vouch for.
    pub fn server(&self, clients: Option<&Authority>) -> ServerConfig {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for both");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let provider = Arc::new(aws_lc_rs::default_provider());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build();
                builder.with_client_cert_verifier(verifier.expect("there is an authority"))
            }
        };
        builder.with_single_cert(vec![self.der()], self.private_key()).expect("the key is the certificate's")
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("it is a key in PEM")
    }
}

fn one(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is a certificate in PEM")
}

/// A client that speaks TLS. Connections of one know the sessions of those before.
#[derive(Clone)]
pub struct Secure(Arc<ClientConfig>);

impl Secure {
    /// Believes this authority.
    pub fn believing(authority: &Authority) -> Self {
        Self::build(authority, &[&TLS13, &TLS12], None)
    }

    /// The same with a certificate of its own.
    pub fn with_identity(authority: &Authority, identity: &Identity) -> Self {
        Self::build(authority, &[&TLS13, &TLS12], Some(identity))
    }

    /// The same with one version alone, `1.2` or `1.3`.
    pub fn of_version(authority: &Authority, version: &str) -> Self {
        let version = match version {
            "1.2" => &TLS12,
            "1.3" => &TLS13,
            other => panic!("there is no TLS {other}"),
        };
        Self::build(authority, &[version], None)
    }

    fn build(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
        identity: Option<&Identity>,
    ) -> Self {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("the provider has suites for both")
            .with_root_certificates(authority.roots());
        Self(Arc::new(match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(vec![identity.der()], identity.private_key())
                .expect("the key is the certificate's"),
        }))
    }

    /// The same with something peculiar about it.
    pub fn but(mut self, peculiar: impl FnOnce(&mut ClientConfig)) -> Self {
        peculiar(Arc::make_mut(&mut self.0));
        self
    }

    /// Shakes hands, asking for this name.
    pub async fn try_connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = soon("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name.to_owned()).expect("it is a name or an address");
        soon("a handshake", TlsConnector::from(self.0.clone()).connect(name, stream)).await
    }

    /// Shakes hands over a connection that is there.
    pub async fn over(&self, stream: impl Stream + 'static, name: &str) -> Client {
        let name = ServerName::try_from(name.to_owned()).expect("it is a name or an address");
        let connecting = TlsConnector::from(self.0.clone()).connect(name, stream);
        Client::over(soon("a handshake", connecting).await.expect("the handshake succeeds"))
    }

    pub async fn connect(&self, address: SocketAddr, name: &str) -> Client {
        Client::over(self.try_connect(address, name).await.expect("the handshake succeeds"))
    }
}
