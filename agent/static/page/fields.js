// One field of a form for each kind of parameter. Each has element, value, focus(), and problem(): what is wrong, or null.

import { h, icon, iconButton } from "./dom.js";
import { local, t } from "./i18n.js";
import { randomSeed } from "./runs.js";
import { LARGEST_SEED } from "./values.js";

/** Values are texts as they were typed, so that no number loses digits; true or false for a switch. */
class Field {
  constructor(control, read) {
    this.control = control;
    this.read = read ?? (() => control.value);
  }

  get value() {
    return this.read();
  }

  get element() {
    return this.control;
  }

  focus() {
    this.control.focus();
  }

  problem() {
    return this.control.checkValidity() ? null : this.control.validationMessage;
  }
}

export function textField(schema, value, { id, describedBy, changed }) {
  const isLong = schema["x-multiline"];
  const control = h(isLong ? "textarea" : "input", {
    id,
    value: value ?? "",
    "aria-describedby": describedBy,
    spellcheck: isLong,
    autocomplete: "off",
    on: { input: () => changed(control.value) },
  });
  if (isLong) control.rows = 3;
  return new Field(control);
}

/** A number; with a slider where it has two limits. */
export function numberField(schema, value, { id, label, describedBy, changed }) {
  const { minimum: min, maximum: max } = schema;
  const isWhole = schema.type === "integer";
  const control = h("input", {
    id,
    type: "number",
    inputMode: isWhole ? "numeric" : "decimal",
    min,
    max,
    step: isWhole ? 1 : "any",
    value: value ?? "",
    "aria-describedby": describedBy,
    on: {
      input: () => {
        if (slider) slider.value = control.value;
        changed(control.value);
      },
    },
  });
  const hasSlider = min !== undefined && max !== undefined && max > min;
  const slider = hasSlider
    ? h("input", {
        type: "range",
        min,
        max,
        step: schema["x-step"] ?? (isWhole ? 1 : (max - min) / 100),
        "aria-label": label,
        on: {
          input: () => {
            control.value = slider.value;
            changed(control.value);
            fill();
          },
        },
      })
    : null;
  const fill = () => slider?.style.setProperty("--share", `${((slider.value - min) / (max - min)) * 100}%`);
  if (slider) {
    slider.value = control.value === "" ? min : control.value;
    control.addEventListener("input", fill);
    fill();
  }
  const field = new Field(control);
  field.slider = slider;
  return field;
}

export function booleanField(_schema, value, { id, describedBy, changed }) {
  const control = h("input", {
    id,
    type: "checkbox",
    role: "switch",
    class: "switch",
    checked: value === true || value === "true",
    "aria-describedby": describedBy,
    on: { change: () => changed(control.checked) },
  });
  return new Field(control, () => control.checked);
}

export function choiceField(schema, value, { id, describedBy, changed }) {
  const values = schema.enum ?? schema["x-files"];
  if (!values) return textField(schema, value, { id, describedBy, changed });
  const known = values.map(String);
  const all =
    value === undefined || value === null || known.includes(String(value)) ? known : [String(value), ...known];
  const titles = schema["x-choices-titles"] ?? {};
  const control = h(
    "select",
    { id, "aria-describedby": describedBy, on: { change: () => changed(control.value) } },
    all.map((each) => h("option", { value: each }, local(titles[each] ?? each))),
  );
  if (value !== undefined && value !== null) control.value = String(value);
  return new Field(control);
}

/** A seed: empty means a random one each time. */
export function seedField(_schema, value, { id, describedBy, changed }) {
  const tell = () => {
    clear.hidden = control.value === "";
    changed(read());
  };
  const control = h("input", {
    id,
    inputMode: "numeric",
    autocomplete: "off",
    placeholder: t("seed.random"),
    value: String(value ?? "-1") === "-1" ? "" : String(value),
    "aria-describedby": describedBy,
    on: { input: tell },
  });
  const set = (to) => () => {
    control.value = to();
    tell();
  };
  const read = () => (control.value.trim() === "" ? "-1" : control.value.trim());
  const clear = iconButton(
    "close",
    t("seed.clear"),
    set(() => ""),
    { hidden: control.value === "", class: "small" },
  );
  const dice = iconButton(
    "dice",
    t("seed.dice"),
    set(() => String(randomSeed())),
  );
  const field = new Field(control, read);
  const element = h("div", { class: "seed" }, control, clear, dice);
  Object.defineProperty(field, "element", { value: element });
  field.problem = () => {
    const given = read();
    return given === "-1" || (/^\d{1,20}$/.test(given) && BigInt(given) <= LARGEST_SEED) ? null : t("seed.wrong");
  };
  return field;
}

export const FIELDS = {
  text: textField,
  string: textField,
  integer: numberField,
  number: numberField,
  boolean: booleanField,
  choice: choiceField,
  model: choiceField,
  seed: seedField,
};

/** How many to make: 1 to 8. */
export function countField(value, changed) {
  const output = h("output", { class: "count-value", "aria-live": "polite" });
  const set = (to) => {
    count = Math.min(8, Math.max(1, to));
    output.textContent = count;
    fewer.disabled = count === 1;
    more.disabled = count === 8;
    changed(count);
  };
  let count = value;
  const fewer = h(
    "button",
    { type: "button", "aria-label": t("form.fewer"), on: { click: () => set(count - 1) } },
    icon("minus"),
  );
  const more = h(
    "button",
    { type: "button", "aria-label": t("form.more"), on: { click: () => set(count + 1) } },
    icon("plus"),
  );
  set(value);
  return h("div", { class: "count", role: "group", "aria-label": t("form.count") }, fewer, output, more);
}
