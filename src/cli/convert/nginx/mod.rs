//! nginx.conf as a [`Draft`].

mod http;
mod lexer;
mod listen;
mod map;
pub(super) mod reasons;
mod settings;
mod stream;
mod tree;
mod upstream;
mod values;

use std::collections::HashSet;
use std::path::Path;

use tree::{Directive, TreeReader};

use super::draft::{Draft, REJECT};
use super::ledger::Ledger;
use super::quantity::nginx_time;

/// Translates a file that the ledger knows by this number. `folder` is where the files are that it includes.
pub(super) fn translate(text: &str, file: usize, folder: &Path, ledger: &mut Ledger) -> Draft {
    let top = TreeReader::new(folder, ledger).read(text, file, 0);
    let mut draft = Draft::default();
    let mut names = HashSet::from([REJECT.to_owned()]);
    let mut taken = HashSet::new();
    for directive in &top {
        match directive.name() {
            "stream" => {
                ledger.translated(directive.id);
                stream::translate(directive.children(), &mut taken, &mut names, &mut draft, ledger);
            }
            "http" => {
                ledger.translated(directive.id);
                http::translate(directive.children(), &mut taken, &mut names, &mut draft, ledger);
            }
            "worker_processes" => match directive.word(1).parse() {
                Ok(count @ 1..=1024) => {
                    draft.workers = Some(count);
                    ledger.translated(directive.id);
                }
                _ => ledger.not_needed(directive.id, "there is one worker for each CPU"),
            },
            "worker_shutdown_timeout" => match nginx_time(directive.word(1)) {
                Some(length) => {
                    draft.drain = Some(length);
                    ledger.translated(directive.id);
                }
                None => ledger.left(directive.id, "not a duration"),
            },
            _ if is_fragment(&top) => {}
            _ => settings::account(&[directive], ledger),
        }
    }
    // A file of conf.d has the inner part of a block.
    if is_fragment(&top) {
        let is_http = |server: &Directive| {
            server.children().iter().any(|line| ["location", "server_name"].contains(&line.name()))
        };
        let inner: Vec<Directive> = top
            .into_iter()
            .filter(|directive| !["worker_processes", "worker_shutdown_timeout"].contains(&directive.name()))
            .collect();
        let block = if inner.iter().any(is_http) { http::translate } else { stream::translate };
        block(&inner, &mut taken, &mut names, &mut draft, ledger);
    }
    draft
}

fn is_fragment(top: &[Directive]) -> bool {
    !top.iter().any(|directive| ["stream", "http"].contains(&directive.name()))
}
