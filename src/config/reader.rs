//! Reads settings from their source, one after another.

use std::path::PathBuf;

use super::ModuleChecks;
use super::setting::{Default, Setting};
use super::settings::{SETTINGS, setting};
use super::source::Source;

/// Reads settings, and records their values and sources.
pub struct SettingsReader<'s> {
    source: &'s Source,
    checks: &'s ModuleChecks,
    effective: Vec<Effective>,
}

/// A setting and its effective value.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// Its value; `None` for a secret, and without a value.
    pub value: Option<String>,
    /// The place of the value; `None` for a default.
    pub given: Option<String>,
}

/// The source of the settings.
#[derive(Clone, Debug)]
pub struct SettingsOrigin {
    /// The file that settings were also read from.
    pub env_file: Option<PathBuf>,
    /// Whether systemd has handed over sockets, which replace `LISTEN`.
    pub activated: bool,
    /// Every setting with its value.
    pub effective: Vec<Effective>,
    /// Environment variables that look like a misspelt setting, each as a sentence.
    pub misspelt: Vec<String>,
}

impl<'s> SettingsReader<'s> {
    pub(super) fn new(source: &'s Source, checks: &'s ModuleChecks) -> SettingsReader<'s> {
        SettingsReader {
            source,
            checks,
            effective: Vec::with_capacity(SETTINGS.len()),
        }
    }

    pub(super) fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let text = self.text(name)?;
        let value = parse(&text).map_err(|problem| self.refuse(name, &problem))?;
        if let Some(setting) = setting(name) {
            let shown = !text.is_empty() && !setting.secret;
            self.effective.push(Effective {
                setting,
                value: shown.then_some(text),
                given: self.source.find(name).map(|found| found.place),
            });
        }
        Ok(value)
    }

    /// The text of a setting, or of its default. Empty if there is none.
    ///
    /// # Errors
    /// The value cannot be read, or there is no default in this environment.
    pub fn text(&self, name: &'static str) -> Result<String, String> {
        match (self.source.get(name)?, setting(name).map(|it| it.default)) {
            (Some(text), _) => Ok(text),
            (None, Some(Default::Value(text))) => Ok(text.to_owned()),
            (None, Some(Default::Computed(_, compute))) => compute(self),
            (None, Some(Default::Unset(_)) | None) => Ok(String::new()),
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
    pub fn database_is_local(&self) -> Result<bool, String> {
        match self.text("DATABASE_URL")?.as_str() {
            "" => Ok(true),
            url => (self.checks.database_is_local)(url)
                .map_err(|problem| self.refuse("DATABASE_URL", &problem)),
        }
    }

    /// The error for a wrong value. It names the setting as it was given.
    pub fn refuse(&self, name: &str, problem: &str) -> String {
        match self.source.find(name) {
            Some(found) => format!("{} {problem}", found.subject),
            None => format!("{name} {problem}"),
        }
    }

    pub(super) fn origin(self) -> SettingsOrigin {
        SettingsOrigin {
            env_file: self.source.file().map(|file| file.path.clone()),
            activated: self.is_activated(),
            effective: self.effective,
            misspelt: self.source.misspelt(),
        }
    }
}
