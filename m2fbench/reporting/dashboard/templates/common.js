"use strict";
// What all pages share: elements, data files, numbers, sorting. Texts from results go into pages as text only.

const root = document.body.dataset.root;
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(key, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function clean(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

const bdi = (text) => make("bdi", {}, clean(text));

// A page from a disk may load scripts and nothing else, so data files are scripts that call received().
const waiting = new Map();
const known = new Map();

function received(name, value) {
  known.set(name, value);
}

function load(name) {
  if (known.has(name)) return Promise.resolve(known.get(name));
  if (!waiting.has(name)) {
    waiting.set(name, new Promise((resolve, reject) => {
      const script = make("script", { src: `${root}data/${name}.js` });
      script.onload = () => (known.has(name) ? resolve(known.get(name)) : reject(new Error(name)));
      script.onerror = () => reject(new Error(name));
      document.head.append(script);
    }));
  }
  return waiting.get(name);
}

// Numbers, by the table in units.js.
function scaleOf(unit, magnitude) {
  const size = Math.abs(magnitude ?? 0);
  const steps = UNITS.scales[unit] ?? [[0, 1, unit]];
  const [, factor, label] = steps.filter(([least]) => size >= least).at(-1);
  if (unit === "percent") return { factor, label, digits: 2, unit };
  const whole = size ? Math.floor(Math.log10(size / factor)) + 1 : 1;
  return { factor, label, unit, digits: Math.min(Math.max(UNITS.significant - Math.max(whole, 1), 0), size >= factor ? 3 : 6) };
}

// Halves to the even neighbour, as the pages are written.
function rounded(value, digits) {
  const near = Number(value.toFixed(digits)) + 0;
  const tie = /^50*$/.test(Math.abs(value).toFixed(digits + 30).split(".")[1]?.slice(digits) ?? "");
  const odd = /[13579]$/.test(Math.abs(near).toFixed(digits));
  return tie && odd ? Number((near - Math.sign(value) * 10 ** -digits).toFixed(digits)) + 0 : near;
}

function number(scale, value, signed = false) {
  if (value === null || value === undefined) return "–";
  const scaled = rounded(value / scale.factor, scale.digits);
  const text = Math.abs(scaled).toFixed(scale.digits).replace(/\B(?=(\d{3})+(?!\d))/g, (m, d, at, all) => (all.indexOf(".") >= 0 && at > all.indexOf(".") ? "" : "\u202f"));
  return `${scaled < 0 ? "−" : signed && scaled ? "+" : ""}${text}`;
}

function valueText(scale, value) {
  if (value === null || value === undefined) return "not measured";
  const plain = number(scale, value);
  const small = value / scale.factor;
  const nothing = value && !/[1-9]/.test(plain); // never nothing where there is something
  const shown = nothing ? small.toFixed(Math.min(1 - Math.floor(Math.log10(Math.abs(small))), 30)).replace("-", "−") : plain;
  return `${shown}\u00a0${scale.label}`.trim();
}

// Sorting by the buttons of a table's head; rows without a value come last in both directions.
function compareCells(a, b, numeric, descending) {
  if (a === "" || b === "" || a === "nan" || b === "nan") return (a === "" || a === "nan") - (b === "" || b === "nan");
  const order = numeric ? Number(a) - Number(b) : collator.compare(a, b);
  return (Number.isNaN(order) ? 0 : order) * (descending ? -1 : 1);
}

function sortBy(table, index, descending) {
  const heads = Array.from(table.tHead.rows[0].cells);
  const head = heads[index];
  for (const other of heads) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const valueOf = (row) => (head.dataset.key ? row.dataset[head.dataset.key] : row.cells[index].dataset.v ?? row.cells[index].textContent);
  const rows = Array.from(table.tBodies[0].rows, (row) => [valueOf(row), row]);
  rows.sort(([a], [b]) => compareCells(a, b, head.hasAttribute("data-numeric"), descending));
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

function sortable(table, sorted = () => {}) {
  Array.from(table.tHead.rows[0].cells).forEach((head, index) => {
    if (head.hasAttribute("data-fixed")) return;
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      sortBy(table, index, descending);
      sorted(index, descending);
    });
  });
}

// The run whose name begins so, from its data file: null where there is none.
async function runOf(beginning) {
  const asked = beginning.toLowerCase();
  if (!/^[0-9a-f]{4,64}$/.test(asked)) return null;
  const digits = asked.slice(0, 2);
  let shard;
  try {
    shard = await load(`runs/${digits}`);
  } catch {
    return null;
  }
  const name = Object.keys(shard.runs).filter((key) => shard.runs[key][0].startsWith(asked));
  return name.length === 1 ? readRun(shard, name[0]) : null;
}

// A night's name, which explains no change.
const NIGHT = "environment.night";

function readRun(shard, name) {
  const [sha, cell, kind, status, reason, limit, time, machine, disturbed, warnings, figures, circumstances, conditions, origins, paired] = shard.runs[name];
  const [slug, suite, row, variant] = shard.cells[cell];
  const pairs = (places) => new Map(places.map((place) => shard.pairs[place]));
  return {
    name, sha, kind, status, reason, limit, time, paired, slug, suite, row, variant,
    machine: shard.texts[machine],
    disturbed: Boolean(disturbed),
    warnings: warnings.map((place) => shard.texts[place]),
    origins: origins.map((place) => shard.texts[place]),
    figures: figures.map(([place, value, low = null, high = null]) => {
      const [figure, unit, higher] = shard.figures[place];
      return { name: figure, unit, higher, value, low, high };
    }),
    circumstances: pairs(circumstances),
    night: pairs(circumstances).get(NIGHT) ?? "",
    conditions: pairs(conditions),
  };
}

// The cell, each part leading to the series of it.
function pathOf(run) {
  const query = new URLSearchParams();
  return ["suite", "row", "variant"].flatMap((name, at) => {
    query.set(name, run[name]);
    return [at ? " / " : "", make("a", { href: `${root}index.html?${query}` }, bdi(run[name]))];
  });
}

function table(caption, heads, rows, unseen = false) {
  const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { scope: "col", class: kind === "n" ? "n" : null, "data-numeric": kind === "n" ? "" : null }, text)));
  const made = make("table", {}, make("caption", { class: unseen ? "unseen" : null }, caption), make("thead", {}, head), make("tbody", {}, ...rows));
  sortable(made);
  return made;
}

const pText = (p) => (p === null ? "" : String(Number(p.toPrecision(2))));

const scrolled = (label, inner) => make("div", { class: "scroll", role: "region", tabindex: "0", "aria-label": label }, inner);
