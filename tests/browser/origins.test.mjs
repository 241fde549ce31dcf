// A page of a listed origin works with tasks, and a page of another origin is refused.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";

import { BASE, account, launch, quit, withPage } from "./browser.mjs";

const { LISTED_PORT } = process.env;
const PAGE = "<!DOCTYPE html><html lang=en><title>Another origin</title><link rel=icon href=data:,>";
const servers = [];

// Serves an empty page on a port of this machine; 0 takes any.
async function origin(port) {
  const server = createServer((_, response) => response.setHeader("Content-Type", "text/html").end(PAGE));
  servers.push(server);
  await new Promise((resolve) => server.listen(port, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

before(launch);
after(async () => {
  await quit();
  for (const server of servers) {
    server.closeAllConnections();
    server.close();
  }
});

test("a page of a listed origin logs in, lists, creates, completes and deletes", async () => {
  const at = await origin(Number(LISTED_PORT));
  const { email, password } = await account();
  await withPage(
    {},
    async (page) => {
      await page.goto(at);
      const seen = await page.evaluate(
        async ({ base, email, password }) => {
          const api = async (path, { method = "GET", token, body, headers = {} } = {}) => {
            const response = await fetch(base + path, {
              method,
              headers: {
                ...(token ? { Authorization: `Bearer ${token}` } : {}),
                ...(body === undefined ? {} : { "Content-Type": "application/json" }),
                ...headers,
              },
              body: body === undefined ? undefined : JSON.stringify(body),
            });
            const text = await response.text();
            return { status: response.status, headers: Object.fromEntries(response.headers), body: text && JSON.parse(text) };
          };
          const login = await api("/api/auth/login", { method: "POST", body: { email, password } });
          const token = login.body.access_token;
          const created = await api("/api/tasks", {
            method: "POST",
            token,
            body: { title: "From elsewhere" },
            headers: { "X-Request-ID": "from-elsewhere", "Idempotency-Key": "from-elsewhere" },
          });
          const one = `/api/tasks/${created.body.id}`;
          const listed = await api("/api/tasks", { token });
          const completed = await api(`${one}/complete`, { method: "PATCH", token, body: { completed: true } });
          const deleted = await api(one, { method: "DELETE", token });
          const gone = await api(one, { token });
          const refused = await api("/api/tasks");
          return { login, created, listed, completed, deleted, gone, refused };
        },
        { base: BASE, email, password },
      );
      const statuses = Object.entries(seen).map(([name, { status }]) => [name, status]);
      assert.deepEqual(Object.fromEntries(statuses), {
        login: 200,
        created: 201,
        listed: 200,
        completed: 200,
        deleted: 204,
        gone: 404,
        refused: 401,
      });
      assert.equal(seen.created.headers["x-request-id"], "from-elsewhere");
      assert.equal(seen.created.headers.location, `/api/tasks/${seen.created.body.id}`);
      for (const name of ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"]) {
        assert.match(seen.listed.headers[name] ?? "", /^\d+$/, name);
        assert.match(seen.refused.headers[name] ?? "", /^\d+$/, `${name} of an error`);
      }
      assert.equal(seen.listed.body.count, 1);
      assert.equal(seen.completed.body.completed, true);
      assert.equal(seen.refused.body.detail, "Missing authentication token");
    },
    // The browser itself logs answers of 400 and above.
    { hosts: [new URL(at).host, new URL(BASE).host], complaints: [/status of 40[14]/] },
  );
});

test("a page of an origin that is not listed is refused", async () => {
  const at = await origin(0);
  await withPage(
    {},
    async (page) => {
      await page.goto(at);
      const outcomes = await page.evaluate(async (base) => {
        const attempt = (path, options) =>
          fetch(base + path, options).then(
            (response) => response.status,
            (error) => error.name,
          );
        return [
          await attempt("/api/tasks"),
          await attempt("/api/tasks", { headers: { Authorization: "Bearer x" } }),
          await attempt("/api/auth/login", { method: "POST", headers: { "Content-Type": "application/json" }, body: "{}" }),
        ];
      }, BASE);
      assert.deepEqual(outcomes, ["TypeError", "TypeError", "TypeError"]);
    },
    { hosts: [new URL(at).host, new URL(BASE).host], complaints: [/CORS policy/, /Failed to load resource/] },
  );
});
