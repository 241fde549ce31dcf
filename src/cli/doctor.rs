//! `todo-api doctor`: checks what the server would start with, and names the remedy for every problem.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::{CommandLine, Failure, backups, print, setup, takeover};
use crate::config::Config;
use crate::edge::tls::{self, Tls};
use crate::local_postgres::LocalPostgres;
use crate::store::diagnosis::{Diagnosis, diagnose};

/// With a larger difference of clocks, tokens that another machine signs end too early or too late.
const CLOCK_LEEWAY: Duration = Duration::from_secs(5);
/// Tools renew a certificate a month before its end, so one with less time left was not renewed.
const CERTIFICATE_LEFT: Duration = Duration::from_secs(14 * 24 * 3600);
/// 32 random hexadecimal digits have fewer different digits in less than one of 10^8 cases.
const DIFFERENT_BYTES: usize = 8;
/// The settings of an installed service.
const SERVICE_SETTINGS: &str = "/etc/todo-api";

commands! {
    "doctor", "Check settings, database, clock, certificate and limits; say what to do", "", run;
}

/// The result of a check: a sentence about what is right, or about what is wrong.
type Finding = Result<String, String>;

fn finding(is_right: bool, right: impl Into<String>, wrong: impl Into<String>) -> Finding {
    match is_right {
        true => Ok(right.into()),
        false => Err(wrong.into()),
    }
}

/// Prints a line for each check, and fails if one of them found a problem.
fn run(line: &CommandLine) -> Result<(), Failure> {
    let source = line.source()?;
    let mut findings = Vec::new();
    match Config::load(&source, &setup::CHECKS) {
        Err(mut error) => {
            if Path::new(SERVICE_SETTINGS).is_dir() {
                error = format!("{error}; {}", setup::FOR_THE_SERVICE);
            }
            findings.push(Err(format!("settings: {error}")));
        }
        Ok(config) => {
            let file = config.origin.env_file.as_deref();
            findings.push(whose_settings(file, Path::new(SERVICE_SETTINGS)));
            let misspelt = config.origin.misspelt.iter();
            findings.extend(misspelt.map(|warning| Err(format!("settings: {warning}"))));
            let files = source.secret_files().into_iter();
            findings.extend(files.map(|file| only_ours(&file, "a file with secrets")));
            check(&config, &mut findings);
        }
    }
    // `todo-apictl` names the directory of the installed service.
    if let Some(directory) = std::env::var_os("BACKUP_DIR") {
        findings.push(backups::last(Path::new(&directory)));
    }
    let lines = findings.iter().map(|finding| match finding {
        Ok(sentence) => format!("OK     {sentence}\n"),
        Err(sentence) => format!("WRONG  {sentence}\n"),
    });
    print(&lines.collect::<String>())?;
    match findings.iter().filter(|finding| finding.is_err()).count() {
        0 => Ok(()),
        1 => Err("one thing is wrong".into()),
        many => Err(format!("{many} things are wrong").into()),
    }
}

/// Names the source of the settings. If a service is installed, they must be the service's.
fn whose_settings(file: Option<&Path>, service: &Path) -> Finding {
    let from = match file {
        Some(file) => format!("settings: from the environment and {}", file.display()),
        None => "settings: from the environment".to_owned(),
    };
    let file = file.and_then(|file| file.canonicalize().ok());
    let is_right = !service.is_dir() || file.is_some_and(|file| file.starts_with(service));
    let (service, remedy) = (service.display(), setup::FOR_THE_SERVICE);
    let wrong = format!("{from}, and not those of the service in {service}; {remedy}");
    finding(is_right, from, wrong)
}

fn check(config: &Config, findings: &mut Vec<Finding>) {
    if let Some(secret) = &config.tokens.secret {
        findings.push(strength(secret.expose()));
    }
    match database(config) {
        Ok(found) => findings.extend(found),
        Err(problem) => findings.push(Err(format!("database: {problem}"))),
    }
    let listening = &config.listening;
    if let (Some(certificate), Some(key)) = (&listening.tls_cert_file, &listening.tls_key_file) {
        findings.push(certificate_lasts(certificate, key));
        findings.push(only_ours(key, "the certificate's key"));
    }
    findings.push(match setup::raise_descriptor_limit(config) {
        Ok(()) => Ok("descriptors: as many as MAX_CONNECTIONS needs".to_owned()),
        Err(problem) => Err(format!("descriptors: {problem}")),
    });
}

/// A file that no other user of this machine should read.
fn only_ours(path: &Path, what: &str) -> Finding {
    let name = path.display();
    let metadata = fs::metadata(path)
        .map_err(|error| format!("{what}: cannot read the mode of {name}: {error}"))?;
    finding(
        metadata.permissions().mode() & 0o007 == 0,
        format!("{what}: other users have no access to {name}"),
        format!("{what}: every user of this machine has access to {name}: chmod o= {name}"),
    )
}

/// Whether the secret looks random.
fn strength(secret: &str) -> Finding {
    let mut bytes = secret.as_bytes().to_vec();
    bytes.sort_unstable();
    bytes.dedup();
    let lower = secret.to_ascii_lowercase();
    let words = ["secret", "change", "password", "example", "your-", "your_"];
    finding(
        bytes.len() >= DIFFERENT_BYTES && !words.iter().any(|word| lower.contains(word)),
        "BETTER_AUTH_SECRET looks like a random one",
        "BETTER_AUTH_SECRET can be guessed: `openssl rand -hex 32` makes a good one; put the old one into BETTER_AUTH_SECRET_PREVIOUS until its tokens have ended",
    )
}

fn database(config: &Config) -> Result<Vec<Finding>, String> {
    if config.database.url.is_none() {
        let data_dir = &config.process.data_dir;
        if !LocalPostgres::exists(data_dir) {
            return Err(setup::no_data(config));
        }
        if !LocalPostgres::is_running(data_dir).unwrap_or(false) {
            let place = data_dir.display();
            return Ok(vec![Ok(format!(
                "database: the private PostgreSQL in {place} does not run; `todo-api serve` starts it"
            ))]);
        }
    }
    let found = diagnose(&setup::store_settings(config)?).map_err(|error| error.to_string())?;
    let seconds = found.clock_difference.as_secs_f64();
    let pool = i64::from(config.database.pool_size);
    let (left, open) = (found.connections_left, found.connections_ours);
    // A running server has the connections of todo-api that are open.
    let room = left + open;
    let broken_rules = found.broken_rules.iter().map(|rule| {
        Err(format!(
            "rows: {} of {} break the rule that {}, for example {}: correct or delete them; until then answers show the nearest allowed values",
            rule.rows, rule.table, rule.says, rule.example
        ))
    });
    let mut findings = vec![
        finding(
            !found.read_only,
            format!("database: PostgreSQL {}", found.server_version),
            "database: it is read-only: name the primary in DATABASE_URL",
        ),
        tables(config, &found),
        finding(
            room >= pool,
            format!(
                "connections: the server keeps {pool} open; PostgreSQL has {left} left, and todo-api has {open} open"
            ),
            format!(
                "connections: the server keeps {pool} open and PostgreSQL has room for {room}: raise its max_connections, or lower DB_POOL_SIZE here or elsewhere"
            ),
        ),
        finding(
            found.clock_difference <= CLOCK_LEEWAY,
            "clock: agrees with the database's",
            format!(
                "clock: {seconds:.1} s away from the database's: synchronise the clocks of both machines (timedatectl set-ntp true)"
            ),
        ),
    ];
    findings.extend(broken_rules);
    let offer = found.waiting_tasks.as_ref().map(takeover::offer);
    findings.extend(offer.map(Ok));
    Ok(findings)
}

fn tables(config: &Config, found: &Diagnosis) -> Finding {
    let (version, needed) = (found.schema_version, found.needed_version);
    let forbidden = found.forbidden_tables.join(", ");
    let schema = config.database.schema.as_str();
    let at = format!("schema {schema} is at version {version}");
    if version > needed {
        let remedy = "install a newer todo-api";
        Err(format!(
            "{at} and this program knows only {needed}: {remedy}"
        ))
    } else if version == needed {
        finding(
            forbidden.is_empty(),
            format!("{at}, and its tables can be read and written"),
            format!(
                "{at}, but rights on {forbidden} are missing: GRANT the user of DATABASE_URL SELECT, INSERT, UPDATE and DELETE on all tables in it"
            ),
        )
    } else if !found.may_migrate {
        Err(format!(
            "{at}, {needed} is needed, and the user of DATABASE_URL may not make it: have the owner of the database run `todo-api migrate`"
        ))
    } else {
        finding(
            config.database.migrate,
            format!("{at}; the server brings it to {needed} when it starts"),
            format!("{at} and {needed} is needed: run `todo-api migrate`, or set MIGRATE=on"),
        )
    }
}

fn certificate_lasts(certificate: &Path, key: &Path) -> Finding {
    Tls::load(certificate, key)?;
    let left = tls::end(certificate)?.duration_since(SystemTime::now());
    let days = |time: Duration| time.as_secs() / (24 * 3600);
    let name = certificate.display();
    match left {
        Ok(left) => finding(
            left >= CERTIFICATE_LEFT,
            format!("certificate: good for {} days", days(left)),
            format!("certificate: {name} ends in {} days: renew it", days(left)),
        ),
        Err(past) => {
            let days = days(past.duration());
            Err(format!(
                "certificate: {name} ended {days} days ago: renew it"
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_that_people_make_up_are_recognised() {
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
