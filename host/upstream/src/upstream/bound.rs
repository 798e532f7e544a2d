//! Which connections to endpoints belong to one client?
//!
//! NTLM, and Negotiate as it is used on the web, authenticate a connection and not a request (RFC 4559, section 6):
//! whatever comes over it afterwards is taken for the word of whoever has logged in. From the first request with such
//! credentials on, a connection carries the requests of that client alone, and ends with it; and the client's requests
//! go where its connection leads.

use std::{cell::RefCell, rc::Rc};

use http::{HeaderMap, HeaderValue, header};
use smallvec::SmallVec;

/// A connection of a client, as far as connections to endpoints may be bound to it.
#[derive(Debug, Default)]
pub struct Client {
    /// The endpoints that it may have connections of its own to, by id.
    endpoints: RefCell<SmallVec<[u64; 2]>>,
}

impl Client {
    pub(super) fn bind(self: &Rc<Self>, endpoint: u64) {
        let mut endpoints = self.endpoints.borrow_mut();
        if !endpoints.contains(&endpoint) {
            endpoints.push(endpoint);
        }
    }

    pub fn is_bound_to(&self, endpoint: u64) -> bool {
        self.endpoints.borrow().contains(&endpoint)
    }

    /// The endpoints that it may have connections of its own to, by id.
    pub fn endpoints(&self) -> SmallVec<[u64; 2]> {
        self.endpoints.borrow().clone()
    }
}

/// Whether these credentials are those of the connection that they come over.
pub fn authenticates_connection(headers: &HeaderMap) -> bool {
    let is_of_connection = |credentials: &HeaderValue| {
        let credentials = credentials.as_bytes();
        [&b"ntlm"[..], b"negotiate", b"nego2"].iter().any(|scheme| {
            let rest = credentials.get(scheme.len()..);
            let is_one = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "));
            is_one && credentials[..scheme.len()].eq_ignore_ascii_case(scheme)
        })
    };
    headers.get_all(header::AUTHORIZATION).iter().any(is_of_connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_connection_are_told_from_those_of_a_request() {
        for (credentials, expected) in [
            ("NTLM TlRMTVNTUAAB", true),
            ("negotiate YII", true),
            ("Negotiate", true),
            ("Nego2 x", true),
            ("Basic TlRMTQ==", false),
            ("Bearer NTLM x", false),
            ("NTLMv9 x", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, credentials.parse().unwrap());
            assert_eq!(authenticates_connection(&headers), expected, "{credentials:?}");
        }
        assert!(!authenticates_connection(&HeaderMap::new()));
    }
}
