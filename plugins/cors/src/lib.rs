//! May a page of another origin use this API?
//!
//! The CORS protocol of the Fetch standard (<https://fetch.spec.whatwg.org/#http-cors-protocol>): a preflight is
//! answered here and reaches no upstream, and responses say which origin may read them.

mod origins;
mod preflight;

use origins::Origins;
use preflight::Preflight;
use serde::Deserialize;
use tollgate_plugin_sdk::{
    HeaderValue, OnRequest, OnResponse, Plugin, Reply, ResponseVerdict, Verdict, config, content::Method,
    request, response,
};

/// What pages of other origins may do.
#[derive(Debug)]
struct Cors {
    origins: Origins,
    preflight: Preflight,
    /// Whether they may send cookies and read what is sent for them.
    credentials: bool,
    /// The names of headers that they may read, joined.
    expose: Option<HeaderValue>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    origins: Origins,
    #[serde(default = "default_methods")]
    methods: Vec<Method>,
    /// Any, if absent.
    headers: Option<Vec<String>>,
    #[serde(default)]
    expose: Vec<String>,
    #[serde(default)]
    credentials: bool,
    /// In seconds.
    #[serde(default = "default_max_age")]
    max_age: u32,
}

fn default_methods() -> Vec<Method> {
    ["GET", "HEAD", "POST"].map(Method::known).to_vec()
}

fn default_max_age() -> u32 {
    600
}

impl Plugin for Cors {
    fn configure(text: &str) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        if config.credentials && config.origins.is_any() {
            return Err(
                "`credentials` with the origin `*` would open the API to every page in the name of its \
                reader: name the origins"
                    .to_owned(),
            );
        }
        if config.credentials && config.origins.allow("null").is_some() {
            return Err(
                "`credentials` with the origin `null` would open the API in the same way: any page can be \
                `null`, in a frame with `sandbox`"
                    .to_owned(),
            );
        }
        let lists = std::iter::once(("expose", &config.expose));
        let lists = lists.chain(config.headers.as_ref().map(|headers| ("headers", headers)));
        for (key, names) in lists {
            if let Some(place) = names.iter().position(|name| !config::is_header_name(name)) {
                return Err(format!(
                    "`{key}[{place}]` in `config`: is no name; `*` is not needed, leave `{key}` out"
                ));
            }
        }
        let expose = HeaderValue::text(&config.expose.join(", "))
            .map_err(|why| format!("`expose` in `config`: {why}"))?;
        Ok(Self {
            origins: config.origins,
            preflight: Preflight::new(&config.methods, config.headers.as_deref(), config.max_age),
            credentials: config.credentials,
            expose: (!config.expose.is_empty()).then_some(expose),
        })
    }
}

impl OnRequest for Cors {
    fn on_request(&self) -> Verdict {
        if request::method() != "OPTIONS" {
            return Verdict::Next;
        }
        let (Some(origin), Some(_)) =
            (request::header("origin"), request::header("access-control-request-method"))
        else {
            return Verdict::Next;
        };
        let asked = request::header("access-control-request-headers");
        Verdict::Reply(self.answer(&origin, asked.as_deref()))
    }
}

impl OnResponse for Cors {
    fn on_response(&self) -> ResponseVerdict {
        let origin = request::header("origin");
        // A preflight has been answered with all of it.
        if request::method() == "OPTIONS" && request::header("access-control-request-method").is_some() {
            return ResponseVerdict::Next;
        }
        // Refusals leave the response as it is, which a browser keeps from the page.
        for name in ALLOWANCES {
            let _ = response::remove_header(name);
        }
        if self.origins.vary() {
            vary();
        }
        for (name, value) in self.allowances(origin.as_deref()) {
            // An origin that is allowed is one that the configuration names, as ASCII.
            if let Ok(value) = HeaderValue::text(&value) {
                let _ = response::set_header(name, &value);
            }
        }
        if origin.is_some_and(|origin| self.origins.allow(&origin).is_some())
            && let Some(expose) = &self.expose
        {
            let _ = response::set_header("access-control-expose-headers", expose);
        }
        ResponseVerdict::Next
    }
}

/// What an upstream may have said itself, and what is said here instead.
const ALLOWANCES: [&str; 3] =
    ["access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers"];

/// Caches are told that the response depends on the origin (RFC 9110, section 12.5.5).
fn vary() {
    let known = response::header("vary").unwrap_or_default();
    let has =
        known.split(',').any(|name| matches!(name.trim(), "*") || name.trim().eq_ignore_ascii_case("origin"));
    if !has && let Ok(origin) = HeaderValue::text("Origin") {
        let _ = response::append_header("vary", &origin);
    }
}

impl Cors {
    /// What a response says of who may read it.
    fn allowances(&self, origin: Option<&str>) -> Vec<(&'static str, String)> {
        let Some(allowed) = origin.and_then(|origin| self.origins.allow(origin)) else { return Vec::new() };
        let mut headers = vec![("access-control-allow-origin", allowed.to_owned())];
        if self.credentials {
            headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        headers
    }

    /// The answer to a preflight. To an origin that may not come it says nothing, which is a refusal.
    fn answer(&self, origin: &str, asked: Option<&str>) -> Reply {
        let mut headers = self.allowances(Some(origin));
        if !headers.is_empty() {
            headers.extend(self.preflight.headers(asked));
        }
        headers.push((
            "vary",
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers".to_owned(),
        ));
        let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Reply { status: 204, headers, body: Vec::new() }
    }
}

tollgate_plugin_sdk::export!(Cors: OnRequest, OnResponse);

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(config: &str) -> Cors {
        Cors::configure(config).expect("the configuration is valid")
    }

    fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        reply.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_preflight_is_answered_for_an_origin_that_may_come() {
        let cors =
            cors(r#"{"origins":["https://app.example"],"methods":["PUT"],"credentials":true,"max-age":60}"#);
        let reply = cors.answer("https://app.example", Some("X-A, content-type"));
        assert_eq!(reply.status, 204);
        assert_eq!(header(&reply, "access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(header(&reply, "access-control-allow-credentials"), Some("true"));
        assert_eq!(header(&reply, "access-control-allow-methods"), Some("PUT"));
        assert_eq!(header(&reply, "access-control-allow-headers"), Some("X-A, content-type"));
        assert_eq!(header(&reply, "access-control-max-age"), Some("60"));

        let refused = cors.answer("https://evil.example", Some("X-A"));
        assert_eq!(refused.headers.len(), 1, "{refused:?}");
        assert!(header(&refused, "vary").is_some_and(|vary| vary.contains("Origin")));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `origins` is missing"),
            (r#"{"origins":"*","credentials":true}"#, "name the origins"),
            (r#"{"origins":["https://a.example","null"],"credentials":true}"#, "`null`"),
            (r#"{"origins":["app.example"]}"#, "`origins[0]` in `config`"),
            (r#"{"origins":["https://app.example/"]}"#, "`origins[0]` in `config`"),
            (r#"{"origins":"*","methods":["*"," "]}"#, "`methods[1]` in `config`"),
        ] {
            let refusal = Cors::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
