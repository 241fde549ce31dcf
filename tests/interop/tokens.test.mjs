// Tokens as Better Auth, jose and PyJWT sign them, with the shared secret and with keys in a key set.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { SignJWT, exportJWK, generateKeyPair } from "jose";

const { BASE, BETTER_AUTH_SECRET, KEY_PORT } = process.env;
const secret = new TextEncoder().encode(BETTER_AUTH_SECRET);
const frontEnd = `http://localhost:${KEY_PORT}`;

// What a front end has in its auth.ts, but for the database.
function auth(options) {
  return betterAuth({
    baseURL: frontEnd,
    secret: BETTER_AUTH_SECRET,
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    plugins: [jwt(options)],
  });
}
const withKeySet = auth();
const withSecret = auth({
  jwks: { remoteUrl: `${frontEnd}/api/auth/jwks`, keyPairConfig: { alg: "EdDSA" } },
  jwt: {
    sign: async (payload) =>
      new SignJWT(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(secret),
  },
});

// Signs somebody up and asks for their token, as `authClient.token()` does.
async function betterAuthToken(instance, email) {
  const call = (path, init) => instance.handler(new Request(`${frontEnd}/api/auth${path}`, init));
  const signedUp = await call("/sign-up/email", {
    method: "POST",
    headers: { "Content-Type": "application/json", Origin: frontEnd },
    body: JSON.stringify({ email, password: "correct horse battery", name: "A" }),
  });
  assert.equal(signedUp.status, 200);
  const cookie = signedUp.headers.getSetCookie().map((line) => line.split(";")[0]).join("; ");
  const answer = await call("/token", { headers: { cookie } });
  assert.equal(answer.status, 200);
  return { user: (await signedUp.json()).user.id, token: (await answer.json()).token };
}

const python = JSON.parse(readFileSync(new URL("pyjwt.json", import.meta.url)));
const joseKeys = {};
let publisher;

before(async () => {
  for (const alg of ["EdDSA", "ES256", "RS256"]) joseKeys[alg] = await generateKeyPair(alg);
  const ofJose = await Promise.all(
    Object.entries(joseKeys).map(async ([alg, { publicKey }]) => ({ ...(await exportJWK(publicKey)), alg, kid: `jose-${alg}` })),
  );
  const ofBetterAuth = await withKeySet.handler(new Request(`${frontEnd}/api/auth/jwks`));
  const keys = [...(await ofBetterAuth.json()).keys, ...ofJose, ...python.keys];
  publisher = createServer((_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ keys }));
  });
  await new Promise((listening) => publisher.listen(Number(KEY_PORT), "localhost", listening));
  // The server comes back for the keys by itself, at most a minute later.
  const { token } = await betterAuthToken(withKeySet, "first@example.org");
  for (let tries = 0; (await ask(token)).status === 503 && tries < 90; tries++) {
    await new Promise((later) => setTimeout(later, 1000));
  }
});
after(() => publisher.close());

async function ask(token) {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(`${BASE}/api/tasks`, { headers });
  return { status: response.status, body: await response.json() };
}

// A token is good when its user can create a task, and the task is theirs.
async function accepted(token, user) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const response = await fetch(`${BASE}/api/tasks`, { method: "POST", headers, body: JSON.stringify({ title: "t" }) });
  const task = await response.json();
  assert.equal(response.status, 201, task.detail);
  assert.equal(task.user_id, user);
}

for (const alg of ["HS256", "EdDSA", "ES256", "RS256"]) {
  test(`jose, ${alg}`, async () => {
    const key = alg === "HS256" ? secret : joseKeys[alg].privateKey;
    const header = alg === "HS256" ? { alg } : { alg, kid: `jose-${alg}` };
    const make = () =>
      new SignJWT({ email: "j@example.org" }).setProtectedHeader(header).setSubject("jose-user").setIssuedAt().setIssuer("https://id.example");
    await accepted(await make().setExpirationTime("5m").sign(key), "jose-user");
    assert.equal((await ask(await make().sign(key))).status, 401, "without an end");
    const expired = await ask(await make().setExpirationTime("-1m").sign(key));
    assert.deepEqual([expired.status, expired.body.detail], [401, "Token has expired"]);
    const stranger = alg === "HS256" ? new Uint8Array(32) : (await generateKeyPair(alg)).privateKey;
    assert.equal((await ask(await make().setExpirationTime("5m").sign(stranger))).status, 401, "a stranger's");
  });

  test(`PyJWT, ${alg}`, () => accepted(python.tokens[alg], "pyjwt-user"));
}

test("Better Auth with its key set", async () => {
  const { token, user } = await betterAuthToken(withKeySet, "a@example.org");
  await accepted(token, user);
});

test("Better Auth with the shared secret", async () => {
  const { token, user } = await betterAuthToken(withSecret, "b@example.org");
  await accepted(token, user);
});

test("Better Auth's session cookie is no token", async () => {
  const answer = await ask("y3pxCqvEoEhUmXzTgRj1n1nBc7k5w0Xo.c2lnbmF0dXJl");
  assert.deepEqual([answer.status, answer.body.detail], [401, "Invalid token: it is not a JWT"]);
});
