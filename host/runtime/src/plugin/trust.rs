//! Is a file the one that the operator asked for?

use std::path::Path;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

use super::artifact::Digest;
use crate::config::{PublicKey, Sha256, Signature};

/// What is asked of a file.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    pub sha256: Option<Sha256>,
    /// Who must have signed it.
    pub signer: Option<PublicKey>,
    /// One of these must have signed it; nobody need if there is none.
    pub signers: &'a [PublicKey],
    /// The signature, if it does not stand beside the file.
    pub signature: Option<Signature>,
}

/// Why a file is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    #[error("its SHA-256 is {0}, and another is asked for")]
    OtherDigest(Digest),
    #[error(
        "a signature is asked for, and there is none: write it in base64 into the file of the same name with `.sig` at its end"
    )]
    Unsigned,
    #[error("the signature file is invalid: it takes 64 bytes in base64")]
    NoSignature,
    #[error("it was not signed by whoever is to sign it")]
    NotSigned,
}

impl Demand<'_> {
    /// Whether a signature is asked for.
    pub fn wants_signature(&self) -> bool {
        self.signer.is_some() || !self.signers.is_empty()
    }

    /// Looks at what was read of a file. `beside` is what stands in the file of its signature, if there is one.
    pub fn check(&self, content: &[u8], beside: Option<&[u8]>) -> Result<(), TrustError> {
        if let Some(Sha256(wanted)) = self.sha256 {
            let digest = Digest::of(content);
            if *digest.bytes() != wanted {
                return Err(TrustError::OtherDigest(digest));
            }
        }
        if !self.wants_signature() {
            return Ok(());
        }
        let signature = match (self.signature, beside) {
            (Some(signature), _) => signature,
            (None, Some(text)) => std::str::from_utf8(text)
                .ok()
                .and_then(|text| Signature::read(text.trim()))
                .ok_or(TrustError::NoSignature)?,
            (None, None) => return Err(TrustError::Unsigned),
        };
        let has_signed = |PublicKey(key): &PublicKey| {
            UnparsedPublicKey::new(&ED25519, key).verify(content, &signature.0).is_ok()
        };
        let by_signer = self.signer.as_ref().is_none_or(has_signed);
        let by_any = self.signers.is_empty() || self.signers.iter().any(has_signed);
        if by_signer && by_any { Ok(()) } else { Err(TrustError::NotSigned) }
    }
}

/// The file of a file's signature.
pub fn signature_file(path: &Path) -> std::path::PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".sig");
    name.into()
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn signer(seed: u8) -> (PublicKey, Ed25519KeyPair) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        (PublicKey(pair.public_key().as_ref().try_into().unwrap()), pair)
    }

    #[test]
    fn a_file_is_trusted_if_all_is_as_it_was_asked_for() {
        let ((ours, pair), (others, _)) = (signer(1), signer(2));
        let content = b"a component";
        let signature = Signature(pair.sign(content).as_ref().try_into().unwrap());
        let text = format!("{}\n", STANDARD.encode(signature.0));
        let beside = Some(text.as_bytes());
        let nothing = Demand { sha256: None, signer: None, signers: &[], signature: None };
        let digest = Digest::of(content);
        let right = Some(Sha256(*digest.bytes()));
        let signed = Demand { signer: Some(ours), ..nothing };
        for (demand, content, beside, outcome) in [
            (nothing, &content[..], None, Ok(())),
            (Demand { sha256: right, ..nothing }, content, None, Ok(())),
            (
                Demand { sha256: Some(Sha256([0; 32])), ..nothing },
                content,
                None,
                Err(TrustError::OtherDigest(digest)),
            ),
            (signed, content, beside, Ok(())),
            (Demand { signature: Some(signature), ..signed }, content, None, Ok(())),
            (signed, content, None, Err(TrustError::Unsigned)),
            (signed, content, Some(b"AAAA"), Err(TrustError::NoSignature)),
            (signed, content, Some(b"\xff"), Err(TrustError::NoSignature)),
            (signed, b"another", beside, Err(TrustError::NotSigned)),
            (Demand { signer: Some(others), ..nothing }, content, beside, Err(TrustError::NotSigned)),
            (Demand { signers: &[others, ours], ..nothing }, content, beside, Ok(())),
            (Demand { signers: &[others], ..nothing }, content, beside, Err(TrustError::NotSigned)),
            (Demand { signers: &[others], ..signed }, content, beside, Err(TrustError::NotSigned)),
        ] {
            assert_eq!(demand.check(content, beside), outcome, "{demand:?}");
        }
    }
}
