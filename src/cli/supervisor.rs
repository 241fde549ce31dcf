//! Reports the state of the server to systemd: sd_notify(3). Without a supervisor it does nothing.
//!
//! Not a crate, because it is one datagram, and the crate for it does not support abstract sockets, which containers use.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Added to the time that our settings allow, before systemd ends the process.
const SPARE: Duration = Duration::from_secs(15);

/// Longest wait for room in the supervisor's socket.
const SEND_LIMIT: Duration = Duration::from_millis(500);

/// Sends a state. Any user of the machine can read its `STATUS`: no host, no user.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
        return;
    };
    if let Err(error) = send(&name, state) {
        log::warn!("cannot report to the supervisor (NOTIFY_SOCKET): {error}");
    }
}

/// Sends a state that lasts up to this time.
pub fn notify_for(time: Duration, state: &str) {
    let microseconds = (time + SPARE).as_micros();
    notify(&format!("{state}\nEXTEND_TIMEOUT_USEC={microseconds}"));
}

/// A reload begins. `READY=1` must follow.
pub fn notify_reloading() {
    let now = clock_gettime(ClockId::Monotonic);
    // Not negative: the clock starts with the machine.
    let now = Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    );
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
}

/// The time after which the supervisor ends a process that has not sent `WATCHDOG=1`; `None` without such a limit.
pub fn watchdog() -> Option<Duration> {
    let variable = |name| std::env::var(name).ok();
    let limit = variable("WATCHDOG_USEC")?.parse().ok()?;
    let is_ours = variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
    (is_ours && limit > 0).then(|| Duration::from_micros(limit))
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
