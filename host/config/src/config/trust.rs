//! What the operator asks of a file before it is loaded as a plugin.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer};

use super::shape::written;

/// A SHA-256, written as 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sha256(pub [u8; 32]);

/// A public key of Ed25519 (RFC 8032), written in base64: its 32 bytes, or those of its SubjectPublicKeyInfo (RFC 8410),
/// which is what stands between the lines of a PEM file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

/// A signature of Ed25519, written in base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl Sha256 {
    /// Reads it as it is written.
    pub fn read(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? * 16 + digit(*low)?) as u8);
        let bytes: Vec<u8> = pairs.iter().map(byte).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self(bytes.try_into().ok()?))
    }
}

impl PublicKey {
    /// What stands before the key in a SubjectPublicKeyInfo of Ed25519 (RFC 8410, section 4).
    const INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

    fn read(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text).ok()?;
        let key = bytes.strip_prefix(&Self::INFO[..]).unwrap_or(&bytes);
        Some(Self(key.try_into().ok()?))
    }
}

impl Signature {
    /// Reads it as it is written.
    pub fn read(text: &str) -> Option<Self> {
        Some(Self(STANDARD.decode(text).ok()?.try_into().ok()?))
    }
}

impl std::fmt::Display for Signature {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&STANDARD.encode(self.0))
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer, "a SHA-256 of 64 hexadecimal digits, as `sha256sum` prints it", Self::read)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(
            deserializer,
            "a public key of Ed25519 in base64, what stands between the lines that `openssl pkey -in key.pem -pubout` prints",
            Self::read,
        )
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer, "a signature of Ed25519, 64 bytes in base64", Self::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_its_bytes_or_what_stands_in_a_pem_file() {
        let bare = STANDARD.encode([7; 32]);
        let info = STANDARD.encode([&PublicKey::INFO[..], &[7; 32]].concat());
        assert_eq!(PublicKey::read(&bare), Some(PublicKey([7; 32])));
        assert_eq!(PublicKey::read(&info), Some(PublicKey([7; 32])));
        for bad in ["", "AAAA", &STANDARD.encode([7; 33]), "not base64!"] {
            assert_eq!(PublicKey::read(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_digest_is_64_digits() {
        assert_eq!(
            Sha256::read(&"0aF1".repeat(16)),
            Some(Sha256([0x0a, 0xf1].repeat(16).try_into().expect("32")))
        );
        for bad in ["", "0a", &"0g".repeat(32), &"0".repeat(63), &"0".repeat(66), "ä"] {
            assert_eq!(Sha256::read(bad), None, "{bad}");
        }
    }
}
