//! What does a dictionary of structured fields hold?
//!
//! RFC 9651, section 4.2.2, as far as cache directives need it: parameters are checked and dropped.

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Boolean(bool),
    Integer(i64),
    String(String),
    /// Of a kind that no cache directive has.
    Other,
}

/// The members of a dictionary over all lines of its field, the last of a name alone. None if it breaks the rules.
pub fn dictionary<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Vec<(String, Item)>> {
    let text = lines.collect::<Vec<_>>().join(&b","[..]);
    let mut rest = Rest(&text);
    let mut members: Vec<(String, Item)> = Vec::new();
    rest.skip(b" ");
    while !rest.0.is_empty() {
        let name = rest.key()?;
        let value = if rest.take(b'=') {
            if rest.take(b'(') { rest.inner_list()? } else { rest.item()? }
        } else {
            Item::Boolean(true)
        };
        rest.parameters()?;
        members.retain(|(known, _)| *known != name);
        members.push((name, value));
        rest.skip(b" \t");
        if rest.0.is_empty() {
            break;
        }
        if !rest.take(b',') {
            return None;
        }
        rest.skip(b" \t");
        if rest.0.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn skip(&mut self, bytes: &[u8]) {
        let length = self.0.iter().position(|byte| !bytes.contains(byte)).unwrap_or(self.0.len());
        self.0 = &self.0[length..];
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0.strip_prefix(&[byte]) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn take_while(&mut self, holds: impl Fn(u8) -> bool) -> String {
        let length = self.0.iter().position(|&byte| !holds(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.iter().copied().map(char::from).collect()
    }

    fn key(&mut self) -> Option<String> {
        self.0.first().filter(|byte| byte.is_ascii_lowercase() || **byte == b'*')?;
        Some(
            self.take_while(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte)
            }),
        )
    }

    fn parameters(&mut self) -> Option<()> {
        while self.take(b';') {
            self.skip(b" ");
            self.key()?;
            if self.take(b'=') {
                self.item()?;
            }
        }
        Some(())
    }

    fn inner_list(&mut self) -> Option<Item> {
        loop {
            self.skip(b" ");
            if self.take(b')') {
                return Some(Item::Other);
            }
            self.item()?;
            self.parameters()?;
            if !matches!(self.0.first(), Some(b' ' | b')')) {
                return None;
            }
        }
    }

    /// A value without its parameters.
    fn item(&mut self) -> Option<Item> {
        match *self.0.first()? {
            b'-' | b'0'..=b'9' => self.number(),
            b'"' => self.string(),
            b'?' => match self.0 {
                [_, digit @ (b'0' | b'1'), rest @ ..] => {
                    let value = *digit == b'1';
                    self.0 = rest;
                    Some(Item::Boolean(value))
                }
                _ => None,
            },
            b':' => {
                self.take(b':');
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
                self.take(b':').then_some(Item::Other)
            }
            b'@' => {
                self.take(b'@');
                matches!(self.number()?, Item::Integer(_)).then_some(Item::Other)
            }
            first if first.is_ascii_alphabetic() || first == b'*' => {
                self.take_while(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte));
                Some(Item::Other)
            }
            _ => None,
        }
    }

    /// At most 15 digits, or 12 with three more behind a point.
    fn number(&mut self) -> Option<Item> {
        let is_negative = self.take(b'-');
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        if !self.take(b'.') {
            let number: i64 = Some(&digits).filter(|digits| digits.len() <= 15)?.parse().ok()?;
            return Some(Item::Integer(if is_negative { -number } else { number }));
        }
        let fraction = self.take_while(|byte| byte.is_ascii_digit());
        ((1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len())).then_some(Item::Other)
    }

    fn string(&mut self) -> Option<Item> {
        self.take(b'"');
        let mut text = String::new();
        loop {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(Item::String(text)),
                b'\\' => {
                    let (&escaped @ (b'"' | b'\\'), rest) = self.0.split_first()? else { return None };
                    self.0 = rest;
                    text.push(char::from(escaped));
                }
                0x20..=0x7e => text.push(char::from(byte)),
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_is_read_whole_or_not_at_all() {
        let read = |text: &str| {
            let members = dictionary(std::iter::once(text.as_bytes()))?;
            Some(
                members
                    .into_iter()
                    .map(|(name, item)| format!("{name}={item:?}"))
                    .collect::<Vec<_>>()
                    .join(" "),
            )
        };
        for (text, expected) in [
            ("", Some("")),
            ("a", Some("a=Boolean(true)")),
            ("a=1", Some("a=Integer(1)")),
            ("a=-1,b=2", Some("a=Integer(-1) b=Integer(2)")),
            ("a=1\t,\t b", Some("a=Integer(1) b=Boolean(true)")),
            ("a=1, a=2", Some("a=Integer(2)")),
            ("a=?0", Some("a=Boolean(false)")),
            ("a;x=1;y=\"z\";w", Some("a=Boolean(true)")),
            ("a=\"b\\\"c\"", Some("a=String(\"b\\\"c\")")),
            ("a=tok/en", Some("a=Other")),
            ("a=(1 \"b\" c;d);e=2", Some("a=Other")),
            ("a=:aGk=:", Some("a=Other")),
            ("a=@1659578233", Some("a=Other")),
            ("a=1.5", Some("a=Other")),
            ("a=999999999999999", Some("a=Integer(999999999999999)")),
            ("a=1000000000000000", None),
            ("a=", None),
            ("a =1", None),
            ("a= 1", None),
            ("A=1", None),
            ("a=1,", None),
            (",a=1", None),
            ("a=1 b=2", None),
            ("a=\"b", None),
            ("a=\"b\\c\"", None),
            ("a=?2", None),
            ("a=(1", None),
            ("a=1.", None),
            ("&&&&", None),
            ("1a", None),
        ] {
            assert_eq!(read(text).as_deref(), expected, "{text}");
        }
    }
}
