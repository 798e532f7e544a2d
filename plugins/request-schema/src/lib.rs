//! Is the body of this request what a JSON Schema says?
//!
//! Apart from `request-validation`, since a plugin that imports `body` may have to wait, with all its requests, and since
//! the validator is most of this component.

mod schema;

use schema::{Schema, Wrong};
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_plugin_sdk::{Document, OnRequest, Plugin, Problem, Verdict, body, config, request};

struct RequestSchema {
    schema: Schema,
    methods: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    schema: Written,
    /// Whose bodies are looked at.
    #[serde(default = "usual_methods")]
    methods: Vec<String>,
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

fn usual_methods() -> Vec<String> {
    ["POST", "PUT", "PATCH"].map(str::to_owned).to_vec()
}

impl Plugin for RequestSchema {
    fn configure(text: &str) -> Result<Self, String> {
        let Config { schema, methods, formats } = config::read(text)?;
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
        Ok(Self { schema: Schema::new(schema, formats).map_err(place)?, methods })
    }
}

impl OnRequest for RequestSchema {
    fn on_request(&self) -> Verdict {
        if !self.methods.contains(&request::method()) {
            return Verdict::Next;
        }
        let checked = match body::request_body() {
            Ok(content) => {
                let is_plain = request::header("content-encoding")
                    .is_none_or(|encoding| encoding.trim_ascii().eq_ignore_ascii_case("identity"));
                self.check(&content, is_plain)
            }
            Err(error) => Err(unread(error)),
        };
        match checked {
            Ok(()) => Verdict::Next,
            Err(problem) => Verdict::Reply(problem.reply()),
        }
    }
}

impl RequestSchema {
    /// Looks at a body, which is there as it was sent.
    fn check(&self, content: &[u8], is_plain: bool) -> Result<(), Problem> {
        if !is_plain {
            let problem = Problem::new(415, "Unsupported Media Type", "the body must not be compressed");
            // RFC 9110, section 12.5.3.
            return Err(problem.with_header("accept-encoding", "identity"));
        }
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
        for (content, is_plain, status) in [
            (&br#"{"id":1}"#[..], true, None),
            (b"{}", true, Some(422)),
            (b"[]", true, Some(422)),
            (b"", true, Some(400)),
            (b"{\"id\":", true, Some(400)),
            (b"{\"id\":1} x", true, Some(400)),
            (b"{\"id\":1,\"id\":2}", true, Some(400)),
            (br#"{"id":[{"a":{"b":1,"\u0062":2}}]}"#, true, Some(400)),
            (br#"{"id":[{"a":1},{"a":1.5e3}],"a":[null,true,"x",-1,18446744073709551615]}"#, true, None),
            (b"\xff", true, Some(400)),
            (&[b'['; 100_000], true, Some(400)),
            (b"{\"id\":1}", false, Some(415)),
        ] {
            let problem = plugin.check(content, is_plain).err();
            assert_eq!(
                problem.map(|problem| problem.status),
                status,
                "{:?}",
                String::from_utf8_lossy(content).get(..20)
            );
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "missing field `schema`"),
            (r#"{"schema":7}"#, "`schema` in `config`: expected a schema"),
            (r#"{"schema":"{"}"#, "`schema` in `config`: is no JSON at line 1"),
            (r#"{"schema":{"type":"objekt"}}"#, "`schema` in `config`: "),
            (r#"{"schema":{"$ref":"https://example.com/other.json"}}"#, "is not in the schema: "),
            (r#"{"schema":{"pattern":"("}}"#, "`/pattern` '(' is not valid regex"),
            (r#"{"schema":{},"methods":[]}"#, "`methods` in `config` is empty"),
        ] {
            let refusal = RequestSchema::configure(config).err().expect(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
