//! Which configuration is in effect.

use serde::{Deserialize, Serialize};

/// Which configuration is in effect, and whether the file says the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConfigStats {
    /// Counts changes, by a reload or at run time; 1 at the start.
    pub generation: u64,
    /// When it took effect.
    pub since: f64,
    /// Why the file differs from it; `None` if it does not.
    pub file_differs: Option<String>,
    /// Whether the last reload was applied; also before the first one.
    pub last_reload_succeeded: bool,
    /// When the last reload was applied, or the process started.
    pub last_reload_success: f64,
}

/// Of a tidegate that says nothing of it, nothing is wrong.
impl Default for ConfigStats {
    fn default() -> ConfigStats {
        ConfigStats {
            generation: 0,
            since: 0.0,
            file_differs: None,
            last_reload_succeeded: true,
            last_reload_success: 0.0,
        }
    }
}

impl ConfigStats {
    /// What somebody should know, in a sentence; `None` while the file is in effect.
    pub fn trouble(&self) -> Option<String> {
        match (&self.file_differs, self.last_reload_succeeded) {
            (Some(why), _) => Some(format!("the configuration file is not in effect: {why}")),
            // Somebody has put the old text back.
            (None, false) => Some("the last reload was refused; the file is again what is in effect".to_owned()),
            (None, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_in_effect_and_a_refused_reload_are_trouble() {
        let mut config = ConfigStats::default();
        assert_eq!(config.trouble(), None);
        config.last_reload_succeeded = false;
        assert!(config.trouble().unwrap().starts_with("the last reload was refused;"));
        config.file_differs = Some("it has changed".to_owned());
        assert_eq!(config.trouble().unwrap(), "the configuration file is not in effect: it has changed");
    }
}
