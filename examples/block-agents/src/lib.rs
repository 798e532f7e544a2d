//! Refuses clients whose `User-Agent` contains one of the configured words.

use serde::Deserialize;
use tollgate_plugin_sdk::{OnRequest, Plugin, Problem, Verdict, config, request};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockAgents {
    words: Vec<String>,
}

impl Plugin for BlockAgents {
    fn configure(text: &str) -> Result<Self, String> {
        config::read(text)
    }
}

impl OnRequest for BlockAgents {
    fn on_request(&self) -> Verdict {
        let agent = request::header("user-agent").unwrap_or_default().to_lowercase();
        if self.words.iter().any(|word| agent.contains(&word.to_lowercase())) {
            return Verdict::Reply(Problem::new(403, "Forbidden", "this client is blocked").reply());
        }
        Verdict::Next
    }
}

tollgate_plugin_sdk::export!(BlockAgents: OnRequest);
