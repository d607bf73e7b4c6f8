// Painting a mask on a picture: white where something shall happen, black elsewhere, of the picture's own size.

import { h, iconButton } from "./dom.js";
import { t } from "./i18n.js";

/** The canvas on the screen is not larger than this; the mask itself always has the picture's size. */
const SHOWN_PIXELS = 1_280;

/** Where the arrow keys move the brush: by half its width, with Shift by a tenth. */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const DOT = 0.01;

const tenths = (number) => Math.round((number + Number.EPSILON) * 10) / 10;

/** Paint strokes, whose points and widths are in pixels of the picture. */
function paint(context, strokes, scale, colour) {
  context.save();
  context.scale(scale, scale);
  context.lineCap = context.lineJoin = "round";
  context.strokeStyle = colour;
  for (const stroke of strokes) paintStroke(context, stroke);
  context.restore();
}

function paintStroke(context, { points, width, erases }, from = 0) {
  context.globalCompositeOperation = erases ? "destination-out" : "source-over";
  context.lineWidth = width;
  context.beginPath();
  const [x, y] = points[Math.max(from - 1, 0)];
  context.moveTo(x - DOT, y); // a line of no length, as a single touch makes one, is not drawn at all
  for (const point of points.slice(from)) context.lineTo(...point);
  context.stroke();
}

/** The PNG of a mask. */
async function draw({ strokes, width, height }) {
  const canvas = h("canvas", { width, height });
  const context = canvas.getContext("2d");
  paint(context, strokes, 1, "#fff");
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

/** A value is {strokes, width, height}; what is sent has `blob` and `name` beside them. */
export class MaskField {
  #url = null;
  #scale = 1;
  #erases = false;
  #stroke = null;
  #at = null; // where the keyboard has the brush, in pixels of the picture

  constructor(value, { changed, labelledBy }) {
    this.value = value ?? null;
    this.changed = changed;
    this.labelledBy = labelledBy;
    this.element = h("div", { class: "mask" });
    this.#build();
  }

  focus() {
    this.canvas.focus();
  }

  get isEmpty() {
    return !this.value?.strokes.some((stroke) => !stroke.erases);
  }

  /** The value with its PNG, as it is sent and kept. */
  async finished() {
    return { ...this.value, blob: await draw(this.value), name: "mask.png" };
  }

  /** Show the picture that is painted on. Strokes stay where it has the size of the one before. */
  setPicture(picture) {
    this.close();
    this.stage.hidden = this.tools.hidden = picture === null;
    this.first.hidden = picture !== null;
    if (picture === null) {
      if (this.value) this.#set(null);
      return;
    }
    this.#url = picture.blob ? URL.createObjectURL(picture.blob) : null;
    this.picture.src = this.#url ?? picture.url;
  }

  close() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  #set(value) {
    this.value = value;
    this.changed(value);
  }

  #build() {
    this.first = h("p", { class: "hint mask-first" }, t("mask.first"));
    this.picture = h("img", { alt: "", draggable: false, on: { load: () => this.#fit() } });
    this.canvas = h("canvas", {
      tabIndex: 0,
      role: "application",
      "aria-labelledby": this.labelledBy,
      "aria-describedby": `${this.labelledBy}-keys`,
      on: {
        pointerdown: (event) => this.#start(event),
        pointermove: (event) => this.#move(event),
        pointerup: () => this.#end(),
        pointercancel: () => this.#end(),
        pointerleave: () => (this.ring.hidden = true),
        keydown: (event) => this.#press(event),
        keyup: (event) => event.key === " " && this.#end(),
        focus: () => this.canvas.matches(":focus-visible") && this.#reach(0, 0),
        blur: () => {
          this.#end();
          this.ring.hidden = true;
        },
      },
    });
    this.ring = h("div", { class: "mask-ring", hidden: true });
    this.stage = h("div", { class: "mask-stage", hidden: true }, this.picture, this.canvas, this.ring);
    this.size = h("input", {
      type: "range",
      min: 1,
      max: 40,
      value: 12,
      "aria-label": t("mask.size"),
      title: t("mask.size"),
    });
    this.brush = iconButton("brush", t("mask.brush"), () => this.#choose(false), { "aria-pressed": "true" });
    this.eraser = iconButton("eraser", t("mask.eraser"), () => this.#choose(true), { "aria-pressed": "false" });
    this.tools = h(
      "div",
      { class: "mask-tools", role: "toolbar", "aria-labelledby": this.labelledBy, hidden: true },
      this.brush,
      this.eraser,
      this.size,
      iconButton("undo", t("mask.undo"), () => this.#undo()),
      iconButton("trash", t("mask.clear"), () => this.#clear()),
    );
    this.keys = h("p", { class: "hint mask-keys", id: `${this.labelledBy}-keys` }, t("mask.keys"));
    this.element.append(this.first, this.keys, this.tools, this.stage);
  }

  #choose(erases) {
    this.#erases = erases;
    this.brush.setAttribute("aria-pressed", String(!erases));
    this.eraser.setAttribute("aria-pressed", String(erases));
  }

  #fit() {
    const { naturalWidth: width, naturalHeight: height } = this.picture;
    if (this.value?.width !== width || this.value?.height !== height) this.#set({ strokes: [], width, height });
    this.#at = null;
    this.#scale = Math.min(1, SHOWN_PIXELS / Math.max(width, height));
    Object.assign(this.canvas, { width: Math.round(width * this.#scale), height: Math.round(height * this.#scale) });
    this.#repaint();
  }

  /** Width of the brush in pixels of the picture: a share of its longer side. */
  get #width() {
    return (Math.max(this.value.width, this.value.height) * Number(this.size.value)) / 100;
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = (at, length, size) => tenths((at / length) * size);
    return [
      place(event.clientX - box.left, box.width, this.value.width),
      place(event.clientY - box.top, box.height, this.value.height),
    ];
  }

  #press(event) {
    if (!this.value) return;
    const arrow = ARROWS[event.key];
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) this.#undo();
    else if (event.ctrlKey || event.metaKey || event.altKey) return;
    else if (arrow) this.#reach(...arrow.map((way) => way * this.#width * (event.shiftKey ? 0.1 : 0.5)));
    else if (event.key === " ") this.#putDown(event);
    else return;
    event.preventDefault();
  }

  /** Put the brush down where the keyboard has it; it stays down as long as Space is held. */
  #putDown(event) {
    if (event.repeat || this.#stroke) return;
    this.#reach(0, 0);
    this.#begin();
    this.#extend([this.#at]);
  }

  /** Move the keyboard's brush, which begins in the middle and stays on the picture. */
  #reach(right, down) {
    if (!this.value) return;
    const { width, height } = this.value;
    const [x, y] = this.#at ?? [width / 2, height / 2];
    const within = (at, size) => tenths(Math.min(Math.max(at, 0), size));
    this.#at = [within(x + right, width), within(y + down, height)];
    this.#ringAt(...this.#at);
    this.ring.scrollIntoView({ block: "nearest" });
    if (this.#stroke) this.#extend([this.#at]);
  }

  #start(event) {
    if (event.button !== 0 || !this.value) return;
    event.preventDefault();
    this.canvas.focus({ preventScroll: true });
    this.canvas.setPointerCapture(event.pointerId);
    this.#begin();
    this.#extend([this.#point(event)]);
  }

  #begin() {
    this.#stroke = { points: [], width: this.#width, erases: this.#erases };
    this.value.strokes.push(this.#stroke);
  }

  #move(event) {
    this.#follow(event);
    if (this.#stroke) this.#extend((event.getCoalescedEvents?.() ?? [event]).map((each) => this.#point(each)));
  }

  #extend(points) {
    const from = this.#stroke.points.length;
    this.#stroke.points.push(...points);
    if (this.#stroke.points.length === from) return;
    const context = this.#context();
    paintStroke(context, this.#stroke, from);
    context.restore();
  }

  #context() {
    const context = this.canvas.getContext("2d");
    context.save();
    context.scale(this.#scale, this.#scale);
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = getComputedStyle(this.canvas).color;
    return context;
  }

  #end() {
    if (!this.#stroke) return;
    this.#stroke = null;
    this.changed(this.value);
  }

  #follow(event) {
    if (!this.value) return;
    this.#ringAt(...this.#point(event));
    this.ring.hidden = event.pointerType === "touch";
  }

  #ringAt(x, y) {
    const shown = this.canvas.getBoundingClientRect().width / this.value.width;
    const width = this.#width * shown;
    this.ring.hidden = false;
    Object.assign(this.ring.style, {
      width: `${width}px`,
      height: `${width}px`,
      left: `${x * shown - width / 2}px`,
      top: `${y * shown - width / 2}px`,
    });
  }

  #undo() {
    if (!this.value?.strokes.length) return;
    this.value.strokes.pop();
    this.#repaint();
    this.changed(this.value);
  }

  #clear() {
    if (!this.value) return;
    this.value.strokes = [];
    this.#repaint();
    this.changed(this.value);
  }

  #repaint() {
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    paint(context, this.value.strokes, this.#scale, getComputedStyle(this.canvas).color);
  }
}
