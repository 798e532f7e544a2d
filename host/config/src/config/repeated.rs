//! What is said of a key or a table that stands twice?

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::Problem;

/// The problem of a key at `span`, in which a parser has met an error, if it stands in the document already. The parser says
/// this as well, in a text, and not where.
pub(super) fn explain(text: &str, document: &DeTable<'_>, span: &Range<usize>) -> Option<Problem> {
    is_repeated(text, document, span).then(|| problem(text, span.clone()))
}

/// Whether there is a whole key at `span`, and the same key before it. A key on the way to another may stand any number of
/// times, as that of a table.
fn is_repeated(text: &str, document: &DeTable<'_>, span: &Range<usize>) -> bool {
    let (Some(before), Some(key), Some(after)) =
        (text.get(..span.start), text.get(span.clone()), text.get(span.end..))
    else {
        return false;
    };
    let unquoted = key.strip_prefix(['"', '\'']).and_then(|key| key.strip_suffix(['"', '\''])).unwrap_or(key);
    let begins = before.trim_end_matches([' ', '\t']).ends_with(['\n', '[', '{', ',', '.'])
        || before.trim().is_empty();
    let after = after.trim_start_matches([' ', '\t']);
    let is_on_the_way = after.starts_with('.');
    let is_in_header = || before.rsplit('\n').next().unwrap_or_default().trim_start().starts_with('[');
    let ends = is_on_the_way || after.starts_with('=') || after.starts_with(']') && is_in_header();
    !key.is_empty()
        && begins
        && ends
        && (stands_before(document, unquoted, span.start, is_on_the_way) || is_header_repeated(text, before))
}

/// Whether the line that follows `before` is a header that stands there already: of two, the document has the second.
fn is_header_repeated(text: &str, before: &str) -> bool {
    let start = before.rfind('\n').map_or(0, |place| place + 1);
    let line = text[start..].lines().next().unwrap_or_default().trim();
    Header::of(line).is_some_and(|header| headers(&text[..start]).any(|(_, other)| other.name == header.name))
}

/// Whether a table, or one in it, has this key before a place; where `of_table`, that of a table.
fn stands_before(table: &DeTable<'_>, name: &str, place: usize, of_table: bool) -> bool {
    fn inside(value: &DeValue<'_>, name: &str, place: usize, of_table: bool) -> bool {
        match value {
            DeValue::Table(table) => stands_before(table, name, place, of_table),
            DeValue::Array(items) => items.iter().any(|item| inside(item.get_ref(), name, place, of_table)),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => false,
        }
    }
    table.iter().any(|(key, value)| {
        let is_it = key.get_ref() == name && key.span().start < place;
        is_it && (!of_table || value.get_ref().is_table()) || inside(value.get_ref(), name, place, of_table)
    })
}

fn problem(text: &str, span: Range<usize>) -> Problem {
    let start = text.get(..span.start).and_then(|before| before.rfind('\n')).map_or(0, |place| place + 1);
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    let before = text.get(..start).unwrap_or_default();
    match Header::of(line) {
        Some(Header { name, is_array: true }) => {
            let below = format!("{name}.");
            let early = headers(before)
                .find(|(_, other)| other.name == name && !other.is_array || other.name.starts_with(&below));
            let Some((number, other)) = early else {
                return Problem::at(span, format!("`{name}` is there already, and not as a list of tables"))
                    .help("write each of them as `[[name]]`");
            };
            let other = other.name;
            if other == name {
                return Problem::at(
                    span,
                    format!("`[{name}]` on line {number} stands once, and `[[{name}]]` repeats it"),
                )
                .help(format!("write `[[{name}]]` on line {number}, too"));
            }
            Problem::at(
                span,
                format!("`[{other}]` on line {number} stands before the `[[{name}]]` that it belongs to"),
            )
            .help(format!("put `[{other}]` below `[[{name}]]`: it is about the one above it"))
        }
        Some(Header { name, is_array: false }) => {
            let first = headers(before).find(|(_, other)| other.name == name);
            let problem = match &first {
                Some((number, _)) => format!("the table `[{name}]` is there already, on line {number}"),
                None => format!("`{name}` is there already"),
            };
            let is_list = first.is_some_and(|(_, other)| other.is_array);
            Problem::at(span, problem).help(match is_list {
                true => format!("write `[[{name}]]` for another one"),
                false => "put the keys of both into one table".to_owned(),
            })
        }
        None => {
            let key = text.get(span.clone()).unwrap_or_default().trim();
            let table = headers(before).last().map_or(0, |(number, _)| number);
            let lines = before.lines().enumerate().skip(table);
            let is_it = |line: &str| {
                line.trim().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
            };
            let first = lines.filter(|(_, line)| is_it(line)).map(|(place, _)| place + 1).next();
            let problem = match first {
                Some(number) => format!("the key `{key}` is there already, on line {number}"),
                None => format!("the key `{key}` is there already"),
            };
            Problem::at(span, problem).help("remove one of them")
        }
    }
}

/// A line such as `[upstreams.app]` or `[[routes]]`.
struct Header<'a> {
    name: &'a str,
    is_array: bool,
}

impl<'a> Header<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let line = line.strip_prefix('[')?;
        let (line, is_array) = match line.strip_prefix('[') {
            Some(line) => (line, true),
            None => (line, false),
        };
        Some(Self { name: line.split_once(']')?.0.trim(), is_array })
    }
}

/// The headers in a text, each with its line, counted from 1.
fn headers(text: &str) -> impl Iterator<Item = (usize, Header<'_>)> {
    text.lines().enumerate().filter_map(|(place, line)| Some((place + 1, Header::of(line.trim())?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of each error in a text that is about a key that stands twice.
    fn told(text: &str) -> Vec<String> {
        let (document, errors) = DeTable::parse_recoverable(text);
        assert!(!errors.is_empty(), "{text}");
        let problems =
            errors.iter().filter_map(|error| explain(text, document.get_ref(), &error.span().unwrap()));
        problems.map(|problem| problem.message).collect()
    }

    #[test]
    fn a_key_that_stands_twice_is_found_wherever_it_stands() {
        for (text, message) in [
            ("a = 1\na = 2\n", "the key `a` is there already, on line 1"),
            ("a = 1\r\n\"a\" = 2\r\n", "the key `\"a\"` is there already"),
            ("t = { a = 1, a = 2 }\n", "the key `a` is there already"),
            ("[a]\nb = 1\n[a]\nc = 1\n", "the table `[a]` is there already, on line 1"),
            ("[a.b]\nb = 1\n[a . b]\nc = 1\n", "`a . b` is there already"),
            ("a = 1\n[[a]]\n", "`a` is there already, and not as a list of tables"),
            ("a = { b = 1 }\na.c = 2\n", "the key `a` is there already, on line 1"),
        ] {
            assert_eq!(told(text), [message], "{text}");
        }
    }

    #[test]
    fn another_mistake_is_none_of_a_key_that_stands_twice() {
        for text in [
            "a = 1\na.b = 2\n",
            "a = 1\n[a.b]\n",
            "a = 1\nb = a\n",
            "a = 1\nb = [a]\n",
            "a = 1\na b = 2\n",
            "a = 1\n[a\n",
            "a = 1\na\n",
            "a = 1\na: 2\n",
        ] {
            assert_eq!(told(text), [""; 0], "{text}");
        }
    }
}
