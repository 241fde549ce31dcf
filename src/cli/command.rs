//! The description of a command, the parser of command lines, and help.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use lexopt::Arg::{Long, Short, Value};

use super::{COMMANDS, Failure, print, setup};
use crate::config::Config;
use crate::config::documents::settings_for_help;
use crate::config::env_file::{DOT_ENV, EnvFile};
use crate::config::source::Source;

/// Makes the table of a file's commands. A row is: usage; about; help; run (see [`Command`]).
macro_rules! commands {
    ($($usage:literal, $about:literal, $help:expr, $run:expr;)*) => {
        pub const COMMANDS: &[crate::cli::command::Command] = &[$(crate::cli::command::Command {
            usage: $usage,
            about: $about,
            help: $help,
            run: $run,
        },)*];
    };
}

/// A command.
pub struct Command {
    /// Its name, of one word or a group and an action; its arguments in capitals; its flags. Optional ones are in brackets. The command
    /// line is parsed by this text.
    pub usage: &'static str,
    /// What it does, in one sentence.
    pub about: &'static str,
    /// More lines for its page of help.
    pub help: &'static str,
    /// Does the work.
    pub run: fn(&CommandLine) -> Result<(), Failure>,
}

/// A flag in the usage of a command.
struct Flag {
    name: &'static str,
    takes_value: bool,
    required: bool,
}

/// The arguments and flags of a command, as given.
pub struct CommandLine {
    arguments: Vec<String>,
    flags: Vec<(&'static str, String)>,
    env_file: Option<PathBuf>,
}

impl CommandLine {
    /// An argument after the command's name; empty if there is none.
    pub fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", String::as_str)
    }

    /// The value of a flag; empty for a flag without a value.
    pub fn value(&self, name: &str) -> Option<&str> {
        let found = self.flags.iter().rfind(|(flag, _)| *flag == name);
        found.map(|(_, value)| value.as_str())
    }

    /// All flags, as `NAME=VALUE`.
    pub fn options(&self) -> Vec<String> {
        let flags = self.flags.iter();
        flags
            .map(|(flag, value)| format!("{flag}={value}"))
            .collect()
    }

    /// Whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The parsed value of a flag.
    pub fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, &'static str>,
    ) -> Result<Option<T>, Failure> {
        let value = self.value(name).map(parse).transpose();
        value.map_err(|problem| Failure::usage(format!("--{name} {problem}")))
    }

    /// The settings, checked.
    pub fn config(&self) -> Result<Config, String> {
        Config::load(&self.source()?, &setup::CHECKS)
    }

    /// The environment, with the file of `--env-file` or, in development, with `.env`.
    pub fn source(&self) -> Result<Source, String> {
        let source = Source::of_process();
        if let Some(path) = &self.env_file {
            return Ok(source.with_file(EnvFile::read(path)?));
        }
        let in_production = source.get("ENVIRONMENT")?.as_deref() == Some("production");
        let path = Path::new(DOT_ENV);
        // If the directory cannot be searched, reading the file gives the reason.
        if in_production || !path.try_exists().unwrap_or(true) {
            return Ok(source);
        }
        let file = EnvFile::read(path)?;
        if file.get("ENVIRONMENT") == Some("production") {
            return Err(format!(
                "ENVIRONMENT must not be production in {DOT_ENV}, which is for development: name the file with --env-file"
            ));
        }
        Ok(source.with_file(file))
    }
}

/// Runs a command line, or prints the help that it asks for. An error in the command line names the page of help.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Result<(), Failure> {
    let mut words = Vec::new();
    parse_and_run(arguments, &mut words).map_err(|mut failure| {
        if failure.exit_code == 2 {
            let command = named(&words).map_or(String::new(), |command| command.title() + " ");
            failure.problem += &format!("; see `todo-api {command}--help`");
        }
        failure
    })
}

fn parse_and_run(
    arguments: impl Iterator<Item = OsString>,
    words: &mut Vec<String>,
) -> Result<(), Failure> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut help, mut env_file, mut flags) = (false, None, Vec::new());
    while let Some(argument) = parser.next().map_err(Failure::usage)? {
        match argument {
            Short('h') | Long("help") => help = true,
            Short('V') | Long("version") => {
                return print(concat!("todo-api ", env!("CARGO_PKG_VERSION"), "\n"));
            }
            Long("env-file") => {
                env_file = Some(PathBuf::from(parser.value().map_err(Failure::usage)?));
            }
            Value(word) if words.is_empty() && word == "help" => help = true,
            Value(word) => words.push(text(word)?),
            Long(name) => {
                let Some(flag) = matching(words).find_map(|command| command.flag(name)) else {
                    return Err(Failure::usage(argument.unexpected()));
                };
                let value = match flag.takes_value {
                    true => text(parser.value().map_err(Failure::usage)?)?,
                    false => String::new(),
                };
                flags.push((flag.name, value));
            }
            argument => return Err(Failure::usage(argument.unexpected())),
        }
    }
    if help {
        return print(&help_on(words)?);
    }
    if words.is_empty() {
        words.push("serve".to_owned());
    }
    let first = named(words)?;
    let line = CommandLine {
        arguments: words.iter().skip(first.name().count()).cloned().collect(),
        flags,
        env_file,
    };
    // A command may have several forms, which are rows of the same name.
    let mut forms = matching(words).filter(|form| form.name().eq(first.name()));
    let command = forms.find(|form| form.check(&line).is_ok());
    let command = command.unwrap_or(first);
    command.check(&line).map_err(Failure::usage)?;
    (command.run)(&line)
}

fn text(value: OsString) -> Result<String, Failure> {
    let text = value.into_string();
    text.map_err(|value| Failure::usage(format!("{value:?} is not UTF-8")))
}

/// The commands whose names begin with these words, or are the beginning of them. None without a word.
fn matching(words: &[String]) -> impl Iterator<Item = &'static Command> {
    COMMANDS.iter().copied().flatten().filter(move |command| {
        let mut pairs = command.name().zip(words);
        !words.is_empty() && pairs.all(|(name, word)| name == word)
    })
}

/// The command whose name is the beginning of these words.
fn named(words: &[String]) -> Result<&'static Command, Failure> {
    if let Some(command) = matching(words).find(|command| command.name().count() <= words.len()) {
        return Ok(command);
    }
    let group = words.get(..1).unwrap_or_default();
    let actions = matching(group).filter_map(|command| command.name().nth(1));
    let actions: Vec<&str> = actions.collect();
    let mut problems = Vec::new();
    if words != group || actions.is_empty() {
        problems.push(format!("there is no command {:?}", words.join(" ")));
    }
    if !actions.is_empty() {
        let (group, actions) = (group.concat(), actions.join(", "));
        problems.push(format!("{group} needs one of: {actions}"));
    }
    Err(Failure::usage(problems.join("; ")))
}

impl Command {
    fn name(&self) -> impl Iterator<Item = &'static str> {
        let in_lower_case = |part: &&str| part.starts_with(|c: char| c.is_ascii_lowercase());
        self.usage.split(' ').take_while(in_lower_case)
    }

    /// The arguments that follow the name; those in brackets may be left out.
    fn arguments(&self) -> impl Iterator<Item = &'static str> {
        let word = |part: &str| part.trim_start_matches('[').chars().next();
        let in_upper_case = move |part: &&str| word(part).is_some_and(|c| c.is_ascii_uppercase());
        let after_name = self.usage.split(' ').skip(self.name().count());
        after_name.take_while(in_upper_case)
    }

    fn flags(&self) -> impl Iterator<Item = Flag> {
        self.usage.split("--").skip(1).map(|part| {
            let (_, rest) = part.split_once(' ').unwrap_or_default();
            Flag {
                name: part.split([' ', ']']).next().unwrap_or_default(),
                takes_value: rest.starts_with(|c: char| c.is_ascii_uppercase()),
                required: !part.contains(']'),
            }
        })
    }

    fn flag(&self, name: &str) -> Option<Flag> {
        self.flags().find(|flag| flag.name == name)
    }

    fn check(&self, line: &CommandLine) -> Result<(), String> {
        let (mut given, mut flags) = (line.flags.iter(), self.flags());
        let missing = self.arguments().nth(line.arguments.len());
        let missing = missing.filter(|word| !word.starts_with('['));
        let problem = if let Some(word) = line.arguments.get(self.arguments().count()) {
            format!("unexpected argument {word:?}")
        } else if let Some(word) = missing {
            format!("{} needs {word}", self.title())
        } else if let Some((flag, _)) = given.find(|(flag, _)| self.flag(flag).is_none()) {
            format!("{} does not take --{flag}", self.title())
        } else if let Some(flag) = flags.find(|flag| flag.required && !line.has(flag.name)) {
            format!("{} needs --{}", self.title(), flag.name)
        } else {
            return Ok(());
        };
        Err(problem)
    }

    fn title(&self) -> String {
        self.name().collect::<Vec<_>>().join(" ")
    }

    fn page(&self) -> String {
        let (usage, about, help) = (self.usage, self.about, self.help);
        format!("Usage: todo-api {usage}\n\n{about}\n{help}")
    }
}

/// The page of a command, the pages of a group, or without words the main page.
fn help_on(words: &[String]) -> Result<String, Failure> {
    let pages: Vec<String> = matching(words).map(Command::page).collect();
    match words {
        [] => Ok(main_page()),
        [word] if word == "settings" => Ok(settings_for_help()),
        _ if pages.is_empty() => named(words).map(Command::page),
        _ => Ok(pages.join("\n")),
    }
}

fn main_page() -> String {
    let commands: String = (COMMANDS.iter().copied().flatten())
        .map(|command| format!("  {:17} {}\n", command.title(), command.about))
        .collect();
    format!(
        "todo-api: a task server on PostgreSQL

Usage: todo-api [COMMAND] [OPTIONS]

Commands (`todo-api help COMMAND` explains one):
{commands}
Options:
  --env-file FILE  Read settings from this file too; environment variables override it
  -h, --help       Print this page, or the page of the given command
  -V, --version    Print the version

Settings are environment variables; `todo-api help settings` explains them. Without any,
the server listens on http://127.0.0.1:8000 and keeps a private PostgreSQL in ./data.
In development a file .env in the working directory is read like FILE.
"
    )
}
