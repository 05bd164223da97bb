"use strict";

const COLOURS = {
  RdBu: ["#67001f", "#b2182b", "#d6604d", "#f4a582", "#fddbc7", "#f7f7f7", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061"],
  BrBG: ["#543005", "#8c510a", "#bf812d", "#dfc27d", "#f6e8c3", "#f5f5f5", "#c7eae5", "#80cdc1", "#35978f", "#01665e", "#003c30"],
  viridis: ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"],
};
const LABEL_COLOURS = ["#ff5a4d", "#4dd2ff", "#ffd24d", "#6dff7a", "#ff8ae2", "#b39bff", "#ff9a3d", "#7dffe0", "#d6ff4d", "#f4c9a8"];

/* 256 colours (R, G, B) of a scale. */
const colourTable = (() => {
  const tables = {};
  return (name) => {
    if (tables[name]) return tables[name];
    const stops = COLOURS[name].map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
    const table = new Uint8Array(768);
    for (let i = 0; i < 256; i++) {
      const at = (i / 255) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
      for (let c = 0; c < 3; c++) table[3 * i + c] = Math.round(stops[k][c] + (at - k) * (stops[k + 1][c] - stops[k][c]));
    }
    return (tables[name] = table);
  };
})();

function labelColour(number) {
  if (number <= LABEL_COLOURS.length) return LABEL_COLOURS[number - 1];
  return `hsl(${(number * 137.5) % 360}, 90%, 68%)`;
}

/* The intensity of each code of an image. */
function intensities(scale) {
  const at = [0, 16, 240, 255], found = new Float64Array(256);
  for (let code = 0; code < 256; code++) {
    const k = code < 16 ? 0 : code < 240 ? 1 : 2;
    found[code] = scale[k] + ((code - at[k]) / (at[k + 1] - at[k])) * (scale[k + 1] - scale[k]);
  }
  return found;
}

/* Grey of each code between two intensities. */
function greys(values, low, high) {
  return Uint8Array.from(values, (v) => Math.round(255 * Math.min(1, Math.max(0, (v - low) / Math.max(high - low, 1e-12)))));
}

/* Pixels of a slice: `paint(i, x, y)` gives red, green and blue as one number each in `out`. */
function toPixels(slice, paint) {
  const { width, height } = slice, image = new ImageData(width, height), data = image.data;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      paint(i, x, y, data, 4 * i);
      data[4 * i + 3] = 255;
    }
  }
  return image;
}

const byTable = (table, index, data, at) => {
  data[at] = table[3 * index];
  data[at + 1] = table[3 * index + 1];
  data[at + 2] = table[3 * index + 2];
};

const PAINTERS = {
  grey: (page, plane, index, source) => {
    const slice = page.slice(source, plane, index), grey = page.grey[source];
    return [slice, (i, x, y, data, at) => { data[at] = data[at + 1] = data[at + 2] = grey[slice.values[i]]; }];
  },
  blend: (page, plane, index) => {
    const fixed = page.slice("fixed", plane, index), other = page.slice(page.other, plane, index);
    const one = page.grey.fixed, two = page.grey[page.other], part = page.blend;
    const pixel = [fixed.across * page.spacing[plane.columns], fixed.down * page.spacing[plane.rows]];
    const side = Math.max(fixed.width * pixel[0], fixed.height * pixel[1]) / 8;
    return [fixed, (i, x, y, data, at) => {
      const odd = (Math.floor((x * pixel[0]) / side) + Math.floor((y * pixel[1]) / side)) % 2;
      const share = page.checker ? odd : part;
      data[at] = data[at + 1] = data[at + 2] = (1 - share) * one[fixed.values[i]] + share * two[other.values[i]];
    }];
  },
  difference: (page, plane, index, source) => {
    const fixed = page.slice("fixed", plane, index), other = page.slice(source, plane, index);
    const one = page.unit.fixed, two = page.unit[source], table = colourTable("RdBu"), gap = page.gap;
    return [fixed, (i, x, y, data, at) => {
      const apart = (one[fixed.values[i]] - two[other.values[i]]) / gap;
      byTable(table, Math.round(127.5 + 127.5 * Math.min(1, Math.max(-1, apart))), data, at);
    }];
  },
  determinant: (page, plane, index) => {
    const slice = page.slice("determinant", plane, index), table = colourTable("BrBG");
    return [slice, (i, x, y, data, at) => byTable(table, slice.values[i], data, at)];
  },
  length: (page, plane, index, source) => {
    const slice = page.slice(source, plane, index), table = colourTable("viridis");
    return [slice, (i, x, y, data, at) => byTable(table, slice.values[i], data, at)];
  },
};

/* Paint a slice onto a canvas that shows the whole extent of the image, whatever the size of the slice's pixels. */
function paintSlice(canvas, painted, size, smooth) {
  const [slice, paint] = painted, buffer = paintSlice.buffer;
  buffer.width = slice.width;
  buffer.height = slice.height;
  buffer.getContext("2d").putImageData(toPixels(slice, paint), 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = smooth;
  context.imageSmoothingQuality = "high";
  const x = (slice.width * slice.across * canvas.width) / size[0], y = (slice.height * slice.down * canvas.height) / size[1];
  context.drawImage(buffer, 0, 0, x, y);
}
paintSlice.buffer = document.createElement("canvas");
