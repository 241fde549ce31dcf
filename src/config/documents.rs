//! `.env.example`, `docs/settings.md` and help, written from the rows of settings.

use std::fmt::Write;

use super::setting::Setting;
use super::settings::SETTINGS;

const SETTINGS_HEAD: &str = "\
# Settings

Written from the rows in `src/config/settings.rs`; `UPDATE_DOCUMENTS=1 cargo test documents` writes it anew.

Settings are environment variables; none is needed to try todo-api out. They may also be in a file: `--env-file FILE`, or `.env` in the
working directory, which is read in development only. The environment goes before the file. A secret `X` may also be in a file named by
`X_FILE`, or a systemd credential of the same name. `todo-api config` prints every setting with its value and where it came from.

A bad value stops the start with one line that names the variable and never the value. So does an unknown name in `FILE`; in `.env`, which
may hold variables of other programs, only a name that looks like a misspelt setting does. Such a name in the environment is a warning.
";

const EXAMPLE_HEAD: &str = "\
# Settings of todo-api. Copy this file to .env, which is read in development, or to a file that --env-file names,
# and uncomment what you need. Put a value in single quotes when it has quotes, backslashes or # in it.
# None is needed to try it out. A secret X may also be in a file named by X_FILE, or a systemd credential X.
";

/// Settings by group, in the order of the rows.
fn groups() -> impl Iterator<Item = (&'static str, &'static [Setting])> {
    SETTINGS
        .chunk_by(|one, next| one.group == next.group)
        .filter_map(|rows| Some((rows.first()?.group.trim(), rows)))
}

/// Text without Markdown's quotes around code.
pub fn plain(text: &str) -> String {
    text.trim().replace('`', "")
}

/// `docs/settings.md`.
pub fn settings_page() -> String {
    let mut page = SETTINGS_HEAD.to_owned();
    for (group, rows) in groups() {
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "\n## {group}\n\n| variable | default | what it does |\n|---|---|---|\n"
        );
        for setting in rows {
            let names: Vec<String> = setting.names().map(|name| format!("`{name}`")).collect();
            let _ = writeln!(
                page,
                "| {} | {} | {} |",
                names.join(" or "),
                setting.default.text(),
                setting.about.trim()
            );
        }
    }
    page
}

/// `.env.example`.
pub fn env_example() -> String {
    let mut text = EXAMPLE_HEAD.to_owned();
    for setting in SETTINGS {
        let default = plain(setting.default.text());
        let _ = write!(text, "\n# {}\n# Default: {default}\n", plain(setting.about));
        for alias in setting.aliases {
            let _ = writeln!(text, "# Also read from {alias}.");
        }
        let _ = writeln!(text, "#{}=", setting.name);
    }
    text
}

/// Every setting with its default and what it does, for a page of help.
pub fn settings_for_help() -> String {
    let mut text = String::new();
    for (group, rows) in groups() {
        let _ = writeln!(text, "{group}");
        for setting in rows {
            let default = plain(setting.default.text());
            let _ = writeln!(text, "  {} (default: {default})", setting.name);
            text.push_str(&wrapped(&plain(setting.about), "      "));
        }
        text.push('\n');
    }
    text
}

/// Breaks text into lines of at most 96 columns.
fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = String::new();
    let mut line = indent.to_owned();
    for word in text.split_whitespace() {
        if line.len() + word.len() >= 96 {
            lines.push_str(line.trim_end());
            lines.push('\n');
            line = indent.to_owned();
        }
        line.push_str(word);
        line.push(' ');
    }
    lines + line.trim_end() + "\n"
}
