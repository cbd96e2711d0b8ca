//! Variables of the environment that stand for settings.

use crate::config::files::Files;
use crate::config::model::{Balance, LogLevel};
use crate::config::report::{Diagnostic, shown};

/// The algorithm of pools that name none.
const ALGORITHM: &str = "LB_ALGORITHM";

/// Whether the log has at least the level debug.
const DEBUG: &str = "LB_DEBUG";

/// What the environment says.
pub(super) struct Environment {
    pub(super) balance: Balance,
    debug: bool,
}

impl Environment {
    /// And what is wrong with it.
    pub(super) fn read(files: &dyn Files) -> (Environment, Vec<Diagnostic>) {
        let mut diagnostics = Vec::new();
        let text = |name: &str| {
            let value = files.variable(name).unwrap_or_default();
            String::from_utf8_lossy(&value).trim().to_owned()
        };
        let balance = match text(ALGORITHM) {
            word if word.is_empty() => Balance::default(),
            word => Balance::from_word(&word).unwrap_or_else(|| {
                let names: Vec<&str> = Balance::ALL.iter().map(|balance| balance.name()).collect();
                let fault =
                    Diagnostic::new(format!("{ALGORITHM} of the environment: `{}` is no algorithm", shown(&word)));
                diagnostics.push(fault.hint(format!("set it to {}, or unset it", names.join(", "))));
                Balance::default()
            }),
        };
        let debug = match text(DEBUG).to_lowercase().as_str() {
            "" | "0" | "false" | "no" | "off" => false,
            "1" | "true" | "yes" | "on" => true,
            word => {
                let fault =
                    Diagnostic::new(format!("{DEBUG} of the environment: `{}` is neither 1 nor 0", shown(word)));
                diagnostics.push(fault.hint("set it to 1, or unset it"));
                false
            }
        };
        (Environment { balance, debug }, diagnostics)
    }

    /// The level of the log that is configured with this one.
    pub(super) fn log_level(&self, configured: LogLevel) -> LogLevel {
        match configured {
            LogLevel::Trace => LogLevel::Trace,
            _ if self.debug => LogLevel::Debug,
            configured => configured,
        }
    }
}
