// The form of a workflow, made from the JSON Schema of its parameters.

import { h } from "./dom.js";
import { FIELDS } from "./fields.js";
import { FileField } from "./files.js";
import { local, t } from "./i18n.js";
import { MaskField } from "./mask.js";

const FILES = ["image", "video", "audio", "mask"];
const NARROW = ["integer", "number", "boolean", "choice", "seed"];

export class Form {
  #fields = new Map(); // name -> {field, schema, error}

  /** `draft`: the values so far, by name; it is kept up to date, and `changed()` hears of it. */
  constructor(detail, draft, changed) {
    this.detail = detail;
    this.draft = draft;
    this.changed = changed;
    const { properties = {}, required = [] } = detail.schema;
    this.required = required;
    const shown = Object.entries(properties)
      .filter(([, schema]) => !schema["x-hidden"])
      .sort(([, a], [, b]) => a["x-order"] - b["x-order"]);
    this.element = h(
      "div",
      { class: "fields" },
      shown.map(([name, schema]) => this.#make(name, schema)),
    );
    for (const [name, { field, schema }] of this.#fields)
      if (field instanceof MaskField) field.setPicture(this.draft[schema["x-mask-of"]] ?? null);
  }

  /** The seed that each run gets one of its own for. A hidden one is the manifest's to decide. */
  get seedName() {
    return [...this.#fields].find(([, { schema }]) => schema["x-type"] === "seed")?.[0] ?? null;
  }

  /** The words that describe a run: the first text that was filled in. */
  get summary() {
    for (const [, { field, schema }] of this.#fields)
      if (["text", "string"].includes(schema["x-type"]) && field.value.trim()) return field.value.trim().slice(0, 300);
    return "";
  }

  /** What was filled in, or null where something is missing: then the first such field has the focus. */
  async values() {
    const values = {};
    let wrong = null;
    for (const [name, { field, schema }] of this.#fields) {
      const problem = this.#problem(name, field, schema);
      this.#say(name, problem);
      if (problem) wrong ??= name;
      else values[name] = field instanceof MaskField ? (field.isEmpty ? null : await field.finished()) : field.value;
    }
    if (wrong !== null) this.#show(wrong);
    return wrong === null ? values : null;
  }

  /** Show what the agent says of a parameter. */
  complain(name, text) {
    if (!this.#fields.has(name)) return;
    this.#say(name, text);
    this.#show(name);
  }

  /** Bring what is said of a field into view: a tall field, as a mask is, would leave it outside. */
  #show(name) {
    const { field, error } = this.#fields.get(name);
    field.focus();
    error.scrollIntoView({ block: "center" });
  }

  /** Put a picture where it fits: into `preferred`, the first empty field of its kind, or the first one. Whether there
   * was such a field. */
  take(value, preferred = null) {
    const fields = [...this.#fields.values()]
      .map(({ field }) => field)
      .filter((each) => each instanceof FileField && each.kind === "image");
    const field = fields.find((each) => each === preferred) ?? fields.find((each) => each.value === null) ?? fields[0];
    if (!field) return false;
    field.set(value);
    field.element.scrollIntoView({ block: "nearest" });
    return true;
  }

  /** A file from the clipboard. */
  paste(event) {
    const file = [...(event.clipboardData?.files ?? [])].find((each) => each.type.startsWith("image/"));
    if (!file) return;
    const focused = [...this.#fields.values()].find(({ field }) =>
      field.element.contains(document.activeElement),
    )?.field;
    if (this.take({ blob: file, name: file.name || "image" }, focused)) event.preventDefault();
  }

  close() {
    for (const { field } of this.#fields.values()) field.close?.();
  }

  #make(name, schema) {
    const id = `field-${name}`;
    const kind = schema["x-type"];
    const title = local(schema["x-titles"] ?? schema.title ?? name);
    const description = local(schema["x-descriptions"] ?? schema.description);
    const value = this.draft[name] ?? schema.default;
    const changed = (to) => {
      this.draft[name] = to;
      this.#say(name, null);
      if (kind === "image") this.#repaint(name, to);
      this.changed();
    };
    const about = { id, label: title, labelledBy: `${id}-label`, describedBy: `${id}-error ${id}-hint`, changed };
    const field = this.#field(kind, schema, value, about);
    const error = h("p", { class: "field-error", id: `${id}-error`, hidden: true });
    this.#fields.set(name, { field, schema, error });

    const isFile = FILES.includes(kind);
    const optional = isFile && !this.required.includes(name) ? h("span", { class: "muted" }, t("form.optional")) : null;
    const label = h(
      isFile ? "span" : "label",
      { id: `${id}-label`, for: isFile ? null : id, class: "field-label" },
      title,
      " ",
      optional,
    );
    const isPainted = field instanceof MaskField; // what a manifest says of a mask is for those who make one elsewhere
    const hint = h("p", { class: "hint", id: `${id}-hint` }, isPainted ? t("mask.hint") : description);
    hint.hidden = hint.textContent === "";
    const slider = field.slider;
    const isRow = slider || kind === "boolean";
    return h(
      "div",
      { class: `field ${NARROW.includes(kind) ? "narrow" : ""} ${kind}`, data: { name } },
      isRow ? h("div", { class: "field-row" }, label, field.element) : [label, field.element],
      slider,
      hint,
      error,
    );
  }

  #field(kind, schema, value, about) {
    if (kind === "mask" && schema["x-mask-of"]) return new MaskField(value, about);
    if (FILES.includes(kind)) return new FileField(kind === "mask" ? "image" : kind, fileValue(value), about);
    return (FIELDS[kind] ?? FIELDS.string)(schema, value, about);
  }

  #repaint(name, picture) {
    for (const { field, schema } of this.#fields.values())
      if (field instanceof MaskField && schema["x-mask-of"] === name) field.setPicture(picture);
  }

  #problem(name, field, schema) {
    const isNeeded = this.required.includes(name);
    if (field instanceof MaskField) return isNeeded && field.isEmpty ? t("mask.empty") : null;
    if (field instanceof FileField) return isNeeded && field.value === null ? t("form.required") : null;
    if (isNeeded && schema.type === "string" && schema["minLength"] && field.value === "") return t("form.required");
    return field.problem();
  }

  #say(name, text) {
    const { error, field } = this.#fields.get(name);
    error.textContent = text ?? "";
    error.hidden = !text;
    field.control?.setAttribute("aria-invalid", String(Boolean(text)));
    field.element.closest(".field")?.classList.toggle("invalid", Boolean(text));
  }
}

/** A default of a file parameter is the name of a file that the engine has: nothing that a browser could show. */
const fileValue = (value) => (value?.blob || value?.url ? value : null);
