//! What is on the board, and how does it look?

use std::{collections::HashMap, time::Instant};

use ratatui::{
    Frame,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Text},
    widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap},
};
use serde_json::Value;

/// What the admin API said at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub at: Instant,
    pub status: Value,
    pub upstreams: Value,
    pub plugins: Value,
}

/// The tables, as they are shown.
#[derive(Debug)]
pub(super) struct Board {
    reading: Reading,
    title: String,
    trouble: Option<String>,
    tables: [Sheet; 3],
    selected: usize,
    states: [TableState; 3],
}

/// A table of text. The first so many columns are words, all others numbers.
#[derive(Debug)]
struct Sheet {
    title: &'static str,
    words: usize,
    heads: &'static [&'static str],
    /// Columns that are left out where there is no room for all, in this order.
    spare: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Board {
    /// A board of this reading; with one before it there are rates.
    pub fn new(reading: Reading, before: Option<&Reading>) -> Self {
        let rates = Rates { now: &reading, before, known: before.map(counts).unwrap_or_default() };
        let tables = [listeners(&rates), upstreams(&rates), plugins(&rates)];
        Self {
            title: title(&reading.status),
            trouble: None,
            tables,
            selected: 1,
            states: Default::default(),
            reading,
        }
    }

    /// Shows a newer reading.
    pub fn update(&mut self, reading: Reading) {
        let Self { tables, title, .. } = Self::new(reading.clone(), Some(&self.reading));
        (self.tables, self.title, self.reading, self.trouble) = (tables, title, reading, None);
    }

    /// Shows that there is none.
    pub fn fail(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    /// Goes to the next table, or to the one before.
    pub fn next_table(&mut self, step: isize) {
        let count = self.tables.len();
        self.selected = (self.selected + count).saturating_add_signed(step) % count;
    }

    /// Goes down in the table, or up.
    pub fn scroll(&mut self, step: i16) {
        let state = &mut self.states[self.selected];
        let last = self.tables[self.selected].rows.len().saturating_sub(1);
        let place = state.selected().map_or(0, |place| place.saturating_add_signed(step.into()).min(last));
        state.select(Some(place));
    }

    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        // What is too long is cut; what is selected gets what room there is, and half of it at least if it needs that.
        let area = frame.area();
        let (text, style) = match &self.trouble {
            Some(trouble) => (trouble.as_str(), Style::new().fg(Color::Red)),
            None => (self.title.as_str(), Style::new()),
        };
        let title = Paragraph::new(Line::styled(text, style)).wrap(Wrap { trim: true });
        let of_title = wrapped(text, area.width.into()).clamp(1, 3) as u16;
        let lines = |sheet: &Sheet| u16::try_from(sheet.rows.len() + 3).unwrap_or(u16::MAX);
        let room = area.height.saturating_sub(of_title + 1);
        let mut left = room.saturating_sub(lines(&self.tables[self.selected]).min(room.div_ceil(2)));
        let others = self.tables.iter().enumerate().filter(|(place, _)| *place != self.selected);
        let mut others: Vec<(usize, u16)> = others.map(|(place, sheet)| (place, lines(sheet))).collect();
        // What a short one does not need, the next may have.
        others.sort_by_key(|(_, lines)| *lines);
        let mut heights = [Constraint::Fill(1); 3];
        for (before, (place, lines)) in others.iter().enumerate() {
            let height = (*lines).min(left / (others.len() - before) as u16);
            left -= height;
            heights[*place] = Constraint::Length(height);
        }
        let areas = [Constraint::Length(of_title)].into_iter().chain(heights).chain([Constraint::Length(1)]);
        let areas = Layout::vertical(areas).split(area);
        frame.render_widget(title, areas[0]);
        for place in 0..self.tables.len() {
            self.draw_table(frame, areas[place + 1], place);
        }
        let keys = "q ends   Tab, ← → another table   ↑ ↓ scroll";
        frame.render_widget(Paragraph::new(keys).style(Modifier::DIM), areas[self.tables.len() + 1]);
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect, place: usize) {
        let sheet = &self.tables[place];
        let is_selected = place == self.selected;
        let columns = sheet.fit(usize::from(area.width.saturating_sub(2)));
        let widths = columns.iter().map(|(_, width)| Constraint::Length(*width as u16));
        let align = |column: usize| if column < sheet.words { Alignment::Left } else { Alignment::Right };
        let cells = |texts: Vec<&str>| {
            let cell = |&(column, width): &(usize, usize)| {
                let text = texts[column];
                Cell::new(Text::raw(cut(text, width)).alignment(align(column))).style(style_of(text))
            };
            Row::new(columns.iter().map(cell).collect::<Vec<_>>())
        };
        let rows = sheet.rows.iter().map(|row| cells(row.iter().map(String::as_str).collect()));
        let border = if is_selected { Style::new().fg(Color::Cyan) } else { Modifier::DIM.into() };
        let table = Table::new(rows, widths)
            .header(cells(sheet.heads.to_vec()).style(Modifier::BOLD))
            .column_spacing(SPACING as u16)
            .row_highlight_style(Modifier::REVERSED)
            .block(Block::bordered().title(sheet.title).border_style(border));
        frame.render_stateful_widget(table, area, &mut self.states[place]);
    }

    /// The tables as lines of text.
    pub fn plain(&self) -> String {
        let tables: Vec<String> = self.tables.iter().map(Sheet::plain).collect();
        format!("{}\n\n{}", self.title, tables.join("\n"))
    }
}

impl Sheet {
    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.chain([self.heads[column].chars().count()]).max().unwrap_or_default()
        };
        (0..self.heads.len()).map(width).collect()
    }

    /// The columns for which there is room, each with its width. Where it is too little even for those that are always
    /// there, the widest words are cut.
    fn fit(&self, room: usize) -> Vec<(usize, usize)> {
        let mut columns: Vec<(usize, usize)> = self.widths().into_iter().enumerate().collect();
        let needs = |columns: &[(usize, usize)]| {
            columns.iter().map(|(_, width)| width + SPACING).sum::<usize>().saturating_sub(SPACING)
        };
        for spare in self.spare {
            if needs(&columns) <= room {
                break;
            }
            columns.retain(|(column, _)| self.heads[*column] != *spare);
        }
        while needs(&columns) > room {
            let widest = columns.iter_mut().filter(|(column, width)| *column < self.words && *width > 8);
            let Some((_, width)) = widest.max_by_key(|(_, width)| *width) else { break };
            *width -= 1;
        }
        columns
    }

    fn plain(&self) -> String {
        let widths = self.widths();
        let heads: Vec<String> = self.heads.iter().map(|head| (*head).to_owned()).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (text, width))| {
                if column < self.words { format!("{text:<width$}") } else { format!("{text:>width$}") }
            });
            format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
        };
        let rows: String = [&heads].into_iter().chain(&self.rows).map(line).collect();
        format!("{}\n{rows}", self.title)
    }
}

/// Between two columns.
const SPACING: usize = 2;

/// How many lines a text takes that is wrapped between words.
fn wrapped(text: &str, width: usize) -> usize {
    let (mut lines, mut used) = (1, 0);
    for word in text.split_whitespace().map(|word| word.chars().count()) {
        match used {
            0 => used = word,
            _ if used + 1 + word <= width => used += 1 + word,
            _ => (lines, used) = (lines + 1, word),
        }
    }
    lines
}

/// The text in so many columns; what is left out of its middle is `…`, since names differ at their ends.
fn cut(text: &str, width: usize) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let begin = width.saturating_sub(1) / 2;
    let end = width.saturating_sub(1) - begin;
    text.chars().take(begin).chain(['…']).chain(text.chars().skip(count - end)).collect()
}

fn style_of(text: &str) -> Style {
    match text {
        "healthy" => Style::new().fg(Color::Green),
        "unreachable" | "ejected" | "refused" | "open" => Style::new().fg(Color::Red),
        "not-initiated" | "draining" => Style::new().fg(Color::Yellow),
        _ => Style::new(),
    }
}

fn title(status: &Value) -> String {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let draining = if status["is-draining"] == true { ", draining" } else { "" };
    let reload = &status["last-reload"];
    let last = match reload["outcome"].as_str() {
        Some("refused") => format!(", last reload refused at {}", reload["at"].as_str().unwrap_or_default()),
        _ => String::new(),
    };
    let cache = &status["cache"];
    let cached = match cache["hit-ratio"].as_f64() {
        Some(ratio) => format!(
            ", cache hit {:.1} % with {} entries in {} MiB",
            ratio * 100.0,
            cache["entries"],
            cache["bytes"].as_u64().unwrap_or_default() >> 20
        ),
        None => String::new(),
    };
    format!(
        "Tollgate {}, generation {}, {} workers, since {}{draining}{last}{cached}",
        text("version"),
        status["generation"],
        status["workers"],
        text("started")
    )
}

/// What only grows, by what it is of.
fn counts(reading: &Reading) -> HashMap<String, f64> {
    let listeners = list(&reading.status, "listeners")
        .iter()
        .map(|listener| (format!("listener {}", text(listener, "address")), number(&listener["requests"])));
    let endpoints = list(&reading.upstreams, "upstreams").iter().flat_map(|upstream| {
        list(upstream, "endpoints").iter().map(|endpoint| {
            let name = format!("endpoint {} {}", text(upstream, "name"), text(endpoint, "address"));
            (name, number(&endpoint["requests"]))
        })
    });
    let plugins = list(&reading.plugins, "plugins").iter().flat_map(|plugin| {
        let name = text(plugin, "name");
        [
            (format!("calls {name}"), sum(&plugin["calls"])),
            (format!("cpu {name}"), number(&plugin["cpu-seconds"])),
        ]
    });
    listeners.chain(endpoints).chain(plugins).collect()
}

struct Rates<'a> {
    now: &'a Reading,
    before: Option<&'a Reading>,
    known: HashMap<String, f64>,
}

impl Rates<'_> {
    /// By how much something has grown in a second.
    fn of(&self, name: &str, now: f64) -> Option<f64> {
        let seconds = self.now.at.duration_since(self.before?.at).as_secs_f64();
        let before = *self.known.get(name)?;
        // A proxy that was started again begins anew.
        (now >= before && seconds > 0.0).then(|| (now - before) / seconds)
    }
}

fn listeners(rates: &Rates<'_>) -> Sheet {
    let row = |listener: &Value| {
        let address = text(listener, "address");
        let connections = &listener["connections"];
        let requests = number(&listener["requests"]);
        vec![
            address.clone(),
            whole(&connections["open"]),
            whole(&connections["accepted"]),
            whole(&connections["refused"]),
            whole(&listener["requests"]),
            cell(rates.of(&format!("listener {address}"), requests)),
        ]
    };
    Sheet {
        title: "Listeners",
        words: 1,
        heads: &["address", "open", "accepted", "refused", "requests", "req/s"],
        spare: &["accepted", "refused"],
        rows: list(&rates.now.status, "listeners").iter().map(row).collect(),
    }
}

fn upstreams(rates: &Rates<'_>) -> Sheet {
    let mut rows = Vec::new();
    for upstream in list(&rates.now.upstreams, "upstreams") {
        let name = text(upstream, "name");
        for endpoint in list(upstream, "endpoints") {
            let address = text(endpoint, "address");
            let requests = number(&endpoint["requests"]);
            rows.push(vec![
                name.clone(),
                address.clone(),
                text(endpoint, "state"),
                whole(&endpoint["active"]),
                cell(rates.of(&format!("endpoint {name} {address}"), requests)),
                cell(endpoint["share"].as_f64().map(|share| share * 100.0)),
                whole(&endpoint["failures"]),
                cell(endpoint["p50-ms"].as_f64()),
                cell(endpoint["p99-ms"].as_f64()),
                endpoint["last-healthy"].as_str().unwrap_or("-").to_owned(),
            ]);
        }
    }
    Sheet {
        title: "Upstreams",
        words: 3,
        heads: &[
            "upstream",
            "endpoint",
            "state",
            "active",
            "req/s",
            "share %",
            "failures",
            "p50 ms",
            "p99 ms",
            "last healthy",
        ],
        spare: &["last healthy", "share %", "p50 ms", "active"],
        rows,
    }
}

fn plugins(rates: &Rates<'_>) -> Sheet {
    let row = |plugin: &Value| {
        let name = text(plugin, "name");
        let cpu = rates.of(&format!("cpu {name}"), number(&plugin["cpu-seconds"]));
        vec![
            name.clone(),
            text(plugin, "digest").chars().take(12).collect(),
            match plugin["canary"]["weight"].as_f64() {
                Some(share) => format!("canary {} %", share * 100.0),
                None => text(&plugin["last-load"], "outcome"),
            },
            text(&plugin["breaker"], "state"),
            cell(rates.of(&format!("calls {name}"), sum(&plugin["calls"]))),
            format!("{}", sum(&plugin["failures"])),
            cell(plugin["p99-ms"].as_f64()),
            cell(cpu.map(|seconds| seconds * 100.0)),
            whole(&plugin["instances"]),
            format!("{}", plugin["memory-bytes"].as_u64().unwrap_or_default() >> 10),
        ]
    };
    Sheet {
        title: "Plugins",
        words: 4,
        heads: &[
            "plugin",
            "version",
            "last load",
            "breaker",
            "calls/s",
            "failures",
            "p99 ms",
            "CPU %",
            "instances",
            "KiB",
        ],
        spare: &["version", "instances", "KiB", "last load"],
        rows: list(&rates.now.plugins, "plugins").iter().map(row).collect(),
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What the API says may be anything: what would move the cursor is left out.
fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().chars().filter(|c| !c.is_control()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_default()
}

fn whole(value: &Value) -> String {
    value.as_u64().unwrap_or_default().to_string()
}

fn sum(value: &Value) -> f64 {
    value.as_object().into_iter().flatten().map(|(_, count)| number(count)).sum()
}

/// Three digits or so; a dash for what is not known.
fn cell(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) if value >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;

    fn reading(at: Instant, requests: u64) -> Reading {
        let endpoint = |address, state| {
            json!({ "address": address, "state": state, "active": 2, "requests": requests, "failures": 1,
                "share": 0.5, "p50-ms": 1.25, "p99-ms": null })
        };
        Reading {
            at,
            status: json!({ "version": "1.2.3", "started": "today", "generation": 4, "workers": 2, "listeners": [
                { "address": "[::]:80", "requests": requests, "connections": { "open": 3, "accepted": 9, "refused": 0 } }
            ], "cache": { "hit-ratio": 0.75, "entries": 7, "bytes": 3 << 20 } }),
            upstreams: json!({ "upstreams": [{ "name": "app", "endpoints": [
                endpoint("a:1", "healthy"), endpoint("b:\u{1b}[2J2", "unreachable")
            ] }] }),
            plugins: json!({ "plugins": [{ "name": "keys", "digest": "0123456789abcdef", "instances": 2,
                "last-load": { "outcome": "refused" }, "breaker": { "state": "open" }, "memory-bytes": 3 << 20, "calls": { "on-request": requests, "pick": requests },
                "failures": { "trap": 1, "memory": 2 }, "cpu-seconds": requests as f64 / 128.0, "p99-ms": 0.0125 }] }),
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_readings() {
        let start = Instant::now();
        let board = Board::new(reading(start + Duration::from_secs(2), 120), Some(&reading(start, 100)));
        let expected = "Tollgate 1.2.3, generation 4, 2 workers, since today, cache hit 75.0 % with 7 entries in 3 MiB\n\
            \nListeners\n\
            address  open  accepted  refused  requests  req/s\n\
            [::]:80     3         9        0       120   10.0\n\
            \nUpstreams\n\
            upstream  endpoint  state        active  req/s  share %  failures  p50 ms  p99 ms  last healthy\n\
            app       a:1       healthy           2   10.0     50.0         1    1.25       -             -\n\
            app       b:[2J2    unreachable       2   10.0     50.0         1    1.25       -             -\n\
            \nPlugins\n\
            plugin  version       last load  breaker  calls/s  failures  p99 ms  CPU %  instances   KiB\n\
            keys    0123456789ab  refused    open        20.0         3   0.013   7.81          2  3072\n";
        assert_eq!(board.plain(), expected);
        let mut tries = reading(start, 5);
        tries.plugins["plugins"][0]["canary"] = json!({ "weight": 0.25 });
        assert!(Board::new(tries, None).plain().contains("keys    0123456789ab  canary 25 %"));
        let alone = Board::new(reading(start, 5), None).plain();
        assert!(alone.contains("[::]:80     3         9        0         5      -\n"), "{alone}");
    }

    #[test]
    fn a_proxy_that_was_started_again_has_no_negative_rate() {
        let start = Instant::now();
        let board = Board::new(reading(start + Duration::from_secs(1), 5), Some(&reading(start, 100)));
        assert!(board.plain().lines().any(|line| line.starts_with("[::]:80") && line.ends_with(" -")));
    }

    #[test]
    fn in_80_columns_nothing_that_is_shown_is_cut_but_long_names() {
        let start = Instant::now();
        let mut reading = reading(start, 123_456);
        reading.status["started"] = "2026-11-30T12:00:00.123Z".into();
        let endpoint = |number: u32| {
            json!({ "address": format!("10.20.30.{number}:18080"), "state": "not-initiated", "active": 12,
                "requests": 123_456, "failures": 1234, "share": 0.125, "p50-ms": 12.5, "p99-ms": 1234.6,
                "last-healthy": "2026-11-30T12:00:00.123Z" })
        };
        reading.upstreams = json!({ "upstreams": [
            { "name": "payments-production", "endpoints": (100..103).map(endpoint).collect::<Vec<_>>() }
        ] });
        let plugin = reading.plugins["plugins"][0].clone();
        let plugins = ["oauth-introspection", "request-validation", "keys"].map(|name| {
            let mut plugin = plugin.clone();
            plugin["name"] = name.into();
            plugin
        });
        reading.plugins = json!({ "plugins": plugins });
        let mut board = Board::new(reading, None);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| board.draw(frame)).unwrap();
        let screen = terminal.backend().to_string();
        for words in [
            "7 entries in 3 MiB",
            "10.20.30.101:18080  not-initiated",
            "1234",
            "req/s",
            "failures",
            "p99 ms",
            "1235",
            "oauth-introspection",
            "request-validation",
            "breaker",
            "CPU %",
            "[::]:80",
            "123456",
            "q ends",
        ] {
            assert!(screen.contains(words), "{words} is not on\n{screen}");
        }
        assert_eq!(cut("payments-production", 10), "paym…ction");
        assert_eq!((wrapped("a bc d", 4), wrapped("", 4), wrapped("a bc d", 1)), (2, 1, 3));
    }

    #[test]
    fn the_board_is_drawn_whatever_the_size_of_the_terminal() {
        let start = Instant::now();
        let mut board = Board::new(reading(start, 1), None);
        for (width, height) in [(120, 30), (40, 10), (3, 2), (1, 1)] {
            let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
            for _ in 0..4 {
                terminal.draw(|frame| board.draw(frame)).unwrap();
                board.next_table(1);
                board.scroll(1);
            }
            board.next_table(-1);
            board.next_table(-1);
            board.scroll(-1);
            let screen = terminal.backend().to_string();
            if width == 120 {
                for word in ["Tollgate 1.2.3", "Listeners", "[::]:80", "a:1", "unreachable", "keys", "q ends"]
                {
                    assert!(screen.contains(word), "{word} is not on {screen}");
                }
            }
        }
        board.fail("nobody there".to_owned());
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| board.draw(frame)).unwrap();
        assert!(terminal.backend().to_string().contains("nobody there"));
    }
}
