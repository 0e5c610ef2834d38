"use strict";
// Details of a night by pointer and by key; the table of nights; the zoom in the address.

const data = JSON.parse(document.getElementById("data").textContent);
const [factor, digits, label] = data.scale;
const scale = { factor, digits, label };
const SVG = "http://www.w3.org/2000/svg";

function nightOf(index) {
  const [name, seconds, time, value, low, high, state, flags, machine, around, paired, named = ""] = data.nights[index];
  return { index, name, seconds, time, value, low, high, state: data.states[state], disturbed: Boolean(flags & 1), accepted: Boolean(flags & 2), machine: data.machines[machine], around: data.pool[around], paired, named };
}

const opening = matchMedia("(hover: none)").matches ? "Tap again to open the run" : "Enter or click opens the run";
const stateText = (night) => [night.state, night.disturbed ? "machine disturbed" : "", night.accepted ? "accepted" : ""].filter(Boolean).join(", ");
const interval = (night) => (night.low === null || night.high === null ? "" : `${number(scale, night.low)} to ${number(scale, night.high)}`);

function details(night) {
  const rows = [["night", night.named], ["95 % interval", interval(night)], ["state", stateText(night)], ["paired", night.paired ?? ""], ["machine", night.machine], ...data.columns.map((name, k) => [name, night.around[k]])];
  const list = make("dl");
  for (const [name, text] of rows) if (text) list.append(make("dt", {}, name), make("dd", {}, bdi(text)));
  return [make("p", { class: "value" }, make("strong", {}, valueText(scale, night.value)), make("span", {}, `${night.time} UTC`)), list];
}

function draw(name, attributes) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function interact(chart) {
  const svg = chart.querySelector("svg.plot");
  const area = chart.querySelector(".area");
  const [first, start, end, low, high] = ["first", "start", "end", "low", "high"].map((key) => Number(svg.dataset[key]));
  const last = data.nights.length - 1;
  const line = draw("line", { class: "cursor", y1: "0", y2: "100%", visibility: "hidden" });
  const ring = draw("circle", { class: "cursor", r: "7", visibility: "hidden" });
  const box = make("div", { class: "details", hidden: "", role: "status" });
  let at = -1;
  svg.append(line, ring);
  svg.setAttribute("aria-hidden", "true"); // the area says it
  area.append(box);
  area.tabIndex = 0;
  area.setAttribute("role", "application");
  area.setAttribute("aria-roledescription", "chart");
  area.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. Arrow keys go from night to night, Enter opens the run.`);

  const shareX = (night) => (night.seconds - start) / (end - start);
  const shareY = (night) => (night.value === null ? 1 : Math.min(Math.max((high - night.value) / (high - low), 0), 1));

  function show(index) {
    at = Math.min(Math.max(index, first), last);
    const night = nightOf(at);
    const x = `${100 * shareX(night)}%`;
    for (const key of ["x1", "x2"]) line.setAttribute(key, x);
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", `${100 * shareY(night)}%`);
    for (const element of [line, ring]) element.setAttribute("visibility", "visible");
    box.replaceChildren(...details(night), make("p", { class: "open" }, opening));
    box.hidden = false;
    const room = area.clientWidth;
    const wide = box.offsetWidth;
    const place = shareX(night) * room;
    const left = place + 16 + wide <= room ? place + 16 : place - 16 - wide;
    box.style.left = `${Math.min(Math.max(left, -8), Math.max(room - wide, -8))}px`;
  }

  function hide() {
    at = -1;
    box.hidden = true;
    for (const element of [line, ring]) element.setAttribute("visibility", "hidden");
  }

  // The night nearest to the place, by bisection: nights are in the order of time.
  function nearest(event) {
    const bounds = svg.getBoundingClientRect();
    const seconds = start + ((event.clientX - bounds.left) / bounds.width) * (end - start);
    let below = first;
    let above = last;
    while (above - below > 1) {
      const middle = (below + above) >> 1;
      if (data.nights[middle][1] < seconds) below = middle;
      else above = middle;
    }
    return Math.abs(data.nights[below][1] - seconds) < Math.abs(data.nights[above][1] - seconds) ? below : above;
  }

  function neighbour(direction) {
    for (let index = at + direction; index >= first && index <= last; index += direction) {
      if (["regression", "improvement", "recovered", "restart"].includes(nightOf(index).state)) return index;
    }
    return at;
  }

  const open = (index) => location.assign(`${root}run.html#${data.nights[index][0]}`);
  area.addEventListener("pointermove", (event) => { if (!box.contains(event.target)) show(nearest(event)); });
  area.addEventListener("pointerleave", () => { if (document.activeElement !== area) hide(); });
  area.addEventListener("click", (event) => {
    // A touch has shown the night already only if it was the one shown before.
    const index = at >= 0 && event.clientY > svg.getBoundingClientRect().bottom + 24 ? at : nearest(event);
    if (event.pointerType === "touch" && area.dataset.touched !== String(index)) {
      area.dataset.touched = index;
      show(index);
    } else open(index);
  });
  area.addEventListener("focus", () => { if (at < 0 && area.matches(":focus-visible")) show(last); });
  area.addEventListener("blur", hide);
  area.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const current = at < 0 ? last : at;
    const moves = { ArrowLeft: current - 1, ArrowRight: current + 1, PageUp: current - 30, PageDown: current + 30, Home: first, End: last };
    if (event.key in moves) show(moves[event.key]);
    else if (event.key === "ArrowUp") show(neighbour(-1));
    else if (event.key === "ArrowDown") show(neighbour(1));
    else if (event.key === "Enter") open(current);
    else if (event.key === "Escape") hide();
    else return;
    event.preventDefault();
  });
}

for (const chart of document.querySelectorAll(".chart")) interact(chart);
document.querySelector(".hint").hidden = false;

const zooms = Array.from(document.querySelectorAll("input.zoom"));
const asked = zooms.find((zoom) => zoom.value === new URLSearchParams(location.search).get("nights"));
if (asked) asked.checked = true;
for (const zoom of zooms) zoom.addEventListener("change", () => history.replaceState(null, "", `?nights=${zoom.value}`));

const nights = document.getElementById("nights");
function fill() {
  const place = nights.querySelector(".scroll");
  if (!nights.open || place.firstChild) return;
  const named = data.nights.some((night) => night[11]);
  const rows = data.nights.map((_, index) => {
    const night = nightOf(index);
    return make("tr", {}, make("th", { scope: "row" }, make("a", { href: `${root}run.html#${night.name}` }, night.time)),
      named ? make("td", {}, bdi(night.named)) : null, make("td", { class: "n", "data-v": night.value ?? "" }, valueText(scale, night.value)), make("td", { class: "n" }, interval(night)),
      make("td", {}, stateText(night)), make("td", {}, bdi(night.machine)), ...night.around.map((text) => make("td", {}, bdi(text))));
  });
  const heads = [["Night, UTC"], ...(named ? [["Name"]] : []), ["Value", "n"], ["95 % interval", "n"], ["State"], ["Machine"], ...data.columns.map((name) => [name])];
  place.append(table(`${data.figure}, night by night`, heads, rows.reverse(), true));
}
nights.addEventListener("toggle", fill);
fill();
