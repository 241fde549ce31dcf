//! What a setting is, and the macro that makes the table of settings and the structs of their values from the same rows.

use super::ConfigError;
use super::reader::Reader;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Other variables it is read from, after its own.
    pub aliases: &'static [&'static str],
    /// The value when none is given.
    pub default: Default,
    /// Whether the value is never shown, and may also be in a file or a systemd credential.
    pub secret: bool,
    /// What the setting does.
    pub about: &'static str,
    /// The heading it is listed under.
    pub group: &'static str,
}

/// The value of a setting that is not given.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text, read like a given one.
    Value(&'static str),
    /// None; the text says what that means.
    Unset(&'static str),
    /// Depends on other settings or the machine; the text says how.
    Computed(&'static str, Compute),
}

/// Computes a default, as the text that would have been given.
pub type Compute = fn(&Reader<'_>) -> Result<String, ConfigError>;

impl Default {
    /// The default as people read it, in Markdown.
    pub fn text(&self) -> &'static str {
        match self {
            Default::Value(text) | Default::Unset(text) | Default::Computed(text, _) => text,
        }
    }
}

impl Setting {
    const fn with(default: Default) -> Setting {
        Setting {
            name: "",
            aliases: &[],
            default,
            secret: false,
            about: "",
            group: "",
        }
    }

    pub(super) const fn or(self, aliases: &'static [&'static str]) -> Setting {
        Setting { aliases, ..self }
    }

    pub(super) const fn secret(self) -> Setting {
        Setting {
            secret: true,
            ..self
        }
    }

    /// The variables it is read from, its own first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

pub(super) const fn value(text: &'static str) -> Setting {
    Setting::with(Default::Value(text))
}

pub(super) const fn unset(meaning: &'static str) -> Setting {
    Setting::with(Default::Unset(meaning))
}

pub(super) const fn computed(rule: &'static str, compute: Compute) -> Setting {
    Setting::with(Default::Computed(rule, compute))
}

/// Makes of each group of rows a struct with the values, and of all of them `Config` and the table `SETTINGS`.
///
/// A row is: documentation; the field and its type; the variable; the default; the parser.
macro_rules! settings {
    ($(
        #[doc = $heading:literal]
        $group:ident: $values:ident {
            $( $(#[doc = $about:literal])* $field:ident: $type:ty = $name:literal, $default:expr, $parser:expr; )*
        }
    )*) => {
        $(
            #[doc = $heading]
            #[derive(Clone, Debug)]
            pub struct $values { $( $(#[doc = $about])* pub $field: $type, )* }
        )*

        /// The settings of the program, checked.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( #[doc = $heading] pub $group: $values, )*
            /// Where the settings were read from.
            pub origin: Origin,
        }

        impl Config {
            pub(super) fn read(mut reader: Reader<'_>) -> Result<Config, ConfigError> {
                Ok(Config {
                    $( $group: $values { $( $field: reader.read($name, $parser)?, )* }, )*
                    origin: reader.origin(),
                })
            }
        }

        /// Every setting, in the order in which they are documented.
        pub const SETTINGS: &[Setting] = &[ $( $( Setting {
            name: $name,
            about: concat!($($about),*),
            group: $heading,
            ..$default
        }, )* )* ];
    };
}

pub(super) use settings;
