// What a front end written for the FastAPI servers of this family does, with fetch as browsers and Node.js have it.
import assert from "node:assert/strict";
import { test } from "node:test";

const { BASE, TOKEN, OTHER_TOKEN } = process.env;
const USER = "user-1";

// The helper such front ends have: JSON in, JSON out, and the sentence in `detail` as the error that people see.
async function api(path, { method = "GET", body, token = TOKEN } = {}) {
  const response = await fetch(`${BASE}${path}`, {
    method,
    headers: {
      ...(token ? { Authorization: `Bearer ${token}` } : {}),
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.status === 204) return null;
  const data = await response.json();
  if (!response.ok) throw Object.assign(new Error(data.detail), { status: response.status });
  return data;
}

for (const tasks of [`/api/${USER}/tasks`, `/api/${USER}/tasks/`, "/api/tasks", "/api/v1/tasks"]) {
  test(`a task's life at ${tasks}`, async () => {
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

    assert.equal(await api(one(created.id), { method: "DELETE" }), null);
    await assert.rejects(api(one(created.id)), { message: "Task not found", status: 404 });
  });
}

test("errors show a sentence", async () => {
  const tasks = `/api/${USER}/tasks`;
  await assert.rejects(api(tasks, { token: null }), { message: "Missing authentication token", status: 401 });
  await assert.rejects(api(tasks, { token: "x.y.z" }), { message: /^Invalid token: /, status: 401 });
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
