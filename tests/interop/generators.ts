// Creates, changes and deletes a task with the types of openapi-typescript, and with the client of @hey-api/openapi-ts.
// scripts/checks/interop generates both from the server's description, and compiles this file in strict mode.
import createClient from "openapi-fetch";

import * as sdk from "./client/index.js";
import { client } from "./client/client.gen.js";
import type { paths } from "./schema.js";

const base: string = process.env["BASE"] ?? "";
const token: string = process.env["TOKEN"] ?? "";

function equal(actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new Error(`${String(actual)} is not ${String(expected)}`);
}

async function typed(): Promise<void> {
  const api = createClient<paths>({ baseUrl: base, headers: { Authorization: `Bearer ${token}` } });
  // No field but the title is required.
  const created = await api.POST("/api/tasks", { body: { title: "Buy milk" } });
  if (!created.data) throw new Error(created.error.detail);
  const path = { id: created.data.id };
  const list = await api.GET("/api/tasks", { params: { query: { status: "pending", sort: "-created_at" } } });
  equal(list.data?.tasks[0]?.id, path.id);
  const changed = await api.PATCH("/api/tasks/{id}", { params: { path }, body: { due_date: null, tags: ["errands"] } });
  equal(changed.data?.tags[0], "errands");
  equal((await api.PATCH("/api/tasks/{id}/complete", { params: { path } })).data?.completed, true);
  equal((await api.DELETE("/api/tasks/{id}", { params: { path } })).response.status, 204);
  equal((await api.GET("/api/tasks/{id}", { params: { path } })).error?.error.code, "NOT_FOUND");
}

async function generated(): Promise<void> {
  client.setConfig({ baseUrl: base, auth: token });
  const created = await sdk.createTask({ body: { title: "Buy milk", priority: "high" } });
  if (!created.data) throw new Error("no task was created");
  const path = { id: created.data.id };
  const list = await sdk.listTasks({ query: { status: "active", sort: "created_at", order: "desc" } });
  equal(list.data?.tasks[0]?.id, path.id);
  equal((await sdk.patchTask({ path, body: { description: "2 l" } })).data?.description, "2 l");
  equal((await sdk.completeTask({ path, body: { completed: true } })).data?.completed, true);
  equal((await sdk.deleteTask({ path })).response?.status, 204);
  const gone = await sdk.getTask({ path });
  equal(gone.error && "error" in gone.error ? gone.error.error.code : undefined, "NOT_FOUND");
}

await typed();
await generated();
