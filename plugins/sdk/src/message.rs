//! What may a plugin read and change of the message in hand?
//!
//! The interfaces of the contract, but for the setters of headers: here these take a [`HeaderValue`], so that no text
//! becomes the value of a header unchecked.

/// The request that the running hook is about.
pub mod request {
    use crate::{HeaderError, HeaderValue, bindings::imports::tollgate::policy::request};

    pub use request::{
        authority, client_address, client_certificate, header, header_values, headers, http_version, id,
        method, note, path, query, remove_header, route, scheme, set_note, set_target, upstream,
    };

    /// Replaces all values of a header.
    pub fn set_header(name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        request::set_header(name, value.as_str())
    }

    /// Adds a value to a header.
    pub fn append_header(name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        request::append_header(name, value.as_str())
    }

    /// Sets a header of the response to this request, whoever makes it.
    pub fn set_response_header(name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        request::set_response_header(name, value.as_str())
    }
}

/// The response that the running `on-response` is about.
pub mod response {
    use crate::{HeaderError, HeaderValue, bindings::imports::tollgate::policy::response};

    pub use response::{
        endpoint, from_cache, header, header_values, headers, remove_header, set_status, status,
    };

    /// Replaces all values of a header.
    pub fn set_header(name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        response::set_header(name, value.as_str())
    }

    /// Adds a value to a header.
    pub fn append_header(name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        response::append_header(name, value.as_str())
    }
}
