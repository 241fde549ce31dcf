"""Takes over back ends that real libraries have made; scripts/check takeover runs it.

`python takeover.py make NAME` makes the tables and rows of a back end in the database DATABASE_URL.
"""

import enum
import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.request
import uuid
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASSWORD = "correct horse battery"
# bcrypt reads 72 bytes.
LONG_PASSWORD = "x" * 73
ROWS = 100_000
SECONDS = 60
MEMORY = 64 * 1024 * 1024
KILLS = 5


def make(name):
    from sqlalchemy import create_engine

    url = os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+psycopg:")
    globals()[f"make_{name}"](create_engine(url))


def make_sqlmodel(engine):
    """SQLModel with integer ids, and bcrypt by passlib."""
    from old_back_end import SQLModel, Task, User, passwords
    from sqlmodel import Session

    SQLModel.metadata.create_all(engine)
    day = datetime(2024, 3, 1, 10, 0, 0, 123456)
    with Session(engine) as session:
        session.add(User(email="Ann@Example.org", full_name="Ann", hashed_password=passwords.hash(PASSWORD)))
        session.add(User(email="long@example.org", hashed_password=passwords.hash(LONG_PASSWORD)))
        session.add(User(email="gone@example.org", hashed_password=passwords.hash(PASSWORD), is_active=False))
        session.commit()
        for number in range(30):
            session.add(
                Task(
                    user_id=1 + number % 3,
                    title=f"Task {number} ü 🔑",
                    description=None if number % 2 else f"line 1\nline {number}",
                    completed=number % 4 == 0,
                    priority=["low", "medium", "high"][number % 3],
                    due_date=date(2030, 1, 1 + number) if number % 5 else None,
                    created_at=day + timedelta(minutes=number),
                    updated_at=day + timedelta(hours=number),
                )
            )
        session.commit()


def make_sqlalchemy(engine):
    """SQLAlchemy with UUIDs, enumerations, arrays, and Argon2 by argon2-cffi."""
    from argon2 import PasswordHasher
    from sqlalchemy import ARRAY, DateTime, Enum, ForeignKey, String, Text
    from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

    class Base(DeclarativeBase):
        pass

    class Level(enum.Enum):
        LOW = 1
        MEDIUM = 2
        HIGH = 3

    class Status(enum.Enum):
        pending = "pending"
        in_progress = "in_progress"
        completed = "completed"

    class User(Base):
        __tablename__ = "users"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(String(255), unique=True)
        password_hash: Mapped[str] = mapped_column(Text)

    class Task(Base):
        __tablename__ = "tasks"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
        owner_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("users.id"))
        title: Mapped[str] = mapped_column(String(200))
        notes: Mapped[str | None] = mapped_column(Text)
        status: Mapped[Status] = mapped_column(Enum(Status))
        priority: Mapped[Level] = mapped_column(Enum(Level))
        deadline: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
        tags: Mapped[list[str]] = mapped_column(ARRAY(String))
        created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    Base.metadata.create_all(engine)
    user = uuid.UUID(int=1)
    with Session(engine) as session:
        session.add(User(id=user, email="ann@example.org", password_hash=PasswordHasher().hash(PASSWORD)))
        session.flush()
        for number, (status, level) in enumerate(zip(Status, Level)):
            moment = datetime(2024, 4, 1 + number, tzinfo=timezone(timedelta(hours=2)))
            session.add(
                Task(
                    id=uuid.UUID(int=10 + number),
                    owner_id=user,
                    title=f"Task {number}",
                    notes="",
                    status=status,
                    priority=level,
                    deadline=moment,
                    tags=["a", "b c"],
                    created_at=moment,
                )
            )
        session.commit()


def make_better_auth(engine):
    """The tasks of a back end behind Better Auth, whose tables are there already."""
    from sqlmodel import Field, Session, SQLModel

    class BetterAuthTask(SQLModel, table=True):
        __tablename__ = "tasks"
        id: int | None = Field(default=None, primary_key=True)
        user_id: str = Field(index=True)
        title: str
        completed: bool = False
        created_at: datetime = Field(default_factory=lambda: datetime.now(timezone.utc))

    SQLModel.metadata.tables["tasks"].create(engine)
    with Session(engine) as session:
        for number, user in enumerate(json.loads(os.environ["USERS"])):
            session.add(BetterAuthTask(user_id=user, title=f"Task {number}"))
        session.commit()


def make_bcrypt(engine):
    """Users with every kind of hash, and tasks with integers for priorities."""
    import bcrypt
    from passlib.hash import pbkdf2_sha256
    from sqlalchemy import Column, Integer, MetaData, String, Table, insert

    metadata = MetaData()
    texts = [Column(name, String) for name in ["email", "username", "password"]]
    users = Table("users", metadata, Column("id", Integer, primary_key=True), *texts)
    columns = [Column("user_id", Integer), Column("task", String), Column("done", Integer), Column("priority", Integer)]
    todos = Table("todos", metadata, Column("id", Integer, primary_key=True), *columns)
    metadata.create_all(engine)
    hashes = {}
    for kind in ["2a", "2b", "2y"]:
        prefix = "2a" if kind == "2a" else "2b"
        hashes[kind] = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(10, prefix.encode())).decode()
    hashes["2y"] = hashes["2y"].replace("$2b$", "$2y$", 1)
    hashes["cost14"] = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(14)).decode()
    hashes["cost15"] = hashes["cost14"].replace("$14$", "$15$")
    hashes["pbkdf2"] = pbkdf2_sha256.hash(PASSWORD)
    with engine.begin() as connection:
        rows = [{"email": f"{name}@example.org", "username": name, "password": hash} for name, hash in hashes.items()]
        connection.execute(insert(users), rows)
        rows = [{"user_id": 1, "task": f"Task {number}", "done": number % 2, "priority": number} for number in range(1, 4)]
        connection.execute(insert(todos), rows)


def make_ambiguous(engine):
    """Two tables that may hold the tasks."""
    from sqlalchemy import Column, Integer, MetaData, String, Table

    metadata = MetaData()
    for name in ["tasks", "todos"]:
        Table(name, metadata, Column("id", Integer, primary_key=True), Column("user_id", Integer), Column("title", String))
    metadata.create_all(engine)


def make_none(engine):
    """No table of tasks."""
    from sqlalchemy import Column, Integer, MetaData, Table

    metadata = MetaData()
    Table("notes", metadata, Column("id", Integer, primary_key=True))
    metadata.create_all(engine)


if sys.argv[1:2] == ["make"]:
    make(sys.argv[2])
    sys.exit()

sys.path.insert(0, str(HERE.parent / "load"))
from programs import SECRET, Failure, Postgres, Server, free_port, main, say, stop, token, wait_until  # noqa: E402


def expect(what, found, wanted):
    if found != wanted:
        raise Failure(f"{what}: found {found!r}, expected {wanted!r}")


class Takeover:
    """A fixture database, and the database of a server that takes it over."""

    def __init__(self, postgres, name, **settings):
        self.postgres, self.name = postgres, name
        for database in [f"old_{name}", f"new_{name}"]:
            postgres.sql(f"CREATE DATABASE {database}", database="postgres")
        self.old, self.new = (postgres.url(f"{age}_{name}") for age in ["old", "new"])
        self.settings = settings

    def make(self, **settings):
        environment = os.environ | {"DATABASE_URL": self.old, "SECRET": SECRET} | settings
        subprocess.run([sys.executable, "-B", __file__, "make", self.name], env=environment, cwd=HERE, check=True)

    def start(self, *options):
        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": self.new, "BETTER_AUTH_SECRET": SECRET}
        command = [os.environ["PROGRAM"], "import", "--from", self.old, *options]
        return subprocess.Popen(
            command, env=environment, cwd=os.environ["WORK"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *options, code=0):
        command = self.start(*options)
        out, error = command.communicate()
        if command.returncode != code:
            raise Failure(f"{self.name}: the import ended with {command.returncode}: {error}{out}")
        return out if code == 0 else error

    def plan(self, *options):
        """The columns by their fields."""
        text = self.run("--dry-run", *options)
        rows = [line.split()[:2] for line in text.splitlines() if re.match(r"  [a-z_.]+ +[^ ]", line)]
        return {field: column for field, column in rows if column != "-" and field != "not"}

    def rows(self):
        """Everything that an import writes, as one text."""
        users = "SELECT users::text FROM todo.users"
        tasks = "SELECT to_jsonb(tasks) - 'written_by' FROM todo.tasks AS tasks"
        return self.postgres.sql(f"{users} ORDER BY id; {tasks} ORDER BY user_id, id", database=f"new_{self.name}")

    def import_twice(self, *options):
        first = self.run("--yes", *options).partition("Imported:")[2]
        before = self.rows()
        second = self.run("--yes", *options).partition("Imported:")[2]
        if " imported" in second or self.rows() != before:
            raise Failure(f"{self.name}: the second import has changed something: {second}")
        return first

    def serve(self, work):
        server = Server(os.environ["PROGRAM"], f"{work}/{self.name}.log", self.new, **self.settings)
        return server.wait_until_ready()

    def hash_of(self, email):
        rows = self.postgres.sql(f"SELECT password_hash FROM todo.users WHERE email = '{email}'", database=f"new_{self.name}")
        return rows[0][0]

    def logs_in(self, server, email, password):
        """Whether a user logs in twice, and has an Argon2id hash after that."""
        for _ in range(2):
            sent = {"email": email, "password": password}
            if server.client().request("POST", "/api/auth/login", sent)[0] != 200:
                return False
        return self.hash_of(email).startswith("$argon2id$v=19$m=19456,t=2,p=1$") or len(password) > 72


class FrontEnd:
    """What a front end sees of a back end at this address."""

    def __init__(self, port, email, password):
        self.base = f"http://127.0.0.1:{port}/api"
        self.token = None
        self.token = self.ask("POST", "/auth/login", {"email": email, "password": password})["access_token"]

    def ask(self, method, path, body=None):
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, headers, method=method)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def tasks(self):
        listed = self.ask("GET", "/tasks")
        expect("the count of a list", listed["count"], len(listed["tasks"]))
        shown = []
        for task in listed["tasks"]:
            one = self.ask("GET", f"/tasks/{task['id']}")
            toggled = self.ask("PATCH", f"/tasks/{task['id']}/complete")["completed"]
            back = self.ask("PATCH", f"/tasks/{task['id']}/complete")["completed"]
            expect("a task that was toggled twice", (toggled, back), (not task["completed"], task["completed"]))
            moment = lambda text: datetime.fromisoformat(text.replace("Z", "")).isoformat()
            same = ["title", "description", "completed", "priority", "due_date"]
            for shape in [task, one]:
                shown.append(([shape[name] for name in same], str(shape["user_id"]), moment(shape["created_at"])))
        return shown


def check_sqlmodel(postgres, work, stack):
    takeover = Takeover(postgres, "sqlmodel")
    takeover.make()
    port = free_port()
    environment = os.environ | {"DATABASE_URL": takeover.old, "SECRET": SECRET}
    command = [sys.executable, "-B", "-m", "uvicorn", "--port", str(port), "--log-level", "warning", "old_back_end:app"]
    old = subprocess.Popen(command, cwd=HERE, env=environment)
    stack.callback(stop, old)

    def front_end_of_old():
        try:
            return FrontEnd(port, "Ann@Example.org", PASSWORD)
        except OSError:
            return None

    before = wait_until(front_end_of_old, 30, "the old back end did not start")
    shown = before.tasks()
    plan = takeover.plan()
    same = ["id", "user_id", "title", "description", "completed", "priority", "due_date", "created_at", "updated_at"]
    wanted = {name: name for name in same} | {
        "users.id": "id", "users.email": "email", "users.name": "full_name", "users.password_hash": "hashed_password",
        "users.active": "is_active", "users.created_at": "created_at",
    }  # fmt: skip
    expect("the plan", plan, wanted)
    takeover.import_twice()
    server = takeover.serve(work)
    stack.callback(server.stop)
    expect("the tasks", FrontEnd(server.port, "Ann@Example.org", PASSWORD).tasks(), shown)
    expect("logins", takeover.logs_in(server, "ann@example.org", PASSWORD), True)
    # The token of the old back end still names the user.
    after = FrontEnd(server.port, "Ann@Example.org", PASSWORD)
    after.token = before.token
    expect("the tasks with the old token", after.tasks(), shown)
    expect("the long password", takeover.logs_in(server, "long@example.org", LONG_PASSWORD), True)
    expect("the hash of the long password", takeover.hash_of("long@example.org")[:4], "$2b$")
    sent = {"email": "gone@example.org", "password": PASSWORD}
    expect("a disabled user", server.client().request("POST", "/api/auth/login", sent)[0], 403)
    expect("a disabled user's token", server.client("3").request("GET", "/api/tasks")[0], 401)


def check_sqlalchemy(postgres, work, stack):
    takeover = Takeover(postgres, "sqlalchemy")
    takeover.make()
    wanted = {
        "id": "id", "user_id": "owner_id", "title": "title", "description": "notes", "completed": "status",
        "priority": "priority", "due_date": "deadline", "tags": "tags", "created_at": "created_at",
        "users.id": "id", "users.email": "email", "users.password_hash": "password_hash",
    }  # fmt: skip
    expect("the plan", takeover.plan(), wanted)
    takeover.import_twice()
    server = takeover.serve(work)
    stack.callback(server.stop)
    expect("logins", takeover.logs_in(server, "ann@example.org", PASSWORD), True)
    user = str(uuid.UUID(int=1))
    tasks = server.client(user).expect(200, "GET", "/api/tasks?sort=created_at&order=asc")["tasks"]
    found = [[task[name] for name in ["id", "completed", "priority", "due_date", "tags", "created_at"]] for task in tasks]
    moments = ["2024-03-31T22:00:00.000000Z", "2024-04-01T22:00:00.000000Z", "2024-04-02T22:00:00.000000Z"]
    states = zip(moments, [False, False, True], ["low", "medium", "high"])
    wanted = [
        [str(uuid.UUID(int=10 + at)), completed, priority, moment, ["a", "b c"], moment]
        for at, (moment, completed, priority) in enumerate(states)
    ]
    expect("the tasks", found, wanted)


def check_better_auth(postgres, work, stack):
    takeover = Takeover(postgres, "better_auth")
    environment = os.environ | {"DATABASE_URL": takeover.old, "SECRET": SECRET}
    made = subprocess.run(["node", "better_auth.mjs"], cwd=os.environ["PACKAGES"], env=environment, check=True, capture_output=True)
    users = json.loads(made.stdout)
    takeover.make(USERS=json.dumps(users))
    same = ["id", "user_id", "title", "completed", "created_at"]
    wanted = {name: name for name in same}
    wanted |= {"users.id": "id", "users.email": "email", "users.name": "name", "users.created_at": "createdAt"}
    expect("the plan", takeover.plan(), wanted)
    takeover.import_twice()
    server = takeover.serve(work)
    stack.callback(server.stop)
    for number, user in enumerate(users):
        tasks = server.client(user).expect(200, "GET", "/api/tasks")["tasks"]
        expect("the tasks", [task["title"] for task in tasks], [f"Task {number}"])
        expect("the name", server.client(user).expect(200, "GET", "/api/auth/me")["name"], ["Ann", "Ben"][number])


def check_bcrypt(postgres, work, stack):
    takeover = Takeover(postgres, "bcrypt")
    takeover.make()
    problem = takeover.run("--dry-run", code=2)
    option = "add --value 'priority:1=…' (1 rows) --value 'priority:2=…' (1 rows) --value 'priority:3=…' (1 rows)"
    if option not in problem:
        raise Failure(f"integers as priorities: {problem}")
    values = [f"--value=priority:{number}={name}" for number, name in [(1, "high"), (2, "medium"), (3, "low")]]
    wanted = {
        "id": "id", "user_id": "user_id", "title": "task", "completed": "done", "priority": "priority",
        "users.id": "id", "users.email": "email", "users.password_hash": "password",
    }  # fmt: skip
    expect("the plan", takeover.plan(*values), wanted)
    report = takeover.import_twice(*values)
    for name in ["cost15", "pbkdf2"]:
        if not re.search(rf'need a password: "\d+" "{name}@example.org"', report):
            raise Failure(f"the report does not list {name}: {report}")
    server = takeover.serve(work)
    stack.callback(server.stop)
    for name, known in [("2a", True), ("2b", True), ("2y", True), ("cost14", True), ("cost15", False), ("pbkdf2", False)]:
        expect(f"logins with {name}", takeover.logs_in(server, f"{name}@example.org", PASSWORD), known)
    tasks = server.client("1").expect(200, "GET", "/api/tasks")["tasks"]
    found = sorted((task["title"], task["completed"], task["priority"]) for task in tasks)
    expect("the tasks", found, [("Task 1", True, "high"), ("Task 2", False, "medium"), ("Task 3", True, "low")])


def check_ambiguous(postgres, work, stack):
    takeover = Takeover(postgres, "ambiguous")
    takeover.make()
    problem = takeover.run("--yes", code=2)
    if "add --tasks tasks or --tasks todos" not in problem:
        raise Failure(f"two tables: {problem}")
    takeover.run("--yes", "--tasks", "todos")


def check_none(postgres, work, stack):
    takeover = Takeover(postgres, "none")
    takeover.make()
    problem = takeover.run("--yes", code=2)
    if "add --tasks NAME" not in problem:
        raise Failure(f"no table: {problem}")


def check_size(postgres, work, stack):
    """Many rows in little time and memory, and kills at random moments."""
    takeover = Takeover(postgres, "size")
    postgres.sql(
        f"""CREATE TABLE users (id int PRIMARY KEY, email text, hashed_password text, created_at timestamp DEFAULT '2024-01-01');
            CREATE TABLE tasks (id int PRIMARY KEY, user_id int REFERENCES users, title text, description text, completed bool,
                                created_at timestamp);
            INSERT INTO users SELECT id, 'u' || id || '@example.org', '$2b$10$' || repeat('a', 53) FROM generate_series(0, 499) AS id;
            INSERT INTO tasks SELECT id, (id * 7919) % 500, 'Task ' || id, repeat('text ', id % 100), id % 3 = 0,
                                     timestamp '2024-01-01' + id * interval '1 second'
            FROM generate_series(1, {ROWS}) AS id""",
        database="old_size",
    )
    started = time.monotonic()
    command = takeover.start("--yes")
    out = command.stdout.read()
    _, status, used = os.wait4(command.pid, 0)
    command.returncode = status
    seconds, memory = time.monotonic() - started, used.ru_maxrss * 1024
    say(f"{ROWS:,} tasks took {seconds:.1f} s and {memory / 1e6:.0f} MB.")
    if status or f"  {ROWS} imported" not in out:
        raise Failure(f"the import ended with {status}: {out}")
    if seconds > SECONDS or memory > MEMORY:
        raise Failure(f"at most {SECONDS} s and {MEMORY / 1e6:.0f} MB are allowed")
    whole = takeover.rows()
    killed = 0
    postgres.sql("DROP DATABASE new_size", database="postgres")
    postgres.sql("CREATE DATABASE new_size", database="postgres")
    for _ in range(KILLS):
        command = takeover.start("--yes")
        time.sleep(random.uniform(0.2, 0.9) * seconds)
        killed += command.poll() is None
        command.kill()
        command.communicate()
    takeover.run("--yes")
    if killed == 0:
        raise Failure("no import was killed before it ended")
    if takeover.rows() != whole:
        raise Failure(f"the tables differ after {killed} kills")
    say(f"{killed} kills changed nothing.")


def check(work, stack):
    os.environ["WORK"] = work
    postgres = Postgres(f"{work}/postgres").create()
    stack.callback(postgres.stop)
    for each in [check_sqlmodel, check_sqlalchemy, check_better_auth, check_bcrypt, check_ambiguous, check_none, check_size]:
        try:
            each(postgres, work, stack)
        except Failure as failure:
            raise Failure(f"{each.__name__}: {failure}") from None
        say(f"{each.__name__} is right.")


main(check)
