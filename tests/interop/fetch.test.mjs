// The requests of a front end that was written for a FastAPI server with this API, with the fetch of browsers and Node.js.
import assert from "node:assert/strict";
import { test } from "node:test";

const { BASE, TOKEN, OTHER_TOKEN } = process.env;
const USER = "user-1";

// The origin of such a front end in development.
const ORIGIN = "http://localhost:3000";

// The helper of such front ends: JSON in, JSON out, and `detail` as the error to show. It reads a body only if it is
// `application/json`, and sends the header fields of a browser.
async function api(path, { method = "GET", body, token = TOKEN, authorization } = {}) {
  authorization ??= token ? `Bearer ${token}` : undefined;
  const response = await fetch(`${BASE}${path}`, {
    method,
    headers: {
      Accept: "application/json, text/plain, */*",
      Origin: ORIGIN,
      ...(authorization ? { Authorization: authorization } : {}),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  assert.equal(response.headers.get("access-control-allow-origin"), ORIGIN);
  if (response.status === 204) return null;
  const isJson = response.headers.get("content-type")?.includes("application/json");
  const data = isJson ? await response.json() : null;
  if (!response.ok) throw Object.assign(new Error(data?.detail ?? "Request failed"), { status: response.status });
  return data;
}

for (const tasks of [`/api/${USER}/tasks`, `/api/${USER}/tasks/`, "/api/tasks", "/api/v1/tasks"]) {
  test(`a task is created, changed, completed and deleted at ${tasks}`, async () => {
    const one = (id) => `${tasks.replace(/\/$/, "")}/${id}`;
    const created = await api(tasks, { method: "POST", body: { title: "Buy milk", description: "2 l" } });
    assert.equal(created.title, "Buy milk");
    assert.equal(created.completed, false);
    assert.equal(created.user_id, USER);
    assert.ok(!Number.isNaN(Date.parse(created.created_at)));

    const list = await api(tasks);
    assert.equal(list.count, list.tasks.length);
    assert.equal(list.tasks[0].id, created.id);

    const updated = await api(one(created.id), { method: "PUT", body: { title: "Buy oat milk" } });
    assert.deepEqual([updated.title, updated.description], ["Buy oat milk", "2 l"]);

    const done = await api(`${one(created.id)}/complete`, { method: "PATCH", body: { completed: true } });
    assert.equal(done.completed, true);
    const open = await api(`${one(created.id)}/complete`, { method: "PATCH" });
    assert.equal(open.completed, false);
    const toggled = await api(`${one(created.id)}/complete`, { method: "PATCH", body: {} });
    assert.equal(toggled.completed, true);
    await assert.rejects(api(`${one(created.id)}/complete`, { method: "PATCH", body: { done: true } }), {
      message: "completed is required",
      status: 422,
    });
    for (const name of ["is_completed", "is_complete"]) {
      assert.equal((await api(one(created.id), { method: "PUT", body: { [name]: false } })).completed, false);
      assert.equal((await api(one(created.id), { method: "PATCH", body: { [name]: true } })).completed, true);
    }
    await assert.rejects(api(tasks, { method: "POST", body: { title: "x", completed: true, is_completed: false } }), { status: 422 });

    const page = await api(`${tasks}?skip=0&limit=1&_t=${Date.now()}`);
    assert.deepEqual([page.tasks.length, page.total >= 1, page.offset], [1, true, 0]);

    assert.equal(await api(one(created.id), { method: "DELETE" }), null);
    await assert.rejects(api(one(created.id)), { message: "Task not found", status: 404 });
  });
}

test("errors show a sentence", async () => {
  const tasks = `/api/${USER}/tasks`;
  await assert.rejects(api(tasks, { token: null }), { message: "Missing authentication token", status: 401 });
  await assert.rejects(api(tasks, { token: "x.y.z" }), { message: /^Invalid token: /, status: 401 });
  await assert.rejects(api(tasks, { authorization: TOKEN }), {
    message: "Unsupported authorization scheme: send Authorization: Bearer <token>",
    status: 401,
  });
  await assert.rejects(api("/api/nowhere", { token: null }), { message: /^there is no such path/, status: 404 });
  await assert.rejects(api(tasks, { token: OTHER_TOKEN }), {
    message: "Forbidden: not authorized to access another user's tasks",
    status: 403,
  });
  await assert.rejects(api(tasks, { method: "POST", body: { title: "" } }), {
    message: "title must have 1 to 200 characters",
    status: 422,
  });
  await assert.rejects(api(tasks, { method: "POST", body: {} }), { message: "title is required", status: 422 });
});

test("an account is made by signup and logged in by signin", async () => {
  const body = { email: `fetch-${crypto.randomUUID()}@example.org`, password: "correct horse battery" };
  const signedUp = await api("/api/auth/signup", { method: "POST", body, token: null });
  const signedIn = await api("/api/auth/signin", { method: "POST", body, token: null });
  assert.equal(signedIn.user.id, signedUp.user.id);
  assert.deepEqual((await api("/api/tasks", { token: signedIn.access_token })).tasks, []);
});
