// The workflows to choose from.

import { acquire, forget, whileNear } from "./media.js";
import { h, icon } from "./dom.js";
import { knows, local, t } from "./i18n.js";

/** Icons for what a workflow is about. */
const ICONS = {
  "text-to-image": "sparkle",
  "image-to-image": "image",
  inpaint: "brush",
  composition: "layers",
  upscale: "resize",
};

/** A colour of its own for each name. */
function hue(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 33 + letter.codePointAt(0) * 7919) % 9973;
  return (sum * 137.5) % 360;
}

const known = Object.keys(ICONS);

/** First what draws from words, then what draws anew; what works without a model is last. */
function rank({ tags }) {
  const places = tags.map((tag) => known.indexOf(tag)).filter((place) => place >= 0);
  return (tags.includes("no-model") ? known.length : 0) + Math.min(known.length, ...places);
}

function tagPlace(tag) {
  if (tag === "no-model") return known.length + 1;
  return known.includes(tag) ? known.indexOf(tag) : known.length;
}

const tagName = (tag) => (knows(`tag.${tag}`) ? t(`tag.${tag}`) : tag);

export class Picker {
  #tag = null;
  #words = "";

  /** `workflows`: as GET /api/workflows lists them. */
  constructor(workflows) {
    this.workflows = [...workflows].sort((a, b) => rank(a) - rank(b));
    this.grid = h("div", { class: "cards" });
    this.none = h("p", { class: "muted", role: "status" });
    this.chips = h("div", { class: "chips", role: "group" });
    this.search = h("input", {
      type: "search",
      class: "search",
      on: {
        input: () => {
          this.#words = this.search.value.trim().toLowerCase();
          this.#fill();
        },
      },
    });
    this.element = h(
      "div",
      { class: "picker" },
      h("div", { class: "filters" }, h("label", { class: "search-box" }, icon("search"), this.search), this.chips),
      this.grid,
      this.none,
    );
    this.rebuild();
  }

  rebuild() {
    this.search.placeholder = t("home.search");
    this.search.setAttribute("aria-label", t("home.search"));
    const tags = [...new Set(this.workflows.flatMap((each) => each.tags))].sort((a, b) => tagPlace(a) - tagPlace(b));
    const chip = (tag, words) =>
      h(
        "button",
        {
          type: "button",
          class: "chip",
          "aria-pressed": String(this.#tag === tag),
          on: {
            click: () => {
              this.#tag = tag;
              this.rebuild();
            },
          },
        },
        words,
      );
    this.chips.replaceChildren(
      ...(tags.length > 1 ? [chip(null, t("home.all")), ...tags.map((tag) => chip(tag, tagName(tag)))] : []),
    );
    this.search.parentElement.hidden = this.workflows.length < 6;
    this.#fill();
  }

  #fill() {
    forget(this.grid);
    const found = this.workflows.filter((each) => this.#matches(each));
    const cards = (isLacking) =>
      found.filter((each) => (each.available === false) === isLacking).map((each) => this.#card(each));
    const own = this.#tag === null && this.#words === "";
    this.grid.replaceChildren(...cards(false), ...(own ? [this.#own()] : []), ...cards(true));
    this.none.textContent = found.length === 0 && !own ? t("home.none") : "";
  }

  #matches(workflow) {
    const words = [
      workflow.name,
      local(workflow.title),
      local(workflow.description),
      ...workflow.tags,
      ...workflow.tags.map(tagName),
    ]
      .join(" ")
      .toLowerCase();
    return (this.#tag === null || workflow.tags.includes(this.#tag)) && words.includes(this.#words);
  }

  #card(workflow) {
    const lacks = workflow.available === false;
    const art = h(
      "div",
      { class: "card-art", style: { "--hue": hue(workflow.name) } },
      icon(ICONS[known.findLast((tag) => workflow.tags.includes(tag))] ?? "sparkle"),
    );
    if (workflow.thumbnail) this.#picture(art, workflow.thumbnail);
    const missing = lacks
      ? h(
          "p",
          { class: "card-missing" },
          icon("warning"),
          h("span", {}, t("home.missing.what", { what: workflow.missing.join(", ") })),
        )
      : null;
    return h(
      "a",
      { class: `card ${lacks ? "lacking" : ""}`, href: `#/${encodeURIComponent(workflow.name)}` },
      art,
      h(
        "div",
        { class: "card-body" },
        h("h3", {}, local(workflow.title)),
        h("p", { class: "muted" }, local(workflow.description)),
        missing,
        h(
          "div",
          { class: "tags" },
          workflow.tags.map((tag) => h("span", { class: "tag" }, tagName(tag))),
        ),
      ),
    );
  }

  #own() {
    return h(
      "a",
      { class: "card own", href: "#/" + OWN },
      h("div", { class: "card-art own-art" }, icon("code")),
      h("div", { class: "card-body" }, h("h3", {}, t("own.title")), h("p", { class: "muted" }, t("own.description"))),
    );
  }

  #picture(art, path) {
    let release = null;
    let isNear = false;
    const enter = async () => {
      isNear = true;
      try {
        const found = await acquire(path.replace(/^\//, ""));
        if (!isNear) return found.release();
        release = found.release;
        art.replaceChildren(h("img", { src: found.url, alt: "" }));
      } catch {
        // The drawn one stays.
      }
      return undefined;
    };
    whileNear(art, enter, () => {
      isNear = false;
      release?.();
      release = null;
    });
  }
}

/** Stands in the address for a workflow of the user's own. No workflow's name holds a "~". */
export const OWN = "~own";
