//! Who is at the other end, and who else can listen?
//!
//! TLS as it is configured, for both sides: [`Termination`] for a listener, [`Origination`] for the `https`
//! endpoints of an upstream. Both are made of files that may change; what is made of equal settings and equal
//! files is the same. Versions, suites and groups are those of Mozilla's intermediate set.

mod certificate;
mod names;
mod origination;
mod reason;
mod self_signed;
mod session;
mod termination;

pub use origination::Origination;
pub use reason::in_words;
pub use session::{ClientCertificate, Protocol, Session};
pub use termination::{HandshakeError, Termination};

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore,
    crypto::{CryptoProvider, aws_lc_rs as provided},
    pki_types::{CertificateDer, pem::PemObject},
};
use sha2::{Digest as _, Sha256};

use crate::{config::Problem, file};

/// Where what belongs to TLS is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Folders<'a> {
    /// What paths in the configuration are relative to.
    pub config: &'a Path,
    /// Where self-signed certificates are kept between starts; nowhere if absent.
    pub kept: Option<&'a Path>,
}

/// Why something cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("there is no certificate in PEM in {}", .0.display())]
    NoCertificate(PathBuf),
    #[error("there is no private key in PEM in {}", .0.display())]
    NoKey(PathBuf),
    #[error("the private key in {} is encrypted", .0.display())]
    EncryptedKey(PathBuf),
    #[error("the private key in {} is of a kind that cannot be used here", .0.display())]
    UnknownKey(PathBuf),
    #[error("the certificate in {} cannot be read: {reason}", path.display())]
    BadCertificate { path: PathBuf, reason: String },
    #[error("the private key in {} is not that of the certificate", .0.display())]
    KeyMismatch(PathBuf),
    #[error("{} is not an answer of an OCSP responder in DER, or not a good one", .0.display())]
    BadOcsp(PathBuf),
    #[error("the certificates in {} cannot be used as CAs: {reason}", path.display())]
    BadAuthority { path: PathBuf, reason: String },
    #[error("the authorities that the system trusts cannot be loaded: {0}")]
    NoPlatformRoots(rustls::Error),
    #[error("cannot make a certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

impl Error {
    /// How to put it right.
    fn help(&self) -> &'static str {
        match self {
            Self::Read { .. } => "write the file, or let the user that runs `tollgate` read it",
            Self::NoCertificate(_) => {
                "a certificate begins with -----BEGIN CERTIFICATE-----; \
                 turn DER into PEM with `openssl x509 -inform der -in FILE`"
            }
            Self::NoKey(_) => {
                "a key begins with -----BEGIN PRIVATE KEY-----; \
                 turn DER into PEM with `openssl pkey -inform der -in FILE`"
            }
            Self::EncryptedKey(_) => "nobody is there to be asked: decrypt it with `openssl pkey -in FILE`",
            Self::UnknownKey(_) => {
                "use an ECDSA key (P-256, P-384), an RSA key of 2048 bits or more, or Ed25519"
            }
            Self::BadCertificate { .. } => "look at it with `openssl x509 -text -noout -in FILE`",
            Self::KeyMismatch(_) => "name the key that the certificate was asked for with",
            Self::BadOcsp(_) => "fetch it again: `openssl ocsp ... -respout FILE`",
            Self::BadAuthority { .. } => "name the certificate of the authority, not one that it has signed",
            Self::NoPlatformRoots(_) => "write roots = \"mozilla\", or install the package `ca-certificates`",
            Self::SelfSigned(_) => "name hosts or addresses such as \"localhost\"",
            Self::Setup(_) => "look at the certificates and keys of this table",
        }
    }

    fn is_about_key(&self) -> bool {
        match self {
            Self::NoKey(_) | Self::EncryptedKey(_) | Self::UnknownKey(_) | Self::KeyMismatch(_) => true,
            Self::Read { .. }
            | Self::NoCertificate(_)
            | Self::BadCertificate { .. }
            | Self::BadOcsp(_)
            | Self::BadAuthority { .. }
            | Self::NoPlatformRoots(_)
            | Self::SelfSigned(_)
            | Self::Setup(_) => false,
        }
    }

    fn at(&self, span: std::ops::Range<usize>) -> Problem {
        Problem::at(span, self.to_string()).help(self.help())
    }
}

/// Reads the files of a table, and keeps what tells them from others.
struct Files<'a> {
    folder: &'a Path,
    digest: Sha256,
}

impl<'a> Files<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, digest: Sha256::new() }
    }

    /// The path of the file, and what is in it.
    fn read(&mut self, path: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
        let path = self.folder.join(path);
        match file::read(&path, file::CERTIFICATES) {
            Ok(content) => {
                self.add(&content);
                Ok((path, content))
            }
            Err(source) => Err(Error::Read { path, source }),
        }
    }

    fn add(&mut self, content: &[u8]) {
        self.digest.update(content.len().to_le_bytes());
        self.digest.update(content);
    }

    fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Those who vouch for others.
    fn authorities(&mut self, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
        let (path, content) = self.read(path)?;
        let authorities = certificates(&path, &content)?;
        for authority in &authorities {
            let usable = RootCertStore::empty().add(authority.clone());
            usable.map_err(|error| {
                let reason = match error {
                    rustls::Error::InvalidCertificate(error) => reason::sentence(&error),
                    error => error.to_string(),
                };
                Error::BadAuthority { path: path.clone(), reason }
            })?;
        }
        Ok(authorities)
    }
}

fn store(authorities: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(authorities);
    store
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates
        .ok()
        .filter(|certificates| !certificates.is_empty())
        .ok_or_else(|| Error::NoCertificate(path.to_owned()))
}

/// Mozilla's intermediate set, <https://wiki.mozilla.org/Security/Server_Side_TLS>, without the suites of TLS 1.2
/// that exchange keys by plain Diffie-Hellman, and with the hybrid exchange that outlasts quantum computers.
fn provider() -> Arc<CryptoProvider> {
    use provided::{cipher_suite, kx_group};
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1],
        ..provided::default_provider()
    })
}
