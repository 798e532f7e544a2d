//! What does a client say it can read?

use http::{HeaderMap, header};

use crate::config::Encoding;

/// `Accept-Encoding`, understood (RFC 9110, section 12.5.3). Weights are thousandths; 0 is "not acceptable".
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accept {
    /// Without the field, anything will do.
    is_said: bool,
    /// In the order of [`Encoding::ALL`]; none for what was not named.
    weights: [Option<u16>; Encoding::ALL.len()],
    identity: Option<u16>,
    /// The weight of `*`.
    others: Option<u16>,
}

impl Accept {
    /// An element that cannot be read makes its encoding unacceptable, and says nothing of `identity`. Of an
    /// encoding that is named twice the lower weight counts.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut accept = Self { is_said: false, weights: Default::default(), identity: None, others: None };
        for value in headers.get_all(header::ACCEPT_ENCODING) {
            accept.is_said = true;
            for element in value.as_bytes().split(|&byte| byte == b',') {
                accept.add(element.trim_ascii());
            }
        }
        accept
    }

    fn add(&mut self, element: &[u8]) {
        let (name, weight) = match element.iter().position(|&byte| byte == b';') {
            Some(index) => {
                (element[..index].trim_ascii_end(), weight(element[index + 1..].trim_ascii_start()))
            }
            None => (element, Some(1000)),
        };
        let index = if name == b"*" {
            &mut self.others
        } else if name.eq_ignore_ascii_case(b"identity") {
            if weight.is_none() {
                return;
            }
            &mut self.identity
        } else if let Some(index) = find(name) {
            &mut self.weights[index]
        } else {
            return;
        };
        let weight = weight.unwrap_or(0);
        *index = Some(index.map_or(weight, |before| before.min(weight)));
    }

    /// Whether the client can read this.
    pub fn takes(&self, encoding: Encoding) -> bool {
        !self.is_said || self.weight(encoding) > 0
    }

    /// Whether the client can read what is not encoded.
    pub fn takes_identity(&self) -> bool {
        self.identity.or(self.others) != Some(0)
    }

    /// What to encode with; none if the client has not asked for any of these, or likes them less than nothing
    /// at all. Of several it likes equally well, the first that is offered.
    pub fn best(&self, offered: &[Encoding]) -> Option<Encoding> {
        let least = self.identity.or(self.others).unwrap_or(0).max(1);
        let mut best = None;
        let mut best_weight = least - 1;
        for &encoding in offered {
            let weight = self.weight(encoding);
            if weight > best_weight {
                (best, best_weight) = (Some(encoding), weight);
            }
        }
        best
    }

    fn weight(&self, encoding: Encoding) -> u16 {
        let index = Encoding::ALL.iter().position(|other| *other == encoding);
        index.and_then(|index| self.weights[index]).or(self.others).unwrap_or(0)
    }
}

/// The encoding of this name: a place in [`Encoding::ALL`].
fn find(name: &[u8]) -> Option<usize> {
    // RFC 9110, section 8.4.1.3.
    let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
    Encoding::ALL.iter().position(|encoding| encoding.name().as_bytes().eq_ignore_ascii_case(name))
}

/// The one encoding that this value of `Content-Encoding` names.
pub(super) fn named(name: &[u8]) -> Option<Encoding> {
    find(name.trim_ascii()).map(|index| Encoding::ALL[index])
}

/// Reads `q=0.5` (RFC 9110, section 12.4.2).
fn weight(parameter: &[u8]) -> Option<u16> {
    let (b"q=" | b"Q=", value) = parameter.split_at_checked(2)? else { return None };
    let (whole, rest) = value.split_first()?;
    let digits = match rest {
        [] => rest,
        [b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => digits,
        _ => return None,
    };
    let thousandths =
        (0..3).fold(0, |sum, index| sum * 10 + digits.get(index).map_or(0, |digit| u16::from(digit - b'0')));
    match whole {
        b'0' => Some(thousandths),
        b'1' if thousandths == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use Encoding::{Brotli, Deflate, Gzip, Zstd};

    fn accept(values: &[&str]) -> Accept {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ACCEPT_ENCODING, value.parse().unwrap());
        }
        Accept::read(&headers)
    }

    #[test]
    fn a_weight_is_written_in_one_way() {
        let good =
            [("q=0", 0), ("q=1", 1000), ("Q=0.5", 500), ("q=0.", 0), ("q=1.", 1000), ("q=1.000", 1000)];
        for (text, wanted) in good.into_iter().chain([("q=0.001", 1), ("q=0.12", 120), ("q=0.999", 999)]) {
            assert_eq!(weight(text.as_bytes()), Some(wanted), "{text}");
        }
        for text in
            ["", "q", "q=", "q =1", "q= 1", "q=1.1", "q=2", "q=0.1234", "q=-0", "q=.5", "q=0,5", "x=1"]
        {
            assert_eq!(weight(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn the_client_gets_what_it_likes_best_and_then_what_is_offered_first() {
        let offered = [Zstd, Brotli, Gzip];
        let cases: [(&[&str], Option<Encoding>); 32] = [
            (&[], None),
            (&[""], None),
            (&[","], None),
            (&["gzip"], Some(Gzip)),
            (&["GZIP"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Zstd)),
            (&["gzip, deflate, br"], Some(Brotli)),
            (&["gzip", "br"], Some(Brotli)),
            (&["gzip;q=1.0, br;q=0.9"], Some(Gzip)),
            (&["gzip ; q=0.5 , br\t;\tq=0.4"], Some(Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, br;q=0.001"], Some(Brotli)),
            (&["deflate"], None),
            (&["compress, sdch, dcb"], None),
            (&["*"], Some(Zstd)),
            (&["*;q=0"], None),
            (&["gzip, *;q=0"], Some(Gzip)),
            (&["zstd;q=0, *"], Some(Brotli)),
            (&["gzip;q=0.5, *;q=0.1"], Some(Gzip)),
            // What is liked less than no encoding is not used; equally well is well enough.
            (&["identity, gzip;q=0.5"], None),
            (&["identity;q=0.5, gzip;q=0.5"], Some(Gzip)),
            (&["identity;q=0.5, gzip;q=0.6"], Some(Gzip)),
            (&["gzip;q=0.2, zstd;q=0.1, br;q=0.1, *;q=0.8"], None),
            (&["identity"], None),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip)),
            // What cannot be read is not used, and what is said twice is meant as it was meant worst.
            (&["gzip;q=2, br"], Some(Brotli)),
            (&["gzip;q=high"], None),
            (&["gzip;level=9"], None),
            (&["identity;q=x, gzip;q=0.1"], Some(Gzip)),
            (&["br;q=x, *"], Some(Zstd)),
            (&["gzip;q=0, gzip"], None),
        ];
        for (values, wanted) in cases {
            assert_eq!(accept(values).best(&offered), wanted, "{values:?}");
        }
        assert_eq!(accept(&["gzip, deflate"]).best(&[Deflate, Gzip]), Some(Deflate));
        assert_eq!(accept(&["gzip, deflate"]).best(&[]), None);
    }

    #[test]
    fn what_is_encoded_already_is_read_by_whoever_does_not_refuse_it() {
        let cases: [(&[&str], bool, bool); 9] = [
            (&[], true, true),
            (&[""], false, true),
            (&["br"], false, true),
            (&["gzip;q=0.001"], true, true),
            (&["*"], true, true),
            (&["gzip;q=0, *"], false, true),
            (&["identity;q=0"], false, false),
            (&["*;q=0"], false, false),
            (&["*;q=0, identity;q=0.1"], false, true),
        ];
        for (values, takes_gzip, takes_identity) in cases {
            let accept = accept(values);
            assert_eq!(
                (accept.takes(Gzip), accept.takes_identity()),
                (takes_gzip, takes_identity),
                "{values:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_value_is_too_odd(value in "[ -~\t\u{80}-\u{ff}]{0,60}") {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
            let accept = Accept::read(&headers);
            if let Some(encoding) = accept.best(&Encoding::ALL) {
                prop_assert!(accept.takes(encoding));
            }
        }
    }
}
