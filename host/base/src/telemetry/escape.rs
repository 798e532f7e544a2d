//! What would make a line of the log read otherwise than it is?

use std::{borrow::Cow, io, str};

/// The text with what would change how the rest of it looks as escapes, but for what `is_fine`.
pub fn escaped(text: &str, is_fine: impl Fn(char) -> bool) -> Cow<'_, str> {
    let breaks = |character: char| deceives(character) && !is_fine(character);
    if !text.contains(breaks) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match breaks(character) {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line.into()
}

/// Whether a character ends a line, moves the cursor, turns the direction of what follows, or is not seen: with them a line
/// reads otherwise than it is.
fn deceives(character: char) -> bool {
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    character.is_control()
        || matches!(character,
            // Soft hyphen and the Arabic letter mark.
            '\u{ad}' | '\u{61c}'
            // Zero width, and marks of direction; not the joiners, which scripts and emoji need.
            | '\u{200b}' | '\u{200e}' | '\u{200f}'
            // Separators of lines and paragraphs; embeddings, overrides and isolates of direction; what has no sign.
            | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            // Tags.
            | '\u{e0000}'..='\u{e007f}')
}

/// Writes lines in which nothing that comes from outside looks like the end of a line, or turns what stands around it.
pub(super) struct Escaping<W> {
    pub writer: W,
    /// Where lines are JSON, characters are escaped as in its strings.
    pub is_json: bool,
}

impl<W: io::Write> io::Write for Escaping<W> {
    /// Takes a whole line, as a subscriber writes it.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The subscriber has escaped what is ASCII, and colours what is its own by it.
        let text = if line.is_ascii() { None } else { str::from_utf8(line).ok() };
        match text
            .filter(|text| text.contains(|character: char| !character.is_ascii() && deceives(character)))
        {
            None => self.writer.write_all(line)?,
            Some(text) if self.is_json => self.writer.write_all(as_in_json(text).as_bytes())?,
            Some(text) => {
                self.writer.write_all(escaped(text, |character| character.is_ascii()).as_bytes())?;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// RFC 8259, section 7.
fn as_in_json(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match !character.is_ascii() && deceives(character) {
            true => character
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| line.push_str(&format!("\\u{unit:04x}"))),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_reads_as_it_is_whatever_is_in_it() {
        for (line, human, json) in [
            ("uri=/a\n", "uri=/a\n", "uri=/a\n"),
            (
                "\u{1b}[32m INFO\u{1b}[0m uri=/\u{e4}\n",
                "\u{1b}[32m INFO\u{1b}[0m uri=/\u{e4}\n",
                "\u{1b}[32m INFO\u{1b}[0m uri=/\u{e4}\n",
            ),
            ("uri=/a\u{85}b\u{9b}31m\n", "uri=/a\\u{85}b\\u{9b}31m\n", "uri=/a\\u0085b\\u009b31m\n"),
            ("uri=/\u{2028}\u{202e}\n", "uri=/\\u{2028}\\u{202e}\n", "uri=/\\u2028\\u202e\n"),
            ("uri=/\u{e0001}\n", "uri=/\\u{e0001}\n", "uri=/\\udb40\\udc01\n"),
        ] {
            for (is_json, expected) in [(false, human), (true, json)] {
                let mut escaping = Escaping { writer: Vec::new(), is_json };
                escaping.write_all(line.as_bytes()).unwrap();
                assert_eq!(String::from_utf8(escaping.writer).unwrap(), expected);
            }
        }
    }
}
