//! tidegate.yaml(5), from the schema.

use tidegate::config::DEFAULT_PATHS;
use tidegate::config::reference::{KeyReference, reference};

use super::roff::{Roff, escaped};

const SMALLEST: &str = "\
listeners:
  - name: web
    bind: 0.0.0.0:8080
    pool: web
pools:
  - name: web
    backends:
      - address: 10.0.0.1:8080
      - address: 10.0.0.2:8080
    health:
      tcp: {}
";

/// The page.
pub(super) fn page() -> String {
    let mut page = Roff::default();
    page.0.push_str(&format!(".TH tidegate.yaml 5 \"\" \"tidegate {}\" tidegate\n", env!("CARGO_PKG_VERSION")));
    page.section("NAME");
    page.0.push_str("tidegate.yaml \\- configuration of the load balancer tidegate\n");
    page.section("DESCRIPTION");
    page.paragraph(
        "The file is YAML. It has listeners, which accept connections, and pools of backends, which take them. Unknown keys, \
         duplicate names and dangling references are errors; tidegate check reports all of them, each with its line.",
    );
    page.example(SMALLEST);
    page.section("VALUES");
    for (kind, text) in VALUES {
        page.item(kind, text);
    }
    page.section("KEYS");
    page.paragraph(
        "A key in brackets belongs to each entry of a list: listeners[].bind is the key bind of a listener.",
    );
    let mut section = None;
    for key in reference() {
        let (of, name) = key.section_and_name();
        if section.as_deref() != Some(of) && !key.is_section {
            page.subsection(if of.is_empty() { "Top of the file" } else { of });
            section = Some(of.to_owned());
        }
        if key.is_section {
            page.subsection(&key.path);
            page.paragraph(&described(&key));
            section = Some(format!("{}{}", key.path, if key.kind.starts_with("list") { "[]" } else { "" }));
        } else {
            page.item(name, &described(&key));
            page.0.push_str(&words(&key));
        }
    }
    page.section("FILES");
    for path in DEFAULT_PATHS {
        page.item(path, "Read when no file is named, the first that exists.");
    }
    page.section("SEE ALSO");
    page.0.push_str("\\fBtidegate\\fR(1)\n");
    page.0
}

const VALUES: [(&str, &str); 7] = [
    ("duration", "A number with its unit: 250ms, 2s, 5m, 1h. 0s switches most timeouts off."),
    ("rate", "A number in a period: 20/s, 600/m, 1000/h. 0 is no limit."),
    (
        "address",
        "127.0.0.1:5432, \"[::1]:5432\", \"[fe80::1%eth0]:5432\" or unix:/run/app.sock, whose path is absolute. A backend's may also be \
         db.example:5432. One that begins with a bracket needs quotes.",
    ),
    ("file", "A path, relative to the working directory of the process."),
    ("boolean", "true or false. Where off is a value, false is the same."),
    ("section", "Keys of its own. Left out, or empty, each of its keys has its default."),
    ("text in double quotes", "Has the escapes of YAML. In health checks, \\xff is one byte."),
];

/// The paragraph of a key.
fn described(key: &KeyReference) -> String {
    let mut facts = vec![key.kind.clone()];
    if key.required {
        facts.push("required".to_owned());
    }
    if let Some(default) = &key.default {
        facts.push(format!("default {default}"));
    }
    let mut text = format!("{} ({})", key.description, facts.join("; "));
    if !key.examples.is_empty() {
        text.push_str(&format!(" For example: {}", key.examples.join(" ")));
    }
    text
}

/// The words that a key takes.
fn words(key: &KeyReference) -> String {
    let meant = |(word, meaning): &(String, String)| match meaning.as_str() {
        "" => format!(".IP\n\\fB{}\\fR\n", escaped(word)),
        meaning => format!(".IP\n\\fB{}\\fR: {}\n", escaped(word), escaped(meaning)),
    };
    key.values.iter().map(meant).collect()
}
