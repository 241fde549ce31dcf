"""Chooses users and resources: one user for tasks, and a new user for each change to an account, because some changes end it."""

import json
import os
import random
import secrets
import urllib.request
from datetime import date

import schemathesis

BASE = os.environ["BASE"]
PASSWORD = "correct horse battery"


def ask(method, path, body=None, token=None):
    request = urllib.request.Request(
        BASE + path,
        None if body is None else json.dumps(body).encode(),
        {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})},
        method=method,
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def register():
    body = {"email": f"{secrets.token_hex(8)}@example.org", "password": PASSWORD}
    return ask("POST", "/api/auth/register", body)


USER = register()


def resource(path, token):
    """The id of a resource of this user for this path."""
    if path.endswith("/sessions/{id}"):
        return ask("GET", "/api/auth/sessions", token=token)["sessions"][0]["id"]
    if path.endswith("/tokens/{id}"):
        return ask("POST", "/api/auth/tokens", {"name": "one", "current_password": PASSWORD}, token)["id"]
    if "/tasks/{id}" in path:
        return ask("POST", "/api/tasks", {"title": "one"}, token)["id"]
    return None


# The characters that the program trims: Unicode white space.
SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


def trimmed_texts(value):
    """All titles, names and tags of a body."""
    if isinstance(value, list):
        for entry in value:
            yield from trimmed_texts(entry)
    elif isinstance(value, dict):
        for name, inner in value.items():
            texts = inner if isinstance(inner, list) else [inner]
            if name in ("title", "name", "tags"):
                yield from (text for text in texts if isinstance(text, str))
            yield from trimmed_texts(inner)


@schemathesis.hook
def filter_case(context, case):
    """Skips cases that the description cannot exclude: texts that are trimmed first, and times in the past."""
    if not isinstance(case.body, dict):
        return True
    if any(text != text.strip(SPACE) for text in trimmed_texts(case.body)):
        return False
    moment = case.body.get("expires_at")
    past = isinstance(moment, str) and moment[:4].isdigit() and moment[:10] <= date.today().isoformat()
    return not past


def agree(query):
    """Removes contradictory parameters, and uses a known zone."""
    if "tz" in query:
        query["tz"] = random.choice(["UTC", "Europe/Berlin", "-03:30"])
    for first, second in [("completed", "status"), ("sort", "order"), ("offset", "page")]:
        if first in query:
            query.pop(second, None)
    query.pop("cursor", None)


def without_ids(body):
    """Lets the server choose the ids of new tasks. The tester does not see that a task deleted under one path is made again under
    another, because `/api/tasks` and `/api/{user_id}/tasks` are the same."""
    operations = body.get("operations")
    operations = operations if isinstance(operations, list) else []
    for task in [body, *(operation.get("task") for operation in operations if isinstance(operation, dict))]:
        if isinstance(task, dict):
            task.pop("id", None)


@schemathesis.auth(refresh_interval=None)
class Token:
    def get(self, case, context):
        operation = context.operation
        changes_an_account = operation.path.startswith("/api/auth/") and operation.method.upper() != "GET"
        return (register() if changes_an_account else USER)["access_token"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"
        if case.meta and case.meta.phase.name.value == "stateful" and isinstance(case.body, dict):
            without_ids(case.body)
        # Random ids are not found, so they are replaced in most requests.
        if not (case.meta and case.meta.generation.mode.is_positive):
            return
        # A repeated key must have the same request.
        if "Idempotency-Key" in case.headers:
            case.headers["Idempotency-Key"] = secrets.token_hex(8)
        if case.query and random.random() < 0.8:
            agree(case.query)
        if random.random() < 0.8:
            if "user_id" in case.path_parameters:
                case.path_parameters["user_id"] = USER["user"]["id"]
            if "id" in case.path_parameters and case.meta.phase.name.value != "stateful":
                case.path_parameters["id"] = resource(context.operation.path, data) or case.path_parameters["id"]
