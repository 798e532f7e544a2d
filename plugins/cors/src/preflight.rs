//! What may the request be that a preflight asks for?

use tollgate_plugin_sdk::content::Method;

/// What preflights are told, made once.
#[derive(Debug)]
pub(crate) struct Preflight {
    methods: String,
    /// The names that may be sent, joined; whatever is asked for, if absent.
    headers: Option<String>,
    max_age: String,
}

impl Preflight {
    pub(crate) fn new(methods: &[Method], headers: Option<&[String]>, max_age: u32) -> Self {
        Self {
            methods: methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
            headers: headers.map(|names| names.join(", ")),
            max_age: max_age.to_string(),
        }
    }

    /// The headers of the answer, to one who asks for these.
    pub(crate) fn headers(&self, asked: Option<&str>) -> Vec<(&'static str, String)> {
        let mut answer = vec![
            ("access-control-allow-methods", self.methods.clone()),
            ("access-control-max-age", self.max_age.clone()),
        ];
        if let Some(headers) = self.headers.as_deref().or(asked).filter(|headers| !headers.is_empty()) {
            answer.push(("access-control-allow-headers", headers.to_owned()));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use tollgate_plugin_sdk::content::Method;

    use super::Preflight;

    #[test]
    fn headers_are_those_of_the_list_or_whatever_is_asked_for() {
        let any = Preflight::new(&[Method::known("GET")], None, 600);
        let these = Preflight::new(&[Method::known("GET")], Some(&["x-a".to_owned(), "x-b".to_owned()]), 600);
        let allowed = |preflight: &Preflight, asked| {
            let headers = preflight.headers(asked);
            headers
                .into_iter()
                .find(|(name, _)| *name == "access-control-allow-headers")
                .map(|(_, value)| value)
        };
        assert_eq!(allowed(&any, Some("x-c")).as_deref(), Some("x-c"));
        assert_eq!(allowed(&any, None), None);
        assert_eq!(allowed(&these, Some("x-c")).as_deref(), Some("x-a, x-b"));
    }
}
