// The page: which view stands there, and what its parts tell each other.

import { askJson, setKeyPrompt } from "./api.js";
import { $, h, icon } from "./dom.js";
import { explain } from "./errors.js";
import { Feed } from "./feed.js";
import { countField } from "./fields.js";
import { Form } from "./form.js";
import { LANGUAGES, language, local, setLanguage, t, texts, translate } from "./i18n.js";
import { promptForKey } from "./keyring.js";
import { forget, open } from "./media.js";
import { OwnForm } from "./own.js";
import { OWN, Picker } from "./picker.js";
import { Runs } from "./runs.js";
import * as store from "./store.js";
import { Viewer } from "./viewer.js";

const main = $("main");
const runs = new Runs();
const actions = { again, use, view, clear };
const feed = new Feed(runs, actions);
const viewer = new Viewer(actions);

let picker = null;
let studio = null; // {name, detail, form, draft} of the workflow that is open
let carried = null; // a picture on its way to the next form that takes one
let turn = 0; // counts changes of the view, so that an answer that comes late is dropped

/** Stands in the address for the view of all that was made. No workflow's name holds a "~". */
const HISTORY = "~history";

// Views

function route() {
  if (!location.hash.startsWith("#/")) return "";
  try {
    return decodeURIComponent(location.hash.slice(2));
  } catch {
    return location.hash.slice(2); // somebody typed a "%"
  }
}

async function render() {
  turn += 1;
  const mine = turn;
  leaveStudio();
  const name = route();
  main.className = { "": "home", [HISTORY]: "history" }[name] ?? "studio";
  if (name === HISTORY) $("history").setAttribute("aria-current", "page");
  else $("history").removeAttribute("aria-current");
  if (name === "") return showHome(mine);
  if (name === HISTORY) return main.replaceChildren(feed.element);
  return showStudio(name, mine);
}

function leaveStudio() {
  studio?.keep.now();
  studio?.form.close();
  studio = null;
}

async function showHome(mine) {
  const place = h("div", { class: "picker-place" }, loading());
  main.replaceChildren(
    h("section", { class: "hero" }, h("h1", {}, t("home.title")), h("p", { class: "lead" }, t("home.lead"))),
    place,
  );
  try {
    const { workflows } = await askJson("api/workflows");
    if (mine !== turn) return;
    if (picker) forget(picker.element);
    picker = new Picker(workflows);
    place.replaceChildren(picker.element);
  } catch (error) {
    if (mine === turn) place.replaceChildren(problem(error, t("home.failed")));
  }
}

async function showStudio(name, mine) {
  const panel = h("section", { class: "panel" }, loading());
  main.replaceChildren(panel, feed.element);
  scrollTo(0, 0);
  try {
    const [detail, kept] = await Promise.all([
      name === OWN ? ownDetail() : askJson(`api/workflows/${encodeURIComponent(name)}`),
      store.get("drafts", name),
    ]);
    if (mine !== turn) return;
    fillPanel(panel, name, detail, kept ?? { name, values: {}, count: 1 });
  } catch (error) {
    if (mine === turn) panel.replaceChildren(backLink(), problem(error));
  }
}

const ownDetail = () => ({
  title: texts("own.title"),
  description: texts("own.description"),
  tags: [],
  missing: [],
  outputs: [],
});

function fillPanel(panel, name, detail, draft) {
  const keep = later(() => store.put("drafts", draft));
  const form = name === OWN ? new OwnForm(draft.values, keep) : new Form(detail, draft.values, keep);
  const lacking = detail.missing?.length
    ? h(
        "p",
        { class: "notice", id: "lacking" },
        icon("warning"),
        h("span", {}, t("home.missing.run", { what: detail.missing.join(", ") })),
      )
    : null;
  const run = h("button", {
    type: "submit",
    class: "button primary run",
    disabled: lacking !== null,
    "aria-describedby": lacking?.id,
  });
  const count = countField(draft.count, (to) => {
    draft.count = to;
    run.textContent = to === 1 ? t("form.run") : t("form.runs", { count: to });
    keep();
  });
  const reset = h(
    "button",
    { type: "button", class: "button quiet small", on: { click: () => startAnew(name) } },
    t("form.reset"),
  );
  const element = h(
    "form",
    { class: "run-form", noValidate: true, on: { submit: (event) => submit(event, run) } },
    form.element,
    h("div", { class: "run-bar" }, lacking, count, run),
  );
  panel.replaceChildren(
    h("div", { class: "panel-top" }, backLink(), reset),
    h("h1", {}, local(detail.title)),
    h("p", { class: "muted panel-lead" }, local(detail.description)),
    element,
  );
  studio = { name, detail, form, draft, keep };
  if (carried && form.take(carried)) {
    carried = null;
    toast(t("picture.taken"));
  }
}

const backLink = () => h("a", { class: "back", href: "#/" }, icon("arrowLeft"), t("form.back"));

const loading = () => h("p", { class: "muted loading", role: "status" }, t("form.loading"));

function problem(error, title = null) {
  const about = explain(error);
  const retry = h("button", { type: "button", class: "button", on: { click: render } }, t("app.retry"));
  return h(
    "div",
    { class: "problem", role: "alert" },
    icon("warning"),
    h("h2", {}, title ?? about.title),
    h("p", {}, [title ? about.title : "", about.advice].filter(Boolean).join(". ")),
    about.detail ? h("p", { class: "muted" }, about.detail) : null,
    retry,
  );
}

async function startAnew(name) {
  studio?.keep.now();
  await store.remove("drafts", name);
  render();
}

// What parts of the page ask for

async function submit(event, button) {
  event.preventDefault();
  if (!studio || button.disabled) return;
  const { name, detail, form, draft } = studio;
  button.disabled = true;
  try {
    const values = await form.values();
    if (values === null) return;
    const about = { title: detail.title, summary: form.summary, outputs: detail.outputs, seedName: form.seedName };
    const what = name === OWN ? { ...about, workflow: null, ...values } : { ...about, workflow: name, values };
    await store.put("drafts", draft);
    await runs.submit(what, draft.count);
    if (matchMedia("(max-width: 860px)").matches) feed.element.scrollIntoView({ behavior: calm() ? "auto" : "smooth" });
  } finally {
    button.disabled = false;
  }
}

/** Fill the form as it was for this batch; with a run's own seed where one run is meant. */
async function again(batch, run = null) {
  const name = batch.workflow ?? OWN;
  const values = batch.workflow ? { ...batch.values } : { graph: batch.graph, newSeeds: batch.newSeeds };
  if (run?.seed && batch.seedName) values[batch.seedName] = run.seed;
  studio?.keep.now();
  await store.put("drafts", { name, values, count: run ? 1 : runs.of(batch).length });
  go(name);
}

async function use(run, output) {
  let value;
  try {
    const { url, blob, release } = await open(run, output);
    release();
    value = { name: output.filename, ...(blob ? { blob } : { url }) };
  } catch (error) {
    toast(explain(error).title);
    return;
  }
  if (studio?.form.take(value)) {
    toast(t("picture.taken"));
    return;
  }
  carried = value;
  toast(t("picture.none"));
  if (route() !== "") go("");
}

function view(run, output) {
  const items = feed.pictures;
  viewer.open(
    items,
    Math.max(
      0,
      items.findIndex((item) => item.run === run && item.output === output),
    ),
  );
}

function clear() {
  const dialog = $("sure");
  const close = (value) => () => dialog.close(value);
  dialog.replaceChildren(
    h("h2", { id: "sure-title" }, t("feed.clear")),
    h("p", { class: "muted" }, t("feed.clear.sure")),
    h(
      "div",
      { class: "dialog-buttons" },
      h("button", { type: "button", class: "button quiet", on: { click: close("") } }, t("feed.cancel")),
      h("button", { type: "button", class: "button danger", on: { click: close("clear") } }, t("feed.clear")),
    ),
  );
  dialog.setAttribute("aria-labelledby", "sure-title");
  dialog.returnValue = "";
  dialog.onclose = () => dialog.returnValue === "clear" && runs.clear();
  dialog.showModal();
}

function go(name) {
  const hash = `#/${encodeURIComponent(name)}`;
  if (location.hash === hash) render();
  else location.hash = hash;
}

// What is told to the user

let toastTimer;

function toast(text) {
  clearTimeout(toastTimer);
  $("toast").textContent = text;
  $("toast").classList.add("shown");
  toastTimer = setTimeout(() => $("toast").classList.remove("shown"), 4_000);
}

/** Say above every view that pictures are stand-ins, where they are. */
async function tellSimulated() {
  const { engine } = await askJson("healthz").catch(() => ({})); // an engine that failed: its runs say so
  if (!engine?.simulated) return;
  const words = h("span", { data: { t: "app.simulated" } });
  main.before(h("p", { class: "simulated", role: "note" }, icon("layers"), words));
  translate(document);
}

runs.addEventListener("run", ({ detail: { run, before } }) => {
  if (run.state === before) return;
  const open = runs.openCount;
  document.title = open ? `(${open}) ComfyUI agent` : "ComfyUI agent";
  const said = `run.said.${run.state}`;
  if (["succeeded", "failed", "cancelled"].includes(run.state))
    $("live").textContent = t(said, { number: run.number, why: run.error ? explain(run.error).title : "" });
  const { parameter, detail } = run.error ?? {};
  if (run.state === "failed" && parameter && studio?.name === runs.batch(run.batch)?.workflow)
    studio.form.complain(parameter, detail);
});

// The page's own settings

const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function showTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").replaceChildren(icon(theme === "dark" ? "sun" : "moon"));
}

/** A function that does the work a little later, once for many calls; `now` does at once what is left to do. */
function later(work) {
  let timer = null;
  const now = () => {
    if (timer !== null) work();
    clearTimeout(timer);
    timer = null;
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(now, 300);
  };
  return Object.assign(soon, { now });
}

$("theme").addEventListener("click", () => {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  store.choice("theme", theme);
  showTheme(theme);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", ({ matches }) => {
  if (!store.choice("theme")) showTheme(matches ? "dark" : "light");
});

$("language").append(
  ...Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code }, name)),
);
$("language").value = language();
$("language").addEventListener("change", () => {
  setLanguage($("language").value);
  translate(document);
  feed.rebuild();
  render();
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address is for the views
  main.focus();
});
addEventListener("hashchange", () => {
  if (!location.hash.startsWith("#/") && location.hash !== "") return;
  render();
  main.focus({ preventScroll: true }); // the next Tab begins in the new view
});
addEventListener("pagehide", () => studio?.keep.now());
addEventListener("paste", (event) => studio?.form.paste(event));
addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) document.querySelector(".run-form")?.requestSubmit();
});
// A file that misses its field must not take the page's place; it goes into a field where there is one for it.
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  for (const file of event.dataTransfer?.files ?? [])
    if (file.type.startsWith("image/")) studio?.form.take({ blob: file, name: file.name });
});

setKeyPrompt(promptForKey);
showTheme(document.documentElement.dataset.theme);
translate(document);
tellSimulated();
await runs.load();
feed.update();
await render();
