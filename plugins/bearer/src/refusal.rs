//! What is a client told that may not pass?

use tollgate_plugin_sdk::{Lossy, Problem, Reply};

/// Why somebody may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no token.
    Missing,
    /// There is one, and it is not valid: why is for the client to know.
    Invalid(&'static str),
    /// It is valid, and a claim that a header is made of would arrive as something else at the upstream.
    Claim {
        /// Of the claims that go to headers.
        place: usize,
        why: Lossy,
    },
    /// It is valid, and does not say what is required.
    Insufficient,
    /// Nobody can say at this moment, and why.
    Unknown(&'static str),
}

impl Refusal {
    /// RFC 6750, section 3.
    pub fn reply(self) -> Reply {
        let invalid = |reason: &'static str| {
            let challenge = format!(", error=\"invalid_token\", error_description=\"{reason}\"");
            (401, "Unauthorized", reason, challenge)
        };
        let (status, title, detail, challenge) = match self {
            Self::Missing => (401, "Unauthorized", "a token is needed", String::new()),
            Self::Invalid(reason) => invalid(reason),
            Self::Claim { .. } => invalid("a claim of the token cannot be sent in a header as it is"),
            Self::Insufficient => {
                let reason = "the token does not allow this";
                (403, "Forbidden", reason, ", error=\"insufficient_scope\"".to_owned())
            }
            Self::Unknown(reason) => {
                let problem = Problem::new(503, "Service Unavailable", reason);
                return problem.with_header("retry-after", "1").reply();
            }
        };
        Problem::new(status, title, detail)
            .with_header("www-authenticate", format!("Bearer realm=\"tollgate\"{challenge}"))
            .reply()
    }
}
