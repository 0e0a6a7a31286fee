// Opens reports in a real Chromium, as a reader does.
// node report.test.mjs PAGE.html [PAGE.html …]; CHROMIUM names the browser.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { createRequire } from "node:module";
import test from "node:test";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const pages = process.argv.slice(2).map((page) => resolve(page));
assert.ok(pages.length > 0, "name the pages to test");

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
  // Chromium's sandbox does not start for root.
  chromiumSandbox: process.getuid?.() !== 0,
});
test.after(() => browser.close());

const open = async (path, options = {}) => {
  const context = await browser.newContext({ acceptDownloads: true, ...options });
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    if (!/^(file|data|blob):/.test(request.url())) problems.push(`asks for ${request.url()}`);
  });
  await page.goto(pathToFileURL(path).href);
  return { page, problems, close: () => context.close() };
};

// Of two columns of numbers, what the reader sees and what the page sorts by.
const column = (table, at) =>
  table.locator("tbody tr:visible").evaluateAll(
    (rows, at) => rows.map((row) => row.cells[at].dataset.v ?? row.cells[at].textContent), at);

for (const path of pages) {
  const name = path.split("/").slice(-2).join("/");

  test(`${name} opens without an error and asks for nothing`, async () => {
    const { page, problems, close } = await open(path);
    assert.equal(await page.locator("h1").count(), 1);
    assert.ok((await page.locator("svg.chart").count()) > 0, "there is a chart");
    assert.deepEqual(problems, []);
    await close();
  });

  for (const width of [400, 1600]) {
    for (const colorScheme of ["light", "dark"]) {
      test(`${name} is accessible at ${width} px, ${colorScheme}`, async () => {
        const { page, problems, close } = await open(path, {
          viewport: { width, height: 900 }, colorScheme, bypassCSP: true,
        });
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= width, `the page is ${wide} px wide`);
        for (const details of await page.locator("details > summary").all()) await details.click();
        await page.addScriptTag({ content: axe });
        const found = await page.evaluate(() => window.axe.run());
        const serious = found.violations.filter((v) => ["serious", "critical"].includes(v.impact));
        assert.deepEqual(serious.map((v) => [v.id, v.nodes.map((n) => n.html).slice(0, 3)]), []);
        assert.deepEqual(problems, []);
        await close();
      });
    }
  }

  test(`${name} sorts its tables, both ways, by number`, async () => {
    const { page, close } = await open(path);
    const table = page.locator("section > .table > table:not(.list)", {
      has: page.getByRole("button", { name: "decode tok/s", exact: true }),
    }).first();
    const head = table.getByRole("columnheader", { name: "decode tok/s", exact: true });
    const at = await head.evaluate((cell) => cell.cellIndex);
    await head.getByRole("button").click();
    assert.equal(await head.getAttribute("aria-sort"), "ascending");
    const rising = (await column(table, at)).map(Number).filter((v) => !Number.isNaN(v));
    assert.ok(rising.length > 1, "there are numbers to sort");
    assert.deepEqual(rising, [...rising].sort((a, b) => a - b));
    await head.getByRole("button").press("Enter");
    assert.equal(await head.getAttribute("aria-sort"), "descending");
    const falling = (await column(table, at)).map(Number).filter((v) => !Number.isNaN(v));
    assert.deepEqual(falling, rising.reverse());
    await close();
  });

  test(`${name} filters its tables`, async () => {
    const { page, close } = await open(path);
    const filter = page.locator("section > .filter").first();
    const table = filter.locator("+ .table table");
    const all = await table.locator("tbody tr:visible").count();
    const word = (await table.locator("tbody tr").first().locator("th").textContent()).trim();
    await filter.getByRole("searchbox").fill(word);
    const shown = await table.locator("tbody tr:visible").count();
    assert.ok(shown >= 1 && shown <= all, `${shown} of ${all}`);
    assert.match(await filter.locator("output").textContent(), new RegExp(`^${shown} of ${all} rows$`));
    await filter.getByRole("searchbox").fill("no row has these words");
    assert.equal(await table.locator("tbody tr:visible").count(), 0);
    await filter.getByRole("searchbox").fill("");
    assert.equal(await table.locator("tbody tr:visible").count(), all);
    await close();
  });

  test(`${name} moves the break-even chart by its sliders`, async (t) => {
    const { page, problems, close } = await open(path, { viewport: { width: 1280, height: 900 } });
    const explorer = page.locator(".explorer").first();
    if ((await explorer.count()) === 0) {
      t.skip("the report was made without a decision about cost");
      await close();
      return;
    }
    const state = async () => ({
      curve: await explorer.locator("svg.wide .curve").getAttribute("d"),
      x: await explorer.locator("svg.wide .here").getAttribute("cx"),
      answer: await explorer.locator(".answer").textContent(),
    });
    const grid = JSON.parse(await explorer.locator("script").textContent());
    const before = await state();
    const hardware = explorer.locator("input[name=hardware]");
    await hardware.focus();
    await hardware.press("Home");
    const cheap = await state();
    assert.notEqual(cheap.curve, before.curve, "another price draws another curve");
    assert.ok(cheap.answer.includes(grid.hardware[0]), cheap.answer);
    assert.equal(await hardware.getAttribute("aria-valuetext"), grid.hardware[0]);
    const volume = explorer.locator("input[name=volume]");
    await volume.focus();
    await volume.press("End");
    const many = await state();
    assert.notEqual(many.x, cheap.x, "another volume moves the mark");
    assert.equal(many.curve, cheap.curve, "and not the curve");
    assert.ok(many.answer.includes(grid.volume.at(-1)), many.answer);
    const electricity = explorer.locator("input[name=electricity]");
    await electricity.focus();
    await electricity.press("End");
    const last = grid.electricity.length - 1;
    const row = grid.answers[(last * grid.hardware.length) * grid.volume.length + grid.volume.length - 1];
    const dear = await state();
    assert.ok(dear.answer.includes(row[2]) && dear.answer.includes(row[3]), dear.answer);
    assert.deepEqual(problems, []);
    await close();
  });

  test(`${name} carries its records with it`, async () => {
    const { page, close } = await open(path);
    const [download] = await Promise.all([
      page.waitForEvent("download"),
      page.locator("a.download").click(),
    ]);
    assert.equal(download.suggestedFilename(), "results.csv");
    const saved = readFileSync(await download.path(), "utf8");
    assert.equal(saved, readFileSync(join(dirname(path), "results.csv"), "utf8"));
    await close();
  });

  test(`${name} is reached by the keyboard`, async () => {
    const { page, close } = await open(path);
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "content");
    await close();
  });
}
