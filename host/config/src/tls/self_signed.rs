//! What is shown where nobody vouches for anything?
//!
//! A certificate that has signed itself, for development. It is kept between starts, so that it need be trusted
//! once.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
use rustls::crypto::CryptoProvider;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use super::{
    Error,
    certificate::{Certificate, assemble},
    certificates, names,
};
use crate::{config::CertificateName, file, private};

/// How long a certificate is valid, and how long before its end another is made.
const VALID: Duration = Duration::from_secs(365 * DAY);
const RENEWED: Duration = Duration::from_secs(30 * DAY);
const DAY: u64 = 24 * 60 * 60;

/// A certificate for these names: the one that is kept in the folder, or one that is made and kept there. With it
/// its file, unless it could not be kept.
pub(super) fn obtain(
    names: &[CertificateName],
    folder: Option<&Path>,
    provider: &CryptoProvider,
) -> Result<(Certificate, Option<PathBuf>), Error> {
    let mut place = folder.map(|folder| Place::of(names, folder));
    let kept = place.as_ref().and_then(|place| match place.read(provider) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let path = place.certificate.display();
            tracing::warn!(%path, %error, "self-signed certificate not used, making another");
            None
        }
    });
    let certificate = match kept {
        Some(kept) => kept,
        None => {
            let (certificate, key) = make(names)?;
            place = place.filter(|place| {
                let written = place.write(&certificate, &key);
                if let Err(error) = &written {
                    let path = place.certificate.display();
                    tracing::warn!(%path, %error, "cannot keep the self-signed certificate");
                }
                written.is_ok()
            });
            let path = Path::new("(self-signed)");
            assemble(path, certificate.as_bytes(), path, key.as_bytes(), provider)?
        }
    };
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let path = place.map(|place| place.certificate);
    tracing::info!(
        names = names.join(" "),
        sha256 = fingerprint(&certificate.key.cert[0]),
        path = path.as_ref().map(|path| path.display().to_string()),
        "self-signed certificate"
    );
    Ok((certificate, path))
}

/// As browsers show it.
fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

/// The certificate and its key, in PEM.
fn make(names: &[CertificateName]) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Tollgate, self-signed");
    for name in names {
        params.subject_alt_names.push(match name {
            CertificateName::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            CertificateName::Address(address) => SanType::IpAddress(*address),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::from(SystemTime::now());
    // An hour for clocks that go wrong.
    params.not_before = now - Duration::from_secs(60 * 60);
    params.not_after = now + VALID;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Where the certificate for some names is kept.
struct Place {
    folder: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Place {
    fn of(names: &[CertificateName], folder: &Path) -> Self {
        let mut names: Vec<String> = names.iter().map(ToString::to_string).collect();
        names.sort();
        names.dedup();
        let folder = folder.join("self-signed");
        let digest = Sha256::digest(names.join(" "));
        let number: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        // The first of the names, so that people find it.
        let name: String = names
            .first()
            .into_iter()
            .flat_map(|name| name.chars())
            .map(|c| if c.is_ascii_alphanumeric() || c == '.' || c == '-' { c } else { '_' })
            .take(64)
            .collect();
        let file = |kind| folder.join(format!("{name}-{number}.{kind}"));
        Self { certificate: file("pem"), key: file("key"), folder }
    }

    /// What is kept; none if it is too old.
    fn read(&self, provider: &CryptoProvider) -> io::Result<Option<Certificate>> {
        let (certificate, key) = (
            private::read(&self.certificate, file::CERTIFICATES)?,
            private::read(&self.key, file::CERTIFICATES)?,
        );
        let fault = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
        let chain =
            certificates(&self.certificate, &certificate).map_err(|error| fault(error.to_string()))?;
        let particulars = names::read(&chain[0]).map_err(fault)?;
        let soon = SystemTime::now() + RENEWED;
        let soon = soon.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        if soon.cast_signed() > *particulars.valid.end() {
            return Ok(None);
        }
        assemble(&self.certificate, &certificate, &self.key, &key, provider)
            .map(Some)
            .map_err(|error| fault(error.to_string()))
    }

    fn write(&self, certificate: &str, key: &str) -> io::Result<()> {
        private::open_folder(&self.folder)?;
        private::write(&self.key, &[key.as_bytes()])?;
        private::write(&self.certificate, &[certificate.as_bytes()])
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::tls::provider;

    fn names(names: &[&str]) -> Vec<CertificateName> {
        let name = |name: &&str| match name.parse() {
            Ok(address) => CertificateName::Address(address),
            Err(_) => CertificateName::Name((*name).to_owned()),
        };
        names.iter().map(name).collect()
    }

    fn der(certificate: &Certificate) -> &[u8] {
        &certificate.key.cert[0]
    }

    #[test]
    fn what_was_made_is_used_again_for_the_same_names_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let obtain = |wanted: &[&str]| obtain(&names(wanted), Some(folder.path()), &provider()).unwrap().0;
        let first = obtain(&["localhost", "*.test", "::1"]);
        assert_eq!(der(&first), der(&obtain(&["::1", "localhost", "*.test"])));
        assert_ne!(der(&first), der(&obtain(&["localhost"])));
        assert!(first.names.cover("localhost") && first.names.cover("x.test"));

        let files: Vec<_> =
            fs::read_dir(folder.path().join("self-signed")).unwrap().map(Result::unwrap).collect();
        assert_eq!(files.len(), 4);
        for file in files {
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
        }
    }

    #[test]
    fn what_others_could_have_written_or_does_not_fit_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let names = names(&["localhost"]);
        let obtain = || obtain(&names, Some(folder.path()), &provider()).unwrap().0;
        let place = Place::of(&names, folder.path());
        let first = obtain();
        fs::set_permissions(&place.key, fs::Permissions::from_mode(0o666)).unwrap();
        let second = obtain();
        assert_ne!(der(&first), der(&second));
        fs::write(&place.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let third = obtain();
        assert_ne!(der(&second), der(&third));
        fs::write(&place.certificate, "garbage").unwrap();
        let fourth = obtain();
        assert_ne!(der(&third), der(&fourth));
        assert_eq!(der(&fourth), der(&obtain()));
    }

    #[test]
    fn what_ends_soon_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let names = names(&["localhost"]);
        let place = Place::of(&names, folder.path());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = OffsetDateTime::from(SystemTime::now()) + RENEWED - Duration::from_secs(60);
        let old = params.self_signed(&key).unwrap();
        place.write(&old.pem(), &key.serialize_pem()).unwrap();
        let new = obtain(&names, Some(folder.path()), &provider()).unwrap().0;
        assert_ne!(der(&new), &**old.der());
    }
}
