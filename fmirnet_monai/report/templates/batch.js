"use strict";

const body = document.querySelector("#pairs tbody"), rows = [...body.rows];

/* Value of a row in a column; pairs without one come last, whichever way it is sorted. */
function valueOf(row, column) {
  const text = row.getAttribute(`data-${column.replaceAll("_", "-")}`);
  return column === "pair" ? text : text === null ? NaN : Number(text);
}

function sort(button) {
  const head = button.closest("th"), column = button.dataset.column;
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  document.querySelectorAll("#pairs thead [aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
  rows.sort((one, two) => {
    const [a, b] = [valueOf(one, column), valueOf(two, column)];
    if (column === "pair") return sign * a.localeCompare(b, "en", { numeric: true });
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return sign * (a - b);
  });
  body.append(...rows);
  document.getElementById("status").textContent = `sorted by ${button.textContent}, ${sign > 0 ? "ascending" : "descending"}`;
}

document.querySelectorAll("#pairs thead button").forEach((button) => button.addEventListener("click", () => sort(button)));
document.querySelectorAll("input[data-grade]").forEach((box) => box.addEventListener("input", () => {
  rows.filter((row) => row.dataset.grade === box.dataset.grade).forEach((row) => { row.hidden = !box.checked; });
}));
