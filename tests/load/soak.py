"""Loads one server with all kinds of clients at once; scripts/soak runs it."""

import contextlib
import http.client
import os
import random
import signal
import socket
import struct
import subprocess
import threading
import time

from programs import Failure, Postgres, Server, Writers, children, main, say, token, wait_until

SECONDS = int(os.environ.get("SOAK_SECONDS", "600"))
# Seconds between two failures of PostgreSQL.
PAUSE = max(8, SECONDS / 12)
# Seconds until the limits on slow clients and idle connections have closed every connection of the load, plus a margin.
SETTLING = 100
# Most bytes of resident memory at rest: for the process, and for each password that is hashed at once.
MEMORY = 16e6 + 19 * 2**20 * max(1, len(os.sched_getaffinity(0)) // 2)
# Allowed growth since the warm-up.
GROWTH = 6e6
PASSWORD = "correct horse battery"

# Malformed and hostile requests. TOKEN is replaced with a valid token.
HOSTILE = [
    b"\0\1\2\3" * 50,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    b"GET /api/tasks\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000000\r\n\r\nx",
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhelloo",
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 2000,
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 9\r\n\r\n{}",
    b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\nContent-Length: 100000\r\n\r\n" + b"[" * 100_000,
    b"POST /api/auth/login HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n"
    + b'{"email":"unknown@example.org","password":"x"',
    b"GET /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\n\r\n" * 30,
    b"GET /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN.x\r\n\r\n" * 30,
]
HEAD = b"POST /api/tasks HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
# What a slow client sends at once, and then byte by byte; None: it reads slowly.
SLOW = [
    (b"GET /api/tasks HTTP/1.1\r\nX: ", b"y"),
    (HEAD, b" "),
    (b"GET /api/tasks?limit=1000 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer TOKEN\r\n\r\n" * 8, None),
    (b"", None),
]


class Load:
    """All clients, which run until the context is left."""

    def __init__(self, server, work):
        self.server, self.work = server, work
        self.token = token("reader").encode()
        self.stopping = threading.Event()
        self.errors = []
        self.longest = 0.0
        self.answered = {}
        jobs = [self.read, self.read, self.log_in, self.watch, self.attack, self.attack, self.send_slowly]
        self.threads = [threading.Thread(target=self._repeat, args=(job,), daemon=True) for job in jobs]
        self.writers = Writers(server, 8)

    def __enter__(self):
        requests = f"{self.work}/soak-requests"
        with open(requests, "w") as file:
            for path in ["/api/tasks?limit=20", "/api/tasks?limit=20", "/api/tasks?limit=200", "/api/tags", "/health"]:
                file.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {self.token.decode()}\r\n\r\n\0")
        replay = f"{os.path.dirname(__file__)}/replay.lua"
        # The answers are ignored, because they are 503 while PostgreSQL is unavailable.
        self.wrk = subprocess.Popen(
            ["wrk", "-t1", "-c32", "-d86400s", "-s", replay, f"http://127.0.0.1:{self.server.port}", "--", requests],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for thread in self.threads:
            thread.start()
        self.writers.__enter__()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.wrk.kill()
        self.wrk.wait()
        self.writers.stop()
        for thread in self.threads:
            thread.join(60)

    def _repeat(self, job):
        try:
            while not self.stopping.is_set():
                job()
        except Exception as error:
            self.errors.append(f"the load itself failed: {error!r}")

    def ask(self, client, method, path, body=None, allowed=(200, 201, 503)):
        """Sends a request. An answer that is not allowed is recorded as an error. The parallel attacks may close the connection."""
        began = time.monotonic()
        try:
            status, text = client.request(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            status, text = type(error).__name__, ""
        self.answered[status] = self.answered.get(status, 0) + 1
        if isinstance(status, int) and status not in allowed:
            self.errors.append(f"{method} {path} was answered {status}: {text[:200]}")
        return status, time.monotonic() - began

    def read(self):
        client = self.server.client("reader")
        for _ in range(50):
            path = random.choice(["?limit=1000", "?limit=20", "?q=buy+milk", "?sort=title", "/stats", "?page=3&limit=50"])
            self.ask(client, "GET", "/api/tasks" + path)
            if self.stopping.is_set():
                break
        client.connection.close()

    def log_in(self):
        client = self.server.client()
        who = {"email": f"soak{random.randrange(20)}@example.org", "password": PASSWORD}
        self.ask(client, "POST", "/api/auth/register", who, (201, 409, 503))
        self.ask(client, "POST", "/api/auth/login", who, (200, 503))
        self.ask(client, "POST", "/api/auth/login", who | {"password": "wrong password"}, (401, 503))
        client.connection.close()
        self.stopping.wait(0.2)

    def watch(self):
        """A well-behaved client, which must always get an answer quickly."""
        client = self.server.client()
        status, seconds = self.ask(client, "GET", "/health", allowed=(200,))
        client.connection.close()
        if status != 200:
            self.errors.append(f"/health was answered {status}")
        self.longest = max(self.longest, seconds)
        self.stopping.wait(0.1)

    def connect(self):
        client = socket.create_connection(("127.0.0.1", self.server.port), 5)
        client.settimeout(1)
        return client

    def attack(self):
        with contextlib.suppress(OSError):
            with self.connect() as client:
                client.sendall(random.choice([*HOSTILE, random.randbytes(300)]).replace(b"TOKEN", self.token))
                if random.random() < 0.5:
                    client.recv(1000)
                if random.random() < 0.5:
                    # Closes with a reset.
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.stopping.wait(0.01)

    def send_slowly(self):
        """Sixty slow clients, for at most half a minute."""
        clients = []
        for number in range(60):
            first, more = SLOW[number % len(SLOW)]
            with contextlib.suppress(OSError):
                client = self.connect()
                client.sendall(first.replace(b"TOKEN", self.token))
                client.setblocking(False)
                clients.append((client, more))
        for _ in range(60):
            for client, more in clients:
                with contextlib.suppress(OSError):
                    if more:
                        client.send(more)
                    else:
                        client.recv(1)
            if self.stopping.wait(0.5):
                break
        for client, _ in clients:
            client.close()


def state(server):
    """Threads, descriptors and resident memory of the server."""
    return server.usage().threads, server.descriptors(), server.memory()


def at_rest(server):
    """The minimum of each in five seconds, because the self-check of the server sometimes opens a connection."""
    found = []
    for _ in range(25):
        found.append(state(server))
        time.sleep(0.2)
    return [min(values) for values in zip(*found)]


def settle(server, threads, descriptors):
    """Waits until the server at rest has at most this many threads and descriptors. Returns its state at rest."""
    until = time.monotonic() + SETTLING
    while True:
        now = at_rest(server)
        if (now[0] <= threads and now[1] <= descriptors) or time.monotonic() > until:
            return now


def pause(postgres):
    """PostgreSQL falls silent for four seconds."""
    processes = [postgres.child.pid, *children(postgres.child.pid)]
    for how in (signal.SIGSTOP, signal.SIGCONT):
        for pid in processes:
            with contextlib.suppress(OSError):
                os.kill(pid, how)
        if how == signal.SIGSTOP:
            time.sleep(4)


def crash(postgres):
    postgres.kill()
    postgres.start()


BLOWS = [
    ("is restarted", lambda postgres: postgres.restart()),
    ("crashes", crash),
    ("falls silent for 4 s", pause),
    ("is stopped at once", lambda postgres: postgres.restart(signal.SIGQUIT)),
]


def load_for(seconds, server, postgres, work, pause_between):
    """Runs all clients for some time, while PostgreSQL fails repeatedly."""
    until = time.monotonic() + seconds
    with Load(server, work) as load:
        number = 0
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, pause_between))
            if until - time.monotonic() < 5:
                break
            what, strike = BLOWS[number % len(BLOWS)]
            number += 1
            strike(postgres)
            failed_at = time.monotonic()
            sentence = f"no write was acknowledged within 10 s after PostgreSQL {what}; the server's log is\n{server.log()}"
            wait_until(lambda: load.writers.acknowledged_since(failed_at), 10, sentence)
            count = load.writers.check(postgres)
            memory = server.memory() / 1e6
            say(f"PostgreSQL {what}: served again; {count} writes acknowledged, none lost; {memory:.0f} MB, {until - time.monotonic():.0f} s left")
    count = load.writers.check(postgres)
    if server.child.poll() is not None:
        raise Failure(f"the server has ended; its log is\n{server.log()}")
    if load.errors:
        raise Failure(f"{len(load.errors)} answers were wrong, for example: {load.errors[0]}")
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(load.answered.items(), key=str))
    say(f"answers to the readers, logins and /health: {answers}; longest wait for /health {load.longest:.2f} s")
    if load.longest > 5:
        raise Failure(f"/health took {load.longest:.1f} s")
    return count


def run(work, stack):
    postgres = Postgres(f"{work}/postgres")
    stack.callback(postgres.stop)
    postgres.create()
    server = Server(os.environ["PROGRAM"], f"{work}/server.log", postgres.url(), LOG_LEVEL="error")
    stack.callback(server.stop)
    server.wait_until_ready()
    client = server.client("reader")
    for number in range(1500):
        client.expect(201, "POST", "/api/tasks", {"title": f"Buy milk {number}", "description": "2 litres " * 20, "tags": ["food"]})
    client.connection.close()
    threads, descriptors, memory = at_rest(server)
    say(f"at the beginning: {threads} threads, {descriptors} descriptors, {memory / 1e6:.1f} MB")
    load_for(min(30, max(10, SECONDS / 6)), server, postgres, work, 8)
    _, _, warm = settle(server, threads, descriptors)
    say(f"after the warm-up: {warm / 1e6:.1f} MB")
    count = load_for(SECONDS, server, postgres, work, PAUSE)
    after = settle(server, threads, descriptors)
    print(
        f"{SECONDS} s: {count} acknowledged writes, none lost; threads {threads} before and {after[0]} after, descriptors {descriptors} "
        f"and {after[1]}, memory {memory / 1e6:.1f}, after the warm-up {warm / 1e6:.1f} and at the end {after[2] / 1e6:.1f} MB"
    )
    if after[0] > threads:
        raise Failure(f"the server keeps {after[0] - threads} threads more than at the beginning")
    if after[1] > descriptors:
        raise Failure(f"the server keeps {after[1] - descriptors} descriptors more than at the beginning")
    if after[2] > MEMORY:
        raise Failure(f"the server keeps {after[2] / 1e6:.1f} MB at rest; the limit is {MEMORY / 1e6:.1f} MB")
    if after[2] > warm + GROWTH:
        raise Failure(f"the server's memory has grown by {(after[2] - warm) / 1e6:.1f} MB since the warm-up")


if __name__ == "__main__":
    main(run)
