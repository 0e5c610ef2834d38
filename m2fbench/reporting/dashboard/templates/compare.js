"use strict";
// Two runs side by side, named behind the # of the address as A..B, and two pickers for them.

const place = document.getElementById("comparison");
const form = document.querySelector("form.pickers");
const field = (what, side) => form.elements[`${what}-${side}`];
let cells = [];
const UNSURE = ", not sure";

function option(value, text) {
  return make("option", { value }, clean(text));
}

async function fillRuns(side, chosen) {
  const slug = field("cell", side).value;
  const cell = await load(`cells/${slug}`);
  const select = field("run", side);
  const name = (run) => `${run[1]}${run[7] ? ` · night ${run[7]}` : ""} · ${run[2]}${run[3] ? ` · first ${run[3]} images` : ""} · ${cell.machines[run[4]]}${run[5] ? " · disturbed" : ""} · ${run[0]}`;
  select.replaceChildren(...cell.runs.slice().reverse().map((run) => option(run[0], name(run))));
  if (chosen && cell.runs.some((run) => run[0] === chosen)) select.value = chosen;
  return cell;
}

// The run before another of the same kind over the same images, and of the same machine where that matters.
function before(runs, name) {
  const at = runs.findIndex((run) => run[0] === name);
  const alike = (run) => run[2] === runs[at][2] && run[3] === runs[at][3] && (run[2] !== "speed" || run[4] === runs[at][4]);
  return runs.slice(0, Math.max(at, 0)).filter(alike).at(-1);
}

// Two of one cell are the last two, not one and the same.
async function apart() {
  const [a, b] = ["a", "b"].map((letter) => field("run", letter));
  if (field("cell", "a").value !== field("cell", "b").value || a.value !== b.value) return;
  const earlier = before((await load(`cells/${field("cell", "b").value}`)).runs, b.value);
  if (earlier) a.value = earlier[0];
}

function differing(a, b) {
  const keys = Array.from(new Set([...a.keys(), ...b.keys()])).sort(collator.compare);
  const same = [];
  const different = [];
  for (const key of keys) if (key !== NIGHT) (a.get(key) === b.get(key) ? same : different).push([key, a.get(key), b.get(key)]);
  return { same, different };
}

const knownValue = (value) => (value === undefined || value === null ? make("span", { class: "none" }, "not known") : bdi(value));

function pairTable(caption, rows) {
  const lines = rows.map(([key, a, b]) => make("tr", {}, make("th", { scope: "row" }, clean(key)), make("td", {}, knownValue(a)), make("td", {}, knownValue(b))));
  return scrolled(caption, table(caption, [["What"], ["A"], ["B"]], lines));
}

function sameTable(caption, rows) {
  const lines = rows.map(([key, a]) => make("tr", {}, make("th", { scope: "row" }, clean(key)), make("td", {}, knownValue(a))));
  return make("details", {}, make("summary", {}, `${caption}: ${rows.length}`), scrolled(caption, table(caption, [["What"], ["A and B"]], lines, true)));
}

function figureLines(a, b, comparable) {
  const names = Array.from(new Set([...a.figures, ...b.figures].map((figure) => figure.name)));
  const paired = new Map(b.paired.filter(([baseline]) => baseline === a.name).map((one) => [one[1], one]));
  return names.map((name) => {
    const [one, two] = [a, b].map((run) => run.figures.find((figure) => figure.name === name));
    const any = one ?? two;
    const scale = scaleOf(any.unit, one?.value ?? two?.value);
    const both = one && two && one.unit === two.unit && one.value !== null && two.value !== null;
    const change = both ? two.value - one.value : null;
    const relative = both && one.value && any.unit !== "percent" ? (100 * change) / Math.abs(one.value) : null;
    const word = !both || !comparable ? "" : change === 0 ? "same" : (change > 0) === any.higher ? "better" : "worse";
    const [, , , low = null, high = null, p = null] = paired.get(name) ?? [];
    const within = change && (low !== null ? low <= 0 && high >= 0 : one.low !== null && two.low !== null && one.low <= two.high && two.low <= one.high);
    const share = relative === null ? "" : `${relative < 0 ? "−" : "+"}${Math.abs(relative).toFixed(Math.abs(relative) >= 1 ? 1 : 2)} %`;
    const sure = low === null ? "" : `${number(scale, low, true)} to ${number(scale, high, true)}${p === null ? "" : `, p = ${pText(p)}`}`;
    return make("tr", {}, make("th", { scope: "row" }, bdi(name)), make("td", { class: "n", "data-v": one?.value ?? "" }, valueText(scale, one?.value)),
      make("td", { class: "n", "data-v": two?.value ?? "" }, valueText(scale, two?.value)), make("td", { class: "n", "data-v": change ?? "" }, number(scale, change, true)),
      make("td", { class: "n", "data-v": relative ?? "" }, share), make("td", { class: word && !within ? word : null }, word && within ? `${word}${UNSURE}` : word), make("td", { class: "n" }, sure));
  });
}

function side(letter, run) {
  return make("div", {}, make("dt", {}, letter), make("dd", {}, make("strong", {}, make("a", { href: `run.html#${run.name}` }, `${run.time} UTC`)), " ",
    make("span", {}, ...(run.night ? ["night ", bdi(run.night), " · "] : []), ...pathOf(run), ` · ${run.kind} · `, bdi(run.machine), run.disturbed ? " · disturbed" : "")));
}

function warningsOf(a, b, conditions) {
  const found = [];
  if (a.name === b.name) found.push("A and B are the same run.");
  if (a.kind !== b.kind) found.push(`A measured ${a.kind}, B ${b.kind}: their figures have nothing in common.`);
  else if (conditions.different.length) found.push(`Not comparable: the two were measured under different conditions (${conditions.different.map(([key]) => clean(key)).join(", ")}).`);
  if (a.slug !== b.slug) found.push("The two are of different cells.");
  if (a.kind === "speed" && b.kind === "speed" && a.machine !== b.machine) found.push("The two ran on different machines: speed, memory and energy are not comparable.");
  for (const [letter, run] of [["A", a], ["B", b]]) if (run.disturbed) found.push(`Something else took the machine's time during ${letter}.`);
  return found;
}

function render(a, b) {
  document.title = `${a.name} and ${b.name} compared`;
  const conditions = differing(a.conditions, b.conditions);
  const circumstances = differing(a.circumstances, b.circumstances);
  const warnings = warningsOf(a, b, conditions);
  const comparable = a.kind === b.kind && !conditions.different.length;
  const heads = [["Figure"], ["A", "n"], ["B", "n"], ["B − A", "n"], ["B − A, share", "n"], ["Direction"], ["Paired 95 % interval", "n"]];
  const lines = figureLines(a, b, comparable);
  place.replaceChildren(...[
    make("dl", { class: "facts" }, side("A, before", a), side("B, after", b)),
    warnings.length ? make("ul", { class: "warnings" }, ...warnings.map((text) => make("li", {}, make("span", { class: "icon", "aria-hidden": "true" }, "! "), text))) : null,
    make("section", {}, conditions.different.length ? pairTable("Conditions that differ", conditions.different) : null,
      circumstances.different.length ? pairTable("Circumstances that differ", circumstances.different) : make("p", { class: "calm" }, "No circumstance that is recorded differs.")),
    make("section", {}, scrolled("Figures", table("Figures", heads, lines)),
      lines.every((line) => !line.textContent.includes(UNSURE)) ? null : make("p", { class: "calm" }, "Not sure: the paired interval of the difference holds 0 or, where there is none, the intervals of A and B overlap. A figure without intervals is held against no noise; its series tells.")),
    sameTable("Circumstances that are the same", circumstances.same),
    sameTable("Conditions that are the same", conditions.same),
  ].filter(Boolean));
}

async function show() {
  const hash = location.hash.slice(1);
  if (hash === "content") return;
  const [one, two] = hash.split("..");
  const [a, b] = await Promise.all([one ? runOf(one) : null, two ? runOf(two) : null]);
  if (location.hash.slice(1) !== hash || !cells.length) return;
  for (const [letter, run, asked] of [["a", a, one], ["b", b, two]]) {
    if (run) field("cell", letter).value = run.slug;
    await fillRuns(letter, run ? run.name : null);
    if (!run) field("run", letter).selectedIndex = asked ? -1 : field("run", letter).selectedIndex;
  }
  if (a && b) render(a, b);
  else if (!hash) {
    place.replaceChildren(make("p", { class: "calm" }, "Choose two runs."));
    await apart();
    chosen(true);
  } else {
    const gone = [[one, a], [two, b]].filter(([name, run]) => name && !run).map(([name]) => clean(name).slice(0, 80));
    place.replaceChildren(make("p", { class: "calm" }, gone.length ? `No run of this site is called ${gone.join(" or ")}. ` : "", "Choose two runs."));
  }
}

// first: in place of the page without a choice, to which nothing leads back.
function chosen(first = false) {
  const [a, b] = ["a", "b"].map((letter) => field("run", letter).value);
  if (!a || !b || (first && a === b)) return;
  if (first) location.replace(`#${a}..${b}`);
  else location.hash = `${a}..${b}`;
}

async function begin() {
  try {
    cells = await load("cells");
  } catch {
    cells = [];
  }
  if (!cells.length) {
    place.replaceChildren(make("p", { class: "calm" }, "There is no run yet."));
    return;
  }
  for (const letter of ["a", "b"]) {
    field("cell", letter).replaceChildren(...cells.map(([slug, suite, row, variant]) => option(slug, `${suite} / ${row} / ${variant}`)));
    field("cell", letter).addEventListener("change", async () => { await fillRuns(letter, null); await apart(); chosen(); });
    field("run", letter).addEventListener("change", () => chosen());
  }
  document.getElementById("swap").addEventListener("click", () => {
    const [a, b] = location.hash.slice(1).split("..");
    if (a && b) location.hash = `${b}..${a}`;
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  window.addEventListener("hashchange", show);
  await show();
}

begin();
