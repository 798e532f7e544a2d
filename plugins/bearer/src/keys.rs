//! Which key signed a token?

use std::collections::HashSet;

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode, decode_header,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, RSAKeyParameters},
};
use serde_json::Value;

use crate::Claims;

/// The keys that tokens may be signed with.
#[derive(Debug)]
pub struct Keys {
    keys: Vec<Key>,
    /// Why keys of a set that somebody else has written are not among them.
    left_out: Vec<String>,
}

/// Why a token is not one that a key has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unverified {
    /// There is no key of its name and algorithm: others may have one.
    NoKey,
    Wrong(&'static str),
}

impl Unverified {
    /// For the client.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoKey => "there is no key for this token",
            Self::Wrong(reason) => reason,
        }
    }
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl Keys {
    /// Keys tried on a token that does not name its own.
    const TRIES: usize = 4;

    /// Keys taken of a set that somebody else has written.
    const MOST: usize = 64;

    /// Keys looked at in such a set.
    const LOOKED_AT: usize = 256;

    /// Bytes of a token; a request has no room for much more.
    const LONGEST: usize = 16 << 10;

    /// Takes the keys of a JWK set, and a secret. What cannot be used is refused with its place.
    pub fn new(jwks: &[Value], secret: Option<&str>) -> Result<Self, String> {
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
        Ok(Self { keys, left_out: Vec::new() })
    }

    /// Takes a JWK set (RFC 7517, section 5) that somebody else has written: keys in it that are of no use here are left
    /// out, as are secrets, which a set that is fetched has no business with. An error if nothing is left.
    pub fn of_set(text: &[u8]) -> Result<Self, String> {
        #[derive(serde::Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }

        let Ok(Set { keys: written }) = serde_json::from_slice(text) else {
            return Err("is no JWK set (RFC 7517, section 5)".to_owned());
        };
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for (number, key) in written.iter().enumerate().take(Self::LOOKED_AT) {
            if key["kty"] == "oct" || !is_for_signatures(key) {
                continue;
            }
            match Key::of_jwk(key) {
                Ok(key) if keys.len() < Self::MOST => keys.push(key),
                Ok(_) => break,
                Err(reason) if left_out.len() < Self::MOST => {
                    left_out.push(format!("keys[{number}] {reason}"));
                }
                Err(_) => {}
            }
        }
        match keys.is_empty() {
            false => Ok(Self { keys, left_out }),
            true => {
                let first = left_out.first().map(|reason| format!(": {reason}")).unwrap_or_default();
                Err(format!("is no set with a key that can be used{first}"))
            }
        }
    }

    /// Why keys of the set are not used, each with its place.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// The claims of a token that one of the keys has signed. Times and names in it are not looked at.
    pub fn verify(&self, token: &str) -> Result<Claims, Unverified> {
        const NO_TOKEN: Unverified = Unverified::Wrong("this is no token");

        if token.len() > Self::LONGEST {
            return Err(Unverified::Wrong("the token is too long"));
        }
        let header = decode_header(token).map_err(|_| NO_TOKEN)?;
        // RFC 7515, section 4.1.11: what must be understood is not.
        if header.crit.is_some() {
            return Err(Unverified::Wrong("the token asks for more than is offered"));
        }
        let fitting = self.keys.iter().filter(|key| {
            let is_named = header.kid.is_none() || key.id.is_none() || key.id == header.kid;
            is_named && key.algorithms.contains(&header.alg)
        });
        let mut validation = Validation::new(header.alg);
        validation.required_spec_claims = HashSet::new();
        (validation.validate_exp, validation.validate_nbf, validation.validate_aud) = (false, false, false);
        let mut refusal = Unverified::NoKey;
        for key in fitting.take(Self::TRIES) {
            match decode(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => {
                    refusal = match error.kind() {
                        ErrorKind::InvalidSignature => {
                            Unverified::Wrong("the signature of the token is wrong")
                        }
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
        if !is_for_signatures(value) {
            return Err("is not for signatures, as its `use` or `key_ops` says: leave it out".to_owned());
        }
        // What is wrong is not shown, as it may be a secret.
        let no_key = |_: serde_json::Error| "is no key of a kind that is known (RFC 7517)".to_owned();
        let jwk: Jwk = serde_json::from_value(value.clone()).map_err(no_key)?;
        let key = DecodingKey::from_jwk(&jwk).map_err(|_| NO_KEY.to_owned())?;
        let fitting = match &jwk.algorithm {
            AlgorithmParameters::RSA(key) => {
                check_rsa(key)?;
                vec![
                    Algorithm::RS256,
                    Algorithm::RS384,
                    Algorithm::RS512,
                    Algorithm::PS256,
                    Algorithm::PS384,
                    Algorithm::PS512,
                ]
            }
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
        key.can_verify().then_some(key).ok_or_else(|| NO_KEY.to_owned())
    }

    /// Whether a signature can be checked with it: that it is no point of its curve shows only then.
    fn can_verify(&self) -> bool {
        self.algorithms.iter().all(|algorithm| {
            let checked = jsonwebtoken::crypto::verify("AA", b"", &self.key, *algorithm);
            checked.is_ok() || checked.is_err_and(|error| matches!(error.kind(), ErrorKind::InvalidSignature))
        })
    }
}

/// Whether signatures may be checked with a key (RFC 7517, sections 4.2 and 4.3).
fn is_for_signatures(jwk: &Value) -> bool {
    let says = |name: &str, fits: fn(&Value) -> bool| jwk.get(name).is_none_or(fits);
    let verifies = |operations: &Value| {
        operations.as_array().is_some_and(|operations| operations.iter().any(|one| one == "verify"))
    };
    says("use", |purpose| purpose == "sig") && says("key_ops", verifies)
}

/// Bits of an RSA key, at least (RFC 7518, sections 3.3 and 3.5).
const RSA_LEAST: usize = 2048;

/// And at most: a signature by a longer one takes more time than a call has.
const RSA_MOST: usize = 4096;

/// Whether signatures by an RSA key say anything: one of 1,024 bits is factored by whoever pays for it, one of 17 by
/// anybody, and with the exponent 1 a signature is the text itself.
fn check_rsa(key: &RSAKeyParameters) -> Result<(), String> {
    let number = |text: &str| {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| NO_KEY.to_owned())?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Ok::<_, String>(bytes[zeros..].to_vec())
    };
    let (modulus, exponent) = (number(&key.n)?, number(&key.e)?);
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if bits < RSA_LEAST {
        return Err(format!(
            "is an RSA key of {bits} bits, and one of less than {RSA_LEAST} protects nothing (RFC 7518, section 3.3): make a longer one"
        ));
    }
    if bits > RSA_MOST {
        return Err(format!("is an RSA key of {bits} bits, and of more than {RSA_MOST} none is taken"));
    }
    match exponent.as_slice() {
        [] | [1 | 2] => Err(format!("{NO_KEY}: its exponent is less than 3")),
        [.., last] if last % 2 == 0 => Err(format!("{NO_KEY}: its exponent is even")),
        _ => Ok(()),
    }
}

/// What is not said of a key is not shown, as it may be a secret.
const NO_KEY: &str = "is no key (RFC 7518, section 6)";

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

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    use super::Keys;

    #[test]
    fn an_rsa_key_that_protects_nothing_is_none() {
        // What is asked is only how long it is: the product of two primes it need not be.
        let number = |bits: usize| {
            let mut bytes = vec![0xff_u8; bits.div_ceil(8)];
            bytes[0] >>= bytes.len() * 8 - bits;
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        };
        let padded = BASE64_URL_SAFE_NO_PAD.encode([[0_u8; 128], [0xff; 128]].concat());
        for (modulus, exponent, reason) in [
            (number(2048), "AQAB", None),
            (number(4096), "Aw", None),
            (number(2047), "AQAB", Some("an RSA key of 2047 bits")),
            (number(1024), "AQAB", Some("an RSA key of 1024 bits")),
            (padded, "AQAB", Some("an RSA key of 1024 bits")),
            (number(17), "AQAB", Some("an RSA key of 17 bits")),
            (String::new(), "AQAB", Some("an RSA key of 0 bits")),
            (number(4104), "AQAB", Some("an RSA key of 4104 bits")),
            (number(2048), "AQ", Some("exponent is less than 3")),
            (number(2048), "", Some("is no key")),
            (number(2048), "AQAA", Some("exponent is even")),
        ] {
            let key = json!({ "kty": "RSA", "n": modulus, "e": exponent });
            let refusal = Keys::new(std::slice::from_ref(&key), None).err();
            let set = json!({ "keys": [key] }).to_string();
            let of_set = Keys::of_set(set.as_bytes()).err();
            match reason {
                None => assert_eq!((refusal, of_set), (None, None), "{modulus:.8} {exponent}"),
                Some(reason) => {
                    for refusal in [refusal, of_set] {
                        let refusal = refusal.expect(reason);
                        assert!(refusal.contains(reason), "{modulus:.8} {exponent}: {refusal}");
                    }
                }
            }
        }
    }

    #[test]
    fn of_a_set_what_can_be_used_is_taken() {
        let good = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
        let with = |name: &str, value: &str| {
            let mut key = good.clone();
            key[name] = value.into();
            key
        };
        let secret = json!({ "kty": "oct", "k": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY" });
        let keys = json!([
            good,
            with("use", "sig"),
            with("use", "enc"),
            with("key_ops", "verify"),
            with("kty", "new"),
            with("d", "AA"),
            secret,
            7
        ]);
        let taken = |keys: serde_json::Value| Keys::of_set(json!({ "keys": keys }).to_string().as_bytes());
        let taken_keys = taken(keys).expect("two can be used");
        assert_eq!(taken_keys.keys.len(), 2);
        let left_out = taken_keys.left_out();
        assert_eq!(left_out.len(), 3, "{left_out:?}");
        assert!(left_out[1].starts_with("keys[5] is a private key"), "{left_out:?}");
        let mut key = good.clone();
        for (operations, is_taken) in [(json!(["sign", "verify"]), true), (json!(["deriveKey"]), false)] {
            key["key_ops"] = operations;
            assert_eq!(taken(json!([key])).is_ok(), is_taken, "{key}");
        }
        assert!(taken(json!([secret])).is_err());
        assert!(taken(json!([])).is_err());
        for text in ["", "{}", "[]", "{\"keys\":7}", "<html>"] {
            assert!(Keys::of_set(text.as_bytes()).is_err(), "{text}");
        }
    }
}
