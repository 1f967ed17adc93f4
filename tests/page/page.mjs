/* The page in a real Chromium, driven by playwright-core: node page.mjs URL [FOLDER-FOR-SCREENSHOTS]. It speaks with test_page.py by
 * lines of JSON on standard output and input: what it wants done outside ("post", "mend"), and answers "done". */
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.env.PLAYWRIGHT_ROOT + "/");
const { chromium } = require("playwright-core");
const [url, shots] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function outside(order, value) {
  console.log(JSON.stringify({ order, value }));
  const { value: line, done } = await lines.next();
  if (done || line !== "ok") throw new Error(`${order} was not done`);
}
function check(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`);
}

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const said = [];
  const open = async (width, height, colorScheme, locale) => {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme, locale });
    const page = await context.newPage();
    page.on("console", message => message.type() === "error" && said.push(message.text()));
    page.on("pageerror", error => said.push(String(error)));
    page.on("dialog", dialog => said.push(`a dialog: ${dialog.message()}`));
    page.on("request", request => request.url().startsWith(url) || request.url().startsWith("data:") || said.push(`loads ${request.url()}`));
    await page.goto(url);
    await page.locator("#overall.good").waitFor();
    await page.locator("#live.good").waitFor();
    return page;
  };
  const page = await open(1600, 1000, "light", "en");

  /* Events appear live, and hostile names and payloads stay text. */
  const hostile = '<img src=x onerror="document.title=1">';
  await outside("post", { event: "a.b", payload: '{"id":152066840347062275,"big":92233720368547758071234,"price":1.50,"t":"\\u55b5</pre><script>document.title=2</script>","e":[],"x":-0}' });
  await page.getByRole("button", { name: "a.b", exact: true }).waitFor();
  await outside("post", { event: hostile, payload: '"<script>document.title=3</script>"' });
  await page.getByRole("button", { name: hostile, exact: true }).waitFor();
  await page.locator(".row", { hasText: "a.b" }).locator(".pill.good").waitFor(); /* and it is published */

  /* One event whole: each digit as it came. */
  await page.getByRole("button", { name: "a.b", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.locator("#whole[open]").waitFor();
  const payload = await page.locator("#w-payload").textContent();
  for (const part of ["152066840347062275", "92233720368547758071234", "1.50", "-0", "\\u55b5</pre><script>document.title=2</script>", '"e": []']) check(payload.includes(part), `the payload shows ${part}`);
  check((await page.locator("#w-topics").textContent()).includes("meowflow/a/b"), "its topic is shown");
  await page.keyboard.press("Escape");
  check(await page.evaluate(() => document.activeElement.textContent) === "a.b", "the focus returns to the event");

  /* A dead letter is replayed by a click. */
  await outside("post", { event: "dead.one", payload: "{}" });
  await page.locator("#dead-count", { hasText: "1 dead" }).waitFor();
  await page.locator("#reasons details", { hasText: "no route matches" }).waitFor();
  await outside("mend");
  await page.getByRole("button", { name: /^Replay \d+$/ }).click();
  await page.locator("#notice.shown", { hasText: "1 queued" }).waitFor();
  await page.locator("#dead-count", { hasText: "0 dead" }).waitFor();
  await outside("heard", "dead/one");

  /* Filters, languages, widths. */
  await page.locator("#f-event").fill("a.*");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => [...document.querySelectorAll("#rows .row button")].every(b => b.textContent === "a.b") && document.querySelectorAll("#rows .row").length === 1);
  await page.locator("#language").click();
  await page.locator("#h-dead", { hasText: "死信" }).waitFor();
  for (const [name, width, height, scheme, locale] of [["light", 1600, 1000, "light", "en"], ["dark", 1600, 1000, "dark", "en"], ["narrow", 360, 800, "light", "en"], ["chinese", 1280, 900, "light", "zh-CN"]]) {
    const view = await open(width, height, scheme, locale);
    check(await view.evaluate(() => document.documentElement.scrollWidth <= innerWidth), `nothing sticks out at ${width} pixels`);
    check(await view.evaluate(() => document.documentElement.lang.slice(0, 2)) === locale.slice(0, 2), `it speaks ${locale}`);
    if (shots) await view.screenshot({ path: `${shots}/${name}.png` });
    await view.context().close();
  }
  check((await page.title()).endsWith("meowbridge"), "no script of an event ran");
  check(said.length === 0, `the browser is content: ${said.join("; ")}`);
  console.log(JSON.stringify({ order: "done" }));
} finally {
  await browser.close();
  process.stdin.destroy(); /* or it would be waited for */
}
