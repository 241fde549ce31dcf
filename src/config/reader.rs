//! Reads settings from their source, one after another.

use std::path::PathBuf;

use super::setting::{Default, Setting};
use super::settings::{SETTINGS, setting};
use super::source::Source;
use super::{ConfigError, ModuleChecks};

/// Reads settings and notes their values and origins.
pub struct Reader<'s> {
    source: &'s Source,
    checks: &'s ModuleChecks,
    effective: Vec<Effective>,
}

/// A setting and the value that it has now.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value; `None` for a secret, and where there is none.
    pub value: Option<String>,
    /// Where it was given; `None`: nowhere, this is the default.
    pub given: Option<String>,
}

/// Where settings were read from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The file that settings were also read from.
    pub env_file: Option<PathBuf>,
    /// Whether systemd has handed over sockets, which replace `LISTEN`.
    pub activated: bool,
    /// Every setting with its value.
    pub effective: Vec<Effective>,
    /// Environment variables that look like a misspelt setting, each as a sentence.
    pub misspelt: Vec<String>,
}

impl<'s> Reader<'s> {
    pub(super) fn new(source: &'s Source, checks: &'s ModuleChecks) -> Reader<'s> {
        Reader {
            source,
            checks,
            effective: Vec::with_capacity(SETTINGS.len()),
        }
    }

    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = self.text(name)?;
        let value = parse(&text).map_err(|problem| self.refuse(name, problem))?;
        if let Some(setting) = setting(name) {
            let shown = !text.is_empty() && !setting.secret;
            self.effective.push(Effective {
                setting,
                value: shown.then_some(text),
                given: self.source.place_in_words(name),
            });
        }
        Ok(value)
    }

    /// The text of a setting: as given, else the default. Empty where there is none.
    ///
    /// # Errors
    /// The given text cannot be read, or there is no default in this place.
    pub fn text(&self, name: &'static str) -> Result<String, ConfigError> {
        if let Some(text) = self.source.get(name)? {
            return Ok(text);
        }
        match setting(name).map(|setting| setting.default) {
            Some(Default::Value(text)) => Ok(text.to_owned()),
            Some(Default::Computed(_, compute)) => compute(self),
            Some(Default::Unset(_)) | None => Ok(String::new()),
        }
    }

    /// Whether systemd has handed over sockets.
    pub fn is_activated(&self) -> bool {
        self.source.activated()
    }

    /// Whether the database runs on this machine.
    ///
    /// # Errors
    /// `DATABASE_URL` is wrong.
    pub fn database_is_local(&self) -> Result<bool, ConfigError> {
        match self.text("DATABASE_URL")?.as_str() {
            "" => Ok(true),
            url => (self.checks.database_is_local)(url)
                .map_err(|problem| self.refuse("DATABASE_URL", problem)),
        }
    }

    /// The error for a wrong value, which names the setting as it was given.
    pub fn refuse(&self, name: &str, problem: impl Into<String>) -> ConfigError {
        ConfigError::new(&self.source.origin(name), problem)
    }

    pub(super) fn origin(self) -> Origin {
        Origin {
            env_file: self.source.file().map(|file| file.path.clone()),
            activated: self.is_activated(),
            effective: self.effective,
            misspelt: self.source.misspelt(),
        }
    }
}
