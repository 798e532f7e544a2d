//! What is wrong with the configuration, and where?

use std::{error::Error, fmt, ops::Range, path::PathBuf};

use annotate_snippets::{
    AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str as printable,
};

/// What was read, so that a problem can show its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub path: PathBuf,
    pub text: String,
}

impl Source {
    /// The file and the line where a span begins: `config.toml:12`. None if the text has no such place.
    pub fn line_of(&self, span: &Range<usize>) -> Option<String> {
        let before = self.text.get(..span.start)?;
        Some(format!("{}:{}", self.path.display(), before.matches('\n').count() + 1))
    }
}

/// One thing to put right.
///
/// Holds nothing of a value: the line shows what was written, and what a variable stood for may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the source; the whole file if absent.
    pub span: Option<Range<usize>>,
    pub message: String,
    /// How to put it right.
    pub help: Option<String>,
    pub kind: Kind,
}

/// What kind of problem it is, for whoever has more to say of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The table does not have this key.
    UnknownKey(String),
    Other,
}

impl Problem {
    pub fn at(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span: Some(span), message: message.into(), help: None, kind: Kind::Other }
    }

    pub fn general(message: impl Into<String>) -> Self {
        Self { span: None, message: message.into(), help: None, kind: Kind::Other }
    }

    pub fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    fn report<'a>(&self, source: &'a Source) -> Vec<Group<'a>> {
        let path = source.path.to_string_lossy();
        let title = Level::ERROR.primary_title(one_line(&self.message));
        let place = match &self.span {
            Some(span) => title.element(
                Snippet::source(&source.text)
                    .path(path)
                    .annotation(AnnotationKind::Primary.span(span.clone())),
            ),
            None => title.element(Origin::path(path)),
        };
        let help = self.help.as_ref().map(|help| Level::HELP.secondary_title(one_line(&printable(help))));
        [Some(place), help.map(Group::with_title)].into_iter().flatten().collect()
    }
}

/// A quoted key may hold line breaks, which would let it write lines that look like ours.
fn one_line(text: &str) -> String {
    text.replace('\n', "␊")
}

/// Everything wrong with one file, in the order of its lines; never empty.
#[derive(Debug, Clone)]
pub struct Problems {
    source: Source,
    list: Vec<Problem>,
}

impl Problems {
    pub fn new(source: Source, mut list: Vec<Problem>) -> Self {
        for span in list.iter_mut().filter_map(|problem| problem.span.as_mut()) {
            let start = source.text.floor_char_boundary(span.start);
            *span = start..source.text.ceil_char_boundary(span.end).max(start);
        }
        let place = |problem: &Problem| problem.span.as_ref().map(|span| (span.start, span.end));
        list.sort_by(|a, b| (place(a), &a.message).cmp(&(place(b), &b.message)));
        list.dedup();
        Self { source, list }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// The line and the column where a problem begins, in characters, each counted from 1. None if it is about
    /// the whole file.
    pub fn place(&self, problem: &Problem) -> Option<(usize, usize)> {
        let before = self.source.text.get(..problem.span.as_ref()?.start)?;
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Some((line, column))
    }

    /// Each problem with its line underlined, for a terminal or, without colour, for a log.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let reports: Vec<String> =
            self.list.iter().map(|problem| renderer.render(&problem.report(&self.source))).collect();
        reports.join("\n\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.render(false))
    }
}

impl Error for Problems {}
