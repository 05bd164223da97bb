"use strict";

/* Closed lines round the pixels of a slice that have a code, through the middles of their sides, as path data. */
function outlinePath(slice, code, scaleX, scaleY) {
  const { values, width, height } = slice;
  const row = width + 1, next = new Map();
  const has = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[y * width + x] === code;
  const add = (from, to) => {
    const others = next.get(from);
    if (others) others.push(to);
    else next.set(from, [to]);
  };
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] !== code) continue;
      const corner = y * row + x;
      if (!has(x, y - 1)) add(corner, corner + 1);
      if (!has(x + 1, y)) add(corner + 1, corner + row + 1);
      if (!has(x, y + 1)) add(corner + row + 1, corner + row);
      if (!has(x - 1, y)) add(corner + row, corner);
    }
  }
  const parts = [];
  for (const start of next.keys()) {
    while (next.get(start).length) {
      const points = [];
      let from = start;
      do {
        const to = next.get(from).pop();
        const x = ((from % row) + (to % row)) / 2, y = (Math.floor(from / row) + Math.floor(to / row)) / 2;
        points.push(`${(x * scaleX).toFixed(2)},${(y * scaleY).toFixed(2)}`);
        from = to;
      } while (from !== start);
      parts.push(`M${points.join(" ")}Z`);
    }
  }
  return parts.join("");
}

/* Lines of the grid that a field warps: `fields` are slices of its two components in the plane, in codes. */
function gridPath(fields, shift, size, spacing, most) {
  const [right, down] = fields;
  const { width, height, across, down: tall } = right;
  const step = Math.max(1, Math.ceil((Math.max(size[0] / across, size[1] / tall)) / most));
  const place = (x, y) => {
    const i = y * width + x;
    const px = x * across + 0.5 + (right.values[i] - 128) / 127 * shift;
    const py = y * tall + 0.5 + (down.values[i] - 128) / 127 * shift;
    return `${(px * spacing[0]).toFixed(1)},${(py * spacing[1]).toFixed(1)}`;
  };
  const lines = [];
  for (let y = 0; y < height; y += step) lines.push(Array.from({ length: width }, (_, x) => place(x, y)));
  for (let x = 0; x < width; x += step) lines.push(Array.from({ length: height }, (_, y) => place(x, y)));
  return lines.map((line) => `M${line.join(" ")}`).join("");
}
