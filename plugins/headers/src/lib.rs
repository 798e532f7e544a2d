//! Which headers does a message get, and which does it lose?

mod edits;

use edits::Edits;
use serde::Deserialize;
use tollgate_plugin_sdk::{
    HeaderError, HeaderValue, OnRequest, OnResponse, Plugin, ResponseVerdict, Verdict, config, log, request,
    response, template::Scope,
};

/// What is done to requests and to responses.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Headers {
    #[serde(default)]
    request: Edits,
    #[serde(default)]
    response: Edits,
}

impl Plugin for Headers {
    fn configure(text: &str) -> Result<Self, String> {
        let headers: Self = config::read(text)?;
        headers.request.check("request", Scope::Request)?;
        headers.response.check("response", Scope::Response)?;
        if headers.request.is_empty() && headers.response.is_empty() {
            return Err("`config` changes nothing: write what, such as `config = { response = { remove = [\"server\"] } }`"
                .to_owned());
        }
        Ok(headers)
    }
}

impl OnRequest for Headers {
    fn on_request(&self) -> Verdict {
        self.request.apply(&Request);
        Verdict::Next
    }
}

impl OnResponse for Headers {
    fn on_response(&self) -> ResponseVerdict {
        self.response.apply(&Response);
        ResponseVerdict::Next
    }
}

/// A message whose headers can be changed.
trait Message {
    fn values(&self, name: &str) -> Vec<String>;
    fn set(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError>;
    fn append(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError>;
    fn remove(&self, name: &str) -> Result<(), HeaderError>;

    /// What a change was refused for, which only a value can be that is made from the message itself.
    fn report(&self, name: &str, result: Result<(), HeaderError>) {
        if let Err(error) = result {
            self.complain(name, "was not changed", error.name());
        }
    }

    fn complain(&self, name: &str, outcome: &str, why: &str) {
        log::write(log::Level::Warn, &format!("`{name}` {outcome}: {why}"));
    }
}

struct Request;

impl Message for Request {
    fn values(&self, name: &str) -> Vec<String> {
        request::header_values(name)
    }

    fn set(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        request::set_header(name, value)
    }

    fn append(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        request::append_header(name, value)
    }

    fn remove(&self, name: &str) -> Result<(), HeaderError> {
        request::remove_header(name)
    }
}

struct Response;

impl Message for Response {
    fn values(&self, name: &str) -> Vec<String> {
        response::header_values(name)
    }

    fn set(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        response::set_header(name, value)
    }

    fn append(&self, name: &str, value: &HeaderValue) -> Result<(), HeaderError> {
        response::append_header(name, value)
    }

    fn remove(&self, name: &str) -> Result<(), HeaderError> {
        response::remove_header(name)
    }
}

tollgate_plugin_sdk::export!(Headers: OnRequest, OnResponse);
