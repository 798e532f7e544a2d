//! How does a listener speak TLS?

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig, ServerConnection,
    crypto::{CryptoProvider, aws_lc_rs::Ticketer},
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};
use toml::Spanned;

use super::{
    ClientCertificate, Error, Files, Folders, Protocol, Session, certificate,
    certificate::{Certificate, Certificates},
    provider, self_signed, store,
};
use crate::config::{ClientAuth, ForwardedCertificate, ListenerTls, Problem, TlsVersion};

/// Why there would be no connection.
#[derive(Debug, thiserror::Error)]
#[error("the handshake fails: {0}")]
pub struct HandshakeError(rustls::Error);

/// A listener's TLS, ready for handshakes. Shared by all workers.
#[derive(Debug)]
pub struct Termination {
    config: Arc<ServerConfig>,
    certificates: Arc<Certificates>,
    /// Who looks at certificates of clients, if they are asked for one.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    forward: ForwardedCertificate,
    settings: ListenerTls,
    /// Whether HTTP/2 is offered.
    has_http2: bool,
    /// Of all files, and of those that say which clients are let in.
    digest: [u8; 32],
    clients: [u8; 32],
    /// Where the self-signed certificate is kept.
    self_signed: Option<PathBuf>,
}

impl Termination {
    /// Makes it from the files as they are. What `previous` is made of the same is taken over as it is; so are
    /// the keys of its tickets where the same clients are let in, so that those of before can go on.
    ///
    /// The error names everything that is wrong.
    pub fn load(
        written: &Spanned<ListenerTls>,
        has_http2: bool,
        folders: &Folders<'_>,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let settings = written.get_ref();
        let provider = provider();
        let mut problems = Vec::new();
        let mut files = Files::new(folders.config);
        let mut list = Vec::new();
        for written in &settings.certificates {
            match certificate::load(written.get_ref(), &mut files, &provider) {
                Ok(certificate) => list.push(certificate),
                Err(problem) => problems.push(problem),
            }
        }
        if settings.certificates.is_empty() && settings.self_signed.is_empty() {
            problems.push(Problem::at(written.span(), "there is no certificate").help(
                "name its files: certificates = [{ certificate = \"...\", key = \"...\" }], \
                 or let one be made for development: self-signed = [\"localhost\"]",
            ));
        }
        let mut clients = Files::new(folders.config);
        let verifier = verifier(settings, &mut clients, &provider, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let (clients, digest) = (clients.digest(), files.digest());
        let previous =
            previous.filter(|previous| previous.is_of(settings, has_http2) && previous.clients == clients);
        if let Some(previous) = previous.filter(|previous| previous.digest == digest) {
            return Ok(previous.clone());
        }
        let made = self_signed(settings, folders, &provider).map_err(|problem| vec![problem])?;
        let (made, self_signed) = made.unzip();
        list.extend(made);
        let certificates = Arc::new(Certificates::new(list));
        let setup = |error: rustls::Error| vec![Error::from(error).at(written.span())];
        let tickets = match previous {
            Some(previous) => previous.config.ticketer.clone(),
            None => Ticketer::new().map_err(setup)?,
        };
        let config = configure(
            settings.min_version,
            has_http2,
            provider,
            verifier.clone(),
            certificates.clone(),
            tickets,
        );
        let forward = settings.forward_client_certificate.as_ref().map(|word| *word.get_ref());
        Ok(Arc::new(Self {
            config: Arc::new(config.map_err(setup)?),
            certificates,
            verifier,
            forward: forward.unwrap_or_default(),
            settings: settings.clone(),
            has_http2,
            digest,
            clients,
            self_signed: self_signed.flatten(),
        }))
    }

    /// Whether it was made of these settings; the files may have changed since.
    pub fn is_of(&self, settings: &ListenerTls, has_http2: bool) -> bool {
        self.settings == *settings && self.has_http2 == has_http2
    }

    /// The file that a client is to be given which should trust the self-signed certificate.
    pub fn self_signed(&self) -> Option<&Path> {
        self.self_signed.as_deref()
    }

    /// What handshakes go by.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Whether clients are asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        self.verifier.is_some()
    }

    /// What a handshake would settle in which a client asks for this name, in lower case, and shows this chain of
    /// certificates, its own first; none if empty. That it has the key is taken for granted.
    pub fn expected(
        &self,
        server_name: Option<&str>,
        protocol: Protocol,
        chain: &[CertificateDer<'static>],
    ) -> Result<Session, HandshakeError> {
        let mut client = None;
        if let Some(verifier) = &self.verifier {
            match chain {
                [] if verifier.client_auth_mandatory() => {
                    return Err(HandshakeError(rustls::Error::NoCertificatesPresented));
                }
                [] => {}
                [own, others @ ..] => {
                    verifier.verify_client_cert(own, others, UnixTime::now()).map_err(HandshakeError)?;
                    client = ClientCertificate::new(chain, self.forward);
                }
            }
        }
        Ok(Session::expected(server_name, protocol, client, self.certificates.clone()))
    }

    /// What a handshake has settled that has ended.
    pub fn session(&self, connection: &ServerConnection) -> Session {
        Session::new(connection, self.certificates.clone(), self.forward)
    }
}

fn configure(
    oldest: TlsVersion,
    has_http2: bool,
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    certificates: Arc<Certificates>,
    tickets: Arc<dyn ProducesTickets>,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match oldest {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    let offered = Protocol::ALL.into_iter().filter(|protocol| match protocol {
        Protocol::Http1 => true,
        Protocol::Http2 => has_http2,
    });
    config.alpn_protocols = offered.map(|protocol| protocol.name().to_vec()).collect();
    // Sessions are kept by the clients, in tickets that every worker can read. Their keys change every six hours.
    config.ticketer = tickets;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// How certificates of clients are looked at; none if clients are not asked for one.
fn verifier(
    settings: &ListenerTls,
    files: &mut Files<'_>,
    provider: &Arc<CryptoProvider>,
    problems: &mut Vec<Problem>,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let Some(authority) = &settings.client_ca else {
        let mut needs_authority = |span: Range<usize>| {
            let problem = Problem::at(span, "clients are not asked for a certificate");
            problems.push(problem.help("name the CA of clients: client-ca = \"clients.pem\""));
        };
        settings.client_auth.iter().for_each(|word| needs_authority(word.span()));
        settings.forward_client_certificate.iter().for_each(|word| needs_authority(word.span()));
        return None;
    };
    let made = files.authorities(authority.get_ref()).and_then(|authorities| {
        let builder =
            WebPkiClientVerifier::builder_with_provider(store(authorities).into(), provider.clone());
        let builder = match settings.client_auth.as_ref().map(|word| *word.get_ref()).unwrap_or_default() {
            ClientAuth::Required => builder,
            ClientAuth::Optional => builder.allow_unauthenticated(),
        };
        builder.build().map_err(|error| Error::BadAuthority {
            path: authority.get_ref().clone(),
            reason: error.to_string(),
        })
    });
    made.map_err(|error| problems.push(error.at(authority.span()))).ok()
}

fn self_signed(
    settings: &ListenerTls,
    folders: &Folders<'_>,
    provider: &CryptoProvider,
) -> Result<Option<(Certificate, Option<PathBuf>)>, Problem> {
    let Some(first) = settings.self_signed.first() else { return Ok(None) };
    let names: Vec<_> = settings.self_signed.iter().map(|name| name.get_ref().clone()).collect();
    let made = self_signed::obtain(&names, folders.kept, provider);
    made.map(Some).map_err(|error| error.at(first.span()))
}
