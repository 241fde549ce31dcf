// The pages of the API, in a browser.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { BASE, account, launch, picture, quit, withPage } from "./browser.mjs";

before(launch);
after(quit);

const DESKTOP = { viewport: { width: 1280, height: 900 } };
const NARROW = { viewport: { width: 390, height: 844 } };
const LOOKS = [
  ["desktop-light", { ...DESKTOP, colorScheme: "light" }],
  ["desktop-dark", { ...DESKTOP, colorScheme: "dark" }],
  ["narrow-light", { ...NARROW, colorScheme: "light" }],
  ["narrow-dark", { ...NARROW, colorScheme: "dark" }],
];

// Sends the form of an operation, and returns the status of the answer.
async function execute(operation, status) {
  await operation.locator(".execute").click();
  await operation.locator(".live-responses-table .response-col_status", { hasText: String(status) }).waitFor();
}

test("a user logs in on /docs and tries operations", async () => {
  const { email, password } = await account();
  await withPage(DESKTOP, async (page) => {
    await page.goto(`${BASE}/docs`);
    await page.locator(".opblock").first().waitFor();

    await page.locator(".btn.authorize").click();
    const dialog = page.locator(".modal-ux");
    const fields = await dialog.locator("input, select").evaluateAll((all) => all.filter((field) => field.checkVisibility()).map((field) => field.id));
    assert.deepEqual(fields, ["oauth_username", "oauth_password", "auth-bearer-value"], "only fields that have an effect");
    const login = dialog.locator(".auth-container").first();
    await login.locator("#oauth_username").fill(email);
    await login.locator("#oauth_password").fill(password);
    await picture(page, "docs-authorize");
    await login.locator("button.authorize").click();
    await login.locator("button", { hasText: "Logout" }).waitFor();
    await dialog.locator("button.btn-done").first().click();

    const create = page.locator("#operations-Tasks-createTask");
    await create.locator(".opblock-summary").click();
    await create.locator("textarea.body-param__text").fill('{"title": "Made on the page"}');
    await execute(create, 201);
    await picture(page, "docs-created");

    const list = page.locator("#operations-Tasks-listTasks");
    await list.locator(".opblock-summary").click();
    await execute(list, 200);
    assert.match(await list.locator(".live-responses-table").innerText(), /Made on the page/);
  });
});

test("a link into /docs opens its operation", async () => {
  await withPage(DESKTOP, async (page) => {
    await page.goto(`${BASE}/docs/#/Tasks/deleteTask`);
    await page.locator("#operations-Tasks-deleteTask.is-open").waitFor();
  });
});

test("/docs fits every screen", async () => {
  for (const [name, options] of LOOKS) {
    await withPage(options, async (page) => {
      await page.goto(`${BASE}/docs`);
      await page.locator(".opblock").first().waitFor();
      await picture(page, `docs-${name}`);
      await picture(page, `docs-${name}-all`, { fullPage: true });
    });
  }
});

async function expectToFit(page) {
  const [inner, outer] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(inner <= outer, `${inner} > ${outer}`);
}

test("every operation on /docs fits the screen, and no cell is taller than 400 px on a narrow one", async () => {
  for (const options of [NARROW, DESKTOP]) {
    await withPage(options, async (page) => {
      await page.goto(`${BASE}/docs`);
      await page.locator(".opblock").first().waitFor();
      for (const operation of await page.locator(".opblock").all()) {
        const summary = operation.locator(".opblock-summary-control");
        await summary.click();
        await operation.locator(".responses-table").waitFor();
        await expectToFit(page);
        const heights = await page.$$eval("td, th", (cells) => cells.map((cell) => cell.getBoundingClientRect().height));
        const tallest = Math.max(...heights);
        if (options === NARROW) assert.ok(tallest <= 400, `${tallest} px: ${await operation.getAttribute("id")}`);
        // All operations at once are too many for a small machine.
        await summary.click();
      }
    });
  }
});

test("/ and an unknown path are pages that fit every screen", async () => {
  for (const [name, options] of LOOKS) {
    await withPage(
      options,
      async (page) => {
        await page.goto(BASE);
        assert.match(await page.locator("main").innerText(), /Ready\..*user add.*curl --json/s);
        await expectToFit(page);
        await picture(page, `root-${name}`);
        const unknown = await page.goto(`${BASE}/nowhere`);
        assert.equal(unknown.status(), 404);
        assert.equal(await page.locator("h1").innerText(), "Not found");
        await expectToFit(page);
        await picture(page, `unknown-${name}`);
        await page.locator("nav a", { hasText: "reference" }).click();
        await page.waitForURL(`${BASE}/redoc`);
      },
      { complaints: [/status of 404/] },
    );
  }
});

test("/redoc works without JavaScript, on every screen", async () => {
  for (const [name, options] of LOOKS) {
    await withPage({ ...options, javaScriptEnabled: false }, async (page) => {
      await page.goto(`${BASE}/redoc`);
      const link = page.locator("nav a", { hasText: "Create a task" });
      await picture(page, `redoc-${name}`);
      await link.click();
      assert.match(page.url(), /#createTask$/);
      await page.locator("#createTask").waitFor();
      assert.ok(await page.locator("#createTask").isVisible());
      await picture(page, `redoc-${name}-operation`);
    });
  }
});

test("every link within /redoc has a target, and the page fits the screen", async () => {
  await withPage(NARROW, async (page) => {
    await page.goto(`${BASE}/redoc`);
    const dangling = await page.$$eval("a[href^='#']", (links) =>
      links.map((link) => link.getAttribute("href").slice(1)).filter((id) => !document.getElementById(id)),
    );
    assert.deepEqual(dangling, []);
    const twice = await page.$$eval("[id]", (elements) => elements.map((element) => element.id).filter((id, at, all) => all.indexOf(id) !== at));
    assert.deepEqual(twice, []);
    await expectToFit(page);
    if (process.env.SCREENSHOTS) await page.pdf({ path: `${process.env.SCREENSHOTS}/redoc.pdf` });
  });
});
