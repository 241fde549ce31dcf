//! Commands to try the server, printed when it runs without a configured database.

use std::path::Path;

use crate::config::env_file::DOT_ENV;
use crate::config::{Config, Environment};

/// Lines to paste into a shell.
pub fn first_steps(config: &Config, address: &str) -> String {
    let secret = match config.tokens.secret {
        Some(_) => " (after setting BETTER_AUTH_SECRET there as it is set here)",
        None => "",
    };
    let data = config.process.data_dir.display();
    let program = this_program(config);
    format!(
        "\ntodo-api is at {address}; its data is in {data}. To try it, paste in another terminal{secret}:\n\n  \
         export TOKEN=$({program} token --user me)\n  \
         curl -X POST {address}/api/tasks -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"title\": \"Buy milk\"}}'\n  \
         curl {address}/api/tasks -H \"Authorization: Bearer $TOKEN\"\n\n"
    )
}

/// How this program is called on this machine. In production a page for visitors shows it, so it names no path.
pub fn command(config: &Config) -> String {
    match config.process.environment {
        Environment::Development => this_program(config),
        Environment::Production if std::env::var_os("NOTIFY_SOCKET").is_some() => {
            "sudo todo-apictl".to_owned()
        }
        Environment::Production => "todo-api".to_owned(),
    }
}

/// The call of this program from a shell in the same directory, with the settings of tokens. A `.env` is found without a flag.
fn this_program(config: &Config) -> String {
    let program = std::env::args_os().next();
    let program = program.unwrap_or_else(|| "todo-api".into());
    let mut call = shell_word(&program.to_string_lossy());
    if std::env::var_os("DATA_DIR").is_some() {
        let data_dir = shell_word(&config.process.data_dir.to_string_lossy());
        call = format!("DATA_DIR={data_dir} {call}");
    }
    match &config.origin.env_file {
        Some(file) if file != Path::new(DOT_ENV) => {
            format!("{call} --env-file {}", shell_word(&file.to_string_lossy()))
        }
        _ => call,
    }
}

/// A text as a shell reads it back, quoted if necessary.
fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_if_a_shell_would_split_or_replace_them() {
        for (text, word) in [
            ("./data", "./data"),
            ("my data", "'my data'"),
            ("it's $HOME", r"'it'\''s $HOME'"),
            ("", "''"),
        ] {
            assert_eq!(shell_word(text), word);
        }
    }
}
