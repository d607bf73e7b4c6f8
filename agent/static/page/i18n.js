// The page's words in three languages.

import { choice } from "./store.js";
import { TEXTS } from "./texts.js";

export const LANGUAGES = { en: "English", zh: "中文", ja: "日本語" };

const CODES = Object.keys(LANGUAGES);

let current = choice("language");
if (!CODES.includes(current))
  current =
    (navigator.languages ?? []).map((each) => each.slice(0, 2).toLowerCase()).find((each) => CODES.includes(each)) ??
    "en";

export const language = () => current;

export function setLanguage(code) {
  current = choice("language", code);
}

/** The text of a key, with {name} replaced by values. */
export function t(key, values = {}) {
  const text = TEXTS[key]?.[CODES.indexOf(current)] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** A text of ours in the form that manifests have. */
export const texts = (key) => Object.fromEntries(CODES.map((code, index) => [code, TEXTS[key][index]]));

export const knows = (key) => key in TEXTS;

/** A text of a manifest: one for everybody, or one a language. */
export function local(text) {
  if (text === null || text === undefined) return "";
  return typeof text === "object" ? String(text[current] ?? text.en ?? "") : String(text);
}

export function ago(milliseconds) {
  const seconds = (milliseconds - Date.now()) / 1000;
  const format = new Intl.RelativeTimeFormat(current, { numeric: "auto" });
  for (const [unit, length] of [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ])
    if (-seconds >= length) return format.format(Math.round(seconds / length), unit);
  return format.format(0, "second");
}

/** Put the words into what stands in the document itself. */
export function translate(root) {
  document.documentElement.lang = current;
  for (const element of root.querySelectorAll("[data-t]")) element.textContent = t(element.dataset.t);
  for (const element of root.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
    element.title = t(element.dataset.tLabel);
  }
  for (const element of root.querySelectorAll("[data-t-placeholder]"))
    element.placeholder = t(element.dataset.tPlaceholder);
}
