// Asking for the API key, once for all requests that wait for it.

import { $, h } from "./dom.js";
import { t } from "./i18n.js";

/** Gives the key, or null. `refused`: the key that was not accepted, or "". */
export function promptForKey(refused) {
  const dialog = $("key");
  const field = h("input", {
    type: "password",
    id: "key-field",
    autocomplete: "off",
    required: true,
    pattern: "[!-~]+",
    "aria-describedby": "key-error",
  });
  const error = h("p", { class: "field-error", id: "key-error", hidden: !refused }, t("key.wrong"));
  const form = h(
    "form",
    { method: "dialog" },
    h("h2", { id: "key-title" }, t("key.title")),
    h("p", { class: "muted" }, t("key.lead")),
    h("label", { class: "field-label", for: "key-field" }, t("key.label")),
    field,
    error,
    h(
      "div",
      { class: "dialog-buttons" },
      h("button", { type: "button", class: "button quiet", on: { click: () => dialog.close("") } }, t("key.cancel")),
      h("button", { type: "submit", class: "button primary" }, t("key.use")),
    ),
  );
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    dialog.close("given");
  });
  dialog.setAttribute("aria-labelledby", "key-title");
  dialog.replaceChildren(form);
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        const given = dialog.returnValue === "given" ? field.value.trim() : "";
        dialog.replaceChildren();
        resolve(given || null);
      },
      { once: true },
    );
  });
}
