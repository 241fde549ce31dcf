// A browser that can reach only this machine, and the checks that every page must pass.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

export const { BASE } = process.env;
const { MODULES, CHROMIUM, SCREENSHOTS } = process.env;
const { chromium } = createRequire(`${MODULES}/`)("playwright-core");

let browser;

/** Starts Chromium once. */
export async function launch() {
  browser ??= await chromium.launch({
    executablePath: CHROMIUM,
    args: [
      "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
      // Chromium's own sandbox refuses to work for root.
      ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
    ],
  });
}

/** Stops Chromium. */
export async function quit() {
  await browser?.close();
}

/** Calls `use` with a page. Fails on warnings and errors of the browser, and on requests to hosts that are not in `hosts`. */
export async function withPage(options, use, { hosts = [new URL(BASE).host], complaints: expected = [] } = {}) {
  const context = await browser.newContext(options);
  const complaints = [];
  const foreign = [];
  context.on("request", (request) => {
    const url = new URL(request.url());
    if (!["data:", "blob:", "about:"].includes(url.protocol) && !hosts.includes(url.host)) foreign.push(request.url());
  });
  const page = await context.newPage();
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(String(error)));
  try {
    await use(page);
    assert.deepEqual(foreign, [], "no request to other hosts");
    const unexpected = complaints.filter((complaint) => !expected.some((pattern) => pattern.test(complaint)));
    assert.deepEqual(unexpected, [], "no warning or error of the browser");
  } finally {
    await context.close();
  }
}

/** Saves a screenshot of a page if SCREENSHOTS names a directory. */
export async function picture(page, name, options = {}) {
  if (!SCREENSHOTS) return;
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), ...options });
}

/** Makes an account and returns its address and password. */
export async function account() {
  const email = `browser-${crypto.randomUUID()}@example.org`;
  const password = "correct horse battery";
  const response = await fetch(`${BASE}/api/auth/register`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ email, password }),
  });
  assert.equal(response.status, 201, await response.text());
  return { email, password };
}
