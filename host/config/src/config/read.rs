//! How does text become a configuration?
//!
//! Syntax first, then variables, then the shape of [`Config`], and every problem of the step is reported.
//! `serde` stops at its first error; so what it complains of is taken out of the tree and it is asked
//! again, until it is content.

use std::{env, io, mem, ops::Range, path::Path};

use serde::de::DeserializeOwned;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    Config, Problem, Problems, Source, foreign,
    mistake::{Kind, known_keys},
    renamed::{Renamed, rename},
    repeated, slip,
    value::Value,
};
use crate::file;

/// More problems than anybody reads; bounds the work that a file of nonsense makes.
const MOST: usize = 100;

/// What gives variables their values.
pub type Environment = dyn Fn(&str) -> Option<String>;

/// Reads the file, with variables from the environment of the process.
pub fn read(path: &Path) -> Result<(Config, Source), Problems> {
    let only = |problem, text| Problems::new(Source { path: path.to_owned(), text }, vec![problem]);
    let bytes =
        file::read(path, file::CONFIGURATION).map_err(|error| only(unreadable(&error), String::new()))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        only(Problem::at(at..at + 1, "this is not UTF-8").help("save the file as text in UTF-8"), text)
    })?;
    read_text(path, text, &|name| env::var(name).ok())
}

/// Reads what was in the file at `path`, with variables from `environment`.
pub fn read_text(path: &Path, text: String, environment: &Environment) -> Result<(Config, Source), Problems> {
    read_document(path, text, Some(environment))
}

/// Reads a file of another kind as the configuration is read. Without an environment, strings are taken as they
/// are written.
pub fn read_document<T: DeserializeOwned>(
    path: &Path,
    text: String,
    environment: Option<&Environment>,
) -> Result<(T, Source), Problems> {
    let source = Source { path: path.to_owned(), text };
    match understand(&source.text, environment) {
        Ok((document, renamed)) => {
            for Renamed { span, before, now } in renamed {
                let at = source.line_of(&span);
                tracing::warn!(at, "the key `{before}` is called `{now}` now: write `{now}`");
            }
            Ok((document, source))
        }
        Err(problems) => Err(Problems::new(source, problems)),
    }
}

fn unreadable(error: &io::Error) -> Problem {
    let problem = Problem::general(format!("cannot read the file: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => problem.help("write it, or name another with `--config`"),
        io::ErrorKind::IsADirectory => problem.help("name a file in this folder with `--config`"),
        io::ErrorKind::PermissionDenied => problem.help("let the user that runs `tollgate` read it"),
        _ => problem.help("name another with `--config`"),
    }
}

/// The document, and the keys of it that have other names now.
fn understand<T: DeserializeOwned>(
    text: &str,
    environment: Option<&Environment>,
) -> Result<(T, Vec<Renamed>), Vec<Problem>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(match foreign::recognize(text) {
            Some(problem) => vec![problem],
            None => syntax_of_all(text, document.get_ref(), &errors),
        });
    }
    let mut problems = Vec::new();
    let mut gone = Vec::new();
    let (span, mut document) = (document.span(), document.into_inner());
    let renamed = rename(&mut document);
    let mut tree = Spanned::new(span, DeValue::Table(document));

    fill_in_all(&mut tree, environment, &mut problems);
    problems.truncate(MOST);
    for span in problems.iter().filter_map(|problem| problem.span.as_ref()) {
        gone.extend(take_out(&mut tree, span));
    }

    while problems.len() < MOST {
        let mistake = match T::deserialize(Value(&tree)) {
            Ok(document) if problems.is_empty() => return Ok((document, renamed)),
            Ok(_) => break,
            Err(mistake) => mistake,
        };
        let span = mistake.span.clone().unwrap_or_default();
        let unknown = matches!(mistake.kind, Kind::UnknownKey { .. });
        let follows = match mistake.kind {
            Kind::MissingKey(key) => {
                gone.iter().any(|gone| gone.table == span && (gone.unknown || gone.key == key))
            }
            _ => false,
        };
        if !follows {
            problems.push(mistake.problem(known_keys::<T>()));
        }
        let Some(taken) = take_out(&mut tree, &span) else { break };
        gone.push(Gone { unknown, ..taken });
    }
    Err(problems)
}

/// What is wrong, once for each line of which it is plain what was meant.
fn syntax_of_all(text: &str, document: &DeTable<'_>, errors: &[toml::de::Error]) -> Vec<Problem> {
    let mut problems: Vec<Problem> = Vec::new();
    let mut meant: Vec<Range<usize>> = Vec::new();
    for error in errors.iter().take(MOST) {
        let Some(span) = error.span() else {
            problems.push(Problem::general(error.message()));
            continue;
        };
        if let Some(problem) = repeated::explain(text, document, &span) {
            problems.push(problem);
        } else if let Some(problem) = slip::explain(text, &span) {
            meant.extend(problem.span.clone());
            problems.push(problem);
        } else {
            problems.push(Problem::at(span, error.message().trim_end_matches('.')));
        }
    }
    // What a parser says more of such a line is about how it has gone on after the first error.
    let is_more = |problem: &Problem| {
        let Some(span) = &problem.span else { return false };
        meant.iter().any(|line| line != span && line.start <= span.start && span.start <= line.end)
    };
    problems.retain(|problem| !is_more(problem));
    problems
}

/// Fills in the variables of every string below `tree`; the places stay those of what was written.
fn fill_in_all(
    tree: &mut Spanned<DeValue<'_>>,
    environment: Option<&Environment>,
    problems: &mut Vec<Problem>,
) {
    let span = tree.span();
    match tree.get_mut() {
        DeValue::String(text) if text.contains('$') => {
            if let Some(environment) = environment {
                *text = fill_in(text, &span, environment, problems).into();
            }
        }
        // Neither `Config` nor JSON, in which plugins get their settings, knows times: what stands without
        // quotes is its text.
        DeValue::Datetime(time) => *tree.get_mut() = DeValue::String(time.to_string().into()),
        DeValue::Array(array) => {
            array.iter_mut().for_each(|value| fill_in_all(value, environment, problems));
        }
        DeValue::Table(table) => {
            table.iter_mut().for_each(|(_, value)| fill_in_all(value, environment, problems));
        }
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) => {}
    }
}

/// `${NAME}` is the variable's value, `${NAME:-default}` has one where it is not set or empty, `$$` is one
/// `$`, and a `$` before anything else is itself. Values are not looked through again.
fn fill_in(
    text: &str,
    span: &Range<usize>,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> String {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        filled.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            filled.push('$');
            rest = after;
        } else if let Some(variable) = rest.strip_prefix('{') {
            let Some((variable, after)) = variable.split_once('}') else {
                let problem = Problem::at(span.clone(), "`${` has no `}` to end it");
                problems.push(problem.help("write `$${` where the text `${` is meant"));
                break;
            };
            rest = after;
            match value(variable, span, environment) {
                Ok(value) => filled.push_str(&value),
                Err(problem) => problems.push(problem),
            }
        } else {
            filled.push('$');
        }
    }
    filled + rest
}

fn value(variable: &str, span: &Range<usize>, environment: &Environment) -> Result<String, Problem> {
    let (name, default) = match variable.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (variable, None),
    };
    let named = !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !named {
        let message = format!("`${{{variable}}}` does not name a variable");
        return Err(Problem::at(span.clone(), message)
            .help("a name is of letters, digits and `_`; write `$${` where the text `${` is meant"));
    }
    if default.is_some_and(|default| default.contains("${")) {
        let message = format!("the default of `{name}` holds a variable");
        return Err(Problem::at(span.clone(), message).help("a default is taken as it is written"));
    }
    match (environment(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (None, None) => {
            Err(Problem::at(span.clone(), format!("the environment variable `{name}` is not set"))
                .help(format!("set it, or give a default with `${{{name}:-...}}`")))
        }
    }
}

/// A key that is no longer in the tree.
struct Gone {
    /// Where its table is.
    table: Range<usize>,
    /// Empty for the element of an array.
    key: String,
    /// Whether no table of this kind has it.
    unknown: bool,
}

/// Takes the innermost key or element out whose name or value is at `span`.
fn take_out(tree: &mut Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Gone> {
    let own = tree.span();
    match tree.get_mut() {
        DeValue::Table(table) => {
            if let Some(gone) = table.iter_mut().find_map(|(_, value)| take_out(value, span)) {
                return Some(gone);
            }
            let (key, _) = table.iter().find(|(key, value)| key.span() == *span || value.span() == *span)?;
            let key = key.get_ref().to_string();
            table.remove(key.as_str());
            Some(Gone { table: own, key, unknown: false })
        }
        DeValue::Array(array) => {
            if let Some(gone) = array.iter_mut().find_map(|value| take_out(value, span)) {
                return Some(gone);
            }
            let before = array.len();
            let elements = mem::replace(array, DeArray::new());
            *array = elements.into_iter().filter(|element| element.span() != *span).collect();
            (array.len() < before).then(|| Gone { table: own, key: String::new(), unknown: false })
        }
        _ => None,
    }
}
