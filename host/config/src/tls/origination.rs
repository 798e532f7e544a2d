//! How is an upstream spoken to by TLS?

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

use super::{Error, Files, certificate::assemble, names, provider, store};
use crate::config::{Problem, Protocol, Roots, UpstreamTls, Verify};

/// The TLS of an upstream, ready for handshakes. Shared by all workers, and so are the sessions that it resumes.
#[derive(Debug)]
pub struct Origination {
    config: Arc<ClientConfig>,
    /// The same for connections on which HTTP/2 will be spoken.
    config_http2: Arc<ClientConfig>,
    /// The same where the endpoint chooses.
    config_either: Arc<ClientConfig>,
    /// The name to ask for in place of an endpoint's host.
    server_name: Option<ServerName<'static>>,
    settings: UpstreamTls,
    digest: [u8; 32],
}

impl Origination {
    /// Makes it from the files as they are. What `previous` is made of the same is taken over as it is.
    ///
    /// The error names everything that is wrong.
    pub fn load(
        upstream: &str,
        settings: &UpstreamTls,
        folder: &std::path::Path,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Vec<Problem>> {
        let provider = provider();
        let mut problems = Vec::new();
        let mut files = Files::new(folder);
        let server_name = settings.server_name.as_ref().and_then(|name| {
            let parsed = ServerName::try_from(name.get_ref().clone());
            let complain = |_| {
                let problem = Problem::at(name.span(), "this is neither a host nor an address");
                problems
                    .push(problem.help("write it without scheme and port: server-name = \"app.internal\""));
            };
            parsed.map_err(complain).ok()
        });
        let authorities = authorities(settings, &mut files, &mut problems);
        let certificate = own_certificate(settings, &mut files, &provider, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let digest = files.digest();
        if let Some(previous) =
            previous.filter(|previous| previous.is_of(settings) && previous.digest == digest)
        {
            return Ok(previous.clone());
        }
        let verifier = verifier(upstream, settings, authorities, &provider).map_err(|error| {
            let general = || Problem::general(error.to_string()).help(error.help());
            vec![settings.roots.as_ref().map_or_else(general, |roots| error.at(roots.span()))]
        })?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| vec![Problem::general(Error::from(error).to_string())])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match certificate {
            Some(key) => {
                builder.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let config_http2 = Arc::new(config.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config_either = Arc::new(config.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        let settings = settings.clone();
        Ok(Arc::new(Self { config, config_http2, config_either, server_name, settings, digest }))
    }

    /// Whether it was made of these settings; the files may have changed since.
    pub fn is_of(&self, settings: &UpstreamTls) -> bool {
        self.settings == *settings
    }

    /// What of a certificate is looked at.
    pub fn verify(&self) -> Verify {
        self.settings.verify.as_ref().map(|word| *word.get_ref()).unwrap_or_default()
    }

    /// What handshakes go by on a connection of this protocol.
    pub fn config(&self, protocol: Protocol) -> &Arc<ClientConfig> {
        match protocol {
            Protocol::Auto => &self.config_either,
            Protocol::H1 => &self.config,
            Protocol::H2 => &self.config_http2,
        }
    }

    /// The name to ask for at an endpoint with this host; none if it cannot be asked for.
    pub fn server_name(&self, host: &str) -> Option<ServerName<'static>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.server_name.clone().or_else(|| ServerName::try_from(host.to_owned()).ok())
    }
}

/// The authorities that the table names.
fn authorities(
    settings: &UpstreamTls,
    files: &mut Files<'_>,
    problems: &mut Vec<Problem>,
) -> Vec<CertificateDer<'static>> {
    let verify = settings.verify.as_ref();
    match (&settings.ca, &settings.roots, verify.map(|word| *word.get_ref()).unwrap_or_default()) {
        (Some(ca), _, Verify::None) => problems.push(
            Problem::at(ca.span(), "no CA is needed, since nothing is verified")
                .help("write verify = \"full\", or leave `ca` out"),
        ),
        (None, Some(roots), Verify::None) => problems.push(
            Problem::at(roots.span(), "no CA is needed, since nothing is verified")
                .help("write verify = \"full\", or leave `roots` out"),
        ),
        (None, _, Verify::Ca) | (Some(_), Some(_), Verify::Ca) => problems.push(
            Problem::at(
                verify.map(toml::Spanned::span).unwrap_or_default(),
                "anybody can have a certificate from a public authority, so without its name it proves nothing",
            )
            .help("name an authority of your own, alone: ca = \"internal.pem\"; or write verify = \"full\""),
        ),
        (Some(ca), None, Verify::Ca) | (Some(ca), _, Verify::Full) => {
            let read = files.authorities(ca.get_ref());
            return read.map_err(|error| problems.push(error.at(ca.span()))).unwrap_or_default();
        }
        (None, _, Verify::Full | Verify::None) => {}
    }
    Vec::new()
}

/// The proxy's own certificate, if the table names one.
fn own_certificate(
    settings: &UpstreamTls,
    files: &mut Files<'_>,
    provider: &CryptoProvider,
    problems: &mut Vec<Problem>,
) -> Option<rustls::sign::CertifiedKey> {
    let (certificate, key) = match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(alone), None) => {
            problems
                .push(Problem::at(alone.span(), "the certificate has no key").help("name it: key = \"...\""));
            return None;
        }
        (None, Some(alone)) => {
            let problem = Problem::at(alone.span(), "the key has no certificate");
            problems.push(problem.help("name it: certificate = \"...\""));
            return None;
        }
        (None, None) => return None,
    };
    let certificate_file = files.read(certificate.get_ref()).map_err(|error| error.at(certificate.span()));
    let key_file = files.read(key.get_ref()).map_err(|error| error.at(key.span()));
    let loaded = certificate_file.and_then(|certificate| Ok((certificate, key_file?))).and_then(
        |((certificate_path, chain), (key_path, content))| {
            assemble(&certificate_path, &chain, &key_path, &content, provider)
                .map_err(|error| error.at(if error.is_about_key() { key.span() } else { certificate.span() }))
        },
    );
    match loaded {
        Ok(loaded) => Arc::into_inner(loaded.key),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

fn verifier(
    upstream: &str,
    settings: &UpstreamTls,
    own: Vec<CertificateDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, Error> {
    let by = |roots: RootCertStore| {
        let built = WebPkiServerVerifier::builder_with_provider(roots.into(), provider.clone()).build();
        built.map_err(|error| Error::Setup(rustls::Error::General(error.to_string())))
    };
    let verify = settings.verify.as_ref().map(|word| *word.get_ref()).unwrap_or_default();
    let known = settings.roots.as_ref().map(|word| *word.get_ref());
    let known = known.or_else(|| own.is_empty().then(Roots::default));
    let pinned = own.clone();
    let by_authority: Arc<dyn ServerCertVerifier> = match (verify, known) {
        (Verify::None, _) => {
            tracing::warn!(
                upstream,
                "the upstream's certificate is not verified: whoever answers in its place is believed"
            );
            return Ok(Arc::new(Anybody(provider.clone())));
        }
        (Verify::Ca, _) => Arc::new(WhateverName(by(store(own))?)),
        (Verify::Full, None) => by(store(own))?,
        (Verify::Full, Some(Roots::Mozilla)) => {
            let mut roots = store(own);
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            by(roots)?
        }
        (Verify::Full, Some(Roots::Platform)) => {
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(own, provider.clone());
            Arc::new(verifier.map_err(Error::NoPlatformRoots)?)
        }
    };
    Ok(match pinned.is_empty() {
        true => by_authority,
        false => Arc::new(Pinned { by_authority, pinned, is_named: verify == Verify::Full }),
    })
}

/// A certificate that the operator has named is good itself, and not only those that it vouches for. A self-signed one
/// is often marked as that of an authority, which a server must not show otherwise (`openssl req -x509` does that).
#[derive(Debug)]
struct Pinned {
    by_authority: Arc<dyn ServerCertVerifier>,
    pinned: Vec<CertificateDer<'static>>,
    /// Whether its name is looked at.
    is_named: bool,
}

impl Pinned {
    /// Looks at the dates and the name of a certificate that is trusted as it is.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let bad = |error| Err(rustls::Error::InvalidCertificate(error));
        let Ok(particulars) = names::read(certificate) else { return bad(CertificateError::BadEncoding) };
        let now = now.as_secs().cast_signed();
        if now > *particulars.valid.end() {
            return bad(CertificateError::Expired);
        }
        if now < *particulars.valid.start() {
            return bad(CertificateError::NotValidYet);
        }
        match self.is_named {
            true => verify_server_name(&ParsedCertificate::try_from(certificate)?, name),
            false => Ok(()),
        }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.by_authority.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(_)) if self.pinned.contains(certificate) => {
                self.check(certificate, name, now).map(|()| ServerCertVerified::assertion())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Who vouches for the certificate counts, and not its name.
#[derive(Debug)]
struct WhateverName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for WhateverName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match self.0.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            // The name is what is looked at last, when all else is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// No certificate is looked at. Whoever shows one must have its key all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
