//! The backups of the installed service, for `doctor`. `deploy/backup.sh` makes them.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// The newest backup must not be older. A backup is made every night and may take hours.
const AGE_MAX: Duration = Duration::from_secs(36 * 3600);

/// Whether the last backup in this directory succeeded and is not too old: the sentence for `doctor`.
pub fn last(directory: &Path) -> Result<String, String> {
    let here = directory.display();
    if let Ok(failure) = fs::read_to_string(directory.join("last-failure")) {
        return Err(format!("backup: the last one failed at {}", failure.trim()));
    }
    let files = fs::read_dir(directory)
        .map_err(|error| format!("backup: {here} cannot be read: {error}"))?;
    let newest = files
        .flatten()
        .filter(|file| file.file_name().as_encoded_bytes().ends_with(b".dump"))
        .filter_map(|file| file.metadata().ok()?.modified().ok())
        .max();
    match newest.map(|newest| newest.elapsed().unwrap_or_default()) {
        None => Ok(format!(
            "backup: none in {here}; `systemctl enable --now todo-api-backup.timer` makes one every night"
        )),
        Some(age) if age > AGE_MAX => Err(format!(
            "backup: the newest in {here} is {} days old: systemctl status todo-api-backup.timer",
            age.as_secs() / (24 * 3600)
        )),
        Some(age) => Ok(format!(
            "backup: the newest in {here} is {} hours old",
            age.as_secs() / 3600
        )),
    }
}
