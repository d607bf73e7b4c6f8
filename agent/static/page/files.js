// A field that takes a file: by click, by drop, by paste, or from a result.

import { h, icon, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** "640 x 480", once a picture is shown. */
const size = (image) => `${image.naturalWidth} × ${image.naturalHeight}`;

/**
 * A value is {blob, name}, or {url, name} of a file that lies in an object store.
 *
 * `changed(value)` hears of each new one; null: there is none. `labelledBy` is the id of the field's label.
 */
export class FileField {
  #url = null;

  constructor(kind, value, { changed, labelledBy, describedBy }) {
    this.kind = kind;
    this.value = value ?? null;
    this.changed = changed;
    this.input = h("input", {
      type: "file",
      accept: `${kind}/*`,
      class: "visually-hidden",
      "aria-labelledby": labelledBy,
      "aria-describedby": describedBy,
      on: {
        change: () => {
          if (this.input.files[0]) this.offer(this.input.files[0]);
          this.input.value = "";
        },
      },
    });
    this.zone = h("div", { class: "dropzone", on: this.#dropping() });
    this.element = this.zone;
    this.#show();
  }

  focus() {
    this.input.focus();
  }

  /** Take a file; whether it is of the right kind. */
  offer(file) {
    const fits = file.type.startsWith(`${this.kind}/`);
    this.zone.classList.toggle("wrong", !fits);
    if (fits) this.set({ blob: file, name: file.name || `${this.kind}` });
    else this.message.textContent = t("file.wrong");
    return fits;
  }

  set(value) {
    this.value = value;
    this.#show();
    this.changed(value);
  }

  /** Give memory back. */
  close() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  #dropping() {
    const over = (isOver) => (event) => {
      event.preventDefault();
      this.zone.classList.toggle("over", isOver);
    };
    return {
      dragenter: over(true),
      dragover: over(true),
      dragleave: over(false),
      drop: (event) => {
        over(false)(event);
        event.stopPropagation();
        const file = event.dataTransfer.files[0];
        if (file) this.offer(file);
      },
    };
  }

  #show() {
    this.close();
    this.message = h("span", { class: "dropzone-text" }, t(`file.drop.${this.kind}`));
    this.zone.classList.remove("wrong");
    this.zone.classList.toggle("filled", this.value !== null);
    if (this.value === null) {
      this.zone.replaceChildren(
        h(
          "label",
          { class: "dropzone-empty" },
          this.input,
          icon(this.kind === "image" ? "image" : "file"),
          this.message,
        ),
      );
      return;
    }
    const url = this.value.url ?? (this.#url = URL.createObjectURL(this.value.blob));
    const facts = h("span", { class: "muted" });
    const shown = this.#element(url, facts);
    this.zone.replaceChildren(
      h("label", { class: "dropzone-shown" }, this.input, shown),
      h(
        "div",
        { class: "dropzone-facts" },
        h("span", { class: "name", title: this.value.name }, this.value.name),
        facts,
        iconButton("close", t("file.remove"), () => this.set(null)),
      ),
    );
  }

  #element(url, facts) {
    if (this.kind !== "image") return h(this.kind, { src: url, controls: true });
    return h("img", {
      src: url,
      alt: this.value.name,
      on: {
        load: (event) => (facts.textContent = size(event.target)),
        error: () => (facts.textContent = t("file.broken")),
      },
    });
  }
}
