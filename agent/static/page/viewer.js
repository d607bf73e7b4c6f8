// One picture as large as the window allows; the others are a key away.

import { $, h, icon, iconButton } from "./dom.js";
import { explain } from "./errors.js";
import { local, t } from "./i18n.js";
import { kindOf, open } from "./media.js";
import { download } from "./tile.js";

/** So many pixels sideways are a swipe. */
const SWIPE = 60;

export class Viewer {
  #items = [];
  #index = 0;
  #release = null;

  constructor(actions) {
    this.actions = actions;
    this.dialog = $("viewer");
    this.dialog.addEventListener("close", () => this.#drop());
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog || event.target === this.stage) this.dialog.close();
    });
  }

  /** Show `items[index]` of {batch, run, output}. */
  open(items, index) {
    this.#items = items;
    this.#build();
    this.dialog.showModal();
    this.#show(index);
  }

  #build() {
    let began = 0;
    const swipe = ({ clientX }) => {
      if (Math.abs(clientX - began) > SWIPE) this.#show(this.#index + (clientX < began ? 1 : -1));
    };
    this.stage = h("div", {
      class: "viewer-stage",
      on: {
        touchstart: ({ touches }) => (began = touches[0].clientX),
        touchend: ({ changedTouches }) => swipe(changedTouches[0]),
      },
    });
    this.title = h("strong", {});
    this.facts = h("span", { class: "muted" });
    this.words = h("p", { class: "viewer-words" });
    this.place = h("span", { class: "viewer-place", "aria-live": "polite" });
    const current = () => this.#items[this.#index];
    this.use = iconButton("use", t("picture.use"), () =>
      this.#leaveTo(() => this.actions.use(current().run, current().output)),
    );
    this.dialog.setAttribute("aria-label", t("picture.viewer"));
    this.dialog.replaceChildren(
      h(
        "div",
        { class: "viewer-bar" },
        this.place,
        h("span", { class: "grow" }),
        this.use,
        iconButton("again", t("feed.again"), () =>
          this.#leaveTo(() => this.actions.again(current().batch, current().run)),
        ),
        iconButton("download", t("picture.download"), () => download(current().run, current().output)),
        iconButton("close", t("app.close"), () => this.dialog.close(), { autofocus: true }),
      ),
      this.stage,
      (this.before = iconButton("arrowLeft", t("picture.previous"), () => this.#show(this.#index - 1), {
        class: "viewer-before",
      })),
      (this.after = iconButton("arrowRight", t("picture.next"), () => this.#show(this.#index + 1), {
        class: "viewer-after",
      })),
      h("div", { class: "viewer-caption" }, h("div", {}, this.title, " ", this.facts), this.words),
    );
  }

  #leaveTo(action) {
    this.dialog.close();
    action();
  }

  #key(event) {
    if (event.key === "ArrowLeft") this.#show(this.#index - 1);
    else if (event.key === "ArrowRight") this.#show(this.#index + 1);
    else if (event.key === "Home") this.#show(0);
    else if (event.key === "End") this.#show(this.#items.length - 1);
    else return;
    event.preventDefault();
  }

  async #show(index) {
    if (index < 0 || index >= this.#items.length) return;
    this.#index = index;
    const { batch, run, output } = this.#items[index];
    const isImage = kindOf(output) === "image";
    this.place.textContent = `${index + 1} / ${this.#items.length}`;
    this.title.textContent = local(batch.title);
    this.words.textContent = batch.summary ?? "";
    this.use.hidden = !isImage;
    this.before.disabled = index === 0;
    this.after.disabled = index === this.#items.length - 1;
    const seconds = run.finished - run.started;
    const facts = [
      run.seed ? t("picture.seed", { seed: run.seed }) : "",
      seconds > 0 ? `${seconds.toFixed(1)} s` : "",
      output.filename,
    ].filter(Boolean);
    this.facts.textContent = facts.join(" · ");
    try {
      const found = await open(run, output);
      if (this.#index !== index || !this.dialog.open) {
        found.release();
        return;
      }
      const element = isImage
        ? h("img", { src: found.url, alt: t("picture.alt", { title: local(batch.title) }) })
        : h("video", { src: found.url, controls: true, autoplay: true, loop: true });
      if (isImage)
        element.onload = () =>
          (this.facts.textContent = [`${element.naturalWidth} × ${element.naturalHeight}`, ...facts].join(" · "));
      this.stage.replaceChildren(element);
      this.#release?.();
      this.#release = found.release;
    } catch (error) {
      if (this.#index === index)
        this.stage.replaceChildren(h("div", { class: "message" }, icon("warning"), h("p", {}, explain(error).title)));
    }
  }

  #drop() {
    this.stage.replaceChildren();
    this.#release?.();
    this.#release = null;
  }
}
