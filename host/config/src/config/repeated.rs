//! What is said of a key or a table that stands twice?

use std::ops::Range;

use super::Problem;

/// The parser says that a key is there already, and not which or where.
pub(super) fn explain(text: &str, span: Range<usize>) -> Problem {
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
