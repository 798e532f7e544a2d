//! What does a text become for the request in hand?

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::{HeaderValue, Lossy, config::is_header_name, request, response};

/// A text with variables in braces, such as `user-{request.header.x-user}`; a brace itself is written twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Variable(Variable),
}

/// What a template can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    Id,
    Method,
    Scheme,
    Authority,
    Path,
    Query,
    ClientAddress,
    Route,
    Upstream,
    RequestHeader(String),
    Note(String),
    Status,
    Endpoint,
    ResponseHeader(String),
    /// What a group of a pattern has matched: its number or its name.
    Capture(String),
}

/// What a template begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning<'a> {
    Text(&'a str),
    Variable(&'a Variable),
}

/// Where a template stands, and so what it may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Request,
    /// There is a response as well.
    Response,
}

impl Template {
    /// What the template becomes, with the value of each variable; what has no value is empty.
    pub fn render(&self, value: impl Fn(&Variable) -> Option<String>) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(variable) => text.push_str(&value(variable).unwrap_or_default()),
            }
        }
        text
    }

    /// The same as the value of a header. What the message has in a header is copied byte for byte; all else is data, and
    /// what of it would arrive as something else is refused. Spaces at the ends are the template's own, and left out.
    pub fn header_value(&self, value: impl Fn(&Variable) -> Option<String>) -> Result<HeaderValue, Lossy> {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Variable(variable) => {
                    let Some(value) = value(variable) else { continue };
                    let is_field =
                        matches!(variable, Variable::RequestHeader(_) | Variable::ResponseHeader(_));
                    let make = if is_field { HeaderValue::of_field } else { HeaderValue::text };
                    text.push_str(make(&value)?.as_str());
                }
            }
        }
        HeaderValue::of_field(text.trim_matches(' '))
    }

    /// Why the text between the variables cannot stand in the value of a header.
    pub fn header_text(&self) -> Result<(), Lossy> {
        self.texts().try_for_each(|text| HeaderValue::text(text.trim_matches(' ')).map(drop))
    }

    /// The text between the variables, in order.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_str()),
            Piece::Variable(_) => None,
        })
    }

    /// What it begins with: text, or what stands in the place of a variable. Nothing of an empty one.
    pub fn beginning(&self) -> Option<Beginning<'_>> {
        self.0.first().map(|piece| match piece {
            Piece::Text(text) => Beginning::Text(text),
            Piece::Variable(variable) => Beginning::Variable(variable),
        })
    }

    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(variable) => Some(variable),
        })
    }

    /// The first variable that has no value in this scope, as it was written. `is_group` says which groups a
    /// pattern has.
    pub fn out_of_scope(&self, scope: Scope, is_group: impl Fn(&str) -> bool) -> Option<String> {
        let is_out = |variable: &&Variable| match variable {
            variable if variable.word().is_some_and(&is_group) => false,
            Variable::Status | Variable::Endpoint | Variable::ResponseHeader(_) => scope == Scope::Request,
            Variable::Capture(group) => !is_group(group),
            _ => false,
        };
        self.variables().find(is_out).map(ToString::to_string)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
                plain.push_str(&from[..1]);
                rest = after;
                continue;
            }
            let name = from.strip_prefix('{').ok_or("a `}` without its `{`: write `}}` for a brace")?;
            let (name, after) =
                name.split_once('}').ok_or("a `{` without its `}`: write `{{` for a brace")?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            let variable = Variable::parse(name).ok_or_else(|| {
                format!(
                    "there is no `{{{name}}}`: it is one of {}",
                    Variable::ALL.map(|name| format!("`{{{name}}}`")).join(", ")
                )
            })?;
            pieces.push(Piece::Variable(variable));
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

impl Variable {
    const ALL: [&str; 15] = [
        "id",
        "method",
        "scheme",
        "authority",
        "path",
        "query",
        "client-address",
        "route",
        "upstream",
        "request.header.<name>",
        "note.<name>",
        "status",
        "endpoint",
        "response.header.<name>",
        "<group>",
    ];

    /// The value in the exchange in hand; of a capture there is none.
    pub fn value(&self) -> Option<String> {
        match self {
            Self::Id => Some(request::id()),
            Self::Method => Some(request::method()),
            Self::Scheme => Some(request::scheme()),
            Self::Authority => Some(request::authority()),
            Self::Path => Some(request::path()),
            Self::Query => request::query(),
            Self::ClientAddress => Some(request::client_address()),
            Self::Route => Some(request::route()),
            Self::Upstream => Some(request::upstream()),
            Self::RequestHeader(name) => request::header(name),
            Self::Note(name) => request::note(name),
            Self::Status => Some(response::status().to_string()),
            Self::Endpoint => response::endpoint(),
            Self::ResponseHeader(name) => response::header(name),
            Self::Capture(_) => None,
        }
    }

    /// The name that a group of a pattern may have as well. The group is meant then, since it is the operator's own.
    pub fn word(&self) -> Option<&str> {
        match self {
            Self::Id => Some("id"),
            Self::Method => Some("method"),
            Self::Scheme => Some("scheme"),
            Self::Authority => Some("authority"),
            Self::Path => Some("path"),
            Self::Query => Some("query"),
            Self::Route => Some("route"),
            Self::Upstream => Some("upstream"),
            Self::Status => Some("status"),
            Self::Endpoint => Some("endpoint"),
            Self::Capture(group) => Some(group),
            Self::ClientAddress | Self::RequestHeader(_) | Self::Note(_) | Self::ResponseHeader(_) => None,
        }
    }

    /// What text of this variable can begin with: a path with a `/`, and a scheme with `http`. None of what can begin
    /// with anything.
    pub fn begins_with(&self) -> Option<&'static str> {
        match self {
            Self::Path => Some("/"),
            Self::Scheme => Some("http"),
            // Of these nothing begins like a path or a URL.
            Self::Id
            | Self::Method
            | Self::Authority
            | Self::Query
            | Self::ClientAddress
            | Self::Status
            | Self::Endpoint
            | Self::Route
            | Self::Upstream => Some(""),
            Self::RequestHeader(_) | Self::Note(_) | Self::ResponseHeader(_) | Self::Capture(_) => None,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let header = |name: &str| is_header_name(name).then(|| name.to_ascii_lowercase());
        Some(match name {
            "id" => Self::Id,
            "method" => Self::Method,
            "scheme" => Self::Scheme,
            "authority" => Self::Authority,
            "path" => Self::Path,
            "query" => Self::Query,
            "client-address" => Self::ClientAddress,
            "route" => Self::Route,
            "upstream" => Self::Upstream,
            "status" => Self::Status,
            "endpoint" => Self::Endpoint,
            _ => match name.split_once('.') {
                Some(("request", rest)) => Self::RequestHeader(header(rest.strip_prefix("header.")?)?),
                Some(("response", rest)) => Self::ResponseHeader(header(rest.strip_prefix("header.")?)?),
                Some(("note", note)) if !note.is_empty() => Self::Note(note.to_owned()),
                None if is_group_name(name) => Self::Capture(name.to_owned()),
                _ => return None,
            },
        })
    }
}

/// Names of groups are numbers, or words with underscores.
fn is_group_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl fmt::Display for Variable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => formatter.write_str("{id}"),
            Self::Method => formatter.write_str("{method}"),
            Self::Scheme => formatter.write_str("{scheme}"),
            Self::Authority => formatter.write_str("{authority}"),
            Self::Path => formatter.write_str("{path}"),
            Self::Query => formatter.write_str("{query}"),
            Self::ClientAddress => formatter.write_str("{client-address}"),
            Self::Route => formatter.write_str("{route}"),
            Self::Upstream => formatter.write_str("{upstream}"),
            Self::RequestHeader(name) => write!(formatter, "{{request.header.{name}}}"),
            Self::Note(name) => write!(formatter, "{{note.{name}}}"),
            Self::Status => formatter.write_str("{status}"),
            Self::Endpoint => formatter.write_str("{endpoint}"),
            Self::ResponseHeader(name) => write!(formatter, "{{response.header.{name}}}"),
            Self::Capture(group) => write!(formatter, "{{{group}}}"),
        }
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(variable: &Variable) -> Option<String> {
        match variable {
            Variable::Capture(group) => Some(format!("<{group}>")),
            Variable::Query => None,
            other => Some(other.to_string().to_uppercase()),
        }
    }

    #[test]
    fn a_template_becomes_a_text() {
        for (template, text) in [
            ("", ""),
            ("plain", "plain"),
            ("{path}", "{PATH}"),
            ("a{method}b{1}c", "a{METHOD}b<1>c"),
            ("{{path}} {path}", "{path} {PATH}"),
            ("{query}?", "?"),
            ("{request.header.X-A}-{response.header.b}", "{REQUEST.HEADER.X-A}-{RESPONSE.HEADER.B}"),
            ("{note.a b}{name_1}", "{NOTE.A B}<name_1>"),
        ] {
            assert_eq!(Template::parse(template).expect(template).render(value), text);
        }
    }

    #[test]
    fn a_header_is_made_of_data_that_arrives_as_it_is() {
        for (template, note, header, made) in [
            ("{note.a}", "ann", "", Ok("ann")),
            ("Bearer {note.a} ", "", "", Ok("Bearer")),
            ("{request.header.x}", "", "\u{e9}\tx", Ok("\u{e9}\tx")),
            ("<{note.a}>", "admin ", "", Err(Lossy::Space)),
            ("{note.a}", "\tadmin", "", Err(Lossy::Control)),
            ("{note.a}", "zo\u{eb}", "", Err(Lossy::NotAscii)),
        ] {
            let value = Template::parse(template).expect(template).header_value(|variable| match variable {
                Variable::Note(_) => Some(note.to_owned()),
                Variable::RequestHeader(_) => Some(header.to_owned()),
                _ => None,
            });
            assert_eq!(
                value.as_ref().map(HeaderValue::as_str),
                made.as_ref().copied(),
                "{template} {note:?}"
            );
        }
        for (template, is_fine) in [("a {path} b", true), ("\u{e9}", false), ("a\tb", false)] {
            assert_eq!(
                Template::parse(template).expect(template).header_text().is_ok(),
                is_fine,
                "{template}"
            );
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, reason) in [
            ("{path", "a `{` without its `}`"),
            ("path}", "a `}` without its `{`"),
            ("{pa th}", "there is no `{pa th}`: it is one of `{id}`"),
            ("{request.x}", "there is no `{request.x}`"),
            ("{request.header.}", "there is no `{request.header.}`"),
            ("{}", "there is no `{}`"),
        ] {
            let refusal = Template::parse(template).expect_err("is refused");
            assert!(refusal.starts_with(reason), "{template}: {refusal}");
        }
    }

    #[test]
    fn variables_are_held_to_their_scope() {
        let out_of = |template: &str, scope| {
            Template::parse(template).expect(template).out_of_scope(scope, |group| group == "1")
        };
        assert_eq!(out_of("{path}{1}", Scope::Request), None);
        assert_eq!(out_of("{status}", Scope::Response), None);
        assert_eq!(out_of("{path}{status}", Scope::Request), Some("{status}".to_owned()));
        assert_eq!(out_of("{2}", Scope::Response), Some("{2}".to_owned()));
        let named = Template::parse("{status}").expect("it is a template");
        assert_eq!(
            named.out_of_scope(Scope::Request, |group| group == "status"),
            None,
            "a group has the name"
        );
    }
}
