//! `todo-api doctor`: looks at what the server would start with, and says what to do about what is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{Call, Command, Failure, backups, print, setup};
use crate::config::Config;
use crate::edge::tls::{self, Tls};
use crate::local_postgres::LocalPostgres;
use crate::store::diagnosis::{Diagnosis, diagnose};

/// Clocks that differ by more than the leeway of tokens have tokens end too early or too late.
const CLOCK_LEEWAY: Duration = Duration::from_secs(5);
/// A certificate that ends sooner should have been renewed: tools do it a month before.
const CERTIFICATE_LEFT: Duration = Duration::from_secs(14 * 24 * 3600);
/// Random text of 32 characters in hexadecimal digits has fewer different ones less than once in 10^8 times.
const DIFFERENT_BYTES: usize = 8;

/// What was looked at, line by line.
#[derive(Default)]
struct Report {
    text: String,
    wrong: usize,
}

impl Report {
    fn note(&mut self, finding: Result<String, String>) {
        let (word, sentence) = match finding {
            Ok(sentence) => ("OK   ", sentence),
            Err(sentence) => {
                self.wrong += 1;
                ("WRONG", sentence)
            }
        };
        self.text.push_str(&format!("{word}  {sentence}\n"));
    }
}

pub const COMMAND: Command = Command {
    usage: "doctor",
    about: "Check settings, database, clock, certificate and limits; say what to do",
    help: "",
    run,
};

/// Where the settings of an installed service are.
const SERVICE_SETTINGS: &str = "/etc/todo-api";

/// Prints a line for each check, and fails when one of them is wrong.
fn run(call: &Call) -> Result<(), Failure> {
    let mut report = Report::default();
    let source = call.source()?;
    match Config::load(&source, &setup::CHECKS) {
        Err(error) => report.note(Err(format!("settings: {error}"))),
        Ok(config) => {
            report.note(whose_settings(
                config.origin.env_file.as_deref(),
                Path::new(SERVICE_SETTINGS),
            ));
            for warning in &config.origin.misspelt {
                report.note(Err(format!("settings: {warning}")));
            }
            for file in source.secret_files() {
                report.note(only_ours(&file, "a file with secrets"));
            }
            check(&config, &mut report);
        }
    }
    // `todo-apictl` names the directory of the installed service.
    if let Some(directory) = std::env::var_os("BACKUP_DIR") {
        report.note(backups::last(Path::new(&directory)));
    }
    print(&report.text)?;
    match report.wrong {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is wrong".to_owned())),
        many => Err(Failure::Failed(format!("{many} things are wrong"))),
    }
}

/// Says where the settings are from, and whether they are those of the installed service, if there is one.
fn whose_settings(file: Option<&Path>, service: &Path) -> Result<String, String> {
    let from = match file {
        Some(file) => format!("settings: from the environment and {}", file.display()),
        None => "settings: from the environment".to_owned(),
    };
    let file = file.and_then(|file| file.canonicalize().ok());
    if service.is_dir() && !file.is_some_and(|file| file.starts_with(service)) {
        return Err(format!(
            "{from}, and not those of the service in {}; {}",
            service.display(),
            setup::FOR_THE_SERVICE
        ));
    }
    Ok(from)
}

fn check(config: &Config, report: &mut Report) {
    if let Some(secret) = &config.tokens.secret {
        report.note(strength(secret.expose()));
    }
    database(config, report);
    let listening = &config.listening;
    if let (Some(certificate), Some(key)) = (&listening.tls_cert_file, &listening.tls_key_file) {
        report.note(certificate_lasts(certificate, key));
        report.note(only_ours(key, "the certificate's key"));
    }
    report.note(match setup::raise_descriptor_limit(config) {
        Ok(()) => Ok("descriptors: as many as MAX_CONNECTIONS needs".to_owned()),
        Err(problem) => Err(format!("descriptors: {problem}")),
    });
}

/// A file that no other user of this machine should read.
fn only_ours(path: &Path, what: &str) -> Result<String, String> {
    let mode = fs::metadata(path)
        .map_err(|error| format!("{what}: {} cannot be looked at: {error}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o007 == 0 {
        Ok(format!("{what}: others cannot reach {}", path.display()))
    } else {
        Err(format!(
            "{what}: everybody on this machine can reach {0}: chmod o= {0}",
            path.display()
        ))
    }
}

/// Whether the secret looks as if a machine had made it.
fn strength(secret: &str) -> Result<String, String> {
    let mut bytes = secret.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let lower = secret.to_ascii_lowercase();
    let words = ["secret", "change", "password", "example", "your-", "your_"];
    if bytes.len() < DIFFERENT_BYTES || words.iter().any(|word| lower.contains(word)) {
        Err("BETTER_AUTH_SECRET is one that can be guessed: `openssl rand -hex 32` makes a good one; the old one goes into BETTER_AUTH_SECRET_PREVIOUS for as long as its tokens live".to_owned())
    } else {
        Ok("BETTER_AUTH_SECRET looks like a random one".to_owned())
    }
}

fn database(config: &Config, report: &mut Report) {
    if config.database.url.is_none() {
        let data_dir = &config.process.data_dir;
        let here = data_dir.display();
        if !LocalPostgres::exists(data_dir) {
            return report.note(Err(format!("database: {}", setup::no_data(config))));
        }
        if !LocalPostgres::is_running(data_dir).unwrap_or(false) {
            return report.note(Ok(format!(
                "database: the private one in {here} does not run; `todo-api serve` starts it"
            )));
        }
    }
    let settings = match setup::store_settings(config) {
        Ok(settings) => settings,
        Err(problem) => return report.note(Err(format!("database: {problem}"))),
    };
    match diagnose(&settings) {
        Err(error) => report.note(Err(format!("database: {error}"))),
        Ok(found) => {
            for finding in judge(config, &found) {
                report.note(finding);
            }
        }
    }
}

fn judge(config: &Config, found: &Diagnosis) -> Vec<Result<String, String>> {
    let schema = config.database.schema.as_str();
    let (version, needed) = (found.schema_version, found.needed_version);
    let tables = if version > needed {
        Err(format!(
            "schema {schema} is at version {version} and this program knows only {needed}: install a newer todo-api"
        ))
    } else if version == needed && found.forbidden_tables.is_empty() {
        Ok(format!(
            "schema {schema} is at version {version}, and its tables can be read and written"
        ))
    } else if version == needed {
        Err(format!(
            "schema {schema}: not everything may be done with {}: GRANT the user of DATABASE_URL SELECT, INSERT, UPDATE and DELETE on all tables in it",
            found.forbidden_tables.join(", ")
        ))
    } else if !found.may_migrate {
        Err(format!(
            "schema {schema} is at version {version}, {needed} is needed, and the user of DATABASE_URL may not make it: have the owner of the database run `todo-api migrate`"
        ))
    } else if config.database.migrate {
        Ok(format!(
            "schema {schema} is at version {version}; the server brings it to {needed} when it starts"
        ))
    } else {
        Err(format!(
            "schema {schema} is at version {version} and {needed} is needed: run `todo-api migrate`, or set MIGRATE=on"
        ))
    };
    let writable = if found.read_only {
        Err("database: nothing can be written there: name the primary in DATABASE_URL".to_owned())
    } else {
        Ok(format!("database: PostgreSQL {}", found.server_version))
    };
    let seconds = found.clock_difference.as_secs_f64();
    let clock = if found.clock_difference > CLOCK_LEEWAY {
        Err(format!(
            "clock: {seconds:.1} s away from the database's: let both machines keep time (timedatectl set-ntp true)"
        ))
    } else {
        Ok("clock: agrees with the database's".to_owned())
    };
    let pool = i64::from(config.database.pool_size);
    // A server that runs already has its own.
    let room = found.connections_left + found.connections_ours;
    let connections = if room < pool {
        Err(format!(
            "connections: the server keeps {pool} open and PostgreSQL has room for {room}: raise its max_connections, or lower DB_POOL_SIZE here or elsewhere"
        ))
    } else {
        Ok(format!(
            "connections: the server keeps {pool} open; PostgreSQL has {} left and {} are ours already",
            found.connections_left, found.connections_ours
        ))
    };
    vec![writable, tables, connections, clock]
}

fn certificate_lasts(certificate: &Path, key: &Path) -> Result<String, String> {
    Tls::load(certificate, key)?;
    let left = tls::end(certificate)?.duration_since(SystemTime::now());
    let days = |time: Duration| time.as_secs() / (24 * 3600);
    match left {
        Ok(left) if left >= CERTIFICATE_LEFT => {
            Ok(format!("certificate: good for {} days", days(left)))
        }
        Ok(left) => Err(format!(
            "certificate: {} ends in {} days: renew it",
            certificate.display(),
            days(left)
        )),
        Err(past) => Err(format!(
            "certificate: {} ended {} days ago: renew it",
            certificate.display(),
            days(past.duration())
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_people_make_up_are_told_from_random_ones() {
        for secret in [
            "a".repeat(40),
            "abcabcabcabcabcabcabcabcabcabcabcabc".to_owned(),
            "change-me-0123456789-0123456789-abcdef".to_owned(),
            "Your_very_long_key_0123456789_0123456".to_owned(),
        ] {
            let problem = strength(&secret).unwrap_err();
            assert!(!problem.contains(&secret));
        }
        assert!(strength("6f1d0c3b9a8e7f5d4c2b1a0918273645a1b2c3d4e5f60718").is_ok());
    }

    #[test]
    fn settings_that_are_not_those_of_the_service_are_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let service = directory.path().canonicalize().unwrap().join("service");
        assert!(whose_settings(None, &service).is_ok(), "no service");
        fs::create_dir(&service).unwrap();
        let its = service.join("todo-api.env");
        fs::write(&its, "").unwrap();
        assert!(whose_settings(Some(&its), &service).is_ok());
        let other = directory.path().join("other.env");
        fs::write(&other, "").unwrap();
        for file in [None, Some(other.as_path())] {
            let problem = whose_settings(file, &service).unwrap_err();
            assert!(problem.contains("not those of the service"), "{problem}");
        }
    }
}
