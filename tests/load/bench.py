"""Measures the server under load; scripts/bench runs it."""

import argparse
import json
import os
import platform
import random
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone

from programs import Failure, Postgres, Server, Usage, main, say, token, wait_until

USERS = 200
TASKS = 100_000
# The number of a task determines its user, and is the end of its UUID: it has 12 digits.
FIRST = 100_000_000_000
# Tasks that are made to be deleted.
FIRST_TO_DELETE = 200_000_000_000
PASSWORD = "correct horse battery"
TASK = {"title": "Buy milk and bread", "description": "2 litres, and the good bread", "priority": "high", "due_date": "2030-01-31"}
# Connections of pgbench: about as many as the server opens to PostgreSQL.
PGBENCH_CLIENTS = 10
# Prepared requests for one measurement. wrk sends them repeatedly.
REPLAYED = 10_000
# Settings with which PostgreSQL starts no background work during a measurement.
QUIET = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "4GB"}
# For Postgres.statements_of.
LOGGED = {"logging_collector": "on", "log_destination": "csvlog", "log_directory": "log"}


def owner(number):
    return f"bench{number % USERS + 1}"


def task_id(number):
    return f"00000000-0000-7000-8000-{number}"


def email(user):
    return f"{user}@example.org"


# The request of each scenario for the task of a number: method, path, body.
REQUESTS = {
    "get": lambda number: ("GET", f"/api/tasks/{task_id(number)}", None),
    "list": lambda number: ("GET", "/api/tasks?limit=20", None),
    "create": lambda number: ("POST", "/api/tasks", TASK),
    "update": lambda number: ("PATCH", f"/api/tasks/{task_id(number)}", {"title": f"Buy {random.randrange(10**6)} apples"}),
    "toggle": lambda number: ("PATCH", f"/api/tasks/{task_id(number)}/complete", None),
    "delete": lambda number: ("DELETE", f"/api/tasks/{task_id(number)}", None),
    "login": lambda number: ("POST", "/api/auth/login", {"email": email(owner(number)), "password": PASSWORD}),
}
# The scenario `mixed`, in percent.
MIX = {"get": 80, "list": 10, "create": 5, "toggle": 5}
SCENARIOS = ["get", "list", "create", "update", "toggle", "delete", "mixed", "login"]


def parse_arguments():
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the server over keep-alive connections on loopback, and with pgbench the statements that it sends, "
        "in the same run. The load, the server and PostgreSQL share the machine. The table is also written to target/bench/.",
    )
    parser.add_argument("--quick", action="store_true", help="one round of one second each: under two minutes, rough figures")
    parser.add_argument("--before", metavar="BINARY", help="another build, measured in turn with the new one in every round")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help="default: %(default)s")
    parser.add_argument("--connections", default="1,32,256,900", help="default: %(default)s")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=int, help="whole seconds of one measurement, default: 4")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (1 if arguments.quick else 4)
    arguments.scenarios = arguments.scenarios.split(",")
    arguments.connections = [int(count) for count in arguments.connections.split(",")]
    if unknown := set(arguments.scenarios) - set(SCENARIOS):
        parser.error(f"no such scenario: {', '.join(unknown)}")
    if arguments.before and not os.access(arguments.before, os.X_OK):
        parser.error(f"{arguments.before} is not a program")
    return arguments


class Build:
    """A build of the server, on a database of its own. All builds have the same tasks."""

    def __init__(self, name, program, postgres, work, stack):
        self.name, self.program, self.postgres, self.work = name, program, postgres, work
        self.database = f"bench_{name}"
        self.next_to_delete = FIRST_TO_DELETE
        self.tokens = {f"bench{n}": token(f"bench{n}") for n in range(1, USERS + 1)}
        postgres.sql(f"CREATE DATABASE {self.database}")
        self.server = self.start()
        stack.callback(lambda: self.server.stop())
        self._load()

    def start(self, options=""):
        url = self.postgres.url(self.database) + options
        return Server(self.program, f"{self.work}/{self.name}.log", url).wait_until_ready()

    def sql(self, statements):
        return self.postgres.sql(statements, database=self.database)

    def _load(self):
        """The server writes one row of each kind, and PostgreSQL copies them, so this works with any schema."""
        account = {"email": email("model"), "password": PASSWORD}
        self.model = self.server.client().expect(201, "POST", "/api/auth/register", account)["user"]["id"]
        client = self.server.client(self.model)
        for number in range(12):
            task = TASK | {"title": f"Model {number}", "priority": ["low", "medium", "high"][number % 3], "completed": number % 2 == 0}
            if number % 4 == 0:
                del task["due_date"]
            client.expect(201, "POST", "/api/tasks", task)
        fields = "'id', 'bench' || n, 'email', 'bench' || n || '@example.org'"
        self.copy("users", f"model.id = '{self.model}'", range(1, USERS + 1), fields)
        self.copy_tasks(range(FIRST, FIRST + TASKS))
        self.sql("VACUUM ANALYZE")
        self.sql("CHECKPOINT")

    def copy(self, table, model, numbers, fields):
        """Copies the model row of a table once for each number, with other values in some fields."""
        rows = self.sql(
            f"SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = 'todo.{table}'::regclass "
            "AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
        )
        columns = [row[0] for row in rows]
        self.sql(
            f"SET search_path = todo; INSERT INTO {table} ({', '.join(columns)}) "
            f"SELECT {', '.join('made.' + column for column in columns)} "
            f"FROM generate_series({numbers[0]}, {numbers[-1]}) AS n JOIN {table} AS model ON {model}, "
            f"jsonb_populate_record(model, jsonb_build_object({fields})) AS made"
        )

    def copy_tasks(self, numbers):
        fields = (
            f"'id', '{task_id('')}' || n, 'user_id', 'bench' || n % {USERS} + 1, "
            "'created_at', now() - (n % 100000) * interval '1 minute' - interval '1 day'"
        )
        self.copy("tasks", f"model.user_id = '{self.model}' AND model.title = 'Model ' || n % 12", numbers, fields)

    def make_tasks_to_delete(self, connections, seconds):
        """Makes more tasks than can be deleted in this time."""
        first = self.next_to_delete
        self.next_to_delete += min(40_000, 5_000 * connections) * seconds * 5 // 4
        self.copy_tasks(range(first, self.next_to_delete))
        return range(first, self.next_to_delete)

    def tidy(self):
        """Removes the rows of the last round."""
        self.sql(f"DELETE FROM todo.tasks WHERE id NOT BETWEEN '{task_id(FIRST)}' AND '{task_id(FIRST + TASKS)}' AND user_id LIKE 'bench%'")
        self.sql("DELETE FROM todo.sessions")
        self.sql("VACUUM")
        self.sql("CHECKPOINT")

    def write_requests(self, scenario, connections, seconds):
        """Writes the requests of a scenario to a file, as they go over the connection."""
        if scenario == "delete":
            numbers = self.make_tasks_to_delete(connections, seconds)
        else:
            numbers = [FIRST + random.randrange(TASKS) for _ in range(REPLAYED)]
        path = f"{self.work}/requests"
        with open(path, "w") as file:
            for number in numbers:
                part = random.choices(list(MIX), MIX.values())[0] if scenario == "mixed" else scenario
                method, target, body = REQUESTS[part](number)
                head = [f"{method} {target} HTTP/1.1", "Host: localhost"]
                if part != "login":
                    head.append(f"Authorization: Bearer {self.tokens[owner(number)]}")
                text = json.dumps(body) if body else ""
                if body:
                    head += ["Content-Type: application/json", f"Content-Length: {len(text)}"]
                file.write("\r\n".join(head) + "\r\n\r\n" + text + "\0")
        return path


def machine_busy():
    """Seconds of CPU that the whole machine has used so far."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / Usage.TICK


def of_children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(build, scenario, connections, seconds):
    """One measurement of one build."""
    requests = build.write_requests(scenario, connections, seconds)
    server, postmaster = build.server, build.postgres.child.pid
    # The server has a limit on connections, so those of the measurement before must be closed.
    wait_until(lambda: server.descriptors() <= 100, 30, "the server does not close the connections of clients that are gone")
    state = lambda: (server.usage(), Usage(postmaster, with_children=True).cpu, of_children(), machine_busy(), time.monotonic())
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", f"{os.path.dirname(__file__)}/replay.lua"]
    command += [f"http://127.0.0.1:{server.port}", "--", requests]
    before = state()
    wrk = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds * 0.9)
    # This must be read before the connections are closed.
    memory = server.memory()
    out, err = wrk.communicate()
    after = state()
    line = re.search(r"^\{.*\}$", err, re.M)
    if wrk.returncode or not line:
        raise Failure(f"wrk failed: {err.strip() or out.strip()}")
    result = json.loads(line[0])
    requests = max(1, result["requests"])
    in_server = after[0].cpu - before[0].cpu
    in_postgres, in_wrk, in_all, elapsed = (new - old for new, old in zip(after[1:], before[1:]))
    return {
        "rate": (result["requests"] - result["refused"]) / result["microseconds"] * 1e6,
        "refused": result["refused"] / requests * 100,
        "broken": result["broken"],
        "p50": result["p50"] / 1000,
        "p95": result["p95"] / 1000,
        "p99": result["p99"] / 1000,
        "server": in_server / requests * 1e6,
        "postgres": in_postgres / requests * 1e6,
        "switches": (after[0].switches - before[0].switches) / requests,
        "memory": memory / 1e6,
        "others": max(0, in_all - in_server - in_postgres - in_wrk) / elapsed / os.cpu_count() * 100,
    }


class Scripts:
    """The statements that the server sends for each scenario, as scripts for pgbench."""

    def __init__(self, build, scenarios):
        self.build = build
        parts = [part for scenario in scenarios for part in (MIX if scenario == "mixed" else [scenario])]
        server = build.start("?options=-c%20log_statement%3Dall")
        try:
            self.scripts = {part: self._write(part, server) for part in dict.fromkeys(parts)}
        finally:
            server.stop()

    def _write(self, scenario, server):
        """Writes a scenario's script. Returns the file and the variables that pgbench must set."""
        numbers = iter(self.build.make_tasks_to_delete(1, 1) if scenario == "delete" else [FIRST] * 9)

        def once():
            number = next(numbers)
            client = server.client(None if scenario == "login" else owner(number))
            method, path, body = REQUESTS[scenario](number)
            client.expect({"POST": 201, "DELETE": 204}.get(method, 200) if scenario != "login" else 200, method, path, body)
            return number

        # The first call prepares the statements. Of five further runs, the shortest has the fewest statements of the server itself.
        once()
        number, statements = min((self.build.postgres.statements_of(once) for _ in range(5)), key=lambda found: len(found[1]))
        user = owner(number)
        expressions = {
            user: "('bench' || :user)",
            email(user): "('bench' || :user || '@example.org')",
            task_id(number): f"('{task_id('')}' || :number)::uuid",
        }
        variables, fresh = {}, []

        def expression(value):
            """The expression for a parameter's value. Equal values have the same expression."""
            if value is None or value == "":
                return "NULL" if value is None else "''"
            if value not in expressions:
                new = f"new{len(fresh)}"
                if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value):
                    expressions[value] = f"('00000000-0000-4000-8000-' || :{new})::uuid"
                    fresh.append(new)
                elif re.fullmatch(r"\\x[0-9a-f]{64}", value):
                    expressions[value] = f"sha256((:{new} || '')::bytea)"
                    fresh.append(new)
                else:
                    name = f"{scenario}{len(variables)}"
                    variables[name] = value
                    expressions[value] = f":{name}"
            return expressions[value]

        texts = [
            re.sub(r"\$(\d+)", lambda match: expression(parameters[int(match[1])]), text.rstrip("; \n")) + ";"
            for text, parameters in statements
        ]
        if scenario == "delete":
            lines = ["\\set at :at + 1", "\\set number :first + :client_id * :share + :at"]
        else:
            lines = [f"\\set number {FIRST} + random(0, {TASKS - 1})"]
        lines.append(f"\\set user :number % {USERS} + 1")
        lines += [f"\\set {new} random(100000000000, 999999999999)" for new in fresh]
        path = f"{self.build.work}/{scenario}.sql"
        with open(path, "w") as file:
            file.write("\n".join(lines + texts) + "\n")
        return path, variables

    def rate(self, scenario, clients, seconds):
        """How many times a second PostgreSQL executes the statements of the scenario."""
        build = self.build
        arguments = ["-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients)), "-T", str(seconds)]
        if scenario == "delete":
            numbers = build.make_tasks_to_delete(clients, seconds)
            arguments += ["-D", "at=-1", "-D", f"first={numbers[0]}", "-D", f"share={len(numbers) // clients}"]
        for part, weight in MIX.items() if scenario == "mixed" else [(scenario, 1)]:
            path, variables = self.scripts[part]
            arguments += ["-f", f"{path}@{weight}"]
            for name, value in variables.items():
                arguments += ["-D", f"{name}={value}"]
        command = [build.postgres.program("pgbench"), *arguments, build.postgres.url(build.database)]
        # On a busy machine a second may pass without a transaction; pgbench then prints no rate.
        for _ in range(3):
            done = subprocess.run(command, capture_output=True, text=True)
            if rate := re.search(r"^tps = ([0-9.]+)", done.stdout, re.M):
                return float(rate[1])
            if done.returncode:
                break
        raise Failure(f"pgbench cannot run the statements of {scenario}: {done.stderr.strip()[-600:] or done.stdout.strip()}")


def measure_memory(build):
    """Resident memory in MB of a fresh server: at rest, then five seconds after 100 logins, then after 100 lists of 1,000 tasks."""
    build.server.stop()
    build.server = build.start()
    time.sleep(1)
    figures = [build.server.memory()]
    fields = f"'id', '{task_id('')}' || n, 'user_id', 'bench1'"
    numbers = range(FIRST_TO_DELETE - 1000, FIRST_TO_DELETE)
    build.copy("tasks", f"model.user_id = '{build.model}' AND model.title = 'Model 1'", numbers, fields)
    for method, path, body in [REQUESTS["login"](FIRST), ("GET", "/api/tasks?limit=1000", None)]:
        # From several threads, because the server may keep memory for each of its threads.
        def ask():
            client = build.server.client("bench1")
            for _ in range(25):
                client.expect(200, method, path, body)
            client.connection.close()

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(5)
        figures.append(build.server.memory())
    return [figure / 1e6 for figure in figures]


def median(values):
    return statistics.median(values)


def report(arguments, builds, results, rates, memory, postgres, seconds):
    """The Markdown text."""
    with open("/proc/cpuinfo") as file:
        model = re.search(r"^model name\s*:\s*(.*)", file.read(), re.M)
    version = postgres.sql("SELECT current_setting('server_version')")[0][0]
    everything = [result for rounds in results.values() for result in rounds]
    others = [result["others"] for result in everything]
    compared = len(builds) > 1
    lines = [
        f"# Benchmark of {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "",
        f"{os.cpu_count()} × {model[1] if model else 'an unknown processor'}, shared by the load (wrk), the server and PostgreSQL {version}; "
        f"Linux {platform.release()}. Medians of rounds: {arguments.rounds}, of {arguments.seconds} s each. Commits wait for the disk. {TASKS:,} tasks of {USERS} users, a "
        f"verified token in every request. mixed: {', '.join(f'{share} % {part}' for part, share in MIX.items())}. "
        f"Other processes used {median(others):.0f} % of the machine (median; at most {max(others):.0f} %). It took {seconds:.0f} s.",
        "",
        "- × pgbench: the rate divided by that of pgbench with the statements that the server sends, prepared, over one connection or "
        f"{PGBENCH_CLIENTS}, in the same round. More than 1: the server joins writes that wait at the same time in one statement." + (" Both builds are compared with the statements of the new one." if compared else ""),
        "- Latencies are in ms. wrk corrects them for coordinated omission: it adds the requests that a stall kept it from sending, so "
        "that one stall shows in p99.",
        "- CPU is in µs per request; switches are voluntary context switches of the server per request; RSS is in MB, under load.",
        "- refused: answers of status 400 and over, in percent; they do not count in the rate. A request that would wait for longer than "
        "two seconds is refused with 503: most logins at 256 connections and more, because each takes tens of milliseconds of CPU.",
        "",
    ]
    head = ["scenario", "connections", "requests/s", "range", "× pgbench", "p50", "p95", "p99", "CPU server", "CPU PostgreSQL", "switches", "RSS", "refused"]
    if compared:
        head[2:2] = ["build"]
        head[5:5] = ["× before"]
    lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for scenario in arguments.scenarios:
        for connections in arguments.connections:
            for build in builds:
                rounds = results[build.name, scenario, connections]
                of = lambda name: median([result[name] for result in rounds])
                speeds = [result["rate"] for result in rounds]
                ceilings = rates[scenario, min(connections, PGBENCH_CLIENTS)]
                cells = [scenario, f"{connections}", f"{of('rate'):,.0f}", f"{min(speeds):,.0f}–{max(speeds):,.0f}"]
                if compared:
                    cells[2:2] = [build.name]
                    before = results["before", scenario, connections]
                    ratio = median([result["rate"] / old["rate"] for result, old in zip(rounds, before)])
                    cells.append(f"{ratio:.2f}" if build.name == "new" else "")
                cells.append(f"{median([speed / ceiling for speed, ceiling in zip(speeds, ceilings)]):.2f}")
                cells += [f"{of(name):.2f}" for name in ("p50", "p95", "p99")]
                cells += [f"{of('server'):.0f}", f"{of('postgres'):.0f}", f"{of('switches'):.2f}", f"{of('memory'):.1f}"]
                cells.append(f"{of('refused'):.1f} %" if any(result["refused"] for result in rounds) else "")
                lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Statements with pgbench, per second:", "", "| scenario | 1 connection | " + f"{PGBENCH_CLIENTS} connections |", "|---|---:|---:|"]
    for scenario in arguments.scenarios:
        cells = [f"{median(rates[scenario, clients]):,.0f}" if (scenario, clients) in rates else "" for clients in (1, PGBENCH_CLIENTS)]
        lines.append(f"| {scenario} | {' | '.join(cells)} |")
    if memory:
        lines += ["", "Resident memory of a fresh server in MB:", "", "| build | at rest | 5 s after 100 logins | 5 s after 100 lists of 1,000 |", "|---|---:|---:|---:|"]
        for name, figures in memory.items():
            lines.append(f"| {name} | {' | '.join(f'{figure:.1f}' for figure in figures)} |")
    return "\n".join(lines) + "\n"


def run(work, stack):
    arguments = parse_arguments()
    began = time.monotonic()
    postgres = Postgres(f"{work}/postgres", **QUIET, **LOGGED)
    stack.callback(postgres.stop)
    postgres.create()
    say("Loading …")
    programs = {"new": os.environ["PROGRAM"]} | ({"before": arguments.before} if arguments.before else {})
    builds = [Build(name, program, postgres, work, stack) for name, program in programs.items()]
    scripts = Scripts(builds[0], arguments.scenarios)
    results = {(name, scenario, count): [] for name in programs for scenario in arguments.scenarios for count in arguments.connections}
    clients = sorted({min(count, PGBENCH_CLIENTS) for count in arguments.connections})
    rates = {(scenario, count): [] for scenario in arguments.scenarios for count in clients}
    failures = []
    for number in range(arguments.rounds):
        # The builds alternate, so that neither always runs after the other.
        order = builds if number % 2 == 0 else builds[::-1]
        for scenario in arguments.scenarios:
            for count in clients:
                rates[scenario, count].append(scripts.rate(scenario, count, arguments.seconds))
            if not arguments.quick:
                for build in order:
                    measure(build, scenario, 32, 1)
            for connections in arguments.connections:
                for build in order:
                    result = measure(build, scenario, connections, arguments.seconds)
                    results[build.name, scenario, connections].append(result)
                    where = f"{scenario}, {connections} connections, {build.name}"
                    say(f"round {number + 1}: {where}: {result['rate']:,.0f} requests/s, p99 {result['p99']:.1f} ms")
                    # On a busy machine or disk a few of 900 may time out. For logins see the report.
                    if result["broken"] or (result["refused"] > 5 and scenario != "login"):
                        failures.append(f"{where}: {result['refused']:.1f} % refused, {result['broken']} without an answer")
        for build in builds:
            build.tidy()
    memory = {} if arguments.quick else {build.name: measure_memory(build) for build in builds}
    text = report(arguments, builds, results, rates, memory, postgres, time.monotonic() - began)
    directory = os.environ["OUT"]
    os.makedirs(directory, exist_ok=True)
    path = f"{directory}/{datetime.now(timezone.utc):%Y-%m-%d-%H%M}.md"
    with open(path, "w") as file:
        file.write(text)
    print(text)
    say(f"Written to {path}.")
    if failures:
        raise Failure("some requests were refused or not answered: " + "; ".join(failures))


if __name__ == "__main__":
    # --help needs no set-up.
    if {"-h", "--help"} & set(sys.argv):
        parse_arguments()
    main(run)
