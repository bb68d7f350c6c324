// Notebooks as a reader meets them: a real JupyterLab server, a real Chromium, Run All under `smoke`.
//
//   node browser.mjs ROOT CHECKPOINTS OUT [NUMBER ...]
//
// Each notebook must finish without an error, each cell tagged `figure` must show an SVG with a size and words in it, and
// where something is trained the live picture must change at least three times while its cell runs. Notebook 00 is run
// again with a new kernel and must show the same table; a long training cell is interrupted, run again, and must go on where
// it was (NUMBER long). Screenshots go to OUT.

import { spawn } from "node:child_process";
import { mkdirSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [root, checkpoints, out, ...only] = process.argv.slice(2);
const PORT = 18888, TOKEN = "browser-test", PATIENCE = 10 * 60 * 1000;
const notebooks = join(root, "notebooks");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function check(claim, holds) {
  if (!holds) throw new Error(`this does not hold: ${claim}`);
  console.log(`  ✓ ${claim}`);
}

function copyWithoutOutputs(from, to) {
  const notebook = JSON.parse(readFileSync(from, "utf8"));
  for (const cell of notebook.cells.filter((c) => c.cell_type === "code")) Object.assign(cell, { outputs: [], execution_count: null });
  writeFileSync(to, JSON.stringify(notebook));
}

/** JupyterLab as `make lab` starts it, on the hand-written corpus, with runs of its own. */
async function serve() {
  const settings = [`--port=${PORT}`, `--IdentityProvider.token=${TOKEN}`, "--no-browser", `--notebook-dir=${root}`, "--expose-app-in-browser", "--allow-root"];
  const env = { ...process.env, KD_PROFILE: "smoke", KD_CORPUS: join(root, "data/sample"), KD_CHECKPOINTS: checkpoints };
  const server = spawn(join(root, ".venv/bin/jupyter"), ["lab", ...settings], { cwd: root, env, stdio: ["ignore", "ignore", openSync(join(out, "server.log"), "w")] });
  for (let tries = 0; tries < 120; tries++) {
    const answer = await fetch(`http://127.0.0.1:${PORT}/api?token=${TOKEN}`).catch(() => null);
    if (answer?.ok) return server;
    await pause(500);
  }
  server.kill();
  throw new Error("the notebook server did not start within a minute");
}

/** What the page knows of the open notebook: per code cell its number, kind of outputs, text and figures. */
function look() {
  const { content, sessionContext } = window.jupyterapp.shell.currentWidget;
  const words = (picture) => (picture.src ? decodeURIComponent(picture.src) : picture.outerHTML).split("<text").slice(1).map((t) => t.slice(t.indexOf(">") + 1, t.indexOf("</text")).trim()).join("");
  const cells = content.widgets.filter((w) => w.model.type === "code").map((w) => {
    const outputs = w.model.outputs.toJSON(), pictures = [...w.node.querySelectorAll(".jp-OutputArea svg, .jp-OutputArea img[src^='data:image/svg']")];
    return {
      source: w.model.sharedModel.source,
      done: w.model.executionCount !== null && w.promptNode?.textContent !== "[*]:",
      errors: outputs.filter((o) => o.output_type === "error" || o.name === "stderr").map((o) => o.evalue ?? o.text),
      text: outputs.map((o) => o.text ?? "").join(""),
      figure: (w.model.getMetadata("tags") ?? []).includes("figure"),
      drawn: pictures.filter((i) => i.getBoundingClientRect().width > 50 && words(i) !== "").length,
    };
  });
  return { cells, status: sessionContext.session?.kernel?.status ?? "none" };
}

/** Counts how often each live picture's content is another one. */
function observe() {
  window.liveChanges = 0;
  let last = "";
  setInterval(() => {
    const now = document.querySelector("[id^='live-'] svg")?.outerHTML ?? "";
    if (now !== "" && now !== last) window.liveChanges += 1;
    last = now;
  }, 100);
}

/** Starts a command; its end is not waited for, since that is a run's end or the answer to a question. */
const command = (page, name) => page.evaluate((n) => { window.jupyterapp.commands.execute(n); }, name);

async function open(page, name) {
  await page.goto(`http://127.0.0.1:${PORT}/lab/tree/notebooks/${name}?token=${TOKEN}&reset`);
  await page.waitForFunction(() => window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle", null, { timeout: PATIENCE });
  // Windowed cells are taken out of the page; a test wants to see them all.
  await page.evaluate(() => { window.jupyterapp.shell.currentWidget.content.notebookConfig = { ...window.jupyterapp.shell.currentWidget.content.notebookConfig, windowingMode: "none" }; });
  await page.addStyleTag({ content: ".Toastify { display: none }" }); // its question about news lies over the cells
  await page.evaluate(observe);
}

/** Waits until every code cell has run, or one has failed. */
async function finished(page, name) {
  for (const start = Date.now(); Date.now() - start < PATIENCE; await pause(1000)) {
    const state = await page.evaluate(look);
    const failed = state.cells.findIndex((c) => c.errors.length > 0);
    if (failed >= 0) throw new Error(`${name}, code cell ${failed}: ${state.cells[failed].errors.join("\n")}`);
    if (state.status === "idle" && state.cells.every((c) => c.done)) return state.cells;
  }
  throw new Error(`${name}: not finished within ${PATIENCE / 60000} minutes`);
}

async function runAll(page, name) {
  await open(page, name);
  await command(page, "runmenu:run-all");
  const cells = await finished(page, name);
  await pause(1500); // the last figures are drawn
  const drawn = (await page.evaluate(look)).cells;
  check(`${name}: ${cells.length} cells ran without an error`, cells.length > 0);
  const figures = drawn.filter((c) => c.figure);
  check(`${name}: all ${figures.length} figures are there, with a size and words`, figures.every((c) => c.drawn > 0));
  const trains = drawn.some((c) => c.text.includes("examples/s"));
  const changes = await page.evaluate(() => window.liveChanges);
  if (trains) check(`${name}: the live picture changed ${changes} times`, changes >= 3);
  return drawn;
}

/** The texts of the cells that show tables, which another kernel must repeat. */
const tables = (cells) => cells.filter((c) => c.text.includes("macro F1") && !c.text.includes("examples/s")).map((c) => c.text).join("\n");

async function again(page, name, before) {
  await command(page, "notebook:restart-run-all");
  await page.click(".jp-Dialog button.jp-mod-accept");
  await page.waitForFunction(() => window.jupyterapp.shell.currentWidget.content.widgets.some((w) => w.promptNode?.textContent === "[*]:"), null, { timeout: PATIENCE });
  const after = await finished(page, name);
  check(`${name}: a new kernel shows the same table`, tables(before) !== "" && tables(after) === tables(before));
}

/** A notebook of its own: a student that trains long enough to be interrupted after it has looked at dev twice. */
const LONG = [
  ':dep kd_lib = { path = "../kd_lib" }\n:dep kd_notebook = { path = "support" }\nuse kd_notebook::Session;',
  "let session = Session::open();\nsession.live_plot();",
  'let mut recipe = session.recipe("bilstm");\nrecipe.train.epochs = 30.0;\nlet run = session.run(&recipe);',
];

function writeLong(path) {
  const cells = LONG.map((source, at) => ({ cell_type: "code", id: `long${at}`, metadata: {}, source, outputs: [], execution_count: null }));
  const metadata = { kernelspec: { display_name: "Rust (kd_lib)", language: "rust", name: "kd_rust" } };
  writeFileSync(path, JSON.stringify({ cells, metadata, nbformat: 4, nbformat_minor: 5 }));
}

/** Interrupts a training cell; run again, it must not begin at the first update. */
async function interrupted(page, name) {
  await open(page, name);
  await command(page, "runmenu:run-all");
  const text = async () => (await page.evaluate(look)).cells.map((c) => c.text).join("");
  while ((await text()).split("dev accuracy").length < 3) await pause(200);
  await command(page, "notebook:interrupt-kernel");
  await page.waitForFunction(() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === "idle", null, { timeout: PATIENCE });
  await pause(3000);
  const stopped = (await page.evaluate(look)).cells.at(-1);
  check(`${name}: interrupted, the kernel answers (${stopped.errors.join(" ") || stopped.text.slice(-300)})`, stopped.errors.length > 0);
  await command(page, "runmenu:run-all");
  await page.waitForFunction(() => window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === "busy", null, { timeout: PATIENCE });
  await pause(3000);
  const cells = await finished(page, name);
  const first = Number(cells.at(-1).text.match(/step (\d+)\//)[1]);
  check(`${name}: run again, it went on with update ${first}`, first > 1);
}

async function main() {
  mkdirSync(out, { recursive: true });
  const server = await serve();
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"] });
  const copies = [];
  try {
    const names = readdirSync(notebooks).filter((n) => /^\d\d_.*(?<!\.browser)\.ipynb$/.test(n)).sort();
    for (const name of names.filter((n) => only.length === 0 || only.includes(n.slice(0, 2)))) {
      // A copy beside the original, since JupyterLab saves what it runs.
      const copy = name.replace(".ipynb", ".browser.ipynb"), number = name.slice(0, 2);
      copyWithoutOutputs(join(notebooks, name), join(notebooks, copy));
      copies.push(copy);
      const page = await browser.newPage({ viewport: { width: 1280, height: 1600 } });
      const cells = await runAll(page, copy);
      await page.evaluate(() => [...document.querySelectorAll(".jp-OutputArea img[src^='data:image/svg']")].at(-1)?.scrollIntoView({ block: "center" }));
      await page.screenshot({ path: join(out, `${number}.png`) });
      if (number === "00") await again(page, copy, cells);
      await page.evaluate(() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown());
      await page.close();
    }
    if (only.length === 0 || only.includes("long")) {
      copies.push("long.browser.ipynb");
      writeLong(join(notebooks, "long.browser.ipynb"));
      await interrupted(await browser.newPage(), "long.browser.ipynb");
    }
  } finally {
    copies.forEach((copy) => rmSync(join(notebooks, copy)));
    await browser.close();
    server.kill("SIGTERM");
  }
}

await main().catch((error) => {
  console.error(`FAILED: ${error.message}`);
  process.exit(1);
});
process.exit(0);
