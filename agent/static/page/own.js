// A workflow of the user's own: pasted, typed, or from a file.

import { h } from "./dom.js";
import { t } from "./i18n.js";

export class OwnForm {
  /** `draft`: {graph, newSeeds}. */
  constructor(draft, changed) {
    this.draft = draft;
    this.changed = changed;
    this.seedName = null;
    this.error = h("p", { class: "field-error", id: "own-error", hidden: true });
    this.area = h("textarea", {
      id: "own-graph",
      class: "code",
      rows: 16,
      spellcheck: false,
      value: draft.graph ?? "",
      placeholder: '{\n  "3": {\n    "class_type": "KSampler",\n    "inputs": {…}\n  }\n}',
      "aria-describedby": "own-error own-hint",
      on: {
        input: () => this.#keep(this.area.value),
        dragover: (event) => event.preventDefault(),
        drop: (event) => this.#drop(event),
      },
    });
    this.file = h("input", {
      type: "file",
      accept: ".json,application/json",
      class: "visually-hidden",
      on: {
        change: () => {
          this.#read(this.file.files[0]);
          this.file.value = "";
        },
      },
    });
    this.newSeeds = h("input", {
      type: "checkbox",
      role: "switch",
      class: "switch",
      id: "own-seeds",
      checked: draft.newSeeds ?? true,
      on: {
        change: () => {
          this.draft.newSeeds = this.newSeeds.checked;
          changed();
        },
      },
    });
    this.element = h(
      "div",
      { class: "fields" },
      h(
        "div",
        { class: "field" },
        h(
          "div",
          { class: "field-row" },
          h("label", { class: "field-label", for: "own-graph" }, t("own.label")),
          h("label", { class: "button small" }, this.file, t("own.open")),
        ),
        this.area,
        h("p", { class: "hint", id: "own-hint" }, t("own.hint")),
        this.error,
      ),
      h(
        "div",
        { class: "field" },
        h(
          "div",
          { class: "field-row" },
          h("label", { class: "field-label", for: "own-seeds" }, t("own.seeds")),
          this.newSeeds,
        ),
      ),
    );
  }

  get summary() {
    return "";
  }

  /** The text as it is, once it is known to be JSON: what kind of JSON, the agent says. */
  async values() {
    const graph = this.area.value.trim();
    let problem = graph ? null : t("own.empty");
    try {
      if (graph) JSON.parse(graph);
    } catch (error) {
      problem = t("own.json", { detail: error.message });
    }
    this.#say(problem);
    if (problem) {
      this.area.focus();
      this.error.scrollIntoView({ block: "center" });
    }
    return problem ? null : { graph, newSeeds: this.newSeeds.checked };
  }

  complain() {}

  take() {
    return false;
  }

  paste() {}

  close() {}

  #keep(text) {
    this.draft.graph = text;
    this.#say(null);
    this.changed();
  }

  #say(text) {
    this.error.textContent = text ?? "";
    this.error.hidden = !text;
  }

  #drop(event) {
    const file = event.dataTransfer.files[0];
    if (!file) return;
    event.preventDefault();
    event.stopPropagation();
    this.#read(file);
  }

  async #read(file) {
    if (!file) return;
    this.area.value = await file.text();
    this.#keep(this.area.value);
  }
}
