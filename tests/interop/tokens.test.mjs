// Tokens as Better Auth, jose and PyJWT sign them, with the shared secret and with keys in a key set.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { jwt } from "better-auth/plugins";
import { SignJWT, decodeProtectedHeader, exportJWK, generateKeyPair } from "jose";

const { BASE, BETTER_AUTH_SECRET, KEY_PORT } = process.env;
// The time between two rotations of keys, and the duration of the test of rotation.
const ROTATION_SECONDS = 25;
const ROTATING_SECONDS = Number(process.env.ROTATING_SECONDS ?? 2 * ROTATION_SECONDS + 5);
const secret = new TextEncoder().encode(BETTER_AUTH_SECRET);
const frontEnd = `http://localhost:${KEY_PORT}`;

// The auth.ts of a front end, except the database.
function auth(options, session = {}) {
  return betterAuth({
    baseURL: frontEnd,
    secret: BETTER_AUTH_SECRET,
    database: memoryAdapter({ user: [], session: [], account: [], verification: [], jwks: [] }),
    emailAndPassword: { enabled: true },
    telemetry: { enabled: false },
    session,
    plugins: options ? [jwt(options)] : [],
  });
}
const withKeySet = auth({});
const withRotation = auth({ jwks: { rotationInterval: ROTATION_SECONDS } });
// The session cookie is a JWT that is signed with the secret and names the user in `user.id`.
const withCookieCache = auth(null, { cookieCache: { enabled: true, strategy: "jwt" } });
const withSecret = auth({
  jwks: { remoteUrl: `${frontEnd}/api/auth/jwks`, keyPairConfig: { alg: "EdDSA" } },
  jwt: {
    sign: async (payload) =>
      new SignJWT(payload).setProtectedHeader({ alg: "HS256", typ: "JWT" }).sign(secret),
  },
});

const call = (instance, path, init) => instance.handler(new Request(`${frontEnd}/api/auth${path}`, init));

// Signs a user up.
async function signUp(instance, email) {
  const answer = await call(instance, "/sign-up/email", {
    method: "POST",
    headers: { "Content-Type": "application/json", Origin: frontEnd },
    body: JSON.stringify({ email, password: "correct horse battery", name: "A" }),
  });
  assert.equal(answer.status, 200);
  const cookies = answer.headers.getSetCookie().map((line) => line.split(";")[0]);
  return { user: (await answer.json()).user.id, cookies };
}

// Gets a token, as `authClient.token()` does.
async function tokenOf(instance, cookies) {
  const answer = await call(instance, "/token", { headers: { cookie: cookies.join("; ") } });
  assert.equal(answer.status, 200);
  return (await answer.json()).token;
}

async function betterAuthToken(instance, email) {
  const { user, cookies } = await signUp(instance, email);
  return { user, token: await tokenOf(instance, cookies) };
}

const keysOf = async (instance) => (await (await call(instance, "/jwks")).json()).keys;
const later = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

const python = JSON.parse(readFileSync(new URL("pyjwt.json", import.meta.url)));
const joseKeys = {};
let publisher;

before(async () => {
  for (const alg of ["EdDSA", "ES256", "RS256"]) joseKeys[alg] = await generateKeyPair(alg);
  const ofJose = await Promise.all(
    Object.entries(joseKeys).map(async ([alg, { publicKey }]) => ({ ...(await exportJWK(publicKey)), alg, kid: `jose-${alg}` })),
  );
  const keys = [...(await keysOf(withKeySet)), ...ofJose, ...python.keys];
  publisher = createServer(async (_, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ keys: [...keys, ...(await keysOf(withRotation))] }));
  });
  await new Promise((listening) => publisher.listen(Number(KEY_PORT), "localhost", listening));
  // The server repeats a failed fetch.
  const { token } = await betterAuthToken(withKeySet, "first@example.org");
  for (let tries = 0; (await ask(token)).status === 503 && tries < 90; tries++) {
    await later(1000);
  }
});
after(() => publisher.close());

async function ask(token) {
  const headers = { Authorization: `Bearer ${token}` };
  const response = await fetch(`${BASE}/api/tasks`, { headers });
  return { status: response.status, body: await response.json() };
}

// Asserts that the token is accepted: its user can create a task, and owns it.
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
    assert.equal((await ask(await make().sign(key))).status, 401, "without exp");
    const expired = await ask(await make().setExpirationTime("-1m").sign(key));
    assert.deepEqual([expired.status, expired.body.detail], [401, "Token has expired"]);
    const unknown = alg === "HS256" ? new Uint8Array(32) : (await generateKeyPair(alg)).privateKey;
    assert.equal((await ask(await make().setExpirationTime("5m").sign(unknown))).status, 401, "another key");
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

test("Better Auth's JWT session cookie is accepted", async () => {
  const { user, cookies } = await signUp(withCookieCache, "c@example.org");
  const cookie = cookies.find((cookie) => cookie.startsWith("better-auth.session_data="));
  await accepted(decodeURIComponent(cookie.slice(cookie.indexOf("=") + 1)), user);
});

test(`Better Auth with a new key every ${ROTATION_SECONDS} s, for ${ROTATING_SECONDS} s`, async () => {
  const { cookies } = await signUp(withRotation, "d@example.org");
  const keys = new Set();
  let unavailable = 0;
  for (const end = Date.now() + ROTATING_SECONDS * 1000; Date.now() < end; await later(250)) {
    const token = await tokenOf(withRotation, cookies);
    keys.add(decodeProtectedHeader(token).kid);
    // Several requests at once, as a page sends them.
    const answers = await Promise.all([ask(token), ask(token), ask(token)]);
    for (const { status, body } of answers) {
      assert.ok([200, 503].includes(status), body.detail);
      if (status === 503) unavailable += 1;
    }
  }
  assert.ok(keys.size > Math.floor(ROTATING_SECONDS / (ROTATION_SECONDS + 1)), `${keys.size} keys`);
  assert.ok(unavailable <= keys.size, `${unavailable} answers were 503`);
});

test("Better Auth's ordinary session cookie is not a token", async () => {
  const answer = await ask("y3pxCqvEoEhUmXzTgRj1n1nBc7k5w0Xo.c2lnbmF0dXJl");
  assert.deepEqual([answer.status, answer.body.detail], [401, "Invalid token: it is not a JWT"]);
});
