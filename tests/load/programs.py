"""The programs that the load checks start and stop: PostgreSQL, todo-api, and clients. Python's standard library only."""

import base64
import contextlib
import csv
import glob
import hashlib
import hmac
import http.client
import json
import os
import pwd
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SECRET = "a secret of the load checks, 32 bytes or more"
# The settings of every cluster.
DATABASE = "todo"


class Failure(Exception):
    """A check has failed; the text is one sentence for the log."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def main(check):
    """Runs a check in a temporary directory, and exits with 1 and a sentence if it fails."""
    # Turns SIGTERM into an exception, so that started programs are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit = 65536 if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    with tempfile.TemporaryDirectory(prefix="todo-api-load-", ignore_cleanup_errors=True) as work:
        # PostgreSQL runs as another user if this runs as root.
        os.chmod(work, 0o755)
        with contextlib.ExitStack() as stack:
            try:
                check(work, stack)
            except Failure as failure:
                sys.exit(f"FAILED: {failure}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, seconds, sentence):
    """Waits for a condition and returns its value; fails with the sentence."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > until:
            raise Failure(sentence)
        time.sleep(0.02)
    return value


def token(user):
    """A bearer token for a user."""
    encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    claims = json.dumps({"sub": user, "iat": int(time.time()), "exp": int(time.time()) + 86400})
    signed = encode(b'{"alg":"HS256","typ":"JWT"}') + "." + encode(claims.encode())
    return signed + "." + encode(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())


def stop(child, how=signal.SIGTERM, seconds=30):
    """Stops a program. Kills it if it does not stop in time."""
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def children(pid):
    """The child processes of a process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                with open(f"/proc/{name}/stat") as stat:
                    if int(stat.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(name))
    return found


class Usage:
    """The resources that a process has used so far."""

    TICK = os.sysconf("SC_CLK_TCK")

    def __init__(self, pid, with_children=False):
        # The times of an ended child are counted in its parent.
        self.cpu = self._cpu(pid, 4 if with_children else 2)
        if with_children:
            self.cpu += sum(self._cpu(child, 2) for child in children(pid))
        self.switches = 0
        self.threads = 0
        for path in glob.glob(f"/proc/{pid}/task/*/status"):
            with contextlib.suppress(OSError):
                with open(path) as status:
                    self.switches += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status.read(), re.M)[1])
                self.threads += 1

    def _cpu(self, pid, fields):
        """Seconds of CPU of the process; with four fields, also of its ended children."""
        try:
            with open(f"/proc/{pid}/stat") as stat:
                return sum(map(int, stat.read().rpartition(")")[2].split()[11 : 11 + fields])) / self.TICK
        except OSError:
            return 0


class Postgres:
    """A PostgreSQL in a directory of its own, reachable on loopback and through a Unix socket."""

    def __init__(self, directory, **settings):
        self.directory = directory
        self.port = free_port()
        self.settings = settings
        self.child = None
        self.account = {}
        if os.getuid() == 0:
            names = [user.pw_name for user in pwd.getpwall()]
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            self.account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    @staticmethod
    def program(name):
        """The newest program of this name among the PostgreSQL installations."""
        places = ["/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/local/pgsql/bin"]
        found = [path for place in places for path in glob.glob(f"{place}/{name}")]
        version = lambda path: int((re.search(r"\d+", path) or ["0"])[0])
        program = max(found, key=version, default=None) or shutil.which(name)
        if not program:
            raise Failure(f"PostgreSQL's {name} is not installed.")
        return program

    def run(self, program, *arguments):
        """Runs one of PostgreSQL's programs as the user who owns the cluster."""
        done = subprocess.run(
            [self.program(program), *arguments], cwd="/", capture_output=True, text=True, stdin=subprocess.DEVNULL, **self.account
        )
        if done.returncode:
            raise Failure(f"{program} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def _make_directory(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        os.mkdir(self.directory, 0o700)
        if self.account:
            os.chown(self.directory, self.account["user"], self.account["group"])

    def create(self):
        """Makes the cluster, with a database in it."""
        self._make_directory()
        self.run("initdb", "-D", self.directory, "-U", DATABASE, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self.start()
        self.sql(f"CREATE DATABASE {DATABASE}", database="postgres")
        return self

    def copy_from(self, primary):
        """Makes the cluster a standby of another one."""
        self._make_directory()
        address = f"host=127.0.0.1 port={primary.port} user={DATABASE} application_name=standby"
        self.run("pg_basebackup", "-D", self.directory, "-d", address, "-R", "-X", "stream", "-c", "fast", "--no-sync")
        return self.start()

    def start(self):
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "max_connections": 200,
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self.directory + ".log", "ab") as log:
            self.child = subprocess.Popen(
                [self.program("postgres"), "-D", self.directory, *options],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C must reach only the check, which then stops PostgreSQL.
                start_new_session=True,
                **self.account,
            )
        wait_until(self.answers, 60, f"PostgreSQL did not start; its log is\n{self.log()}")
        return self

    def answers(self):
        if self.child.poll() is not None:
            raise Failure(f"PostgreSQL ended at its start; its log is\n{self.log()}")
        try:
            return self.sql("SELECT 1", database="postgres")
        except Failure:
            return None

    def log(self):
        with open(self.directory + ".log", errors="replace") as log:
            return log.read()[-3000:]

    def stop(self, how=signal.SIGINT):
        """Stops it: SIGINT for a fast shutdown, SIGQUIT for an immediate one."""
        if self.child:
            stop(self.child, how)

    def kill(self):
        """Kills the postmaster, like a crash, and waits until its processes have ended."""
        left = children(self.child.pid)
        self.child.kill()
        self.child.wait()
        deadline = time.monotonic() + 5
        for pid in left:
            while os.path.exists(f"/proc/{pid}"):
                if time.monotonic() > deadline:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.01)

    def restart(self, how=signal.SIGINT):
        self.stop(how)
        return self.start()

    def sql(self, statements, database=DATABASE):
        """Runs statements and returns the rows as lists of text."""
        done = subprocess.run(
            ["psql", "-XqAt", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-f", "-"],
            input=statements,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise Failure(f"PostgreSQL refused a statement: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def url(self, database=DATABASE):
        return f"postgresql://{DATABASE}@127.0.0.1:{self.port}/{database}"

    def statements_of(self, action):
        """Runs an action. Returns its value and the statements that PostgreSQL ran during it, each with its parameters.

        The cluster needs logging_collector=on and log_destination=csvlog, and the observed session log_statement=all.
        """
        before = {path: os.path.getsize(path) for path in glob.glob(f"{self.directory}/log/*.csv")}
        value = action()
        time.sleep(0.1)
        found = []
        for path in sorted(glob.glob(f"{self.directory}/log/*.csv")):
            with open(path, newline="") as log:
                log.seek(before.get(path, 0))
                for row in csv.reader(log):
                    match = re.match(r"(?:statement|execute [^:]*): (.*)", row[13], re.S)
                    if match and row[5]:
                        values = re.findall(r"\$(\d+) = (NULL|'(?:[^']|'')*')", row[14])
                        text = lambda value: None if value == "NULL" else value[1:-1].replace("''", "'")
                        found.append((match[1].strip(), {int(number): text(value) for number, value in values}))
        return value, found


class Server:
    """A todo-api process on a database."""

    def __init__(self, program, log, database, **settings):
        self.port = free_port()
        self.log_file = log
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "LISTEN": f"127.0.0.1:{self.port}",
            "DATABASE_URL": database,
            "BETTER_AUTH_SECRET": SECRET,
            "LOG_LEVEL": "warn",
        }
        # The load comes from one address, so rate limits are off.
        for limit in [
            "RATE_LIMIT_PER_HOUR",
            "RATE_LIMIT_ANON_PER_HOUR",
            "REGISTRATIONS_PER_IP",
            "REFRESHES_PER_IP",
            "LOGIN_FAILURES_PER_ACCOUNT",
            "LOGIN_FAILURES_PER_IP",
        ]:
            environment[limit] = "0"
        with open(log, "ab") as out:
            # A directory without a .env.
            self.child = subprocess.Popen(
                [program], cwd=os.path.dirname(log), env=environment | settings, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def wait_until_ready(self, seconds=60):
        def ready():
            if self.child.poll() is not None:
                raise Failure(f"the server ended at its start; its log is\n{self.log()}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                return self.client().request("GET", "/health/ready")[0] == 200

        wait_until(ready, seconds, f"the server did not become ready; its log is\n{self.log()}")
        return self

    def log(self):
        with open(self.log_file, errors="replace") as log:
            return log.read()[-3000:]

    def stop(self):
        stop(self.child)

    def client(self, user=None):
        return Client(self.port, user)

    def usage(self):
        return Usage(self.child.pid)

    def memory(self):
        """Resident memory, in bytes."""
        with open(f"/proc/{self.child.pid}/status") as status:
            return int(re.search(r"^VmRSS:\s*(\d+)", status.read(), re.M)[1]) * 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))


class Client:
    """A client with one connection, which it reopens after a loss."""

    def __init__(self, port, user=None, timeout=10):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.headers = {"Authorization": "Bearer " + token(user)} if user else {}

    def request(self, method, path, body=None, **headers):
        """The status and the body of the answer, as text. Raises OSError or HTTPException without an answer."""
        headers = self.headers | {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        try:
            self.connection.request(method, path, body, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise

    def expect(self, status, method, path, body=None, **headers):
        """The JSON of an answer that must have this status."""
        got, text = self.request(method, path, body, **headers)
        if got != status:
            raise Failure(f"{method} {path} was answered {got}, not {status}: {text[:300]}")
        return json.loads(text) if text else None


class Writers:
    """Clients that write during a restart or a failure, and a record of the acknowledged writes.

    Each writer creates tasks with unique titles and sets the description of one task to increasing numbers. Half of the writers
    repeat a request with an Idempotency-Key until it is acknowledged; the others send each request once.
    """

    made = 0

    def __init__(self, server, count=16):
        self.server = server
        # Titles are unique in a database.
        Writers.made += 1
        self.name = f"writers-{Writers.made}"
        self.lock = threading.Lock()
        self.acknowledged = set()
        self.counters = {}
        self.odd = []
        self.last = [0.0] * count
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._write, args=(n,), daemon=True) for n in range(count)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def _write(self, writer):
        user = f"writer-{writer}"
        client = self.server.client(user)
        repeats = writer % 2 == 0
        number = 0
        while not self.stopping.is_set():
            number += 1
            title = f"{self.name}-{writer}-{number}"
            key = {"Idempotency_Key": title} if repeats else {}
            while not self._send(writer, client, "POST", "/api/tasks", {"title": title}, key, title) and repeats:
                if self.stopping.is_set():
                    return
            if number % 4 == 0:
                self._count(writer, client)

    def _send(self, writer, client, method, path, body, key, title=None):
        """Whether the request was acknowledged. Waits a little if it was not."""
        try:
            status, text = client.request(method, path, body, **key)
        except (OSError, http.client.HTTPException):
            status, text = None, ""
        if status in (200, 201):
            with self.lock:
                if title:
                    self.acknowledged.add(title)
                self.last[writer] = time.monotonic()
            return json.loads(text)
        # 409: the first request with this key is still running.
        if status not in (None, 503) and not (status == 409 and key):
            with self.lock:
                self.odd.append(f"{method} {path} was answered {status}: {text[:200]}")
        time.sleep(0.02)
        return None

    def _count(self, writer, client):
        counter = self.counters.get(writer)
        if counter is None:
            made = self._send(writer, client, "POST", "/api/tasks", {"title": f"counter {writer}"}, {})
            if made:
                self.counters[writer] = {"id": made["id"], "sent": 0, "acknowledged": 0, "newest": 0}
            return
        counter["sent"] += 1
        number = counter["sent"]
        if self._send(writer, client, "PATCH", f"/api/tasks/{counter['id']}", {"description": str(number)}, {}):
            counter["acknowledged"] += 1
            counter["newest"] = number

    def acknowledged_since(self, moment):
        """Whether any write was acknowledged after a moment."""
        return max(self.last) > moment

    def check(self, postgres):
        """Compares the acknowledged writes with the rows in PostgreSQL. Returns the number of acknowledged writes."""
        with self.lock:
            acknowledged = set(self.acknowledged)
            odd = list(self.odd)
            counters = {writer: dict(counter) for writer, counter in self.counters.items()}
        rows = postgres.sql("SELECT title, count(*) FROM todo.tasks WHERE user_id LIKE 'writer-%' GROUP BY title")
        stored = {title: int(count) for title, count in rows}
        lost = sorted(acknowledged - set(stored))
        if lost:
            raise Failure(f"{len(lost)} acknowledged tasks are lost, {lost[0]} among them.")
        doubled = sorted(title for title, count in stored.items() if count > 1 and not title.startswith("counter"))
        if doubled:
            raise Failure(f"{len(doubled)} tasks were written twice, {doubled[0]} among them.")
        rows = postgres.sql("SELECT id, coalesce(description, '0'), version FROM todo.tasks WHERE title LIKE 'counter %'")
        versions = {row[0]: (int(row[1]), int(row[2])) for row in rows}
        for writer, counter in counters.items():
            if counter["id"] not in versions:
                raise Failure(f"the task of writer {writer} is lost.")
            newest, version = versions[counter["id"]]
            if newest < counter["newest"]:
                raise Failure(f"writer {writer}'s change {counter['newest']} was acknowledged and lost: {newest} is stored.")
            with self.lock:
                sent = self.counters[writer]["sent"]
            if not counter["acknowledged"] <= version - 1 <= sent:
                raise Failure(
                    f"writer {writer} had {counter['acknowledged']} of {sent} changes acknowledged, and {version - 1} were made."
                )
        if odd:
            raise Failure(f"{len(odd)} answers were neither a success nor 503, for example: {odd[0]}")
        return len(acknowledged) + sum(counter["acknowledged"] for counter in counters.values())


class Followers:
    """Clients of the feed of changes, each with a copy of the tasks of one writer."""

    def __init__(self, server, users):
        self.server = server
        self.copies = {user: {"tasks": {}, "cursor": None, "restarts": 0} for user in users}
        self.odd = []
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self._follow, args=item, daemon=True) for item in self.copies.items()]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)

    def _follow(self, user, copy):
        client = self.server.client(user)
        while not self.stopping.is_set():
            self._ask(client, copy)
            time.sleep(0.02)

    def _ask(self, client, copy):
        """Reads a page, and says whether there was one and it was the last."""
        since = f"&since={copy['cursor']}" if copy["cursor"] else ""
        try:
            status, text = client.request("GET", f"/api/tasks/changes?limit=100{since}")
        except (OSError, http.client.HTTPException):
            return False
        if status == 410:
            copy.update(tasks={}, cursor=None, restarts=copy["restarts"] + 1)
        elif status == 200:
            page = json.loads(text)
            for task in page["tasks"]:
                before = copy["tasks"].get(task["id"], 0)
                if before >= task["version"]:
                    self.odd.append(f"version {task['version']} of a task came after version {before}")
                copy["tasks"][task["id"]] = task["version"]
            copy["cursor"] = page["next_cursor"]
            return not page["has_more"]
        elif status != 503:
            self.odd.append(f"the feed was answered {status}: {text[:200]}")
        return False

    def check(self, postgres):
        """Compares the copies with what PostgreSQL has. Gives the smallest number of answers 410 that a follower got."""
        self.__exit__()
        for user, copy in self.copies.items():
            client = self.server.client(user)
            # The rest of the round that was being read, and one more.
            for _ in range(2):
                wait_until(lambda: self._ask(client, copy), 30, f"the feed of {user} does not end")
            rows = postgres.sql(f"SELECT id, version FROM todo.tasks WHERE user_id = '{user}'")
            missed = {(id, int(version)) for id, version in rows} ^ set(copy["tasks"].items())
            if missed:
                raise Failure(f"the copy of {user} differs in {len(missed)} versions, {min(missed)} among them.")
        if self.odd:
            raise Failure(f"{len(self.odd)} answers of the feed were wrong, for example: {self.odd[0]}")
        return min(copy["restarts"] for copy in self.copies.values())
