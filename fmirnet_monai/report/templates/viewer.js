"use strict";

const SVG = "http://www.w3.org/2000/svg", FOLD_COLOUR = [255, 0, 255], LINES = 32;
const get = (id) => document.getElementById(id), all = (query) => [...document.querySelectorAll(query)];

function draw(parent, tag, attributes, text) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

class Page {
  constructor(data, volumes) {
    Object.assign(this, data, { volumes });
    this.at = [0, 0, 0];
    this.planes.forEach((plane) => { this.at[plane.across] = plane.start; });
    this.intensity = {};
    this.unit = {};
    for (const [name, scale] of Object.entries(this.scales)) {
      this.intensity[name] = intensities(scale);
      this.unit[name] = Float64Array.from(this.intensity[name], (v) => Math.min(1, Math.max(0, (v - scale[1]) / (scale[2] - scale[1]))));
    }
    this.windows = { fixed: [100, 50], moving: [100, 50] };
    this.hidden = new Set();
    this.pictures = all(".picture").map((element, id) => this.prepare(element, id));
    all("canvas[data-colours]").forEach((canvas) => {
      const image = new ImageData(256, 1), table = colourTable(canvas.dataset.colours);
      for (let i = 0; i < 256; i++) { byTable(table, i, image.data, 4 * i); image.data[4 * i + 3] = 255; }
      canvas.getContext("2d").putImageData(image, 0, 0);
    });
    all("[data-colour]").forEach((path) => path.setAttribute("stroke", labelColour(Number(path.dataset.colour))));
  }

  slice(name, plane, index) { return this.volumes[name].slice(plane, index); }

  /* Voxels along the width and height of a plane. */
  size(plane) { return [this.shape[plane.columns], this.shape[plane.rows]]; }

  prepare(element, id) {
    const plane = this.planes[element.dataset.plane], [columns, rows] = this.size(plane);
    const extent = [columns * this.spacing[plane.columns], rows * this.spacing[plane.rows]];
    const longest = Math.min(1024, Math.max(512, columns, rows)) / Math.max(...extent);
    const canvas = element.querySelector("canvas"), svg = element.querySelector("svg");
    canvas.width = Math.max(1, Math.round(extent[0] * longest));
    canvas.height = Math.max(1, Math.round(extent[1] * longest));
    svg.setAttribute("viewBox", `0 0 ${extent[0]} ${extent[1]}`);
    svg.setAttribute("preserveAspectRatio", "none");
    const { kind, source, overlay } = element.dataset;
    return { id, plane, kind, source, overlay: overlay.split(" ").filter(Boolean), canvas, svg, extent, title: svg.getAttribute("aria-label") };
  }

  /* Number of a slice as its file counts. */
  number(plane) {
    const count = this.shape[plane.across];
    return plane.reversed ? count - this.at[plane.across] : this.at[plane.across] + 1;
  }

  titleOf(plane) {
    const count = this.shape[plane.across], name = plane.name[0].toUpperCase() + plane.name.slice(1);
    if (count === 1) return name;
    const place = plane.first + plane.step * this.at[plane.across];
    const side = plane.ends ? `, ${plane.ends[place < 0 ? 1 : 0]} ${Math.abs(place).toFixed(0)} mm` : "";
    return `${name}, slice ${this.number(plane)} of ${count}${side}`;
  }

  /* Step over slices that are shown alike. */
  step(plane) { return this.volumes.fixed.factor[plane.across]; }

  move(plane, index) {
    const axis = plane.across, to = Math.min(this.shape[axis] - 1, Math.max(0, Math.round(index)));
    if (to === this.at[axis]) return false;
    this.at[axis] = to;
    this.show([plane]);
    get("status").textContent = this.titleOf(plane);
    return true;
  }

  settle() {
    this.other = document.querySelector("input[name=other]:checked").value;
    this.blend = get("blend").value / 100;
    this.checker = get("checker").checked;
    const shown = (id) => Boolean(get(id)?.checked);
    Object.assign(this, { outlines: shown("outlines"), landmarks: shown("landmarks"), crosshair: shown("crosshair"), marks: shown("marks") });
    get("other").textContent = this.other;
    this.grey = {};
    const said = [];
    for (const name of ["fixed", "moving"]) {
      const [, low, high] = this.scales[name], [width, level] = this.windows[name];
      const middle = low + (level / 100) * (high - low), half = ((width / 100) * (high - low)) / 2;
      this.grey[name] = greys(this.intensity[name], middle - half, middle + half);
      said.push(`${name} ${number(middle - half)} to ${number(middle + half)}`);
    }
    this.grey.warped = this.grey.moving;
    get("range").textContent = said.join(", ");
    this.show(this.planes);
  }

  show(planes) {
    planes.forEach((plane) => {
      const index = this.planes.indexOf(plane), title = this.titleOf(plane);
      all(`[data-title="${index}"]`).forEach((element) => { element.textContent = title; });
      all(`input[data-plane="${index}"]`).forEach((input) => {
        input.max = this.shape[plane.across];
        input.step = 1;
        input.value = this.number(plane);
        input.setAttribute("aria-valuetext", title);
      });
      all(`[data-number="${index}"]`).forEach((output) => { output.textContent = `${this.number(plane)} / ${this.shape[plane.across]}`; });
      all(`[data-folded="${index}"]`).forEach((span) => { span.textContent = plane.folded[this.at[plane.across]].toLocaleString("en"); });
    });
    this.pictures.forEach((picture) => {
      if (planes.includes(picture.plane)) this.paint(picture);
      else if (picture.kind === "blend" && this.crosshair) this.decorate(picture);
    });
  }

  paint(picture) {
    const { plane, kind, source, canvas } = picture, index = this.at[plane.across];
    if (kind in PAINTERS) {
      const smooth = kind !== "determinant" && kind !== "length";
      paintSlice(canvas, PAINTERS[kind](this, plane, index, source), this.size(plane), smooth);
    }
    if (kind === "determinant" && this.volumes.folded) this.markFolds(picture, index);
    this.decorate(picture);
  }

  markFolds(picture, index) {
    const slice = this.slice("folded", picture.plane, index), context = picture.canvas.getContext("2d");
    const [columns, rows] = this.size(picture.plane);
    const x = (slice.across * picture.canvas.width) / columns, y = (slice.down * picture.canvas.height) / rows;
    context.fillStyle = `rgb(${FOLD_COLOUR})`;
    slice.values.forEach((folded, i) => {
      const left = (i % slice.width) * x, top = Math.floor(i / slice.width) * y;
      if (folded) context.fillRect(Math.floor(left), Math.floor(top), Math.max(1, Math.ceil(left + x) - Math.floor(left)), Math.max(1, Math.ceil(top + y) - Math.floor(top)));
    });
  }

  decorate(picture) {
    const { plane, kind, source, svg } = picture, index = this.at[plane.across];
    const names = picture.overlay[0] === "both" ? ["fixed", this.other] : picture.overlay;
    svg.replaceChildren();
    const title = kind === "blend" ? `fixed and ${this.other} image${this.checker ? ", checkerboard" : ""}` : picture.title;
    svg.setAttribute("aria-label", `${this.titleOf(plane)}: ${title}`);
    for (const name of kind === "difference" ? [source] : names) {
      if (this.unseen.includes(name)) this.drawMask(picture, `unseen ${name}`, index, name);
    }
    if (kind === "grid") this.drawGrid(picture, index);
    if (this.outlines) for (const name of names) if (this.labels.of.includes(name)) this.drawOutlines(picture, name, index);
    if (this.landmarks && names.length) drawLandmarks(this, picture, names, index);
    if (kind === "blend" && this.crosshair) drawCrosshair(this, picture);
    if (this.marks) drawMarks(this, picture);
  }

  pixel(plane, slice) { return [slice.across * this.spacing[plane.columns], slice.down * this.spacing[plane.rows]]; }

  drawMask({ plane, svg, extent, id }, volume, index, name) {
    const slice = this.slice(volume, plane, index);
    const path = outlinePath(slice, 1, ...this.pixel(plane, slice));
    if (!path) return;
    const size = Math.max(...extent) / 60, pattern = `hatch-${id}`;
    const tile = { width: size, height: size, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" };
    const hatch = draw(svg, "pattern", { id: pattern, ...tile });
    draw(hatch, "rect", { width: size, height: size, fill: "#333c" });
    draw(hatch, "rect", { width: size / 3, height: size, fill: "#fc0" });
    draw(svg, "path", { class: `unseen ${name}`, d: path, fill: `url(#${pattern})` });
  }

  drawOutlines({ plane, svg }, name, index) {
    const slice = this.slice(`label ${name}`, plane, index);
    const reach = boxes(slice);
    for (const code of [...reach.keys()].sort((a, b) => reach.get(b) - reach.get(a))) { // what lies within comes on top
      if (code === 0 || this.hidden.has(code)) continue;
      const path = outlinePath(slice, code, ...this.pixel(plane, slice));
      const line = draw(svg, "path", { class: `outline ${name}`, d: path, stroke: labelColour(code) });
      draw(line, "title", {}, `${this.labels.names[code - 1]}, ${name}`);
    }
  }

  drawGrid({ plane, svg }, index) {
    const fields = [plane.columns, plane.rows].map((axis) => this.volumes[`field ${axis}`]);
    if (!fields[0] || !fields[1]) return;
    const spacing = [this.spacing[plane.columns], this.spacing[plane.rows]];
    draw(svg, "path", { class: "grid", d: gridPath(fields.map((field) => field.slice(plane, index)), this.shift, this.size(plane), spacing, LINES) });
  }
}

/* Area of the box around each code of a slice: a ring's is larger than that of what it encloses. */
function boxes({ values, width }) {
  const bounds = new Map();
  values.forEach((code, i) => {
    const x = i % width, y = Math.floor(i / width), [left, right, top, bottom] = bounds.get(code) || [x, x, y, y];
    bounds.set(code, [Math.min(left, x), Math.max(right, x), Math.min(top, y), Math.max(bottom, y)]);
  });
  return new Map([...bounds].map(([code, [left, right, top, bottom]]) => [code, (right - left + 1) * (bottom - top + 1)]));
}

function number(value) {
  return Math.abs(value) >= 100 || value === 0 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
