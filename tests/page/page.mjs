/* The page in a real Chromium, driven by playwright-core: node page.mjs STORY URL [FOLDER-FOR-SCREENSHOTS]. It speaks with test_page.py
 * by lines of JSON on standard output and input: what it wants done outside ("post", "mend"), and answers "done". */
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.env.PLAYWRIGHT_ROOT + "/");
const { chromium } = require("playwright-core");
const [story, url, shots] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

async function outside(order, value) {
  console.log(JSON.stringify({ order, value }));
  const { value: line, done } = await lines.next();
  if (done || line !== "ok") throw new Error(`${order} was not done`);
}
function check(condition, what) {
  if (!condition) throw new Error(`not so: ${what}`);
}


const said = []; /* what the browser complains of, and what the page must not do */
async function open(browser, width, height, colorScheme, locale) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, locale });
  const page = await context.newPage();
  await page.addInitScript(() => {
    window.shifts = [];
    new PerformanceObserver(list => window.shifts.push(...list.getEntries())).observe({ type: "layout-shift", buffered: true });
  });
  page.on("console", message => message.type() === "error" && said.push(message.text()));
  page.on("pageerror", error => said.push(String(error)));
  page.on("dialog", dialog => said.push(`a dialog: ${dialog.message()}`));
  page.on("request", request => request.url().startsWith(url) || request.url().startsWith("data:") || said.push(`loads ${request.url()}`));
  await page.goto(url);
  return page;
}
async function open_ready(browser, ...how) {
  const page = await open(browser, ...how);
  await page.locator("#overall.good").waitFor();
  await page.locator("#live.good").waitFor();
  return page;
}
const row = (page, name) => page.getByRole("button", { name, exact: true });
async function keep(page, name) { if (shots) await page.screenshot({ path: `${shots}/${name}.png` }) }
async function fits(page, where) {
  const over = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth ||
    [...document.querySelectorAll("dialog[open]")].some(d => d.scrollWidth > d.clientWidth || d.getBoundingClientRect().right > innerWidth));
  check(!over, `nothing sticks out ${where}`);
}

/* Cumulative layout shift (web.dev/cls): how much of what one is looking at jumped, without having been asked to. Good is below 0.1 for
 * a whole visit: here it is what a burst of events that arrive live adds to it. A shift is noted with the frame that follows it. */
async function check_stillness(page, where) {
  await page.locator("#live.good").waitFor();
  const frames = () => page.evaluate(() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done)))));
  await frames();
  const seen = await page.evaluate(() => window.shifts.length);
  for (let n = 0; n < 12; n++) {
    await outside("post", { event: `a.live.${where}.${n}`, payload: "{}" });
    await row(page, `a.live.${where}.${n}`).waitFor();
  }
  await page.locator(".row", { hasText: `a.live.${where}.11` }).locator(".pill.good").waitFor();
  await frames();
  const shifts = await page.evaluate(seen => window.shifts.slice(seen).map(s => ({ value: s.value, input: s.hadRecentInput,
    outside: s.sources.filter(e => e.node && !(e.node.closest ? e.node : e.node.parentElement)?.closest("#rows, .foot")).map(e => e.node.id || e.node.className || e.node.nodeName) })), seen);
  const sum = shifts.filter(s => !s.input).reduce((all, s) => all + s.value, 0);
  check(shifts.every(s => s.outside.length === 0), `only what is below a new row moves ${where}: ${JSON.stringify(shifts)}`);
  check(sum < 0.1, `what is on the page stays where it is ${where}: a layout shift of ${sum.toFixed(3)} by ${JSON.stringify(shifts)}`);
}

/* What can be operated or read has a name; ids are unique; a row has as many cells as there are columns. */
async function check_names(page) {
  const bad = await page.evaluate(() => {
    const found = [], visible = e => e.checkVisibility();
    const name = e => (e.getAttribute("aria-label") || (e.getAttribute("aria-labelledby") || "").split(" ").map(id => document.getElementById(id)?.textContent || "").join(" ") ||
      [...e.labels || []].map(l => l.textContent).join(" ") || (e.matches("input, select, svg") ? "" : e.textContent)).trim();
    for (const e of document.querySelectorAll("button, input, select, summary, dialog[open], section, svg[role=img], [role=table], [tabindex='0']")) if (visible(e) && !name(e)) found.push(`no name: ${e.outerHTML.slice(0, 80)}`);
    for (const e of document.querySelectorAll("svg:not([role=img])")) if (e.getAttribute("aria-hidden") !== "true") found.push("a drawing that is neither named nor hidden");
    const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.push(`twice: #${id}`);
    for (const e of document.querySelectorAll("[aria-labelledby]")) if (!document.getElementById(e.getAttribute("aria-labelledby"))) found.push(`names nothing: ${e.getAttribute("aria-labelledby")}`);
    const columns = document.querySelectorAll("[role=columnheader]").length;
    for (const r of document.querySelectorAll("#rows [role=row]")) if (r.querySelectorAll("[role=cell]").length !== columns) found.push("a row of another width");
    if (document.querySelectorAll("h1").length !== 1 || document.querySelectorAll("main").length !== 1) found.push("not one h1 and one main");
    return found;
  });
  check(bad.length === 0, `all has names: ${bad.join("; ")}`);
}
/* WCAG AA: 4.5 to 1, and 3 to 1 for large text, against the nearest background that covers. */
async function check_contrast(page, where) {
  const bad = await page.evaluate(() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return canvas.getImageData(0, 0, 1, 1).data };
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = e => { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 200) return c } return [255, 255, 255, 255] };
    const found = new Set(), walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let n; (n = walk.nextNode());) {
      const e = n.parentElement, style = getComputedStyle(e);
      if (!n.data.trim() || !e.checkVisibility() || e.closest("script, style, noscript, .skip, #notice, .new")) continue;
      const size = parseFloat(style.fontSize), large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
      const [a, b] = [light(rgba(e.closest("svg") ? style.fill : style.color)), light(ground(e))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < (large ? 3 : 4.5)) found.add(`"${n.data.trim().slice(0, 30)}" ${ratio.toFixed(2)}`);
    }
    return [...found];
  });
  check(bad.length === 0, `enough contrast ${where}: ${bad.join("; ")}`);
}
/* Each language has every word, and none is used that it has not. */
async function check_words(page) {
  const bad = await page.evaluate(() => {
    const used = [...document.querySelectorAll("[data-t], [data-p], [data-l]")].flatMap(e => [e.dataset.t, e.dataset.p, e.dataset.l]).filter(Boolean);
    const script = [...document.scripts].map(s => s.textContent).join("");
    used.push(...[...script.matchAll(/\bt\("(\w+)"/g)].map(m => m[1]), ...Object.values(charts).flatMap(c => [c.title, ...c.lines.map(l => l[0])]));
    const missing = [...new Set([...used, ...Object.keys(words.en), ...Object.keys(words.zh)])].filter(k => !words.en[k] || !words.zh[k] || typeof words.en[k] !== typeof words.zh[k]);
    const chinese = Object.entries(words.zh).filter(([k, w]) => String(w) === String(words.en[k]) && /[a-z]{4}/.test(String(w)) && !["f_event", "f_app", "f_app_l", "trace"].includes(k)).map(([k]) => `${k} is not Chinese`);
    return [...missing, ...chinese];
  });
  check(bad.length === 0, `every word in both languages: ${bad.join(", ")}`);
}

async function looking(browser) {
  const page = await open_ready(browser, 1600, 1000, "light", "en");
  check(await page.evaluate(() => charts["c-delay"].show(0.5)) === "≈ 500 ms", "a latency is not shown as if it were measured");

  /* Events appear live, and hostile names and payloads stay text. */
  const hostile = '<img src=x onerror="document.title=1">';
  const payload = '{"id":152066840347062275,"big":92233720368547758071234,"price":1.50,"e":1e2,"E":-1.0E+400,"t":"\\u55b5</pre><script>document.title=2</script>","none":[],"x":-0,"deep":[{"a":null},[true, false]]}';
  await outside("post", { event: "a.b", payload });
  await row(page, "a.b").waitFor();
  await outside("post", { event: hostile, payload: '"<script>document.title=3</script>"' });
  await row(page, hostile).waitFor();
  await page.locator(".row", { hasText: "a.b" }).locator(".pill.good").waitFor(); /* and it is published */

  await check_stillness(page, "wide");

  /* One event whole: each letter as it came, and no other but white space between the tokens. */
  await row(page, "a.b").focus();
  await page.keyboard.press("Enter");
  await page.locator("#whole[open]").waitFor();
  const shown = await page.locator("#w-payload").textContent();
  check(shown.replace(/\s/g, "") === payload.replace(/\s/g, ""), `the payload is untouched: ${shown}`);
  check(shown.includes('\n  "price": 1.50,\n') && shown.includes('"none": []'), "it is indented");
  await page.locator("#w-raw").click();
  check(await page.locator("#w-payload").textContent() === payload, "as received is as received");
  check((await page.locator("#w-topics").textContent()).includes("meowflow/a/b"), "its topic is shown");
  check(/attempts1/.test(await page.locator("#w-fields").textContent()), "its attempts are shown");
  await check_names(page);
  await page.keyboard.press("Escape");
  check(await page.evaluate(() => document.activeElement.textContent) === "a.b", "the focus returns to the event");
  await row(page, hostile).click();
  await page.locator("#w-title", { hasText: hostile }).waitFor();
  check(await page.locator("#w-payload").textContent() === '"<script>document.title=3</script>"', "a hostile payload is text");
  await page.keyboard.press("Escape");
  check(await page.evaluate(() => document.images.length === 0 && document.scripts.length === 1), "no element came out of an event");

  /* A dead letter is replayed by a click, and all of them by another one. */
  await outside("post", { event: "dead.one", payload: "{}" });
  await page.locator("#dead-count", { hasText: "1 dead" }).waitFor();
  await page.locator("#reasons details", { hasText: "no route matches" }).waitFor();
  await outside("mend");
  await page.getByRole("button", { name: /^Replay \d+$/ }).click();
  await page.locator("#notice.shown", { hasText: "1 queued" }).waitFor();
  await page.locator("#dead-count", { hasText: "0 dead" }).waitFor();
  await outside("heard", ["dead/one"]);
  await outside("break");
  for (const name of ["dead.two", "dead.three", hostile.replace("img", "b")]) await outside("post", { event: name, payload: "{}" });
  await page.locator("#dead-count", { hasText: "3 dead" }).waitFor();
  await page.locator("#f-state").selectOption("dead");
  await page.waitForFunction(() => document.querySelectorAll("#rows .row").length === 3 && document.querySelectorAll("#rows .pill.bad").length === 3);
  await keep(page, "dead");
  await outside("mend");
  await page.locator("#replay-all").click();
  await page.locator("#ask[open]", { hasText: "all 3 dead events" }).waitFor();
  await page.keyboard.press("Escape");
  await page.locator("#ask").waitFor({ state: "hidden" });
  check(await page.locator("#dead-count").textContent() === "3 dead", "who cancels replays nothing");
  await page.locator("#replay-all").click();
  await page.locator("#ask-yes").click();
  await page.locator("#notice.shown", { hasText: "3 queued" }).waitFor();
  await page.locator("#dead-count", { hasText: "0 dead" }).waitFor();
  await page.locator("#no-dead").waitFor();
  await outside("heard", ["dead/one", "dead/two", "dead/three", "<b src=x onerror=\"document/title=1\">"]);
  await page.locator("#f-state").selectOption("");

  /* A broker that is away. */
  await outside("broker_stop");
  await page.locator("#t-broker.ill", { hasText: "Away" }).waitFor();
  await page.locator("#t-broker3", { hasText: "refused" }).waitFor();
  await outside("post", { event: "a.waits", payload: "1" });
  await page.locator("#t-pending2", { hasText: "the oldest for" }).waitFor();
  await check_contrast(page, "with a broker that is away");
  await keep(page, "away");
  await outside("broker_start");
  await page.locator("#t-broker", { hasText: "Connected" }).waitFor();
  await page.locator("#t-pending2", { hasText: "nothing waits" }).waitFor();

  /* Filters. */
  await page.locator("#f-event").fill("a.b*");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => [...document.querySelectorAll("#rows .row button")].every(b => b.textContent === "a.b") && document.querySelectorAll("#rows .row").length === 1);
  await page.locator("#f-app").fill("nobody's");
  await page.keyboard.press("Enter");
  await page.locator("#no-events", { hasText: "No event matches" }).waitFor();

  await check_words(page);
  await page.locator("#language").click();
  await page.locator("#h-dead", { hasText: "死信" }).waitFor();
  await page.context().close();
  await by_keyboard(browser);
  for (const [name, width, height, scheme, locale] of [["light", 1600, 1000, "light", "en"], ["dark", 1600, 1000, "dark", "en"], ["narrow", 360, 800, "light", "en"], ["chinese", 1280, 900, "light", "zh-CN"]]) {
    const view = await open_ready(browser, width, height, scheme, locale);
    await row(view, hostile).waitFor();
    await fits(view, `at ${width} pixels`);
    check(await view.evaluate(() => document.documentElement.lang.slice(0, 2)) === locale.slice(0, 2), `it speaks ${locale}`);
    await check_names(view);
    await check_contrast(view, `in ${name}`);
    await keep(view, name);
    if (name === "narrow") await check_stillness(view, name);
    await row(view, hostile).click();
    await view.locator("#whole[open]").waitFor();
    await fits(view, `at ${width} pixels with an event open`);
    await check_contrast(view, `in ${name} with an event open`);
    await keep(view, `${name}-open`);
    check((await view.title()).endsWith("meowbridge"), "no script of an event ran");
    await view.context().close();
  }
}

/* No mouse: to the events, through the filter, into one and back, along a chart, and the theme. */
async function by_keyboard(browser) {
  const page = await open_ready(browser, 1600, 1000, "light", "en");
  const focus = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
  await row(page, "a.b").waitFor();
  await page.keyboard.press("Tab");
  check(await focus() === "Skip to the events" && await page.locator(".skip:focus").isVisible(), "the first stop leads to the events");
  await page.keyboard.press("Enter");
  check(await focus() === "events", "it does");
  for (const id of ["pause", "f-event", "f-app", "f-state"]) {
    await page.keyboard.press("Tab");
    check(await focus() === id, `then comes ${id}, not ${await focus()}`);
  }
  await page.keyboard.press("Tab"); /* the filter's button */
  await page.keyboard.press("Tab"); /* the newest event */
  check(await page.evaluate(() => document.activeElement === document.querySelector("#rows button")), "then come the events");
  check(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle) === "solid", "the focus is seen");
  await page.keyboard.press("Enter");
  await page.locator("#whole[open]").waitFor();
  check(await page.evaluate(() => document.getElementById("whole").contains(document.activeElement)), "the focus goes into the dialog");
  await page.keyboard.press("Escape");
  await page.locator("#c-rate svg").focus();
  const before = await page.locator("#c-rate svg").getAttribute("aria-label");
  check(/^Events a minute, now: accepted \d+, published \d+, refused \d+$/.test(before), `a chart says what it shows: ${before}`);
  await page.keyboard.press("ArrowLeft");
  await page.locator("#theme").focus();
  for (const theme of ["light", "dark", undefined]) {
    await page.keyboard.press("Enter");
    check(await page.evaluate(() => document.documentElement.dataset.theme) === theme, `the theme is ${theme}`);
  }
  await page.context().close();
}

/* A listener with a token: nothing is shown before it is given. */
async function entering(browser) {
  const page = await open(browser, 360, 700, "light", "en");
  await page.locator("#login").waitFor();
  check(await page.evaluate(() => document.activeElement.id) === "token", "the token can be typed at once");
  await page.locator("#overall.warn", { hasText: "Locked" }).waitFor();
  await check_names(page);
  await check_contrast(page, "before the token is given");
  await fits(page, "before the token is given");
  check(!await page.locator("#events").isVisible() && !await page.locator("#t-bridge").isVisible(), "nothing stands there empty");
  await keep(page, "token");
  await page.keyboard.type("wrong");
  await page.keyboard.press("Enter");
  await page.locator("#wrong", { hasText: "This is not the token." }).waitFor();
  await page.keyboard.type("right-token");
  await page.keyboard.press("Enter");
  await page.locator("#overall.good").waitFor();
  await page.locator("#login").waitFor({ state: "hidden" });
  await outside("post", { event: "a.b", payload: "1" });
  await row(page, "a.b").waitFor();
  await page.reload();
  await page.locator("#overall.good").waitFor();
  check(!await page.evaluate(() => document.cookie || JSON.stringify(localStorage).includes("right-token")), "the token stays in this tab");
  for (let i = said.length; i-- > 0;) if (/status of 401/.test(said[i])) said.splice(i, 1);
}

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  await { looking, entering }[story](browser);
  check(said.length === 0, `the browser is content: ${said.join("; ")}`);
  console.log(JSON.stringify({ order: "done" }));
} finally {
  await browser.close();
  process.stdin.destroy(); /* or it would be waited for */
}
