"""Runs the server behind PgBouncer; scripts/check pooler runs it."""

import os
import re
import signal
import socket
import subprocess
import time

from programs import Failure, Postgres, Server, Writers, free_port, main, say, stop, wait_until

# From this version on PgBouncer can keep prepared statements in transaction mode.
KEEPS_STATEMENTS = (1, 21)


class PgBouncer:
    """A PgBouncer before a PostgreSQL."""

    def __init__(self, postgres, work, mode, *settings):
        self.port = free_port()
        path = f"{work}/pgbouncer-{self.port}.ini"
        self.log_file = f"{work}/pgbouncer-{self.port}.log"
        settings = [
            "[databases]",
            f"todo = host=127.0.0.1 port={postgres.port} user=todo",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = any",
            f"pool_mode = {mode}",
            # By default PgBouncer waits 15 s after a failed connection to PostgreSQL.
            "server_login_retry = 1",
            *settings,
        ]
        with open(path, "w") as file:
            file.write("\n".join(settings) + "\n")
        with open(self.log_file, "w") as log:
            # PgBouncer refuses to run as root.
            self.child = subprocess.Popen(
                ["pgbouncer", path], cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **postgres.account
            )
        self.url = f"postgresql://todo@127.0.0.1:{self.port}/todo"
        wait_until(self.answers, 10, "PgBouncer did not start")

    def answers(self):
        if self.child.poll() is not None:
            with open(self.log_file) as log:
                raise Failure(f"PgBouncer ended at its start: {log.read()[-1000:]}")
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self):
        stop(self.child, signal.SIGINT)


def serves(server, postgres, name):
    """Checks that the server works behind the pooler, also after a restart of PostgreSQL."""
    server.wait_until_ready(20)
    writers = Writers(server)
    with writers:
        time.sleep(3)
        postgres.restart(signal.SIGQUIT)
        restarted = time.monotonic()
        sentence = f"{name}: no write was acknowledged within 10 s of PostgreSQL's restart; the server's log is\n{server.log()}"
        wait_until(lambda: writers.acknowledged_since(restarted), 10, sentence)
        time.sleep(2)
    client = server.client("reader")
    task = client.expect(201, "POST", "/api/tasks", {"title": "Buy milk", "tags": ["food"]})
    for path in ["/api/tasks?limit=20", "/api/tasks?q=milk", "/api/tasks?tag=food", "/api/tasks/stats", "/api/tags", f"/api/tasks/{task['id']}"]:
        for _ in range(20):
            client.expect(200, "GET", path)
    # The time limit on locks, 2 s, is in force. The server's own deadline is later and would close the connection.
    lock = "BEGIN; LOCK TABLE todo.tasks; SELECT pg_sleep(5); COMMIT"
    with subprocess.Popen(["psql", "-qc", lock, postgres.url()], stdout=subprocess.DEVNULL):
        time.sleep(0.5)
        began = time.monotonic()
        client.expect(503, "GET", f"/api/tasks/{task['id']}")
        if time.monotonic() - began > 3:
            raise Failure(f"{name}: a statement waited {time.monotonic() - began:.1f} s for a lock; DB_LOCK_TIMEOUT is 2 s")
    account = {"email": "me@example.org", "password": "correct horse battery"}
    server.client().expect(201, "POST", "/api/auth/register", account)
    server.client().expect(200, "POST", "/api/auth/login", account)
    say(f"{name}: {writers.check(postgres)} writes acknowledged, none lost, none doubled")


def refuses(server, name):
    """Checks that the server exits at its start and says what to change."""
    try:
        status = server.child.wait(20)
    except subprocess.TimeoutExpired:
        raise Failure(f"{name}: the server did not exit with a message; its log is\n{server.log()}") from None
    for text in ("pool_mode = session", "max_prepared_statements", "DATABASE_URL"):
        if status == 0 or text not in server.log():
            raise Failure(f"{name}: the server ended with {status} and does not name {text}; its log is\n{server.log()}")
    say(f"{name}: refused at the start: {server.log().strip().splitlines()[-1]}")


def run(work, stack):
    version = subprocess.run(["pgbouncer", "--version"], capture_output=True, text=True).stdout
    version = tuple(int(number) for number in re.search(r"(\d+)\.(\d+)", version).groups())
    # PgBouncer refuses settings in the startup message unless this setting ignores them.
    ignoring = ["ignore_startup_parameters = extra_float_digits,options"]
    cases = [
        # The mode, settings, whether migrations have a direct address, whether prepared statements are kept.
        ("session", [], False, False),
        ("session", ignoring, True, False),
        ("transaction", [], False, False),
        ("transaction", [], True, False),
        ("transaction", ignoring, False, False),
        ("transaction", [], True, True),
    ]
    for number, (mode, settings, unpooled, keeps) in enumerate(cases):
        if keeps and version < KEEPS_STATEMENTS:
            continue
        name = f"{mode} mode, {'with' if unpooled else 'without'} DATABASE_URL_UNPOOLED, {'no startup parameters' if settings else 'default'}"
        if version >= KEEPS_STATEMENTS:
            settings = [*settings, f"max_prepared_statements = {200 if keeps else 0}"]
        postgres = Postgres(f"{work}/postgres{number}").create()
        stack.callback(postgres.stop)
        pooler = PgBouncer(postgres, work, mode, *settings)
        stack.callback(pooler.stop)
        direct = {"DATABASE_URL_UNPOOLED": postgres.url()} if unpooled else {}
        # A second start meets the statements that the first one left in the pooler's connections.
        for _ in range(2):
            server = Server(os.environ["PROGRAM"], f"{work}/server{number}.log", pooler.url, **direct)
            stack.callback(server.stop)
            if mode == "session" or keeps:
                serves(server, postgres, name)
                server.stop()
                break
            refuses(server, name)
        pooler.stop()
        postgres.stop()
    print("The server works behind PgBouncer if the mode allows it, and otherwise says what to change.")


if __name__ == "__main__":
    main(run)
