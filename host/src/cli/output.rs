//! How is a line printed?

/// Prints a line. That whoever reads has seen enough, as `head` has, is no error.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}

pub(super) use say;
