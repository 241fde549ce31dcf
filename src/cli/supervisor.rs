//! Tells systemd how it goes: sd_notify(3). Where nothing supervises this program, nothing is told.
//!
//! Written here because it is one datagram: the crate for it does not know abstract sockets, which containers use.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What systemd is to wait on top of what our settings allow, before it takes us for stuck.
const SPARE: Duration = Duration::from_secs(15);

/// Longest wait for room in the supervisor's socket.
const SEND_LIMIT: Duration = Duration::from_millis(500);

/// A start that may take so long.
pub fn starting(patience: Duration) {
    tell(&format!(
        "STATUS=starting\n{}",
        extend_timeout(patience + SPARE)
    ));
}

/// The database and its tables are not there yet.
pub fn waiting_for_database() {
    tell("STATUS=waiting for the database");
}

/// Requests are answered. `status` is read by anybody who asks for the service's state: no host, no user.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// What can be read again is being read again; [`reloaded`] must follow.
pub fn reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    // Never negative: it counts from the machine's start.
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(now.tv_nsec).unwrap_or(0);
    tell(&format!(
        "RELOADING=1\nMONOTONIC_USEC={}",
        seconds * 1_000_000 + nanoseconds / 1_000
    ));
}

/// The end of [`reloading`].
pub fn reloaded() {
    tell("READY=1");
}

/// Requests have been answered through the front door since the last time.
pub fn alive() {
    tell("WATCHDOG=1");
}

/// A stop that may take so long.
pub fn stopping(patience: Duration) {
    tell(&format!(
        "STOPPING=1\nSTATUS=finishing what is in flight\n{}",
        extend_timeout(patience + SPARE)
    ));
}

/// How long the supervisor waits for [`alive`] before it ends this process; `None` where it does not.
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let meant_for_us = match std::env::var_os("WATCHDOG_PID") {
        Some(pid) => pid.to_str() == Some(std::process::id().to_string().as_str()),
        None => true,
    };
    number("WATCHDOG_USEC")
        .filter(|limit| meant_for_us && *limit > 0)
        .map(Duration::from_micros)
}

fn extend_timeout(patience: Duration) -> String {
    format!("EXTEND_TIMEOUT_USEC={}", patience.as_micros())
}

fn tell(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("the supervisor cannot be told how it goes (NOTIFY_SOCKET): {error}");
    }
}

/// A name that starts with `@` is that of an abstract socket, which is in no directory.
fn send(name: &OsStr, state: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    // A supervisor that does not read must not stop this program.
    socket.set_write_timeout(Some(SEND_LIMIT))?;
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}
