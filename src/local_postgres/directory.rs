//! What lies in the directory: its lock, the cluster's version, its pid file.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use super::{Error, installation};

/// How long the lock is tried for: the child that a server had just forked when it was killed holds it for a moment,
/// and a server that has just taken it writes its process id.
const LOCK_LIMIT: Duration = Duration::from_millis(200);

/// Makes the directory, for its owner alone, if it is missing. Returns its absolute path.
pub(super) fn make_directory(directory: &Path) -> Result<PathBuf, Error> {
    let make = || {
        if directory.as_os_str().as_bytes().contains(&b'\n') {
            // PostgreSQL keeps the path on a line of its pid file.
            let problem = "PostgreSQL cannot have a line break in the path";
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
    make().map_err(|e| Error::io("make", directory, &e))
}

/// What makes the directory ours; dropping it gives the directory up.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread has just forked holds the file until it executes its
        // program. An error changes nothing, because closing follows.
        let _ = self.0.unlock();
    }
}

/// Takes the lock on the directory.
pub(super) fn take_lock(directory: &Path) -> Result<Lock, Error> {
    let path = directory.join("todo-api.lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|e| Error::io("open", &path, &e))?;
    let deadline = Instant::now() + LOCK_LIMIT;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) => return Err(Error::io("lock", &path, &e)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).ok();
                let process = holder.and_then(|text| text.trim().parse().ok());
                return Err(Error::in_use(directory, process));
            }
        }
    }
    let mut lock = Lock(file);
    lock.0
        .set_len(0)
        .and_then(|()| writeln!(lock.0, "{}", process::id()))
        .map_err(|e| Error::io("write to", &path, &e))?;
    Ok(lock)
}

/// Whether a server holds the lock on the directory.
pub(super) fn is_locked(directory: &Path) -> Result<bool, Error> {
    let path = directory.join("todo-api.lock");
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        opened => opened.map_err(|e| Error::io("open", &path, &e))?,
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(e)) => Err(Error::io("lock", &path, &e)),
    }
}

/// The major version that made the cluster; `None` when there is no cluster yet.
pub(super) fn cluster_version(cluster: &Path) -> Result<Option<u32>, Error> {
    let path = cluster.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match installation::leading_number(&text) {
            Some(major) => Ok(Some(major)),
            None => Err(Error::not_a_cluster(cluster)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_dir(cluster) {
            // An empty directory gives way to the new cluster.
            Ok(mut entries) => entries
                .next()
                .map_or(Ok(None), |_| Err(Error::not_a_cluster(cluster))),
            Err(_) => Ok(None),
        },
        Err(error) => Err(Error::io("read", &path, &error)),
    }
}

/// The process id in the cluster's pid file. A negative one is that of somebody repairing it in single-user mode,
/// which is left for PostgreSQL to judge.
pub(super) fn recorded_pid(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("postmaster.pid"))
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path, &error))
        }
        _ => Ok(()),
    }
}
