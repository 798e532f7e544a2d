//! What is wrong with a certificate, in a sentence?

use std::io;

use rustls::CertificateError;

/// The error of a handshake, in which a certificate that is refused is spoken of in words.
pub fn in_words(error: io::Error) -> io::Error {
    let refused = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    match refused {
        Some(rustls::Error::InvalidCertificate(why)) => {
            io::Error::new(error.kind(), format!("invalid peer certificate: {}", sentence(why)))
        }
        _ => error,
    }
}

/// Why a certificate is refused. rustls itself shows the names of its types.
pub(super) fn sentence(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::BadEncoding => "it is not a certificate in DER, or a damaged one",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "it is not valid yet",
        CertificateError::Revoked => "it was revoked",
        CertificateError::UnhandledCriticalExtension => {
            "it has an extension that must be understood, and is not known here"
        }
        CertificateError::UnknownIssuer => {
            "it is not signed by a trusted CA; name its CA, or the certificate itself, with \
             `ca`"
        }
        CertificateError::BadSignature => "its signature is not that of its authority",
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is not valid for the name that was asked for; see `server-name`"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it may not be used for this side of a connection (extended key usage)"
        }
        other => return in_webpki(&other_name(other)),
    };
    words.to_owned()
}

/// What a type of an error is called: `Other(OtherError(CaUsedAsEndEntity))` is `CaUsedAsEndEntity`.
fn other_name(error: &CertificateError) -> String {
    let redacted = format!("{error:?}");
    let innermost = redacted.rsplit('(').next().unwrap_or_default();
    innermost.trim_end_matches(')').to_owned()
}

fn in_webpki(name: &str) -> String {
    let words = match name {
        "CaUsedAsEndEntity" => {
            "it is the certificate of an authority (CA:TRUE), which a server must not show; name this very certificate \
             with `ca` to have it accepted, or make one with CA:FALSE"
        }
        "EndEntityUsedAsCa" => "it was signed by a certificate that is not one of an authority",
        "UnsupportedCertVersion" => {
            "it is of an X.509 version other than 3, which knows no names; make one of version 3 (openssl does when \
             there is an extension, such as -addext subjectAltName=DNS:...)"
        }
        "UnsupportedCriticalExtension" => {
            "it has an extension that must be understood, and is not known here"
        }
        "PathLenConstraintViolated" | "NameConstraintViolation" => {
            "an authority on the way to it was not allowed to sign it"
        }
        "MissingOrMalformedExtensions" => "its extensions are missing or damaged",
        "MaximumSignatureChecksExceeded" | "MaximumPathBuildCallsExceeded" => "its chain is too long",
        other => {
            // A name in words says more than the name.
            let words: String = other
                .chars()
                .flat_map(|c| match c.is_ascii_uppercase() {
                    true => vec![' ', c.to_ascii_lowercase()],
                    false => vec![c],
                })
                .collect();
            return words.trim().to_owned();
        }
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_told_in_the_names_of_types() {
        for (error, part) in [
            (CertificateError::UnknownIssuer, "signed by a trusted CA"),
            (CertificateError::Expired, "has expired"),
            (CertificateError::ApplicationVerificationFailure, "application verification failure"),
        ] {
            assert!(sentence(&error).contains(part), "{}", sentence(&error));
        }
        assert!(in_webpki("CaUsedAsEndEntity").contains("CA:FALSE"));
        assert!(in_webpki("UnsupportedCertVersion").contains("version 3"));
        assert_eq!(in_webpki("InvalidNetworkMaskConstraint"), "invalid network mask constraint");
    }
}
