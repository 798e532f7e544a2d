//! What is a client told whose request does not pass?

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{Reply, request};

/// A problem document (RFC 9457) as an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub status: u16,
    pub title: String,
    /// One sentence for the client.
    pub detail: String,
    /// Fields beside the document's own.
    pub headers: Vec<(String, String)>,
    /// Members beside the usual ones (RFC 9457, section 3.2).
    pub members: Vec<(String, Value)>,
}

/// The document, whose members are written in this order.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Body<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
    #[serde(flatten)]
    members: BTreeMap<&'a str, &'a Value>,
}

impl Problem {
    pub fn new(status: u16, title: &str, detail: impl Into<String>) -> Self {
        let (title, detail) = (title.to_owned(), detail.into());
        Self { status, title, detail, headers: Vec::new(), members: Vec::new() }
    }

    /// Adds a header to the answer.
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a member to the document.
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.push((name.to_owned(), value.into()));
        self
    }

    /// The answer to the request in hand, with its id.
    pub fn reply(&self) -> Reply {
        self.reply_to(&request::id())
    }

    /// The answer to the request of this id.
    pub fn reply_to(&self, request_id: &str) -> Reply {
        let Self { status, title, detail, headers, members } = self;
        let members = members.iter().map(|(name, value)| (name.as_str(), value)).collect();
        let body = Body { r#type: "about:blank", title, status: *status, detail, request_id, members };
        let own = [("content-type", "application/problem+json"), ("cache-control", "no-store")];
        let own = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Reply {
            status: *status,
            headers: own.chain(headers.iter().cloned()).collect(),
            body: serde_json::to_vec(&body).expect("strings, numbers and JSON can be written as JSON"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Problem;

    #[test]
    fn the_members_of_a_problem_are_in_order() {
        let problem = Problem::new(401, "Unauthorized", "no key").with_member("left", 0);
        assert_eq!(
            String::from_utf8(problem.reply_to("7").body).as_deref(),
            Ok(
                r#"{"type":"about:blank","title":"Unauthorized","status":401,"detail":"no key","request-id":"7","left":0}"#
            )
        );
    }

    #[test]
    fn a_problem_is_json_whatever_the_id_of_the_request() {
        let problem = Problem::new(429, "Too Many Requests", "slow \"down\"")
            .with_header("retry-after", "1")
            .with_member("left", 0);
        for id in ["", "01J", "\"},\\\u{7}\u{e9}"] {
            let reply = problem.reply_to(id);
            let body: serde_json::Value = serde_json::from_slice(&reply.body).expect("is JSON");
            assert_eq!(body["request-id"], id);
            assert_eq!(body["detail"], "slow \"down\"");
            assert_eq!(body["left"], 0);
            assert_eq!(reply.status, 429);
            assert!(reply.headers.contains(&("retry-after".to_owned(), "1".to_owned())));
        }
    }
}
