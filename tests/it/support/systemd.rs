//! A service manager that starts the program as `todo-api.service` does, and receives its notifications.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::app::SECRET;
use super::process::Process;

/// A service manager for one service.
pub struct Systemd {
    directory: tempfile::TempDir,
    notifications: UnixDatagram,
    unit: String,
}

impl Systemd {
    /// Uses the unit in the repository, with this database and the tests' secret as credentials, and with these settings.
    pub fn new(database: &str, settings: &str) -> Systemd {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for name in ["credentials", "state"] {
            fs::create_dir(at(name)).unwrap();
        }
        fs::write(at("credentials/DATABASE_URL"), format!("{database}\n")).unwrap();
        fs::write(at("credentials/BETTER_AUTH_SECRET"), format!("{SECRET}\n")).unwrap();
        fs::write(at("todo-api.env"), settings).unwrap();
        Systemd {
            notifications: UnixDatagram::bind(at("notify")).unwrap(),
            unit: unit("todo-api.service"),
            directory,
        }
    }

    /// The file with settings.
    pub fn settings_file(&self) -> PathBuf {
        self.directory.path().join("todo-api.env")
    }

    /// Starts the unit's command line with an inherited socket, without waiting.
    pub fn start(&self, watchdog: Duration) -> Process {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let command = self.lines("ExecStart").next().unwrap();
        let arguments = command
            .strip_prefix("/usr/local/bin/todo-api ")
            .unwrap()
            .replace("/etc/todo-api/todo-api.env", &path("todo-api.env"));
        // The credentials that the unit asks for, and no others.
        let handed: Vec<String> = self
            .lines("LoadCredential")
            .map(|line| {
                let (name, file) = line.split_once(':').unwrap();
                assert_eq!(file, format!("/etc/todo-api/credentials/{name}"));
                name.to_owned()
            })
            .collect();
        for file in fs::read_dir(self.directory.path().join("credentials")).unwrap() {
            let name = file.unwrap().file_name().into_string().unwrap();
            assert!(handed.contains(&name), "the unit does not load {name}");
        }
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address: SocketAddr = tcp.local_addr().unwrap();
        let mut environment = vec![
            ("NOTIFY_SOCKET".to_owned(), path("notify")),
            ("CREDENTIALS_DIRECTORY".to_owned(), path("credentials")),
            ("WATCHDOG_USEC".to_owned(), watchdog.as_micros().to_string()),
            ("LISTEN_FDS".to_owned(), "1".to_owned()),
        ];
        for line in self.lines("Environment") {
            let (name, value) = line.split_once('=').unwrap();
            environment.push((name.to_owned(), value.replace("%S", &path("state"))));
        }
        let environment: Vec<(&str, &str)> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let script =
            "exec 3<&0 0</dev/null; LISTEN_PID=$$; WATCHDOG_PID=$$; export LISTEN_PID WATCHDOG_PID";
        let mut shell = Process::under_shell(script, &environment);
        shell
            .args(arguments.split(' '))
            .stdin(Stdio::from(OwnedFd::from(tcp)));
        Process::spawn(shell, address)
    }

    fn lines(&self, key: &str) -> impl Iterator<Item = &str> {
        let start = format!("{key}=");
        self.unit
            .lines()
            .filter_map(move |line| line.strip_prefix(start.as_str()))
    }

    /// Fills the socket for notifications, so that further ones block.
    pub fn fill(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender
            .send_to(b"x", self.directory.path().join("notify"))
            .is_ok()
        {}
    }

    /// The next notification, or `None` after this time.
    pub fn next(&self, time: Duration) -> Option<String> {
        next_of(&self.notifications, time)
    }

    /// Waits for a notification with this line, and returns it with all before it.
    #[track_caller]
    pub fn wait_for(&self, line: &str) -> Vec<String> {
        wait_for(&self.notifications, line)
    }

    /// All notifications that come in this time.
    pub fn all_within(&self, time: Duration) -> Vec<String> {
        let until = Instant::now() + time;
        let mut all = Vec::new();
        while let Some(next) = self.next(until.saturating_duration_since(Instant::now())) {
            all.push(next);
        }
        all
    }
}

/// A unit of the repository.
pub fn unit(path: &str) -> String {
    fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Whether a notification has this line.
pub fn says(notification: &str, line: &str) -> bool {
    notification.lines().any(|said| said == line)
}

/// Like [`Systemd::wait_for`], on another socket.
#[track_caller]
pub fn wait_for(notifications: &UnixDatagram, line: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while let Some(next) = next_of(
        notifications,
        until.saturating_duration_since(Instant::now()),
    ) {
        let found = says(&next, line);
        seen.push(next);
        if found {
            return seen;
        }
    }
    panic!("no notification {line}: {seen:?}");
}

/// Like [`Systemd::next`], on another socket.
pub fn next_of(notifications: &UnixDatagram, time: Duration) -> Option<String> {
    let mut buffer = [0; 4096];
    notifications
        .set_read_timeout(Some(time.max(Duration::from_millis(1))))
        .unwrap();
    match notifications.recv(&mut buffer) {
        Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
            ) =>
        {
            None
        }
        Err(error) => panic!("{error}"),
    }
}
