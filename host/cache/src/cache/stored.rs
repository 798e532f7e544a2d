//! What is a stored response?

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    body::StoredBody,
    forms::Encoded,
    policy::{Freshness, Selection},
};

/// A whole response, and when and for whom it may be used. Immutable, but for what is made of its body.
#[derive(Debug, Clone)]
pub struct Stored {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: StoredBody,
    /// What has been made of this body; shared with those that have the same.
    pub encoded: Arc<Encoded>,
    pub freshness: Freshness,
    pub selection: Selection,
    /// What it can be purged by, as its upstream says.
    pub tags: Box<[Box<str>]>,
}

impl Stored {
    /// Bytes it takes in memory, roughly and rather too many.
    pub fn size(&self) -> usize {
        /// What an entry takes beside what is counted.
        const OVERHEAD: usize = 512;
        let fields: usize =
            self.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 96).sum();
        let tags: usize = self.tags.iter().map(|tag| tag.len() + 16).sum();
        let pieces = self.body.pieces().len() * 64;
        OVERHEAD
            + fields
            + tags
            + pieces
            + self.selection.size()
            + self.body.len() as usize
            + self.encoded.size()
    }
}

/// Whether a body of this length is the whole that the fields announce. What is shorter would leave its reader waiting,
/// and what comes next on the connection would be taken for the rest.
pub fn is_whole(headers: &HeaderMap, length: u64) -> bool {
    let digits = |value: &HeaderValue| {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<u64>().ok()
    };
    headers.get_all(header::CONTENT_LENGTH).iter().all(|value| digits(value) == Some(length))
}

/// The fields of a response that are stored: not those that are named, nor any of the hop that it came over.
pub fn storable_headers(headers: &HeaderMap, omitted: &[HeaderName]) -> HeaderMap {
    static OF_THE_HOP: [HeaderName; 11] = [
        header::CONNECTION,
        HeaderName::from_static("keep-alive"),
        header::PROXY_AUTHENTICATE,
        HeaderName::from_static("proxy-authentication-info"),
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("proxy-connection"),
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        // Obsolete, and made here anew if anywhere (RFC 9111, section 5.5).
        header::WARNING,
    ];
    let mut kept = headers.clone();
    for name in OF_THE_HOP.iter().chain(omitted) {
        kept.remove(name);
    }
    kept
}

/// What a response can be purged by: the members of `Cache-Tag`, parted by commas, and of `Surrogate-Key`, parted
/// by spaces. Of each response a hundred at most.
pub fn tags(headers: &HeaderMap) -> Box<[Box<str>]> {
    const MOST: usize = 100;
    let of = |name: &'static str, separator: &'static [char]| {
        let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(move |line| line.split(separator)).map(str::trim).filter(|tag| !tag.is_empty())
    };
    of("cache-tag", &[',']).chain(of("surrogate-key", &[' ', '\t'])).take(MOST).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_as_long_as_was_announced_or_not_whole() {
        for (lengths, length, expected) in [
            (&[][..], 5, true),
            (&["5"], 5, true),
            (&["5"], 4, false),
            (&["4"], 5, false),
            (&["5", "5"], 5, true),
            (&["5", "6"], 5, false),
            (&["5, 5"], 5, false),
            (&["+5"], 5, false),
        ] {
            let headers = lengths
                .iter()
                .map(|length| (header::CONTENT_LENGTH, length.parse().unwrap()))
                .fold(HeaderMap::new(), |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                });
            assert_eq!(is_whole(&headers, length), expected, "{lengths:?} {length}");
        }
    }

    #[test]
    fn tags_stand_in_two_fields() {
        let mut headers = HeaderMap::new();
        headers.append("cache-tag", "a, b,,".parse().unwrap());
        headers.append("cache-tag", "c d".parse().unwrap());
        headers.append("surrogate-key", "e  f".parse().unwrap());
        assert_eq!(tags(&headers).iter().map(|tag| &**tag).collect::<Vec<_>>(), ["a", "b", "c d", "e", "f"]);
    }
}
