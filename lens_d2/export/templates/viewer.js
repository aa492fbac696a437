"use strict";
// Slices in companded HU: grey JPEGs whose levels a table turns back into HU. They are decoded when first needed.
class SliceStack {
  static KEPT = 48; // decoded slices

  constructor(scan, images) {
    this.scan = scan;
    this.images = images;
    this.decoded = new Map(); // place -> promise of levels, the latest last
  }

  get count() {
    return this.images.length;
  }

  levels(place) {
    const found = this.decoded.get(place) ?? decode(`data:image/jpeg;base64,${this.images[place]}`);
    this.decoded.delete(place);
    this.decoded.set(place, found);
    if (this.decoded.size > SliceStack.KEPT) this.decoded.delete(this.decoded.keys().next().value);
    return found;
  }

  // The place of a slice of the scan, or of the nearest one that the page holds.
  placeOf(slice) {
    const { slices } = this.scan;
    let best = 0;
    for (let place = 1; place < slices.length; place++) {
      if (Math.abs(slices[place] - slice) < Math.abs(slices[best] - slice)) best = place;
    }
    return best;
  }
}

// Levels of a picture: one byte a pixel, with its width and height.
async function decode(source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = document.createElement("canvas");
  const width = (canvas.width = image.naturalWidth);
  const height = (canvas.height = image.naturalHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, width, height);
  const values = new Uint8Array(width * height);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return { width, height, values };
}

// The pixel of each level in a window: opaque grey, its bytes all alike.
function shades(table, [low, high]) {
  return Uint32Array.from(table, (hu) => {
    const grey = Math.round((255 * Math.min(Math.max(hu - low, 0), high - low)) / (high - low));
    return (0xff000000 | (grey * 0x010101)) >>> 0;
  });
}

// Paints levels, or the part of them in a field (left, top, width, height in percent), to fill a canvas.
function paint(canvas, { width, height, values }, lookup, field = [0, 0, 100, 100]) {
  const full = (paint.canvas ??= document.createElement("canvas"));
  if (full.width !== width || full.height !== height) Object.assign(full, { width, height });
  const pixels = new ImageData(width, height);
  const words = new Uint32Array(pixels.data.buffer);
  for (let i = 0; i < values.length; i++) words[i] = lookup[values[i]];
  full.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const [left, top, wide, tall] = field.map((percent, i) => (percent / 100) * (i % 2 ? height : width));
  context.drawImage(full, left, top, wide, tall, 0, 0, canvas.width, canvas.height);
}

// Frames with axial slices, one slider and buttons for the window; reformats beside them follow the window.
class Viewer {
  static WHEEL = 40; // pixels of a touchpad for a slice; a notch of a mouse wheel is a slice, too
  static PAUSE = 250; // ms after which a wheel that was scrolling the page may scroll slices
  static active = null; // the one that was used last
  static lastPageWheel = -Infinity;

  constructor(root, stack, { finding, marks, onMark }) {
    Object.assign(this, { root, stack, finding, marks, onMark });
    this.frames = Array.from(root.querySelectorAll(".frame:has(.marks)"));
    this.reformats = Array.from(root.querySelectorAll(".frame:has(.over)"));
    this.slider = root.querySelector(".slice");
    this.buttons = Array.from(root.querySelectorAll("[data-preset]"));
    this.place = stack.placeOf(finding ? finding.key : Math.floor(stack.scan.slices.at(-1) / 2));
    this.suit(finding ? finding.window : "soft tissue");
    this.slider.addEventListener("input", () => this.show(Number(this.slider.value)));
    for (const button of this.buttons) button.addEventListener("click", () => this.choose(button.dataset.preset));
    for (const frame of this.frames) this.listen(frame);
    for (const frame of this.reformats) this.listenToDrags(frame, () => {});
  }

  show(place) {
    this.place = Math.min(Math.max(place, 0), this.stack.count - 1);
    return this.draw();
  }

  step(count) {
    Viewer.active = this;
    return this.show(this.place + count);
  }

  // Windows: one that suits what is shown gives way to the reader's own choice, until that is taken back.
  suit(preset) {
    this.suitable = preset;
    if (!this.chosen) this.window = [...this.stack.scan.presets[preset]];
  }

  choose(preset) {
    Viewer.active = this;
    this.chosen = true;
    this.window = [...this.stack.scan.presets[preset]];
    return this.draw();
  }

  adjust(wider, higher) {
    const [low, high] = this.window;
    const width = Math.min(Math.max(high - low + wider, 10), 6000);
    const level = Math.min(Math.max((low + high) / 2 + higher, -1500), 3500);
    this.chosen = true;
    this.window = [level - width / 2, level + width / 2];
    return this.draw();
  }

  reset() {
    this.chosen = false;
    this.suit(this.suitable);
    return this.show(this.finding ? this.stack.placeOf(this.finding.key) : this.place);
  }

  async draw() {
    const { place } = this;
    this.describe();
    const levels = await this.stack.levels(place);
    if (place !== this.place) return; // overtaken by a later one
    this.drawn = true;
    const lookup = shades(this.stack.scan.levels, this.window);
    for (const frame of this.frames) {
      const field = frame.classList.contains("close") ? this.finding.field : undefined;
      paint(frame.querySelector("canvas"), levels, lookup, field);
      this.mark(frame, field);
    }
    this.root.dataset.slice = this.stack.scan.slices[place];
    for (const frame of this.reformats) {
      const reformat = await (frame.levels ??= decode(frame.querySelector("img").src));
      paint(frame.querySelector("canvas"), reformat, shades(this.stack.scan.levels, this.window));
    }
    for (const next of [place + 1, place - 1]) if (next >= 0 && next < this.stack.count) this.stack.levels(next);
  }

  describe() {
    const [low, high] = this.window;
    const text = `W ${Math.round(high - low)} L ${Math.round((low + high) / 2)}`.replace("-", "−");
    for (const frame of this.frames) {
      frame.querySelector(".caption.window").textContent = text;
      frame.querySelector(".caption").textContent = this.stack.scan.labels[this.place];
    }
    this.slider.value = this.place;
    this.slider.setAttribute("aria-valuetext", this.stack.scan.labels[this.place]);
    for (const button of this.buttons) {
      const [from, to] = this.stack.scan.presets[button.dataset.preset];
      button.setAttribute("aria-pressed", from === low && to === high);
    }
  }

  // Boxes on the slice; in a close-up relative to its field.
  mark(frame, [left, top, width, height] = [0, 0, 100, 100]) {
    const slice = this.stack.scan.slices[this.place];
    const boxes = this.marks().filter((finding) => finding.boxes[slice]);
    frame.querySelector(".marks").replaceChildren(...boxes.map((finding) => {
      const [x, y, w, h] = finding.boxes[slice];
      const box = document.createElement(this.onMark ? "a" : "span");
      box.className = "box";
      box.style.cssText = `left: ${(100 * (x - left)) / width}%; top: ${(100 * (y - top)) / height}%; ` +
        `width: ${(100 * w) / width}%; height: ${(100 * h) / height}%; color: ${finding.color}`;
      if (this.onMark) {
        box.classList.toggle("near-top", y < 8);
        box.classList.toggle("near-right", x + w > 93);
        box.href = `#finding-${finding.number}`;
        box.title = finding.title;
        box.dataset.number = finding.number;
        box.append(Object.assign(document.createElement("b"), { textContent: finding.number }));
      }
      return box;
    }));
  }

  listen(frame) {
    let gathered = 0;
    frame.addEventListener("wheel", (event) => {
      if (event.ctrlKey) return; // the browser zooms
      if (event.timeStamp - Viewer.lastPageWheel < Viewer.PAUSE) return; // the page is being scrolled past
      event.preventDefault();
      event.stopPropagation();
      gathered += event.deltaMode ? Math.sign(event.deltaY) * Viewer.WHEEL : event.deltaY;
      const steps = Math.abs(event.deltaY) >= Viewer.WHEEL ? Math.sign(gathered) : Math.trunc(gathered / Viewer.WHEEL);
      if (!steps) return;
      gathered = 0;
      this.step(-steps); // down is towards the feet
    }, { passive: false });
    frame.addEventListener("focusin", () => { Viewer.active = this; });
    frame.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10, Home: this.stack.count, End: -this.stack.count }[event.key];
      if (!steps || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.step(steps);
    });
    this.listenToDrags(frame, (pixels) => {
      const perSlice = Math.min(Math.max(frame.clientWidth / this.stack.count, 4), 20);
      const steps = Math.trunc(pixels / perSlice);
      if (steps) this.step(steps);
      return steps * perSlice;
    });
  }

  // The mouse changes the window; a finger goes sideways through slices, `scroll` says how many pixels it has used.
  listenToDrags(frame, scroll) {
    let from = null;
    frame.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button !== 0) return;
      Viewer.active = this;
      from = { x: event.clientX, y: event.clientY, moved: false };
    });
    frame.addEventListener("pointermove", (event) => {
      if (!from) return;
      if (event.pointerType === "mouse" && !(event.buttons & 1)) return from = null; // let go outside of the frame
      const x = event.clientX - from.x;
      const y = event.clientY - from.y;
      if (!from.moved && Math.hypot(x, y) < 4) return;
      if (!from.moved) frame.setPointerCapture(event.pointerId);
      from.moved = true;
      if (event.pointerType === "touch") {
        from.x += scroll(x) ?? 0;
        return;
      }
      const speed = Math.max((this.window[1] - this.window[0]) / 300, 0.5); // HU for a pixel
      this.adjust(x * speed, y * speed);
      Object.assign(from, { x: event.clientX, y: event.clientY });
    });
    for (const end of ["pointerup", "pointercancel"]) frame.addEventListener(end, () => {
      frame.dragged = from?.moved ?? false;
      from = null;
    });
    frame.addEventListener("dragstart", (event) => event.preventDefault());
    frame.addEventListener("click", (event) => {
      const box = event.target.closest("a.box");
      if (!box || !this.onMark) return;
      event.preventDefault();
      if (!frame.dragged) this.onMark(Number(box.dataset.number));
    });
  }
}
