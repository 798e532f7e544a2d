//! Which hosts is a certificate for?

use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

/// The subject alternative names of a certificate. The common name counts for nothing (RFC 9525, section 2).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// In lower case.
    pub exact: Vec<String>,
    /// What follows `*.`
    pub below: Vec<String>,
    pub addresses: Vec<IpAddr>,
}

/// What a certificate says of itself.
#[derive(Debug)]
pub(super) struct Particulars {
    pub names: Names,
    /// Seconds since 1970, the first and the last.
    pub valid: std::ops::RangeInclusive<i64>,
}

impl Names {
    /// Whether the certificate is for this host, which is in lower case and without a port. A wildcard stands for
    /// one label (RFC 9525, section 6.3).
    pub fn cover(&self, host: &str) -> bool {
        let is_below = || {
            let (label, rest) = host.split_once('.').unwrap_or_default();
            !label.is_empty() && self.below.iter().any(|name| name == rest)
        };
        self.exact.iter().any(|name| name == host) || is_below()
    }

    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty() && self.addresses.is_empty()
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => {
                let name = name.to_ascii_lowercase();
                match name.strip_prefix("*.") {
                    Some(below) => self.below.push(below.to_owned()),
                    None => self.exact.push(name),
                }
            }
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                self.addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)));
            }
            _ => {}
        }
    }
}

/// Reads a certificate; the error says what is wrong with it.
pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Particulars, String> {
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
    let mut names = Names::default();
    let alternative = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    for name in alternative.iter().flat_map(|extension| &extension.value.general_names) {
        names.add(name);
    }
    let validity = certificate.validity();
    Ok(Particulars { names, valid: validity.not_before.timestamp()..=validity.not_after.timestamp() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Names {
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        read(certificate.der()).unwrap().names
    }

    #[test]
    fn a_certificate_is_for_its_names_and_one_label_below_its_wildcards() {
        let names = of(&["Example.com", "*.Example.com", "*.apps.example.org", "127.0.0.1", "::1"]);
        assert_eq!(names.addresses, ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        for (host, is_covered) in [
            ("example.com", true),
            ("www.example.com", true),
            ("a.b.example.com", false),
            (".example.com", false),
            ("xexample.com", false),
            ("example.org", false),
            ("apps.example.org", false),
            ("x.apps.example.org", true),
            ("com", false),
            ("", false),
        ] {
            assert_eq!(names.cover(host), is_covered, "{host}");
        }
    }

    #[test]
    fn a_certificate_without_names_is_for_nobody() {
        let names = of(&[]);
        assert!(names.is_empty() && !names.cover("") && !names.cover("localhost"));
    }

    #[test]
    fn what_is_no_certificate_is_not_read() {
        assert!(read(&CertificateDer::from(&b"garbage"[..])).is_err());
        assert!(read(&CertificateDer::from(&b""[..])).is_err());
    }
}
