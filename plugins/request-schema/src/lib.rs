//! Is the body of this request what a JSON Schema says?
//!
//! What the schema cannot be held to does not pass either, unless the configuration says so: a body of another method, of
//! another type, in another character set or coding, and a request that asks for another method than its own.
//!
//! Apart from `request-validation`, since a plugin that imports `body` may have to wait, with all its requests, and since
//! the validator is most of this component.

mod schema;

use schema::{Schema, Wrong};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_plugin_sdk::{
    Document, OnRequest, Plugin, Problem, Verdict, body,
    config::{self, Unchecked},
    content::{ContentType, MediaRange, Method, method_override},
    request,
};

struct RequestSchema {
    schema: Schema,
    methods: Vec<Method>,
    types: Vec<MediaRange>,
    other_bodies: Unchecked,
    method_override: Unchecked,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    schema: Written,
    /// Whose bodies are looked at.
    #[serde(default = "usual_methods")]
    methods: Vec<Method>,
    /// Of the bodies that are looked at.
    #[serde(default = "MediaRange::json")]
    content_types: Vec<MediaRange>,
    /// Bodies of requests with another method.
    #[serde(default)]
    other_bodies: Unchecked,
    /// Requests that ask for another method than their own.
    #[serde(default)]
    method_override: Unchecked,
    /// Whether `format` is more than a remark.
    #[serde(default)]
    formats: bool,
}

/// A schema, as a table or as the text of a JSON document.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a schema: a table, or the text of a JSON document")]
enum Written {
    Text(String),
    Table(serde_json::Map<String, Value>),
}

fn usual_methods() -> Vec<Method> {
    ["POST", "PUT", "PATCH"].map(Method::known).to_vec()
}

impl Plugin for RequestSchema {
    fn configure(text: &str) -> Result<Self, String> {
        let Config { schema, methods, content_types, other_bodies, method_override, formats } =
            config::read(text)?;
        let place = |reason: String| format!("`schema` in `config`: {reason}");
        let schema = match schema {
            Written::Table(table) => Value::Object(table),
            Written::Text(text) => serde_json::from_str(&text).map_err(|error| {
                place(format!("is no JSON at line {}, column {}", error.line(), error.column()))
            })?,
        };
        if methods.is_empty() {
            return Err("`methods` in `config` is empty: no body would be looked at".to_owned());
        }
        if content_types.is_empty() {
            return Err("`content-types` in `config` is empty: no body would pass".to_owned());
        }
        let schema = Schema::new(schema, formats).map_err(place)?;
        Ok(Self { schema, methods, types: content_types, other_bodies, method_override })
    }
}

impl OnRequest for RequestSchema {
    fn on_request(&self) -> Verdict {
        match self.look(&request::method()) {
            Ok(()) => Verdict::Next,
            Err(problem) => Verdict::Reply(problem.reply()),
        }
    }
}

impl RequestSchema {
    fn look(&self, method: &str) -> Result<(), Problem> {
        if self.method_override == Unchecked::Refuse {
            overrides(method_override(request::header, request::query().as_deref()))?;
        }
        let is_checked = self.methods.iter().any(|known| known.as_str() == method);
        if !is_checked && self.other_bodies == Unchecked::Pass {
            return Ok(());
        }
        if is_checked {
            // Before the body, which need not come then.
            self.check_head(
                request::header("content-type").as_deref(),
                request::header("content-encoding").as_deref(),
            )?;
        }
        let content = body::request_body().map_err(unread)?;
        match is_checked {
            true => self.check(&content),
            false => no_content(method, &content),
        }
    }

    /// Looks at what is said of the body.
    fn check_head(&self, content_type: Option<&str>, encoding: Option<&str>) -> Result<(), Problem> {
        let known = || self.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        // RFC 9110, section 15.5.16: what would be accepted.
        let unsupported = |detail: String| {
            Problem::new(415, "Unsupported Media Type", detail).with_header("accept", known())
        };
        let Some(written) = content_type else {
            return Err(unsupported("say what the body is, in `content-type`".to_owned()));
        };
        let content_type = ContentType::parse(written)
            .filter(|content| self.types.iter().any(|range| range.includes(content)))
            .ok_or_else(|| unsupported(format!("the body must be of the type {}", known())))?;
        // RFC 8259, section 8.1: JSON is UTF-8. Who reads other characters reads another document.
        if content_type.charset().is_some_and(|charset| !matches!(charset, "utf-8" | "utf8" | "us-ascii")) {
            return Err(unsupported("the body must be in UTF-8".to_owned()));
        }
        if encoding.is_some_and(|encoding| !encoding.trim_ascii().eq_ignore_ascii_case("identity")) {
            let problem = Problem::new(415, "Unsupported Media Type", "the body must not be compressed");
            // RFC 9110, section 12.5.3.
            return Err(problem.with_header("accept-encoding", "identity"));
        }
        Ok(())
    }

    /// Looks at a body, which is there as it was sent.
    fn check(&self, content: &[u8]) -> Result<(), Problem> {
        let Document(document) = serde_json::from_slice(content).map_err(|error| {
            let detail = match content {
                [] => "there is no body, and it must be JSON".to_owned(),
                _ if error.is_data() => {
                    format!(
                        "a name is twice in an object at line {}, column {}",
                        error.line(),
                        error.column()
                    )
                }
                _ => format!("the body is no JSON at line {}, column {}", error.line(), error.column()),
            };
            Problem::new(400, "Bad Request", detail)
        })?;
        self.schema.check(&document).map_err(|wrong| {
            let errors: Vec<Value> = wrong
                .iter()
                .map(|Wrong { pointer, reason }| json!({ "pointer": pointer, "reason": reason }))
                .collect();
            let detail = "the body is not what it must be";
            Problem::new(422, "Unprocessable Content", detail).with_member("errors", errors)
        })
    }
}

/// Refuses what asks for another method: which body that one must have is not known.
fn overrides(by: Option<&str>) -> Result<(), Problem> {
    by.map_or(Ok(()), |by| {
        Err(Problem::new(400, "Bad Request", format!("another method cannot be asked for here, by `{by}`")))
    })
}

/// Refuses a body that nobody looks at. In a `GET` it has no meaning that all would agree on (RFC 9110, section 9.3.1).
fn no_content(method: &str, content: &[u8]) -> Result<(), Problem> {
    match content.is_empty() {
        true => Ok(()),
        false => {
            let method: String = method.chars().take(20).collect();
            Err(Problem::new(400, "Bad Request", format!("a {method} has no body here")))
        }
    }
}

fn unread(error: body::Error) -> Problem {
    match error {
        body::Error::TooLarge => {
            Problem::new(413, "Content Too Large", "the body is too long to be looked at")
        }
        body::Error::TimedOut => Problem::new(408, "Request Timeout", "the body has not come in time"),
        body::Error::Disconnected | body::Error::Unavailable => {
            Problem::new(400, "Bad Request", "the body has not come")
        }
    }
}

tollgate_plugin_sdk::export!(RequestSchema: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_and_what_the_schema_says() {
        let plugin = RequestSchema::configure(r#"{"schema":{"type":"object","required":["id"]}}"#)
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        for (content, status) in [
            (&br#"{"id":1}"#[..], None),
            (b"{}", Some(422)),
            (b"[]", Some(422)),
            (b"", Some(400)),
            (b"{\"id\":", Some(400)),
            (b"{\"id\":1} x", Some(400)),
            (b"{\"id\":1,\"id\":2}", Some(400)),
            (br#"{"id":[{"a":{"b":1,"\u0062":2}}]}"#, Some(400)),
            (br#"{"id":[{"a":1},{"a":1.5e3}],"a":[null,true,"x",-1,18446744073709551615]}"#, None),
            (b"\xff", Some(400)),
            (b"\xef\xbb\xbf{\"id\":1}", Some(400)),
            (b"\0{\0\"\0i\0d\0\"\0:\x001\0}", Some(400)),
            (&[b'['; 100_000], Some(400)),
        ] {
            let problem = plugin.check(content).err();
            assert_eq!(
                problem.map(|problem| problem.status),
                status,
                "{:?}",
                String::from_utf8_lossy(content).get(..20)
            );
        }
    }

    #[test]
    fn what_the_schema_cannot_be_held_to_does_not_pass() {
        let plugin =
            RequestSchema::configure(r#"{"schema":{}}"#).unwrap_or_else(|refusal| panic!("{refusal}"));
        for (content_type, encoding, status) in [
            (Some("application/json"), None, None),
            (Some("application/merge-patch+json; charset=\"UTF-8\""), Some("identity"), None),
            (None, None, Some(415)),
            (Some("application/x-www-form-urlencoded"), None, Some(415)),
            (Some("text/plain"), None, Some(415)),
            (Some("application/json;text/html"), None, Some(415)),
            (Some("application/json, text/html"), None, Some(415)),
            (Some("application/json; charset=utf-16"), None, Some(415)),
            (Some("application/json; charset=utf-8; charset=utf-7"), None, Some(415)),
            (Some("application/json"), Some("gzip"), Some(415)),
            (Some("application/json"), Some("identity, gzip"), Some(415)),
        ] {
            let problem = plugin.check_head(content_type, encoding).err();
            assert_eq!(problem.map(|problem| problem.status), status, "{content_type:?} {encoding:?}");
        }
        assert!(no_content("GET", b"").is_ok());
        assert_eq!(no_content("GET", b"{}").map_err(|problem| problem.status), Err(400));
        assert!(overrides(None).is_ok());
        assert_eq!(overrides(Some("x-http-method")).map_err(|problem| problem.status), Err(400));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `schema` is missing"),
            (r#"{"schema":7}"#, "`schema` in `config`: expected a schema"),
            (r#"{"schema":"{"}"#, "`schema` in `config`: is no JSON at line 1"),
            (r#"{"schema":{"type":"objekt"}}"#, "`schema` in `config`: "),
            (r#"{"schema":{"$ref":"https://example.com/other.json"}}"#, "is not in the schema: "),
            (r#"{"schema":{"pattern":"("}}"#, "`/pattern` '(' is not valid regex"),
            (
                r#"{"schema":{},"methods":["post"]}"#,
                "`methods[0]` in `config`: `post` is a method that no client sends",
            ),
            (r#"{"schema":{},"content-types":[]}"#, "`content-types` in `config` is empty"),
            (
                r#"{"schema":{},"content-types":["json"]}"#,
                "`content-types[0]` in `config`: is not a media type",
            ),
            (
                r#"{"schema":{},"other-bodies":"ignore"}"#,
                "`other-bodies` in `config`: expected `refuse` or `pass`",
            ),
            (r#"{"schema":{},"methods":[]}"#, "`methods` in `config` is empty"),
        ] {
            let refusal = RequestSchema::configure(config).err().expect(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
