//! Which key signed a token?

use std::collections::HashSet;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm},
};
use serde_json::Value;

use crate::Claims;

/// The keys that tokens may be signed with.
#[derive(Debug)]
pub(crate) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Keys tried on a token that does not name its own.
    const TRIES: usize = 4;

    /// Bytes of a token; a request has no room for much more.
    const LONGEST: usize = 16 << 10;

    pub(crate) fn new(jwks: &[Value], secret: Option<&str>) -> Result<Self, String> {
        let place = |number: usize, reason: String| format!("`jwks.keys[{number}]` in `config`: {reason}");
        let mut keys = jwks
            .iter()
            .enumerate()
            .map(|(number, jwk)| Key::of_jwk(jwk).map_err(|reason| place(number, reason)))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(secret) = secret {
            let algorithms =
                hmac(secret.len()).map_err(|reason| format!("`secret` in `config`: {reason}"))?;
            keys.push(Key { id: None, algorithms, key: DecodingKey::from_secret(secret.as_bytes()) });
        }
        if keys.is_empty() {
            return Err("`config` has no key: write `secret`, or `jwks = { keys = [...] }`".to_owned());
        }
        Ok(Self(keys))
    }

    /// The claims of a token that one of the keys has signed. Times and names in it are not looked at.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, &'static str> {
        const NO_TOKEN: &str = "this is no token";

        if token.len() > Self::LONGEST {
            return Err("the token is too long");
        }
        let header = decode_header(token).map_err(|_| NO_TOKEN)?;
        // RFC 7515, section 4.1.11: what must be understood is not.
        if header.crit.is_some() {
            return Err("the token asks for more than is offered");
        }
        let fitting = self.0.iter().filter(|key| {
            let is_named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
            is_named && key.algorithms.contains(&header.alg)
        });
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims = HashSet::new();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let mut refusal = "there is no key for this token";
        for key in fitting.take(Self::TRIES) {
            match decode(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => {
                    refusal = match error.kind() {
                        ErrorKind::InvalidSignature => "the signature of the token is wrong",
                        _ => NO_TOKEN,
                    }
                }
            }
        }
        Err(refusal)
    }
}

impl Key {
    fn of_jwk(value: &Value) -> Result<Self, String> {
        let is_symmetric = value["kty"] == "oct";
        if !is_symmetric && !value["d"].is_null() {
            return Err("is a private key: leave `d` and what follows from it out".to_owned());
        }
        // What is wrong is not shown, as it may be a secret.
        let no_key = |_: serde_json::Error| "is no key of a kind that is known (RFC 7517)".to_owned();
        let jwk: Jwk = serde_json::from_value(value.clone()).map_err(no_key)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| "is no key (RFC 7518, section 6)".to_owned())?;
        let fitting = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => vec![
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => Vec::new(),
            },
            AlgorithmParameters::OctetKeyPair(_) => vec![Algorithm::EdDSA],
            AlgorithmParameters::OctetKey(_) => hmac(key.try_get_as_bytes().map_or(0, <[u8]>::len))?,
            // Kinds that are not known yet are none that is offered.
            _ => Vec::new(),
        };
        let algorithms = match jwk.common.key_algorithm {
            Some(only) => fitting.into_iter().filter(|algorithm| is(only, *algorithm)).collect(),
            None => fitting,
        };
        if algorithms.is_empty() {
            return Err("has an algorithm that is not offered".to_owned());
        }
        let key = Self { id: jwk.common.key_id, algorithms, key };
        key.can_verify().then_some(key).ok_or_else(|| "is no key (RFC 7518, section 6)".to_owned())
    }

    /// Whether a signature can be checked with it: that it is no point of its curve shows only then.
    fn can_verify(&self) -> bool {
        self.algorithms.iter().all(|algorithm| {
            let checked = jsonwebtoken::crypto::verify("AA", b"", &self.key, *algorithm);
            checked.is_ok() || checked.is_err_and(|error| matches!(error.kind(), ErrorKind::InvalidSignature))
        })
    }
}

/// The algorithms for a secret of this many bytes (RFC 7518, section 3.2: no shorter than what they make).
fn hmac(length: usize) -> Result<Vec<Algorithm>, String> {
    let all = [(32, Algorithm::HS256), (48, Algorithm::HS384), (64, Algorithm::HS512)];
    let fitting: Vec<Algorithm> =
        all.into_iter().filter(|(least, _)| length >= *least).map(|(_, algorithm)| algorithm).collect();
    match fitting.is_empty() {
        true => Err("is shorter than 32 bytes: make one with `openssl rand -hex 32`".to_owned()),
        false => Ok(fitting),
    }
}

fn is(written: KeyAlgorithm, algorithm: Algorithm) -> bool {
    written.to_string() == format!("{algorithm:?}")
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}
