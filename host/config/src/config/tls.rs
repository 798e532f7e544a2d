//! The tables `tls` of a listener and of an upstream.
//!
//! Files are relative to the folder of the configuration.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::shape::{optional_word, tables, word, written};

/// How a listener speaks TLS.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenerTls {
    /// Chosen by the name that a client asks for; the first is for those that ask for none, or for another.
    #[serde(deserialize_with = "tables")]
    pub certificates: Vec<Spanned<CertificateFiles>>,
    /// Names for which a certificate is made that nobody but its maker vouches for.
    pub self_signed: Vec<Spanned<CertificateName>>,
    /// Who vouches for certificates of clients. Clients are asked for one if it is there.
    pub client_ca: Option<Spanned<PathBuf>>,
    /// Whether a client may come without one.
    #[serde(deserialize_with = "optional_word")]
    pub client_auth: Option<Spanned<ClientAuth>>,
    /// What upstreams are told of a client's certificate.
    #[serde(deserialize_with = "optional_word")]
    pub forward_client_certificate: Option<Spanned<ForwardedCertificate>>,
    /// The oldest version that is spoken.
    #[serde(deserialize_with = "word")]
    pub min_version: TlsVersion,
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead to its authority.
    pub certificate: Spanned<PathBuf>,
    /// The key, not encrypted.
    pub key: Spanned<PathBuf>,
    /// What its authority says of the certificate (OCSP), in DER.
    pub ocsp: Option<Spanned<PathBuf>>,
}

/// What a certificate is for: `localhost`, `*.example.test` or an IP address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CertificateName {
    /// In lower case; the first label may be `*`.
    Name(String),
    Address(IpAddr),
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientAuth {
    #[default]
    Required,
    /// One that is shown must be good all the same.
    Optional,
}

/// What of a client's certificate goes to upstreams (RFC 9440).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedCertificate {
    Nothing,
    /// `Client-Cert`.
    #[default]
    Certificate,
    /// `Client-Cert` and `Client-Cert-Chain`.
    Chain,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

/// How the `https` endpoints of an upstream are reached.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct UpstreamTls {
    /// Who vouches for the upstream.
    pub ca: Option<Spanned<PathBuf>>,
    /// Who vouches for it as well; those of the system if absent and there is no `ca`.
    #[serde(deserialize_with = "optional_word")]
    pub roots: Option<Spanned<Roots>>,
    /// The name to ask for and to find in the certificate; the endpoint's host if absent.
    pub server_name: Option<Spanned<String>>,
    /// What of its certificate is looked at.
    #[serde(deserialize_with = "optional_word")]
    pub verify: Option<Spanned<Verify>>,
    /// The proxy's own certificate, for upstreams that ask for one.
    pub certificate: Option<Spanned<PathBuf>>,
    pub key: Option<Spanned<PathBuf>>,
}

/// Authorities that are known beforehand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Roots {
    /// Those of the system.
    #[default]
    Platform,
    /// Mozilla's, as part of the executable.
    Mozilla,
}

/// What of an upstream's certificate is looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Who vouches for it, and for which name.
    #[default]
    Full,
    /// Who vouches for it, whatever its name.
    Ca,
    /// Nothing: whoever answers is believed.
    None,
}

impl Verify {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Ca => "ca",
            Self::None => "none",
        }
    }
}

impl ListenerTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let certificates = self.certificates.iter().flat_map(|written| {
            let files = written.get_ref();
            [Some(&files.certificate), Some(&files.key), files.ocsp.as_ref()]
        });
        certificates.chain([self.client_ca.as_ref()]).flatten().map(|path| path.get_ref().as_path())
    }
}

impl UpstreamTls {
    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.ca, &self.certificate, &self.key];
        files.into_iter().flatten().map(|path| path.get_ref().as_path())
    }
}

impl<'de> Deserialize<'de> for CertificateName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a host or an address, such as \"localhost\", \"*.example.test\" or \"127.0.0.1\"";
        written(deserializer, expected, |text| {
            if let Ok(address) = text.parse() {
                return Some(Self::Address(address));
            }
            let is_label = |label: &str| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            };
            let name = text.to_ascii_lowercase();
            let is_name =
                name.len() <= 253 && name.strip_prefix("*.").unwrap_or(&name).split('.').all(is_label);
            is_name.then_some(Self::Name(name))
        })
    }
}

impl std::fmt::Display for CertificateName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => formatter.write_str(name),
            Self::Address(address) => address.fmt(formatter),
        }
    }
}
