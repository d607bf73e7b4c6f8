// What was made: batches, newest first, and in each a tile for every run.

import { h, icon, iconButton } from "./dom.js";
import { ago, local, t } from "./i18n.js";
import { forget } from "./media.js";
import { Tile } from "./tile.js";

const PAGE = 12;

export class Feed {
  #articles = new Map(); // batch id -> {element, tiles: Map of run id -> Tile}
  #shown = PAGE;

  /** `actions`: again(batch), use(batch, run, output), view(run, output), clear(). */
  constructor(runs, actions) {
    this.runs = runs;
    this.actions = actions;
    this.list = h("div", { class: "batches" });
    this.empty = h("div", { class: "empty" });
    this.more = h("button", { type: "button", class: "button quiet wide", on: { click: () => this.#showMore() } });
    this.title = h("h2", { id: "feed-title" });
    this.clearButton = h("button", { type: "button", class: "button quiet", on: { click: () => actions.clear() } });
    this.note = h("p", { class: "hint" });
    this.element = h(
      "section",
      { class: "feed", "aria-labelledby": "feed-title" },
      h("header", { class: "feed-head" }, this.title, this.clearButton),
      this.empty,
      this.list,
      this.more,
      this.note,
    );
    runs.addEventListener("batches", () => this.update());
    runs.addEventListener("run", ({ detail: { run, before } }) => {
      const article = this.#articles.get(run.batch);
      article?.tiles.get(run.id)?.update();
      if (run.state !== before) article?.tellOpen();
    });
    setInterval(() => this.#tellTimes(), 30_000);
  }

  /** Pictures of all tiles in the order in which they stand: {batch, run, output}. */
  get pictures() {
    return this.runs.batches.slice(0, this.#shown).flatMap((batch) =>
      this.runs.of(batch).flatMap(
        (run) =>
          this.#articles
            .get(batch.id)
            ?.tiles.get(run.id)
            ?.visuals.map((output) => ({ batch, run, output })) ?? [],
      ),
    );
  }

  /** Make everything anew, in the language that now holds. */
  rebuild() {
    for (const [, { element }] of this.#articles) forget(element);
    this.#articles.clear();
    this.list.replaceChildren();
    this.update();
  }

  update() {
    const shown = this.runs.batches.slice(0, this.#shown);
    const isEmpty = shown.length === 0;
    this.title.textContent = t("feed.title");
    this.clearButton.textContent = t("feed.clear");
    this.note.textContent = t("feed.kept");
    this.more.textContent = t("feed.more");
    this.empty.replaceChildren(
      icon("sparkle"),
      h("h3", {}, t("feed.empty")),
      h("p", { class: "muted" }, t("feed.empty.lead")),
    );
    this.empty.hidden = !isEmpty;
    this.clearButton.hidden = this.note.hidden = isEmpty;
    this.more.hidden = this.runs.batches.length <= this.#shown;
    for (const [id, { element }] of [...this.#articles]) {
      if (shown.some((batch) => batch.id === id)) continue;
      forget(element);
      element.remove();
      this.#articles.delete(id);
    }
    shown.forEach((batch, index) => {
      if (!this.#articles.has(batch.id)) this.#articles.set(batch.id, this.#make(batch));
      const { element } = this.#articles.get(batch.id);
      if (this.list.children[index] !== element) this.list.insertBefore(element, this.list.children[index] ?? null);
    });
  }

  #showMore() {
    this.#shown += PAGE;
    this.update();
  }

  #make(batch) {
    const tiles = new Map();
    const grid = h("div", { class: "tiles" });
    for (const run of this.runs.of(batch)) {
      const tile = new Tile(this.runs, batch, run, this.actions, (ratio) => grid.style.setProperty("--ratio", ratio));
      tiles.set(run.id, tile);
      grid.append(tile.element);
    }
    const ratio = Number(batch.values?.width) / Number(batch.values?.height);
    if (ratio > 0) grid.style.setProperty("--ratio", Math.min(2, Math.max(0.5, ratio)));
    grid.dataset.count = tiles.size;
    const time = h(
      "time",
      {
        class: "muted",
        dateTime: new Date(batch.created).toISOString(),
        title: new Date(batch.created).toLocaleString(),
      },
      ago(batch.created),
    );
    const cancelAll = h(
      "button",
      { type: "button", class: "button quiet small", on: { click: () => this.#cancelAll(batch) } },
      t("run.cancel.all"),
    );
    const element = h(
      "article",
      { class: "batch", data: { id: batch.id } },
      h(
        "header",
        { class: "batch-head" },
        h("div", { class: "batch-title" }, h("h3", {}, local(batch.title)), time),
        cancelAll,
        iconButton("again", t("feed.again"), () => this.actions.again(batch)),
        iconButton("trash", t("feed.remove"), () => this.runs.remove(batch)),
      ),
      batch.summary ? h("p", { class: "summary" }, batch.summary) : null,
      grid,
    );
    const tellOpen = () => (cancelAll.hidden = this.runs.of(batch).filter((run) => this.runs.isOpen(run)).length < 2);
    tellOpen();
    return { element, tiles, tellOpen };
  }

  #cancelAll(batch) {
    for (const run of this.runs.of(batch)) this.runs.cancel(run);
  }

  #tellTimes() {
    for (const time of this.list.querySelectorAll("time")) time.textContent = ago(Date.parse(time.dateTime));
  }
}
