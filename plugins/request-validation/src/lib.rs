//! Is this request one that the service behind would ask for?
//!
//! Everything here is said by the head of a request. What its body must be is for the plugin `request-schema`: one that
//! imports `body` may have to wait, with all its requests.

mod rule;
mod settings;

use rule::Wrong;
use serde_json::json;
use settings::Settings;
use tollgate_plugin_sdk::{
    OnRequest, Plugin, Problem, Verdict,
    config::Unchecked,
    content::{ContentType, Method, method_override, parameters},
    request,
};

impl Plugin for Settings {
    fn configure(config: &str) -> Result<Self, String> {
        Self::read(config)
    }
}

impl OnRequest for Settings {
    fn on_request(&self) -> Verdict {
        match self.check(&InHand) {
            Ok(()) => Verdict::Next,
            Err(problem) => Verdict::Reply(problem.reply()),
        }
    }
}

/// The head of a request.
trait Head {
    fn method(&self) -> String;
    fn header(&self, name: &str) -> Option<String>;
    fn header_values(&self, name: &str) -> Vec<String>;
    fn path(&self) -> String;
    fn query(&self) -> Option<String>;
}

struct InHand;

impl Head for InHand {
    fn method(&self) -> String {
        request::method()
    }

    fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    fn header_values(&self, name: &str) -> Vec<String> {
        request::header_values(name)
    }

    fn path(&self) -> String {
        request::path()
    }

    fn query(&self) -> Option<String> {
        request::query()
    }
}

/// What is wrong with a request that there is more than one thing to say of; more are not told.
const MOST: usize = 16;

impl Settings {
    /// What can be wrong as a whole comes first; headers and parameters are told all at once.
    fn check(&self, head: &impl Head) -> Result<(), Problem> {
        let query = head.query();
        if !self.methods.is_empty() {
            let method = head.method();
            if !self.methods.iter().any(|known| known.as_str() == method) {
                let problem = Problem::new(405, "Method Not Allowed", "this method is not allowed here");
                let allow = self.methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
                return Err(problem.with_header("allow", allow));
            }
        }
        if self.method_override == Unchecked::Refuse
            && let Some(by) = method_override(|name| head.header(name), query.as_deref())
        {
            let detail = format!("another method cannot be asked for here, by `{by}`");
            return Err(Problem::new(400, "Bad Request", detail));
        }
        if let Some(most) = self.target {
            let length = head.path().len() + query.as_ref().map_or(0, |query| query.len() + 1);
            if length > most {
                let detail = format!("path and query are longer than {most} bytes");
                return Err(Problem::new(414, "URI Too Long", detail));
            }
        }
        self.check_body(head)?;
        let mut wrong = self.wrong_headers(head);
        wrong.extend(self.wrong_parameters(query.as_deref().unwrap_or_default()));
        let Some(first) = wrong.first() else { return Ok(()) };
        let detail = format!("the {} `{}` {}", first.place.noun(), first.name, first.reason);
        let told = wrong.iter().take(MOST);
        let errors: Vec<_> = told
            .map(|Wrong { place, name, reason }| json!({ "in": place, "name": name, "reason": reason }))
            .collect();
        Err(Problem::new(400, "Bad Request", detail).with_member("errors", errors))
    }

    /// What the head says of the body.
    fn check_body(&self, head: &impl Head) -> Result<(), Problem> {
        let length = head.header("content-length");
        let is_open = length.is_none() && head.header("transfer-encoding").is_some();
        let length: Option<u64> = length.and_then(|length| length.parse().ok());
        if let Some(most) = self.length {
            if length.is_some_and(|length| length > most) {
                let detail = format!("the body is longer than {most} bytes");
                return Err(Problem::new(413, "Content Too Large", detail));
            }
            if is_open {
                let detail = "say how long the body is, in `content-length`";
                return Err(Problem::new(411, "Length Required", detail));
            }
        }
        let has_body = is_open || length.is_some_and(|length| length > 0);
        if self.types.is_empty() || !has_body {
            return Ok(());
        }
        let known = self.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        // RFC 9110, section 15.5.16: what would be accepted.
        let unsupported = |detail: String| {
            Problem::new(415, "Unsupported Media Type", detail).with_header("accept", known.clone())
        };
        let written = head.header("content-type");
        let content_type = written
            .and_then(|written| ContentType::parse(&written))
            .filter(|content| self.types.iter().any(|range| range.includes(content)))
            .ok_or_else(|| unsupported(format!("the body must be of the type {known}")))?;
        match content_type.charset() {
            Some(charset) if !self.charsets.iter().any(|known| known == charset) => Err(unsupported(
                format!("the body must be in one of these character sets: {}", self.charsets.join(", ")),
            )),
            _ => Ok(()),
        }
    }

    fn wrong_headers(&self, head: &impl Head) -> Vec<Wrong> {
        let wrong = |rule: &rule::Rule| rule.wrong(&head.header_values(&rule.name));
        self.headers.iter().filter_map(wrong).collect()
    }

    fn wrong_parameters(&self, query: &str) -> Vec<Wrong> {
        if self.parameters.is_empty() && self.others {
            return Vec::new();
        }
        let found = parameters(query);
        let values = |name: &str| -> Vec<String> {
            found.iter().filter(|(found, _)| found == name).map(|(_, value)| value.clone()).collect()
        };
        let mut wrong: Vec<Wrong> =
            self.parameters.iter().filter_map(|rule| rule.wrong(&values(&rule.name))).collect();
        if !self.others {
            for (name, _) in &found {
                let is_known = self.parameters.iter().any(|rule| rule.name == *name)
                    || wrong.iter().any(|wrong| wrong.name == *name);
                if !is_known && wrong.len() < MOST {
                    wrong.push(Wrong::unknown(name));
                }
            }
        }
        wrong
    }
}

tollgate_plugin_sdk::export!(Settings: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        method: &'static str,
        query: Option<&'static str>,
        headers: &'static [(&'static str, &'static str)],
    }

    const GET: Fake = Fake { method: "GET", query: None, headers: &[] };

    impl Head for Fake {
        fn method(&self) -> String {
            self.method.to_owned()
        }

        fn header(&self, name: &str) -> Option<String> {
            let values = self.header_values(name);
            (!values.is_empty()).then(|| values.join(", "))
        }

        fn header_values(&self, name: &str) -> Vec<String> {
            self.headers
                .iter()
                .filter(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
                .collect()
        }

        fn path(&self) -> String {
            "/items".to_owned()
        }

        fn query(&self) -> Option<String> {
            self.query.map(str::to_owned)
        }
    }

    const CONFIG: &str = r#"{
        "methods": ["GET", "POST"], "target": 40, "length": "1KiB",
        "content-types": ["application/json", "text/*"],
        "headers": { "X-Tenant": { "pattern": "[a-z]+", "required": false } },
        "query": { "page": "[0-9]+", "tag": { "many": true, "required": false, "pattern": "[a-z ]*" } },
        "other-parameters": false
    }"#;

    #[test]
    fn each_thing_that_is_wrong_has_its_status() {
        let settings = Settings::read(CONFIG).expect("the configuration is valid");
        let fine = Fake { query: Some("page=1"), ..GET };
        for (head, expected) in [
            (fine, Ok(())),
            (Fake { method: "DELETE", ..GET }, Err((405, "this method"))),
            (Fake { method: "get", ..GET }, Err((405, "this method"))),
            (
                Fake { query: Some("page=1&tag=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), ..GET },
                Err((414, "path and query are longer than 40 bytes")),
            ),
            (
                Fake { headers: &[("content-length", "1025")], ..GET },
                Err((413, "the body is longer than 1024 bytes")),
            ),
            (Fake { headers: &[("transfer-encoding", "chunked")], ..GET }, Err((411, "say how long"))),
            (
                Fake { headers: &[("content-length", "1"), ("content-type", "application/xml")], ..GET },
                Err((415, "the body must be of the type application/json, text/*")),
            ),
            (Fake { headers: &[("content-length", "1")], ..GET }, Err((415, "the body must be"))),
            (
                Fake {
                    query: Some("page=1"),
                    headers: &[("content-length", "0"), ("content-type", "x/y")],
                    ..GET
                },
                Ok(()),
            ),
            (
                Fake {
                    method: "POST",
                    query: Some("page=1"),
                    headers: &[("content-length", "1024"), ("content-type", "Text/Plain; charset=utf-8")],
                },
                Ok(()),
            ),
            (
                Fake {
                    headers: &[("content-length", "1"), ("content-type", "application/json;text/html")],
                    ..GET
                },
                Err((415, "the body must be of the type")),
            ),
            (
                Fake {
                    headers: &[
                        ("content-length", "1"),
                        ("content-type", "application/json"),
                        ("content-type", "text/plain"),
                    ],
                    ..GET
                },
                Err((415, "the body must be of the type")),
            ),
            (
                Fake {
                    headers: &[("content-length", "1"), ("content-type", "application/json; charset=utf-7")],
                    ..GET
                },
                Err((415, "the body must be in one of these character sets: utf-8, us-ascii")),
            ),
            (
                Fake { query: Some("page=1"), headers: &[("x-http-method-override", "DELETE")], ..GET },
                Err((400, "another method cannot be asked for here, by `x-http-method-override`")),
            ),
            (Fake { query: Some("page=1&_method=DELETE"), ..GET }, Err((400, "another method cannot"))),
            (GET, Err((400, "the query parameter `page` is missing"))),
            (
                Fake { query: Some("page"), ..GET },
                Err((400, "the query parameter `page` is not as it must be")),
            ),
            (
                Fake { query: Some("page=1&page=2"), ..GET },
                Err((400, "the query parameter `page` is there more")),
            ),
            (Fake { query: Some("%70age=%31&tag=a+b&tag=%20"), ..GET }, Ok(())),
            (
                Fake { query: Some("page=1&tag=%ff"), ..GET },
                Err((400, "the query parameter `tag` is not as")),
            ),
            (
                Fake { query: Some("page=1&x=1"), ..GET },
                Err((400, "the query parameter `x` is not known here")),
            ),
            (
                Fake { query: Some("page=1"), headers: &[("x-tenant", "A")], ..GET },
                Err((400, "the header `x-tenant` is not as it must be")),
            ),
            (
                Fake { query: Some("page=1"), headers: &[("x-tenant", "a"), ("x-tenant", "b")], ..GET },
                Err((400, "the header `x-tenant` is there more than once")),
            ),
        ] {
            let name = format!("{} {:?} {:?}", head.method, head.query, head.headers);
            let found = settings.check(&head).map_err(|problem| (problem.status, problem.detail));
            match (found, expected) {
                (Ok(()), Ok(())) => {}
                (Err((status, detail)), Err((expected, words))) => {
                    assert_eq!(status, expected, "{name}");
                    assert!(detail.starts_with(words), "{name}: {detail}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_is_wrong_is_told_all_at_once_and_has_an_end() {
        let settings = Settings::read(CONFIG).expect("the configuration is valid");
        let head = Fake { query: Some("page=x&a&b&a"), headers: &[("x-tenant", "A")], ..GET };
        let problem = settings.check(&head).expect_err("there is something wrong");
        assert_eq!(
            problem.members,
            [(
                "errors".to_owned(),
                json!([
                    { "in": "header", "name": "x-tenant", "reason": "is not as it must be" },
                    { "in": "query", "name": "page", "reason": "is not as it must be" },
                    { "in": "query", "name": "a", "reason": "is not known here" },
                    { "in": "query", "name": "b", "reason": "is not known here" },
                ])
            )]
        );
        let settings = Settings::read(r#"{"other-parameters":false}"#).expect("the configuration is valid");
        let long = "a&b&c&d&e&f&g&h&i&j&k&l&m&n&o&p&q&r&s&t&u&v";
        let problem =
            settings.check(&Fake { query: Some(long), ..GET }).expect_err("there is something wrong");
        assert_eq!(problem.members[0].1.as_array().map(Vec::len), Some(MOST));
    }
}
