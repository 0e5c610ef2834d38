"use strict";
// One run with all that is known of it; its name stands behind the # of the address.

const place = document.getElementById("run");

function missing(name) {
  document.title = "Run";
  const what = name ? [make("h1", {}, "No such run"), make("p", { class: "calm" }, "No run of this site is called ", make("code", {}, clean(name).slice(0, 80)), ". It may have been made after the site.")]
    : [make("h1", {}, "Which run?"), make("p", { class: "calm" }, "The address names none. Every night of a series leads to its run.")];
  place.replaceChildren(...what, make("p", {}, make("a", { href: "index.html" }, "To the overview")));
}

function figureRows(run, cell) {
  const pages = new Map(cell.series.filter(([kind, , limit, machine]) => kind === run.kind && limit === run.limit && (machine === "" || machine === run.machine))
    .map(([, figure, , , slug]) => [figure, slug]));
  return run.figures.map((figure) => {
    const scale = scaleOf(figure.unit, figure.value);
    const page = pages.get(figure.name);
    const name = page ? make("a", { href: `series/${page}.html` }, bdi(figure.name)) : bdi(figure.name);
    const ends = figure.low === null ? "" : `${number(scale, figure.low)} to ${number(scale, figure.high)}`;
    return make("tr", {}, make("th", { scope: "row" }, name), make("td", { class: "n", "data-v": figure.value ?? "" }, valueText(scale, figure.value)),
      make("td", { class: "n" }, ends), make("td", {}, figure.higher ? "higher" : "lower"));
  });
}

function pairRows(pairs) {
  return Array.from(pairs, ([key, value]) => make("tr", {}, make("th", { scope: "row" }, clean(key)), make("td", {}, bdi(value))));
}

function nights(run, cell) {
  const alike = cell.runs.filter(([, , kind, limit, machine]) => kind === run.kind && limit === run.limit && (kind !== "speed" || cell.machines[machine] === run.machine));
  const at = alike.findIndex(([name]) => name === run.name);
  const link = (index, text, rel) => (alike[index] ? make("a", { href: `#${alike[index][0]}`, rel }, text) : null);
  const before = alike[at - 1];
  return make("nav", { class: "nights", "aria-label": "Nights" }, link(at - 1, "← night before", "prev"), link(at + 1, "night after →", "next"),
    before ? make("a", { href: `compare.html#${before[0]}..${run.name}` }, "compare with the night before") : null);
}

function noted(title, list) {
  return list.length ? make("section", {}, make("h2", {}, title), make("ul", { class: "remarks" }, ...list.map((text) => make("li", {}, bdi(text))))) : null;
}

function pairedSection(run) {
  if (!run.paired.length) return null;
  const scale = scaleOf("percent", 1);
  const rows = run.paired.map(([baseline, figure, difference, low, high, p]) => make("tr", {}, make("th", { scope: "row" }, bdi(figure)),
    make("td", {}, make("a", { class: "run", href: `compare.html#${baseline}..${run.name}` }, baseline)), make("td", { class: "n" }, number(scale, difference, true)),
    make("td", { class: "n" }, low === null ? "" : `${number(scale, low, true)} to ${number(scale, high, true)}`), make("td", { class: "n" }, pText(p))));
  const heads = [["Figure"], ["Against"], ["Difference, points", "n"], ["95 % interval", "n"], ["p", "n"]];
  return make("section", {}, scrolled("Paired comparisons", table("Paired comparisons, over the same images", heads, rows)));
}

function render(run, cell) {
  document.title = `Run ${run.name} · ${clean(run.suite)}/${clean(run.row)}/${clean(run.variant)}`;
  const kinds = { accuracy: "Accuracy", speed: "Speed", flops: "FLOPs" };
  const status = [run.status, run.limit ? `first ${run.limit} images` : "", run.disturbed ? "the machine was disturbed" : ""].filter(Boolean).join("; ");
  place.replaceChildren(...[
    make("p", { class: "path" }, ...pathOf(run)),
    make("h1", {}, `${kinds[run.kind] ?? run.kind} of ${run.time || "an unknown time"}${run.time ? " UTC" : ""}`),
    make("p", { class: "lead" }, status[0].toUpperCase() + status.slice(1), run.reason ? ": " : ".", run.reason ? bdi(run.reason) : ""),
    nights(run, cell),
    make("dl", { class: "facts" }, run.night ? fact("Night", bdi(run.night)) : null, fact("Machine", bdi(run.machine)), fact("SHA-256 of the result", make("code", {}, run.sha))),
    make("section", {}, run.figures.length ? scrolled("Figures", table("Figures", [["Figure"], ["Value", "n"], ["95 % interval", "n"], ["Better"]], figureRows(run, cell)))
      : make("p", { class: "calm" }, "The run gave no figures.")),
    pairedSection(run),
    noted("Warnings", run.warnings),
    make("div", { class: "pair" },
      make("section", {}, scrolled("Circumstances", table("Circumstances: what may explain a change", [["What"], ["Value"]], pairRows(run.circumstances)))),
      make("section", {}, scrolled("Conditions", table("Conditions: equal where figures are comparable", [["What"], ["Value"]], pairRows(run.conditions))))),
    noted("Where its file was found", run.origins),
  ].filter(Boolean));
}

function fact(name, value) {
  return make("div", {}, make("dt", {}, name), make("dd", {}, value));
}

async function show() {
  const name = location.hash.slice(1);
  if (name === "content") return;
  const run = name ? await runOf(name) : null;
  if (location.hash.slice(1) !== name) return;
  if (!run) missing(name);
  else render(run, await load(`cells/${run.slug}`));
}

window.addEventListener("hashchange", () => { show(); window.scrollTo(0, 0); });
show();
