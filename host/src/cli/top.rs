//! `tollgate top`: a board of what a running proxy does, from its admin API.

mod board;

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use clap::Args;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};

use super::{
    admin::{Admin, AdminArguments, expect},
    output::say,
};
use board::{Board, Reading};

#[derive(Debug, Args)]
pub(super) struct TopArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print the tables once, and end
    #[arg(long)]
    once: bool,
}

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

pub(super) async fn run(arguments: TopArguments) -> anyhow::Result<()> {
    let admin = arguments.admin.open()?;
    let first = read(&admin).await?;
    let is_live = !arguments.once && std::io::stdout().is_terminal();
    if !is_live {
        // Of one reading there is no rate.
        tokio::time::sleep(INTERVAL).await;
        say!("{}", Board::new(read(&admin).await?, Some(&first)).plain().trim_end());
        return Ok(());
    }
    let mut terminal = ratatui::try_init()?;
    let result = watch(&mut terminal, &admin, first).await;
    ratatui::try_restore()?;
    result
}

/// All that the board shows.
async fn read(admin: &Admin) -> anyhow::Result<Reading> {
    let at = Instant::now();
    let [status, upstreams, plugins] = ["/api/status", "/api/upstreams", "/api/plugins"];
    let (status, upstreams, plugins) =
        tokio::try_join!(admin.get(status), admin.get(upstreams), admin.get(plugins))?;
    expect(&status, "generation", admin)?;
    expect(&upstreams, "upstreams", admin)?;
    expect(&plugins, "plugins", admin)?;
    Ok(Reading { at, status, upstreams, plugins })
}

/// Shows the board until somebody has seen enough.
async fn watch(terminal: &mut DefaultTerminal, admin: &Admin, first: Reading) -> anyhow::Result<()> {
    let mut board = Board::new(first, None);
    loop {
        terminal.draw(|frame| board.draw(frame))?;
        let next = Instant::now() + INTERVAL;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            // Waits on this thread, which has nothing else to do.
            if !event::poll(left)? {
                break;
            }
            match event::read()? {
                Event::Key(key) if ends(&key) => return Ok(()),
                Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
                    KeyCode::Tab | KeyCode::Right => board.next_table(1),
                    KeyCode::BackTab | KeyCode::Left => board.next_table(-1),
                    KeyCode::Down => board.scroll(1),
                    KeyCode::Up => board.scroll(-1),
                    _ => {}
                },
                _ => {}
            }
            terminal.draw(|frame| board.draw(frame))?;
        }
        match read(admin).await {
            Ok(reading) => board.update(reading),
            // The proxy may come back.
            Err(error) => board.fail(format!("{error:#}")),
        }
    }
}

fn ends(key: &KeyEvent) -> bool {
    let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc)
}
