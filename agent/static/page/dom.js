// Elements without HTML: what comes from workflows, tasks and errors only ever becomes text or a property.

/**
 * An element with properties and children.
 *
 * Properties: `class`; `on` as {event: handler}; `data` for data attributes; `style` as custom properties; whatever has
 * a dash or is `role`, `for`, `list` is set as an attribute; the rest as a property. A value of null or undefined is left out.
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined) continue;
    if (name === "class") element.className = value;
    else if (name === "on")
      for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "style") for (const [key, to] of Object.entries(value)) element.style.setProperty(key, to);
    else if (name.includes("-") || ["role", "for", "list"].includes(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Line icons on a grid of 24. */
const PATHS = {
  again: "M4 12a8 8 0 1 0 2.3-5.6M4 4v4.5h4.5",
  arrowLeft: "M15 5l-7 7 7 7",
  arrowRight: "M9 5l7 7-7 7",
  brush: "M14 4l6 6-8.5 8.5a4 4 0 0 1-6 0 4 4 0 0 1 0-6zM11 7l6 6",
  close: "M6 6l12 12M18 6L6 18",
  code: "M8 7l-5 5 5 5M16 7l5 5-5 5",
  dice: "M4 7a3 3 0 0 1 3-3h10a3 3 0 0 1 3 3v10a3 3 0 0 1-3 3H7a3 3 0 0 1-3-3zM8.5 8.5h.01M15.5 8.5h.01M12 12h.01M8.5 15.5h.01M15.5 15.5h.01",
  download: "M12 4v11M7 10.5l5 5 5-5M5 20h14",
  eraser: "M8 19l-4-4a2 2 0 0 1 0-2.8L12.2 4a2 2 0 0 1 2.8 0l4.5 4.5a2 2 0 0 1 0 2.8L12 19zM8 19h12M8.5 8l7.5 7.5",
  image: "M4 6a2 2 0 0 1 2-2h12a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2zM4 16l4.5-4.5 4 4L16 12l4 4M15 8.5h.01",
  layers: "M12 3l9 5-9 5-9-5zM3 12.5l9 5 9-5M3 17l9 5 9-5",
  moon: "M20 14.5A8 8 0 0 1 9.5 4 8 8 0 1 0 20 14.5z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.9 4.9l1.4 1.4M17.7 17.7l1.4 1.4M2 12h2M20 12h2M4.9 19.1l1.4-1.4M17.7 6.3l1.4-1.4",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM16.5 16.5L21 21",
  sparkle:
    "M12 3l1.9 5.6a2 2 0 0 0 1.3 1.3L21 12l-5.8 2.1a2 2 0 0 0-1.3 1.3L12 21l-1.9-5.6a2 2 0 0 0-1.3-1.3L3 12l5.8-2.1a2 2 0 0 0 1.3-1.3z",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  undo: "M9 8H15a5 5 0 0 1 0 10H8M9 8l4-4M9 8l4 4",
  use: "M12 20V9M7 13.5l5-5 5 5M5 4h14",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  clock: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 7v5l3.5 2",
  resize: "M14 4h6v6M20 4l-7 7M10 20H4v-6M4 20l7-7",
  file: "M6 3h8l5 5v13H6zM14 3v5h5",
};

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows an icon alone; its label is for those who cannot see it, and a tip for the others. */
export function iconButton(name, label, click, properties = {}) {
  const { class: more = "", ...rest } = properties;
  return h(
    "button",
    { type: "button", class: `icon-button ${more}`, title: label, "aria-label": label, on: { click }, ...rest },
    icon(name),
  );
}
