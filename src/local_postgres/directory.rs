//! The directory of a cluster: its lock, the cluster's version, its pid file.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use super::{failed_to, installation};

/// Longest wait for the lock. The child of a killed server may hold it for a moment, and a server that has just taken it first writes
/// its process id.
const LOCK_LIMIT: Duration = Duration::from_millis(200);

/// Makes the directory, for its owner only, if it is missing. Returns its absolute path.
pub(super) fn make_directory(directory: &Path) -> Result<PathBuf, String> {
    let make = || {
        if directory.as_os_str().as_bytes().contains(&b'\n') {
            // The path is a line of PostgreSQL's pid file.
            let problem = "PostgreSQL does not support a line break in the path";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        if let Some(parent) = directory.parent() {
            fs::create_dir_all(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => directory.canonicalize(),
        }
    };
    make().map_err(|e| failed_to("make", directory, &e))
}

/// The exclusive right to use the directory. Dropping it releases the lock.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just forked keeps the file open until it executes its
        // program. An error changes nothing, because closing follows.
        let _ = self.0.unlock();
    }
}

/// Takes the lock on the directory.
pub(super) fn take_lock(directory: &Path) -> Result<Lock, String> {
    let path = directory.join("todo-api.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| failed_to("open", &path, &e))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(failed_to("lock", &path, &e)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "{} is in use by another todo-api{}: stop that one first, or set DATA_DIR to another directory",
                    directory.display(),
                    recorded_number(&path)
                        .map_or(String::new(), |process| format!(" (process {process})"))
                ));
            }
        }
    }
    let mut lock = Lock(file);
    lock.0
        .set_len(0)
        .and_then(|()| writeln!(lock.0, "{}", process::id()))
        .map_err(|e| failed_to("write to", &path, &e))?;
    Ok(lock)
}

/// Whether a server holds the lock on the directory.
pub(super) fn is_locked(directory: &Path) -> Result<bool, String> {
    let path = directory.join("todo-api.lock");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|e| failed_to("open", &path, &e))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(failed_to("lock", &path, &e)),
    }
}

/// The major version that made the cluster; `None` when there is no cluster yet.
pub(super) fn cluster_version(cluster: &Path) -> Result<Option<u32>, String> {
    let path = cluster.join("PG_VERSION");
    let major = match fs::read_to_string(&path) {
        Ok(text) => installation::leading_number(&text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // An empty directory is replaced by the new cluster.
            let entry = fs::read_dir(cluster)
                .ok()
                .and_then(|mut entries| entries.next());
            if entry.is_none() {
                return Ok(None);
            }
            None
        }
        Err(error) => return Err(failed_to("read", &path, &error)),
    };
    major.map(Some).ok_or_else(|| {
        let cluster = cluster.display();
        format!(
            "{cluster} is not a PostgreSQL cluster: move it, or set DATA_DIR to another directory"
        )
    })
}

/// The process id in the cluster's pid file. A negative one, of a repair in single-user mode, is ignored: PostgreSQL itself refuses to
/// start then.
pub(super) fn recorded_pid(cluster: &Path) -> Option<u32> {
    recorded_number(&cluster.join("postmaster.pid"))
}

/// The number in the first line of a file.
fn recorded_number(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next()?.trim().parse().ok()
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed_to("remove", path, &e)),
        _ => Ok(()),
    }
}
