//! What a command is, how a command line becomes a call of one, and its help.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use lexopt::Arg::{Long, Short, Value};

use super::{COMMANDS, Failure};
use crate::config::documents::settings_for_help;
use crate::config::env_file::{DOT_ENV, EnvFile};
use crate::config::source::Source;
use crate::config::{Config, ConfigError};

/// A command.
pub struct Command {
    /// How it is called: its name, of one word or a group and an action; words that must follow; flags, in brackets unless they
    /// are needed. The command line is read by this text.
    pub usage: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// Further lines for its page of help.
    pub help: &'static str,
    /// Does the work.
    pub run: fn(&Call) -> Result<(), Failure>,
}

/// A flag in the usage of a command.
struct Flag {
    name: &'static str,
    takes_value: bool,
    needed: bool,
}

/// A command's words and flags as they were given.
pub struct Call {
    words: Vec<String>,
    flags: Vec<(&'static str, String)>,
    env_file: Option<PathBuf>,
}

/// What a command line asks for.
pub enum Request {
    /// The work of a command.
    Run(&'static Command, Call),
    /// This text.
    Print(String),
}

impl Call {
    /// A word after the command's name; empty where there is none.
    pub fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", String::as_str)
    }

    /// The value of a flag.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.flags.iter().rfind(|(flag, _)| *flag == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The settings, checked.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.source()?, &super::setup::CHECKS)
    }

    /// The environment and the file that was named; where none was, `.env` in development.
    pub fn source(&self) -> Result<Source, ConfigError> {
        let source = Source::of_process();
        if let Some(path) = &self.env_file {
            return Ok(source.with_file(EnvFile::read(path)?));
        }
        if source.get("ENVIRONMENT")?.as_deref() == Some("production") {
            return Ok(source);
        }
        let Some(file) = EnvFile::read_if_there(Path::new(DOT_ENV))? else {
            return Ok(source);
        };
        if file.get("ENVIRONMENT") == Some("production") {
            return Err(ConfigError {
                variable: "ENVIRONMENT".to_owned(),
                problem: format!(
                    "must not be production in {DOT_ENV}, which is for development: name the file with --env-file"
                ),
            });
        }
        Ok(source.with_file(file))
    }
}

/// Reads a command line.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Request, Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut help, mut env_file) = (false, None);
    let (mut words, mut flags) = (Vec::new(), Vec::new());
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => help = true,
            Short('V') | Long("version") => {
                return Ok(Request::Print(
                    concat!("todo-api ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
                ));
            }
            Long("env-file") => env_file = Some(PathBuf::from(parser.value()?)),
            Value(word) if words.is_empty() && word == "help" => help = true,
            Value(word) => words.push(text(word)?),
            Long(name) => match matching(&words).find_map(|command| command.flag(name)) {
                Some(flag) if flag.takes_value => {
                    flags.push((flag.name, text(parser.value()?)?));
                }
                Some(flag) => flags.push((flag.name, String::new())),
                None => return Err(argument.unexpected().into()),
            },
            argument => return Err(argument.unexpected().into()),
        }
    }
    if help {
        return help_on(&words).map(Request::Print);
    }
    if words.is_empty() {
        words.push("serve".to_owned());
    }
    let command = named(&words)?;
    let words = words.split_off(command.name().count());
    let call = Call {
        words,
        flags,
        env_file,
    };
    command.check(&call)?;
    Ok(Request::Run(command, call))
}

fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|value| Failure::Usage(format!("{value:?} is not UTF-8")))
}

/// The commands whose name agrees with these words as far as both go; none without a word.
fn matching(words: &[String]) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().copied().flatten().filter(move |command| {
        let mut pairs = command.name().zip(words);
        !words.is_empty() && pairs.all(|(name, word)| name == word)
    })
}

/// The command whose whole name these words start with.
fn named(words: &[String]) -> Result<&'static Command, Failure> {
    if let Some(command) = matching(words).find(|command| command.name().count() <= words.len()) {
        return Ok(command);
    }
    let actions: Vec<&str> = matching(words)
        .filter_map(|command| command.name().nth(1))
        .collect();
    let words = words.join(" ");
    Err(Failure::Usage(if actions.is_empty() {
        format!("there is no command {words:?}")
    } else {
        format!("{words} needs one of: {}", actions.join(", "))
    }))
}

impl Command {
    fn name(&self) -> impl Iterator<Item = &'static str> {
        let in_lower_case = |part: &&str| part.starts_with(|c: char| c.is_ascii_lowercase());
        self.usage.split(' ').take_while(in_lower_case)
    }

    /// The words that must follow the name.
    fn words(&self) -> impl Iterator<Item = &'static str> {
        let in_upper_case = |part: &&str| part.starts_with(|c: char| c.is_ascii_uppercase());
        self.usage
            .split(' ')
            .skip(self.name().count())
            .take_while(in_upper_case)
    }

    fn flags(&self) -> impl Iterator<Item = Flag> {
        self.usage.split("--").skip(1).map(|part| {
            let (_, rest) = part.split_once(' ').unwrap_or_default();
            Flag {
                name: part.split([' ', ']']).next().unwrap_or_default(),
                takes_value: rest.starts_with(|c: char| c.is_ascii_uppercase()),
                needed: !part.contains(']'),
            }
        })
    }

    fn flag(&self, name: &str) -> Option<Flag> {
        self.flags().find(|flag| flag.name == name)
    }

    fn check(&self, call: &Call) -> Result<(), Failure> {
        let unknown = call
            .flags
            .iter()
            .find(|(flag, _)| self.flag(flag).is_none());
        let missing = self
            .flags()
            .find(|flag| flag.needed && !call.has(flag.name));
        let problem = if let Some(word) = call.words.get(self.words().count()) {
            format!("unexpected argument {word:?}")
        } else if let Some(word) = self.words().nth(call.words.len()) {
            format!("{} needs {word}", self.title())
        } else if let Some((flag, _)) = unknown {
            format!("{} does not take --{flag}", self.title())
        } else if let Some(flag) = missing {
            format!("{} needs --{}", self.title(), flag.name)
        } else {
            return Ok(());
        };
        Err(Failure::Usage(problem))
    }

    fn title(&self) -> String {
        self.name().collect::<Vec<_>>().join(" ")
    }

    fn page(&self) -> String {
        format!(
            "Usage: todo-api {}\n\n{}\n{}",
            self.usage, self.about, self.help
        )
    }
}

/// The page of a command, the pages of a group, or without words the main page.
fn help_on(words: &[String]) -> Result<String, Failure> {
    if words.is_empty() {
        return Ok(main_page());
    }
    if words == ["settings"] {
        return Ok(settings_for_help());
    }
    let pages: Vec<String> = matching(words).map(Command::page).collect();
    if pages.is_empty() {
        return named(words).map(Command::page);
    }
    Ok(pages.join("\n"))
}

fn main_page() -> String {
    let mut page = String::from(
        "todo-api: a task server on PostgreSQL\n\n\
         Usage: todo-api [COMMAND] [OPTIONS]\n\n\
         Commands (`todo-api help COMMAND` explains one):\n",
    );
    for command in COMMANDS.iter().copied().flatten() {
        let _ = writeln!(page, "  {:17} {}", command.title(), command.about);
    }
    page.push_str(
        "
Options:
  --env-file FILE  Read settings from this file too; environment variables override it
  -h, --help       Print this, or the page of the command before it
  -V, --version    Print the version

Settings are environment variables; `todo-api help settings` explains them. Without any,
the server listens on http://127.0.0.1:8000 and keeps a private PostgreSQL in ./data.
In development a file .env in the working directory is read like FILE.
",
    );
    page
}
