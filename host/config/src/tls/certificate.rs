//! Which certificate does a client get?

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    InconsistentKeys, SignatureScheme,
    crypto::CryptoProvider,
    pki_types::{PrivateKeyDer, pem::PemObject},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use smallvec::SmallVec;

use super::{Error, Files, certificates, names, names::Names, reason::sentence};
use crate::config::{CertificateFiles, Problem};

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    pub names: Names,
    pub key: Arc<CertifiedKey>,
}

/// Reads a certificate and its key.
pub(super) fn load(
    written: &CertificateFiles,
    files: &mut Files<'_>,
    provider: &CryptoProvider,
) -> Result<Certificate, Problem> {
    let mut read =
        |path: &toml::Spanned<PathBuf>| files.read(path.get_ref()).map_err(|error| error.at(path.span()));
    let (certificate_path, certificate) = read(&written.certificate)?;
    let (key_path, key) = read(&written.key)?;
    let ocsp = written.ocsp.as_ref().map(|path| Ok((path, read(path)?))).transpose()?;
    let mut certificate =
        assemble(&certificate_path, &certificate, &key_path, &key, provider).map_err(|error| {
            error.at(if error.is_about_key() { written.key.span() } else { written.certificate.span() })
        })?;
    warn_of_open_key(&key_path);
    if let Some((place, (path, answer))) = ocsp {
        if !is_good_ocsp(&answer) {
            return Err(Error::BadOcsp(path).at(place.span()));
        }
        Arc::get_mut(&mut certificate.key).expect("it was just made, and nobody else has it").ocsp =
            Some(answer);
    }
    Ok(certificate)
}

/// Makes a certificate of what is in its files.
pub(super) fn assemble(
    path: &Path,
    certificate: &[u8],
    key_path: &Path,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Certificate, Error> {
    let chain = certificates(path, certificate)?;
    let bad = |reason| Error::BadCertificate { path: path.to_owned(), reason };
    let particulars = names::read(&chain[0]).map_err(bad)?;
    let key =
        CertifiedKey::from_der(chain, private_key(key_path, key)?, provider).map_err(
            |error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    Error::KeyMismatch(key_path.to_owned())
                }
                rustls::Error::InvalidCertificate(error) => bad(sentence(&error)),
                _ => Error::UnknownKey(key_path.to_owned()),
            },
        )?;
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs().cast_signed());
    let path = path.display();
    if now > *particulars.valid.end() {
        tracing::warn!(%path, "the certificate has expired: clients will refuse it");
    } else if now < *particulars.valid.start() {
        tracing::warn!(%path, "the certificate is not valid yet: clients will refuse it");
    }
    if particulars.names.is_empty() {
        tracing::warn!(%path, "the certificate has no subject alternative name: clients will refuse it");
    }
    Ok(Certificate { names: particulars.names, key: Arc::new(key) })
}

/// The first key in a file.
pub(super) fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    // Both forms: PKCS #8, and the headers of RFC 1421 that OpenSSL once wrote.
    let is_encrypted = [&b"ENCRYPTED PRIVATE KEY-----"[..], b"Proc-Type: 4,ENCRYPTED"]
        .iter()
        .any(|mark| memchr::memmem::find(pem, mark).is_some());
    if is_encrypted {
        return Err(Error::EncryptedKey(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| Error::NoKey(path.to_owned()))
}

fn warn_of_open_key(path: &Path) {
    if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0) {
        tracing::warn!(path = %path.display(), "every user of this machine can read the private key");
    }
}

/// Whether this is an `OCSPResponse` that was successful (RFC 6960, section 4.2.1).
fn is_good_ocsp(answer: &[u8]) -> bool {
    use x509_parser::der_parser::ber::BerObjectContent;
    let Ok(([], sequence)) = x509_parser::der_parser::parse_der(answer) else { return false };
    let BerObjectContent::Sequence(fields) = sequence.content else { return false };
    fields.len() == 2 && matches!(fields[0].content, BerObjectContent::Enum(0))
}

/// The certificates of a listener, by name.
#[derive(Debug)]
pub(super) struct Certificates {
    list: Vec<Certificate>,
    /// Places in `list`; there may be several of different kinds for a name.
    exact: HashMap<String, Places>,
    below: HashMap<String, Places>,
    /// For clients that ask for no name, or for one that is not there.
    default: Places,
}

type Places = SmallVec<[usize; 2]>;

impl Certificates {
    /// The first of the list is the default, together with others of its names.
    pub fn new(list: Vec<Certificate>) -> Self {
        let (mut exact, mut below) = (HashMap::<_, Places>::new(), HashMap::<_, Places>::new());
        for (place, certificate) in list.iter().enumerate() {
            for name in &certificate.names.exact {
                exact.entry(name.clone()).or_default().push(place);
            }
            for name in &certificate.names.below {
                below.entry(name.clone()).or_default().push(place);
            }
        }
        let like_the_first = |(place, certificate): (usize, &Certificate)| {
            (certificate.names == list[0].names).then_some(place)
        };
        let default = list.iter().enumerate().filter_map(like_the_first).collect();
        Self { exact, below, default, list }
    }

    /// Those for a name, which is in lower case: exact before wildcard before default.
    fn find(&self, name: Option<&str>) -> &[usize] {
        let find = |name: &str| {
            let below = || self.below.get(name.split_once('.')?.1);
            self.exact.get(name).or_else(below)
        };
        name.and_then(find).unwrap_or(&self.default)
    }

    /// Whether a connection that was opened for the name `opened_for` is good for this host, too.
    pub fn are_for(&self, opened_for: &str, host: &str) -> bool {
        self.find(Some(opened_for)).iter().any(|&place| self.list[place].names.cover(host))
    }

    /// Of those for a name the first whose signature the client can verify.
    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let places = self.find(name);
        let can_verify = |&&place: &&usize| self.list[place].key.key.choose_scheme(schemes).is_some();
        let place = places.iter().find(can_verify).or(places.first())?;
        Some(&self.list[*place].key)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name(), hello.signature_schemes()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384};

    use super::*;
    use crate::tls::provider;

    fn certificate(names: &[&str], kind: &'static rcgen::SignatureAlgorithm) -> Certificate {
        let key = KeyPair::generate_for(kind).unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        let (certificate, key) = (certificate.pem(), key.serialize_pem());
        let path = Path::new("test.pem");
        assemble(path, certificate.as_bytes(), path, key.as_bytes(), &provider()).unwrap()
    }

    fn place(certificates: &Certificates, name: Option<&str>, schemes: &[SignatureScheme]) -> usize {
        let chosen = certificates.choose(name, schemes).unwrap();
        certificates.list.iter().position(|certificate| Arc::ptr_eq(&certificate.key, chosen)).unwrap()
    }

    #[test]
    fn the_name_chooses_exact_before_wildcard_before_default() {
        let kind = &PKCS_ECDSA_P256_SHA256;
        let certificates = Certificates::new(vec![
            certificate(&["default.test"], kind),
            certificate(&["*.example.test"], kind),
            certificate(&["exact.example.test", "other.test"], kind),
        ]);
        let schemes = [SignatureScheme::ECDSA_NISTP256_SHA256];
        for (name, wanted) in [
            (None, 0),
            (Some("unknown.test"), 0),
            (Some("default.test"), 0),
            (Some("x.example.test"), 1),
            (Some("x.y.example.test"), 0),
            (Some("example.test"), 0),
            (Some("exact.example.test"), 2),
            (Some("other.test"), 2),
        ] {
            assert_eq!(place(&certificates, name, &schemes), wanted, "{name:?}");
        }
    }

    #[test]
    fn a_client_gets_a_certificate_that_it_can_verify() {
        let names = ["twice.test"];
        let certificates = Certificates::new(vec![
            certificate(&names, &PKCS_ECDSA_P384_SHA384),
            certificate(&names, &PKCS_ECDSA_P256_SHA256),
        ]);
        let (p256, p384) = (SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384);
        for name in [None, Some("twice.test")] {
            assert_eq!(place(&certificates, name, &[p256, p384]), 0, "{name:?}");
            assert_eq!(place(&certificates, name, &[p256]), 1, "{name:?}");
            assert_eq!(place(&certificates, name, &[SignatureScheme::RSA_PSS_SHA256]), 0, "{name:?}");
        }
    }

    #[test]
    fn a_connection_is_good_for_the_names_of_the_certificate_it_got() {
        let kind = &PKCS_ECDSA_P256_SHA256;
        let certificates = Certificates::new(vec![
            certificate(&["a.test", "b.test"], kind),
            certificate(&["*.c.test"], kind),
        ]);
        for (opened_for, host, is_good) in [
            ("a.test", "b.test", true),
            ("a.test", "x.c.test", false),
            ("x.c.test", "y.c.test", true),
            ("x.c.test", "a.test", false),
            ("unknown.test", "a.test", true),
            ("unknown.test", "x.c.test", false),
        ] {
            assert_eq!(certificates.are_for(opened_for, host), is_good, "{opened_for} {host}");
        }
    }

    #[test]
    fn a_good_answer_of_a_responder_is_told_from_others() {
        assert!(is_good_ocsp(b"\x30\x07\x0a\x01\x00\xa0\x02\x30\x00"));
        for answer in
            [&b""[..], b"garbage", b"\x30\x03\x0a\x01\x06", b"\x30\x07\x0a\x01\x00\xa0\x02\x30\x00!"]
        {
            assert!(!is_good_ocsp(answer), "{answer:?}");
        }
    }
}
