//! `tollgate` as a process of its own.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinSet,
};

use crate::{soon, until};

/// A process, and what it prints. Ends when dropped.
pub struct Executable {
    child: Child,
    printed: Arc<Mutex<Vec<Line>>>,
    reading: JoinSet<()>,
}

/// Where a line was printed, and what.
#[derive(Debug, Clone)]
struct Line {
    is_error: bool,
    text: String,
}

impl Executable {
    /// Starts the program in this folder.
    pub fn start(program: &str, folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(program, folder, arguments, &[])
    }

    /// The same with more variables in its environment.
    pub fn start_with(
        program: &str,
        folder: &Path,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(folder)
            .env("XDG_CACHE_HOME", concat!(env!("OUT_DIR"), "/cache"))
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program can be started");
        let printed = Arc::<Mutex<Vec<Line>>>::default();
        let mut reading = JoinSet::new();
        reading.spawn(read(child.stdout.take().expect("it is piped"), false, printed.clone()));
        reading.spawn(read(child.stderr.take().expect("it is piped"), true, printed.clone()));
        Self { child, printed, reading }
    }

    /// The lines so far that hold all of these words.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        let lines = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let texts = lines.iter().map(|line| &line.text);
        texts.filter(|text| words.iter().all(|word| text.contains(word))).cloned().collect()
    }

    /// Waits for a line that holds all of these words, and returns the first.
    pub async fn line(&self, words: &[&str]) -> String {
        until(&format!("a line with {words:?}"), || !self.lines(words).is_empty()).await;
        self.lines(words).swap_remove(0)
    }

    /// The address that `tollgate run` says it listens on.
    pub async fn address(&self) -> SocketAddr {
        let line = self.line(&["listening", "address"]).await;
        let (_, address) = line.split_once("address").expect("the words are there");
        let address: String = address
            .chars()
            .skip_while(|c| !c.is_ascii_digit())
            .take_while(|c| !" \",}".contains(*c))
            .collect();
        address.parse().unwrap_or_else(|_| panic!("an address: {line}"))
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("the process has not been waited for")
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).expect("no process has the id 0");
        kill_process(pid, signal).expect("the process is there");
    }

    /// Waits for its end. Returns the status and what it wrote to standard output and standard error.
    pub async fn end(&mut self) -> (ExitStatus, String, String) {
        let status = soon("the end of the process", self.child.wait()).await.expect("it is our child");
        while soon("the end of what it prints", self.reading.join_next()).await.is_some() {}
        let lines = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |is_error| {
            let lines = lines.iter().filter(|line| line.is_error == is_error);
            lines.map(|line| format!("{}\n", line.text)).collect()
        };
        (status, text(false), text(true))
    }

    /// Memory that is resident now, in bytes.
    pub fn resident(&self) -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.id())).expect("it runs on Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
        let kibibytes: usize = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
        kibibytes << 10
    }
}

/// What there is to be known of a process whose test has failed.
impl Drop for Executable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let lines = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("the process (ended: {:?}) printed last:", self.child.try_wait());
            lines.iter().rev().take(20).rev().for_each(|line| eprintln!("{}", line.text));
        }
    }
}

async fn read(output: impl AsyncRead + Unpin, is_error: bool, printed: Arc<Mutex<Vec<Line>>>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        printed.lock().unwrap_or_else(PoisonError::into_inner).push(Line { is_error, text });
    }
}
