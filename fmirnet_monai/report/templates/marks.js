"use strict";

/* Landmarks near the slice: fixed ones as circles, warped as crosses, moving as triangles, each joined to its pair. */
function drawLandmarks(page, { plane, svg, extent, overlay }, names, index) {
  const size = Math.max(...extent) / 90, fixed = page.points.fixed;
  const place = (point) => [(point[plane.columns] + 0.5) * page.spacing[plane.columns], (point[plane.rows] + 0.5) * page.spacing[plane.rows]];
  const reach = Math.max(page.near, page.spacing[plane.across] / 2);
  const near = (point) => Math.abs(point[plane.across] - index) * page.spacing[plane.across] <= reach;
  const two = (number) => number.toFixed(2);
  const shapes = {
    fixed: (x, y) => ["circle", { cx: two(x), cy: two(y), r: two(size) }],
    warped: (x, y) => ["path", { d: `M${two(x - size)} ${two(y - size)}l${two(2 * size)} ${two(2 * size)}m0 ${two(-2 * size)}l${two(-2 * size)} ${two(2 * size)}` }],
    moving: (x, y) => ["path", { d: `M${two(x)} ${two(y - size)}l${two(size)} ${two(1.8 * size)}h${two(-2 * size)}Z` }],
  };
  for (const name of names) {
    (page.points[name] || []).forEach((point, k) => {
      const pair = name === "fixed" ? undefined : fixed?.[k];
      if (!near(point) && !(pair && near(pair))) return;
      const [x, y] = place(point);
      if (pair && fixed.length === page.points[name].length) {
        const [u, v] = place(pair);
        draw(svg, "path", { class: "pair", d: `M${two(u)} ${two(v)}L${two(x)} ${two(y)}` });
      }
      if (!near(point)) return;
      const [tag, attributes] = shapes[name](x, y);
      const mark = draw(svg, tag, { class: `dot ${name}`, ...attributes });
      draw(mark, "title", {}, `landmark ${k + 1}, ${name}`);
    });
  }
}

/* Where the other directions' slices cut this one. */
function drawCrosshair(page, { plane, svg, extent }) {
  const x = (page.at[plane.columns] + 0.5) * page.spacing[plane.columns], y = (page.at[plane.rows] + 0.5) * page.spacing[plane.rows];
  draw(svg, "path", { class: "cross", d: `M${x} 0V${extent[1]}M0 ${y}H${extent[0]}` });
}

/* A scale bar of a round length, and the patient's sides where the header gives them, as far as there is room. */
function drawMarks(page, { plane, svg, extent }) {
  const [width, height] = extent, size = Math.max(width, height), letter = 0.05 * size, most = width / 3;
  if (height > 5 * letter) {
    const power = 10 ** Math.floor(Math.log10(most)), length = power * [5, 2, 1].find((times) => times * power <= most);
    const left = 0.04 * size, bottom = height - 0.04 * size, tick = 0.012 * size;
    const path = `M${left} ${bottom - tick}V${bottom}H${left + length}V${bottom - tick}`;
    draw(svg, "path", { class: "halo", d: path });
    draw(svg, "path", { class: "bar", d: path, "data-length": length });
    draw(svg, "text", { x: left, y: bottom - 0.02 * size, "font-size": 0.042 * size }, `${Number(length.toPrecision(1))} ${page.distance}`);
  }
  const rim = 0.7 * letter, x = width / 2, y = height / 2;
  const places = [[rim, y, width], [width - rim, y, width], [x, rim, height], [x, height - rim, height]];
  places.forEach(([left, top, room], k) => {
    if (plane.edges && room > 3 * letter) draw(svg, "text", { class: "side", x: left, y: top, "font-size": letter }, plane.edges[k]);
  });
}
