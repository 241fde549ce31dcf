//! Files with settings: `--env-file FILE`, and `.env` in development.
//!
//! A line is `NAME=value`, with or without `export` before it; `#` starts a comment. A value may be in single quotes, where every
//! character is itself, or in double quotes, where a backslash removes the meaning of `"`, `\`, `$` and `` ` ``. A quoted value may have
//! several lines. Nothing is replaced in a value. Shells, systemd and Docker differ in how they read such files, so an unquoted value
//! that they would read differently is an error.
//!
//! `.env` may have lines for other programs, which are ignored; but a name that looks like a misspelt setting is an error. In any
//! other file, every unknown name is an error.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::names;

/// The file that is read in development, if it is in the working directory.
pub const DOT_ENV: &str = ".env";

/// The settings in a file.
#[derive(Clone, Debug)]
pub struct EnvFile {
    /// The path of the file.
    pub path: PathBuf,
    values: HashMap<String, String>,
}

impl EnvFile {
    /// Reads a file. Only a file called `.env` may have lines for other programs.
    ///
    /// # Errors
    /// The file or a line of it cannot be read; the sentence names the file and the line, never the value.
    pub fn read(path: &Path) -> Result<EnvFile, String> {
        let ours_alone = path.file_name().is_some_and(|name| name != DOT_ENV);
        let values = fs::read_to_string(path)
            .map_err(|error| format!("cannot be read: {error}"))
            .and_then(|text| parse(&text, ours_alone))
            .map_err(|problem| format!("{} {problem}", path.display()))?;
        Ok(EnvFile {
            path: path.to_owned(),
            values,
        })
    }

    /// The value of a variable.
    pub fn get(&self, variable: &str) -> Option<&str> {
        self.values.get(variable).map(String::as_str)
    }
}

/// The settings in a text. An error is the end of a sentence that starts with the file's name.
fn parse(text: &str, ours_alone: bool) -> Result<HashMap<String, String>, String> {
    let mut values = HashMap::new();
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    while !rest.is_empty() {
        let number = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let statement = line.trim();
        if statement.is_empty() || statement.starts_with('#') {
            rest = after;
            continue;
        }
        let (name, value) = assignment(rest)
            .ok_or_else(|| format!("cannot be read: line {number} is not NAME=value"))?;
        let ours = names::is_known(name);
        if !ours && (ours_alone || names::meant(name).is_some()) {
            let (nearest, _) = names::nearest(name);
            return Err(format!(
                "has {name} in line {number}, which is no setting; the nearest is {nearest}"
            ));
        }
        rest = match read_value(value) {
            Ok((value, after)) => {
                if ours {
                    values.insert(name.to_owned(), value);
                }
                after
            }
            Err(_) if !ours => after,
            Err(problem) => return Err(format!("has {name} in line {number}, which {problem}")),
        };
    }
    Ok(values)
}

/// The name at the start of a text, and everything after its `=`.
fn assignment(text: &str) -> Option<(&str, &str)> {
    let (name, value) = text.split_once('=')?;
    let name = name.trim_start();
    let name = name.strip_prefix("export ").unwrap_or(name);
    let name = name.trim_matches([' ', '\t']);
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!name.is_empty() && name.bytes().all(fit)).then_some((name, value))
}

/// Reads a value up to the end of its line. Returns it with the text after that line.
fn read_value(text: &str) -> Result<(String, &str), &'static str> {
    let text = text.trim_start_matches([' ', '\t']);
    let (value, rest) = match text.chars().next() {
        Some('\'') => {
            let quoted = text[1..].split_once('\'');
            let (value, rest) = quoted.ok_or("has a quote that is not closed")?;
            (value.to_owned(), rest)
        }
        Some('"') => double_quoted(&text[1..])?,
        _ => return unquoted(text),
    };
    let (end, after) = rest.split_once('\n').unwrap_or((rest, ""));
    let end = end.trim();
    if end.is_empty() || end.starts_with('#') {
        Ok((value, after))
    } else {
        Err("has text after the closing quote")
    }
}

fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    let (value, after) = text.split_once('\n').unwrap_or((text, ""));
    let value = value.trim();
    if value.contains(['\'', '"', '\\', '`']) || value.contains(" #") || value.contains("\t#") {
        return Err("must be put in single quotes: programs read it differently without them");
    }
    // `NAME= # a comment` has no value.
    let value = if value.starts_with('#') { "" } else { value };
    Ok((value.to_owned(), after))
}

fn double_quoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\' | '$' | '`'))) => value.push(escaped),
                _ => return Err("has a backslash before a character that needs none"),
            },
            character => value.push(character),
        }
    }
    Err("has a quote that is not closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str, name: &str) -> Option<String> {
        parse(text, false).unwrap().remove(name)
    }

    #[test]
    fn values_are_read() {
        for (line, value) in [
            ("WORKERS=4", "4"),
            ("export WORKERS = 4 ", "4"),
            ("\u{feff}WORKERS=4\r\nPORT=1", "4"),
            ("# WORKERS=5\n\n  WORKERS='4' # five were too many", "4"),
            ("WORKERS=3\nWORKERS=4", "4"),
            ("WORKERS=a=b#c d$HOME", "a=b#c d$HOME"),
            (
                r#"WORKERS="a \"b\" \\ \$HOME # 'c'""#,
                r#"a "b" \ $HOME # 'c'"#,
            ),
            (r"WORKERS='a \n $b'", r"a \n $b"),
            ("WORKERS='two\nlines'\nPORT=1", "two\nlines"),
            ("WORKERS=", ""),
            ("WORKERS= # none", ""),
        ] {
            assert_eq!(one(line, "WORKERS").as_deref(), Some(value), "{line}");
        }
    }

    #[test]
    fn a_value_that_programs_read_differently_is_refused_and_not_shown() {
        for line in [
            "JWT_SECRET=hunter2 # old",
            "JWT_SECRET=hunter2\\n",
            "JWT_SECRET=it's hunter2",
            "JWT_SECRET='hunter2",
            "JWT_SECRET=\"hunter2",
            "JWT_SECRET='hunter2'hunter2",
            "JWT_SECRET=\"hunter2\\n\"",
        ] {
            let problem = parse(&format!("PORT=1\n{line}\nHOST=::1"), true).unwrap_err();
            assert!(
                problem.starts_with("has JWT_SECRET in line 2, which "),
                "{problem}"
            );
            assert!(!problem.contains("hunter2"), "{problem}");
        }
        let problem = parse("PORT=1\nhunter2\n", true).unwrap_err();
        assert_eq!(problem, "cannot be read: line 2 is not NAME=value");
    }

    #[test]
    fn lines_for_other_programs_are_ignored() {
        let text = "NEXT_PUBLIC_URL=http://localhost # ours\nKEY=\"-----BEGIN\nabc==\n-----END\"\nTITLE=it's\nPORT=1";
        assert_eq!(parse(text, false).unwrap().len(), 1);
        assert_eq!(one(text, "PORT").as_deref(), Some("1"));
    }

    #[test]
    fn an_unknown_name_is_refused_and_the_nearest_setting_named() {
        let misspelt = parse("PORT=1\nWROKERS=hunter2", false).unwrap_err();
        assert_eq!(
            misspelt,
            "has WROKERS in line 2, which is no setting; the nearest is WORKERS"
        );
        assert!(parse("FOO=1", false).unwrap().is_empty());
        assert!(parse("NEXT_PUBLIC_URL=1", true).is_err());
    }
}
