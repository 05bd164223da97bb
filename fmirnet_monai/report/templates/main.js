"use strict";

const KEYS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
const WHEEL = 40; // pixels of a touchpad for one slice

function follow(page) {
  const towards = (plane, slices) => page.move(plane, page.at[plane.across] + (plane.reversed ? -1 : 1) * slices * page.step(plane));

  get("sets").addEventListener("submit", (event) => event.preventDefault());
  get("sets").addEventListener("input", (event) => {
    const [wide, level] = ["window", "level"].map((id) => Number(get(id).value));
    const names = get("windowed").value === "both" ? ["fixed", "moving"] : [get("windowed").value];
    if (event.target.id === "windowed") [get("window").value, get("level").value] = page.windows[names[0]];
    else if (event.target.id === "window" || event.target.id === "level") names.forEach((name) => { page.windows[name] = [wide, level]; });
    page.settle();
  });
  get("reset").addEventListener("click", () => {
    page.windows = { fixed: [100, 50], moving: [100, 50] };
    [get("window").value, get("level").value] = [100, 50];
    page.settle();
  });
  all("[data-label]").forEach((box) => box.addEventListener("input", () => {
    page.hidden[box.checked ? "delete" : "add"](Number(box.dataset.label));
    page.settle();
  }));
  all("input[data-plane]").forEach((input) => input.addEventListener("input", () => {
    const plane = page.planes[input.dataset.plane], count = page.shape[plane.across], value = Number(input.value);
    page.move(plane, plane.reversed ? count - value : value - 1);
  }));
  all(".view").forEach((view) => {
    const plane = page.planes[view.dataset.plane];
    let rolled = 0;
    view.addEventListener("wheel", (event) => {
      if (event.ctrlKey || page.shape[plane.across] === 1) return;
      event.preventDefault();
      rolled += event.deltaMode === 0 ? event.deltaY : event.deltaY * WHEEL;
      const slices = Math.trunc(rolled / WHEEL);
      if (slices) towards(plane, Math.sign(-slices) * Math.min(3, Math.abs(slices)));
      rolled -= slices * WHEEL;
    }, { passive: false });
    view.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
      if (key in KEYS) towards(plane, KEYS[key]);
      else if (key === "b") document.querySelector("input[name=other]:not(:checked)").checked = true;
      else if (key === "c") get("checker").checked = !get("checker").checked;
      else if (key === "o" && get("outlines")) get("outlines").checked = !get("outlines").checked;
      else return;
      event.preventDefault();
      if (!(key in KEYS)) {
        page.settle();
        get("status").textContent = page.checker ? "checkerboard" : `${page.other} image`;
      }
    });
    view.addEventListener("click", (event) => {
      const box = view.querySelector(".picture").getBoundingClientRect();
      const parts = { [plane.columns]: (event.clientX - box.left) / box.width, [plane.rows]: (event.clientY - box.top) / box.height };
      page.planes.forEach((other) => {
        if (other !== plane) page.move(other, Math.floor(parts[other.across] * page.shape[other.across]));
      });
    });
  });
}

async function start() {
  const data = JSON.parse(get("data").textContent), volumes = {};
  get("data").remove();
  await Promise.all(Object.entries(data.volumes).map(async ([name, packed]) => { volumes[name] = await Volume.read(packed); }));
  delete data.volumes;
  const page = new Page(data, volumes);
  page.settle();
  follow(page);
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const said = document.createElement("p");
  said.textContent = `The pictures can't be shown by this browser: ${error.message}`;
  document.querySelector("main").prepend(said);
  throw error;
});
