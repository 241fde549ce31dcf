//! What is printed where everything was made up: how to try it.

use std::path::Path;

use crate::config::env_file::DOT_ENV;
use crate::config::{Config, Environment};

/// Lines to paste into a shell.
pub fn first_steps(config: &Config, address: &str) -> String {
    let secret = match config.tokens.secret {
        Some(_) => " (after setting BETTER_AUTH_SECRET there as it is set here)",
        None => "",
    };
    format!(
        "\ntodo-api is at {address}; its data lies in {data}. To try it, paste in another terminal{secret}:\n\n  \
         export TOKEN=$({token} token --user me)\n  \
         curl -X POST {address}/api/tasks -H \"Authorization: Bearer $TOKEN\" -H 'Content-Type: application/json' -d '{{\"title\": \"Buy milk\"}}'\n  \
         curl {address}/api/tasks -H \"Authorization: Bearer $TOKEN\"\n\n",
        data = config.process.data_dir.display(),
        token = this_program(config),
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

/// How this program is called from a shell in the same directory, with what a token depends on. A `.env` there it finds itself.
fn this_program(config: &Config) -> String {
    let program = std::env::args_os()
        .next()
        .unwrap_or_else(|| "todo-api".into());
    let mut call = shell_word(&program.to_string_lossy());
    if std::env::var_os("DATA_DIR").is_some() {
        let data_dir = shell_word(&config.process.data_dir.to_string_lossy());
        call = format!("DATA_DIR={data_dir} {call}");
    }
    if let Some(file) = config
        .origin
        .env_file
        .as_ref()
        .filter(|file| *file != Path::new(DOT_ENV))
    {
        call = format!("{call} --env-file {}", shell_word(&file.to_string_lossy()));
    }
    call
}

/// A text as a shell reads it back, in quotes where it needs them.
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
    fn words_are_quoted_for_the_shell_where_they_need_it() {
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
