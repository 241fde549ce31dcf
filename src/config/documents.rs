//! The help on settings, written from their rows.

use std::fmt::Write;

use super::settings::SETTINGS;

/// Text without Markdown's quotes around code.
pub fn plain(text: &str) -> String {
    text.trim().replace('`', "")
}

/// Every setting with its default and its documentation, for a page of help.
pub fn settings_for_help() -> String {
    let mut text = String::new();
    for group in SETTINGS.chunk_by(|one, next| one.group == next.group) {
        let heading = group.first().map_or("", |setting| setting.group.trim());
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{heading}");
        for setting in group {
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
