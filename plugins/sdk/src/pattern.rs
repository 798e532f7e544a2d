//! Does a text match, and what do the parts of it become?

use regex_lite::{Captures, Regex};
use serde::{Deserialize, Deserializer, de};

use crate::{
    Template,
    template::{Scope, Variable},
};

/// A regular expression that has to match a whole text, in the syntax of the crate `regex-lite`. It takes time in
/// proportion to the text, whatever it is.
#[derive(Debug, Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// What every text matches.
    pub fn any() -> Self {
        Self(Regex::new("(?s).*").expect("this is a regular expression"))
    }

    /// Bytes of a text that is looked at, so that nobody can have much time spent on one.
    pub const LONGEST: usize = 8 << 10;

    /// Whether the whole text matches; one of more than [`Self::LONGEST`] bytes does not.
    pub fn is_match(&self, text: &str) -> bool {
        text.len() <= Self::LONGEST && self.0.is_match(text)
    }

    /// What a template becomes with what the groups have matched, if the text matches. A group is called by its
    /// number or name, such as `{1}`; other variables are looked up. A group with the name of a variable is meant in the
    /// place of it: in `/item/(?<id>[0-9]+)`, `{id}` is no other.
    pub fn replace(
        &self,
        text: &str,
        template: &Template,
        value: impl Fn(&Variable) -> Option<String>,
    ) -> Option<String> {
        let captures = self.0.captures(text)?;
        Some(template.render(|variable| match variable.word().filter(|word| self.has_group(word)) {
            Some(group) => find(&captures, group).map(str::to_owned),
            None => value(variable),
        }))
    }

    /// The first variable of a template that neither this pattern nor a request has, as it was written.
    pub fn lacks(&self, template: &Template) -> Option<String> {
        template.out_of_scope(Scope::Request, |group| self.has_group(group))
    }

    fn has_group(&self, group: &str) -> bool {
        match group.parse::<usize>() {
            Ok(number) => number < self.0.captures_len(),
            Err(_) => self.0.capture_names().flatten().any(|name| name == group),
        }
    }
}

fn find<'t>(captures: &Captures<'t>, group: &str) -> Option<&'t str> {
    let found = match group.parse() {
        Ok(number) => captures.get(number),
        Err(_) => captures.name(group),
    };
    found.map(|found| found.as_str())
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // By itself first: `a)|(b` would be one in between, and match parts.
        let regex = Regex::new(&text).and_then(|_| Regex::new(&format!("^(?:{text})$")));
        regex.map(Self).map_err(|error| de::Error::custom(format!("is no regular expression: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::Template;

    fn read<T: serde::de::DeserializeOwned>(text: &str) -> T {
        serde_json::from_value(text.into()).expect("it can be read")
    }

    #[test]
    fn a_pattern_matches_whole_texts_and_fills_templates() {
        for (pattern, text, template, result) in [
            ("/old/(.*)", "/old/a/b", "/new/{1}", Some("/new/a/b")),
            ("/old", "/older", "/new", None),
            ("/a|/b", "/ba", "/c", None),
            ("/(?<user>[a-z]+)/(\\d+)", "/ann/7", "/{2}/{user}/{0}", Some("/7/ann//ann/7")),
            ("/(x)?", "/", "/[{1}]", Some("/[]")),
            ("/p", "/p", "{path}", Some("{path}")),
            ("/item/(?<id>[0-9]+)", "/item/7", "/items?id={id}&m={method}", Some("/items?id=7&m={method}")),
            ("/(?<id>x)?", "/", "/[{id}]", Some("/[]")),
        ] {
            let (pattern, template) = (read::<Pattern>(pattern), read::<Template>(template));
            let replaced = pattern.replace(text, &template, |variable| Some(variable.to_string()));
            assert_eq!(replaced.as_deref(), result, "{text}");
        }
    }

    #[test]
    fn groups_that_are_not_there_are_found_in_advance() {
        let pattern: Pattern = read("/(?<user>.)/(.)");
        for (template, lacks) in
            [("{1}{2}{user}{path}{0}", None), ("{3}", Some("{3}")), ("{name}", Some("{name}"))]
        {
            assert_eq!(pattern.lacks(&read(template)).as_deref(), lacks);
        }
    }

    #[test]
    fn a_pattern_is_one_by_itself() {
        for text in ["a)|(b", "a)|(?:b", "(", "[a"] {
            assert!(serde_json::from_value::<Pattern>(text.into()).is_err(), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_too_long_does_not_match() {
        let pattern: Pattern = read("a*");
        assert!(pattern.is_match(&"a".repeat(Pattern::LONGEST)));
        assert!(!pattern.is_match(&"a".repeat(Pattern::LONGEST + 1)));
    }
}
