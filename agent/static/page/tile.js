// One run: waiting, at work with its preview, or over with what it made.

import { h, icon, iconButton } from "./dom.js";
import { explain } from "./errors.js";
import { local, t } from "./i18n.js";
import { acquire, forget, kindOf, open, save, whileNear } from "./media.js";

const VISUAL = ["image", "video"];

export class Tile {
  #shown = ""; // what stands there now; only a change of it builds anew
  #preview = { wanted: 0, shown: 0, isLoading: false, release: null };

  constructor(runs, batch, run, actions, tellRatio) {
    Object.assign(this, { runs, batch, run, actions, tellRatio });
    this.element = h("div", { class: "tile", data: { run: run.id } });
    this.update();
  }

  /** Outputs that matter: those of the nodes that the workflow names, in their order, or else all. */
  get outputs() {
    const { outputs = [] } = this.run;
    const wanted = this.batch.outputs ?? [];
    const named = wanted.flatMap((node) => outputs.filter((output) => output.node_id === node));
    return named.length ? named : outputs;
  }

  get visuals() {
    return this.run.state === "succeeded" ? this.outputs.filter((output) => VISUAL.includes(kindOf(output))) : [];
  }

  update() {
    const { state } = this.run;
    const isOpen = this.runs.isOpen(this.run);
    const shown = isOpen ? "open" : state;
    this.element.dataset.state = state;
    if (shown !== this.#shown) {
      this.#shown = shown;
      this.#dropPreview();
      forget(this.element);
      this.element.replaceChildren(...this.#build());
    }
    if (isOpen) this.#follow();
  }

  #build() {
    const { run } = this;
    switch (run.state) {
      case "succeeded":
        return this.#results();
      case "failed":
        return [this.#failure()];
      case "cancelled":
        return [this.#message("close", t("run.cancelled"))];
      case "gone":
        return [this.#gone()];
      default:
        return this.#progress();
    }
  }

  // At work

  #progress() {
    this.picture = h("img", { class: "preview", alt: t("run.preview"), hidden: true });
    this.status = h("span", { class: "status" });
    this.percent = h("span", { class: "percent" });
    this.bar = h("div", {
      class: "bar",
      role: "progressbar",
      "aria-label": t("run.progress", { number: this.run.number }),
      "aria-valuemin": 0,
      "aria-valuemax": 100,
    });
    this.cancel = h("button", {
      type: "button",
      class: "button small cancel",
      on: { click: () => this.runs.cancel(this.run) },
    });
    return [
      h("div", { class: "frame waiting" }, this.picture, this.cancel),
      h("div", { class: "progress" }, h("div", { class: "progress-line" }, this.status, this.percent), this.bar),
    ];
  }

  #follow() {
    const { run } = this;
    const percent = Math.min(99, Math.floor((run.progress ?? 0) * 100)); // all nodes done is not all stored
    this.status.textContent = this.#words();
    this.status.title = this.status.textContent;
    this.percent.textContent = run.state === "running" ? `${percent}%` : "";
    this.bar.style.setProperty("--done", `${percent}%`);
    this.bar.setAttribute("aria-valuenow", percent);
    this.bar.setAttribute("aria-valuetext", `${this.status.textContent} ${this.percent.textContent}`);
    this.bar.classList.toggle("indefinite", run.state !== "running");
    this.cancel.textContent = t(run.cancelling ? "run.cancelling" : "run.cancel");
    this.cancel.disabled = Boolean(run.cancelling);
    this.#preview.wanted = run.preview ?? 0;
    if (this.#hasNewPreview) this.#loadPreview();
  }

  #words() {
    const { run } = this;
    if (run.note) return t(run.note);
    if (run.state === "sending") return t(run.sent ? "run.sending" : "run.turn");
    if (run.state === "queued")
      return run.position > 0 ? t("run.position", { position: run.position }) : t("run.queued");
    if (!run.node) return t("run.running");
    const steps = run.node.max > 1 ? ` · ${run.node.value}/${run.node.max}` : "";
    return `${run.node.title}${steps}`;
  }

  get #hasNewPreview() {
    const { wanted, shown } = this.#preview;
    return wanted > 0 && wanted !== shown;
  }

  /** One at a time; what comes meanwhile is fetched after it. */
  async #loadPreview() {
    if (this.#preview.isLoading) return;
    this.#preview.isLoading = true;
    const wanted = this.#preview.wanted;
    try {
      const { url, release } = await acquire(`api/tasks/${this.run.id}/preview?${wanted}`);
      if (this.#shown !== "open") {
        release();
        return;
      }
      this.picture.src = url;
      await this.picture.decode();
      this.picture.hidden = false;
      this.#preview.release?.();
      this.#preview.release = release;
    } catch {
      // It is gone already, or the connection is: the next one will do.
    } finally {
      this.#preview.shown = wanted;
      this.#preview.isLoading = false;
    }
    if (this.#shown === "open" && this.#hasNewPreview) this.#loadPreview();
  }

  #dropPreview() {
    this.#preview.release?.();
    this.#preview.release = null;
  }

  // Over

  #results() {
    const { run } = this;
    const texts = (run.texts ?? []).map((text) => h("pre", { class: "text-output", tabIndex: 0 }, text));
    const files = this.outputs.map((output) => this.#output(output));
    if (files.length + texts.length === 0) return [this.#message("sparkle", t("run.nothing"))];
    const warnings = (run.warnings ?? []).map((text) =>
      h("p", { class: "notice" }, icon("warning"), h("span", {}, text)),
    );
    return [...files, ...texts, ...warnings];
  }

  #output(output) {
    const kind = kindOf(output);
    if (kind === "image") return this.#image(output);
    if (kind === "video" || kind === "audio") return this.#player(output, kind);
    return this.#file(output);
  }

  #image(output) {
    const image = h("img", {
      alt: t("picture.alt", { title: local(this.batch.title) }),
      decoding: "async",
      on: { load: () => this.tellRatio(Math.min(2, Math.max(0.5, image.naturalWidth / image.naturalHeight))) },
    });
    const frame = h(
      "button",
      {
        type: "button",
        class: "frame picture",
        "aria-label": t("picture.open", { number: this.run.number }),
        on: { click: () => this.actions.view(this.run, output) },
      },
      image,
    );
    const use = iconButton("use", t("picture.use"), () => this.actions.use(this.run, output));
    const tile = h(
      "figure",
      { class: "result" },
      frame,
      h("div", { class: "result-actions" }, use, this.#download(output)),
    );
    this.#showWhileNear(tile, image, output);
    return tile;
  }

  #player(output, kind) {
    const player = h(kind, { controls: true, loop: kind === "video", playsInline: true, preload: "metadata" });
    const frame = h("div", { class: kind === "video" ? "frame" : "sound" }, player);
    const tile = h("figure", { class: "result" }, frame, h("div", { class: "result-actions" }, this.#download(output)));
    this.#showWhileNear(tile, player, output);
    return tile;
  }

  #file(output) {
    const line = h(
      "div",
      { class: "file-output" },
      icon("file"),
      h("span", { class: "name" }, output.filename),
      this.#download(output),
    );
    if (kindOf(output) !== "text" || output.object_key) return line;
    const text = h("pre", { class: "text-output", tabIndex: 0 });
    open(this.run, output)
      .then(async ({ blob, release }) => {
        text.textContent = await blob.slice(0, 100_000).text();
        release();
      })
      .catch((error) => (text.textContent = explain(error).title));
    return h("div", {}, text, line);
  }

  /** Bytes are held only while the element is near to what is visible. */
  #showWhileNear(place, element, output) {
    let release = null;
    let isNear = false;
    const enter = async () => {
      isNear = true;
      try {
        const found = await open(this.run, output);
        if (!isNear) return found.release();
        release = found.release;
        element.onerror = () => isNear && this.#offer(place, output);
        element.src = found.url;
      } catch (error) {
        if (isNear) this.#sayWhy(place, error);
      }
      return undefined;
    };
    const leave = () => {
      isNear = false;
      release?.();
      release = null;
      element.onerror = null;
      element.removeAttribute("src");
    };
    whileNear(place, enter, leave);
  }

  /** What the browser cannot show can be downloaded all the same. */
  #offer(place, output) {
    const button = h(
      "button",
      { type: "button", class: "button small", on: { click: () => download(this.run, output) } },
      icon("download"),
      t("picture.download"),
    );
    place.replaceChildren(this.#message("file", t("file.broken"), button));
  }

  #sayWhy(place, error) {
    const again = () => {
      this.#shown = "";
      this.update();
    };
    const { title } = explain(error);
    const isGone = ["TaskNotFound", "OutputNotFound"].includes(error.code);
    const retry = h(
      "button",
      { type: "button", class: "button small", on: { click: isGone ? () => this.actions.again(this.batch) : again } },
      t(isGone ? "feed.again" : "app.retry"),
    );
    place.replaceChildren(
      h("div", { class: "frame message" }, icon(isGone ? "clock" : "warning"), h("p", {}, title), retry),
    );
  }

  #download(output) {
    return iconButton("download", t("picture.download"), () => download(this.run, output));
  }

  #message(name, text, ...more) {
    return h("div", { class: "frame message" }, icon(name), h("p", {}, text), ...more);
  }

  #gone() {
    const again = h(
      "button",
      { type: "button", class: "button small", on: { click: () => this.actions.again(this.batch) } },
      t("feed.again"),
    );
    return this.#message("clock", t("run.gone"), again);
  }

  #failure() {
    const { title, advice, detail, where, code } = explain(this.run.error ?? {});
    const retry = h(
      "button",
      { type: "button", class: "button small", on: { click: () => this.runs.retry(this.run) } },
      t("app.retry"),
    );
    return h(
      "div",
      { class: "failure", role: "group", "aria-label": title },
      h("div", { class: "failure-head" }, icon("warning"), h("strong", {}, title)),
      advice ? h("p", {}, advice) : null,
      where ? h("p", { class: "where" }, t("run.node", { node: where })) : null,
      detail
        ? h(
            "details",
            { open: detail.length < 240 },
            h("summary", {}, t("run.details"), " ", h("code", {}, code)),
            h("p", { class: "detail" }, detail),
          )
        : h("code", {}, code),
      this.runs.canRetry(this.run) ? retry : null,
    );
  }
}

/** Give the user the file. */
export async function download(run, output) {
  try {
    const { url, release } = await open(run, output);
    save(url, output.filename);
    setTimeout(release, 60_000); // the browser reads it when the user has chosen a place
  } catch (error) {
    console.warn(error);
  }
}
