//! Who does the client say it is?

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

/// What follows `Basic` (RFC 7617, section 2), as bytes.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) user: Vec<u8>,
    pub(crate) password: Vec<u8>,
}

/// Some clients leave the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Credentials {
    /// Bytes of name and password together. Hashing takes time in proportion to a password.
    const LONGEST: usize = 1024;

    /// Takes the value of `authorization`. None if it holds no name and password.
    pub(crate) fn read(value: &str) -> Option<Self> {
        let (scheme, encoded) = value.split_once(' ')?;
        let encoded = encoded.trim_ascii();
        if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > Self::LONGEST / 3 * 4 {
            return None;
        }
        let decoded = BASE64.decode(encoded).ok()?;
        let colon = decoded.iter().position(|byte| *byte == b':')?;
        // Section 2: control characters are in neither. A NUL would end a password for bcrypt.
        if decoded.iter().any(u8::is_ascii_control) {
            return None;
        }
        let (user, password) = decoded.split_at(colon);
        Some(Self { user: user.to_vec(), password: password[1..].to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_and_a_password_stand_beside_a_colon() {
        let long = format!("Basic {}", BASE64.encode(format!("a:{}", "b".repeat(2000))));
        for (value, expected) in [
            // RFC 7617, section 2.
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", Some(("Aladdin", "open sesame"))),
            ("bASIC   QWxhZGRpbjpvcGVuIHNlc2FtZQ", Some(("Aladdin", "open sesame"))),
            // Section 2.1.
            ("Basic dGVzdDoxMjPCow==", Some(("test", "123£"))),
            ("Basic YTpiOmM=", Some(("a", "b:c"))),
            ("Basic Og==", Some(("", ""))),
            ("Basic YQ==", None),
            ("Basic YTpiAA==", None),
            ("Basic", None),
            ("Basic ", None),
            ("Basic \u{e9}", None),
            ("Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ==", None),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==, Basic YTpi", None),
            ("", None),
            (&long, None),
        ] {
            let read = Credentials::read(value);
            let expected =
                expected.map(|(user, password)| Credentials { user: user.into(), password: password.into() });
            assert!(read == expected, "{value}");
        }
    }
}
