//! The parts of a setting's row, and the macro that makes the table of settings and the structs of their values from the rows.

use super::reader::SettingsReader;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The environment variable.
    pub name: &'static str,
    /// Other variables with the same meaning, in the order in which they are tried.
    pub aliases: &'static [&'static str],
    /// The value if none is given.
    pub default: Default,
    /// Whether the value is never shown. It may also be in a file or a systemd credential.
    pub secret: bool,
    /// What the setting does.
    pub about: &'static str,
    /// The heading it is listed under.
    pub group: &'static str,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Default {
    /// This text, parsed like a given one.
    Value(&'static str),
    /// None; the text says what that means.
    Unset(&'static str),
    /// Depends on other settings or the machine; the text says how.
    Computed(&'static str, Compute),
}

/// Computes a default, as the text that would have been given.
pub type Compute = fn(&SettingsReader<'_>) -> Result<String, String>;

impl Default {
    /// The default as people read it, in Markdown.
    pub fn text(&self) -> &'static str {
        match self {
            Default::Value(text) | Default::Unset(text) | Default::Computed(text, _) => text,
        }
    }
}

impl Setting {
    /// The variables it is read from, its own first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }
}

/// Makes a struct with the values for each group of rows, and `Config` and the table `SETTINGS` for all of them.
///
/// A row is: documentation; the field and its type; the variable, its aliases, and `secret` if it is one; the default; the parser.
macro_rules! settings {
    ($(
        #[doc = $heading:literal]
        $group:ident: $values:ident {
            $(
                $(#[doc = $about:literal])*
                $field:ident: $type:ty = $name:literal $(or $alias:literal)* $([$secret:ident])?, $default:expr, $parser:expr;
            )*
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
            /// The source of the settings.
            pub origin: SettingsOrigin,
        }

        impl Config {
            pub(super) fn read(mut reader: SettingsReader<'_>) -> Result<Config, String> {
                Ok(Config {
                    $( $group: $values { $( $field: reader.read($name, $parser)?, )* }, )*
                    origin: reader.origin(),
                })
            }
        }

        /// Every setting, in the order in which they are documented.
        pub const SETTINGS: &[Setting] = &[ $( $( Setting {
            name: $name,
            aliases: &[$($alias),*],
            default: $default,
            secret: !matches!(concat!($(stringify!($secret))?).as_bytes(), []),
            about: concat!($($about),*),
            group: $heading,
        }, )* )* ];
    };
}

pub(super) use settings;
