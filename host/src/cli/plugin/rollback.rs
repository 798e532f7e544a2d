//! `tollgate plugin rollback`

use std::process::ExitCode;

use clap::Args;
use http::Method;

use crate::cli::{
    admin::{AdminArguments, encoded},
    output::say,
};

#[derive(Debug, Args)]
pub(in crate::cli) struct RollbackArguments {
    /// The plugin, by the name that it has in the configuration
    #[arg(value_name = "NAME")]
    name: String,
    /// Let all versions serve again that were taken back, and load what lies in the file
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    admin: AdminArguments,
}

pub(super) async fn run(arguments: RollbackArguments) -> anyhow::Result<ExitCode> {
    let RollbackArguments { name, undo, admin } = arguments;
    let admin = admin.open()?;
    let path = format!("/api/plugins/{}/rollback", encoded(&name));
    let method = if undo { Method::DELETE } else { Method::POST };
    let answer = admin.ask(method, &path, None).await?;
    let field = |key: &str| answer[key].as_str().unwrap_or("an unknown version").to_owned();
    // With the place, since there may be several proxies on this machine.
    let place = admin.address();
    if undo {
        say!("{name}: version {} serves in the proxy with the admin API on {place}", field("digest"));
    } else {
        let (to, from) = (field("to"), field("from"));
        say!("{name}: version {to} serves in the place of {from} in the proxy with the admin API on {place}");
    }
    Ok(ExitCode::SUCCESS)
}
