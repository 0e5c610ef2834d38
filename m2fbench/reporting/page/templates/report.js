"use strict";
// Sorting, searching and folding. Without this script everything on the page can be read all the same.

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function compareCells(a, b, numeric, descending) {
  // Rows without a value come last in both directions.
  if (a === "" || b === "") return (a === "") - (b === "");
  const order = numeric ? Number(a) - Number(b) : collator.compare(a, b);
  return (Number.isNaN(order) ? 0 : order) * (descending ? -1 : 1);
}

function sortBy(table, header, index) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  const numeric = header.hasAttribute("data-numeric");
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const valueOf = (row) => row.cells[index].dataset.v ?? row.cells[index].textContent;
  rows.sort((one, two) => compareCells(valueOf(one), valueOf(two), numeric, descending));
  body.append(...rows);
}

for (const table of document.querySelectorAll("main table")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sortBy(table, header, index));
  });
}

for (const image of document.querySelectorAll("figure.picture img")) {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "Larger or smaller";
  button.setAttribute("aria-pressed", "false");
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", image.closest("figure").classList.toggle("large"));
  });
}

function reveal(element) {
  for (let at = element; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  let all = 0;
  for (const block of document.querySelectorAll("div.table")) {
    let here = 0;
    const rows = block.querySelector("tbody").rows;
    for (const row of rows) {
      const content = Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
      const matches = words.every((word) => content.includes(word));
      row.hidden = !matches;
      here += matches;
    }
    all += rows.length;
    shown += here;
    block.classList.toggle("without", here === 0);
    if (words.length && here) reveal(block.parentElement);
  }
  document.getElementById("found").textContent = words.length ? `${shown} of ${all} rows` : "";
}

const box = document.getElementById("search");
box.closest(".search").hidden = false;
box.addEventListener("input", () => search(box.value));
if (box.value) search(box.value); // kept by the browser over a reload

function follow() {
  const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) {
    reveal(target);
    target.scrollIntoView();
  }
}
window.addEventListener("hashchange", follow);
follow();

const contents = document.getElementById("contents");
const narrow = window.matchMedia("(max-width: 70rem)");
const adapt = () => { contents.open = !narrow.matches; };
narrow.addEventListener("change", adapt);
adapt();

window.addEventListener("beforeprint", () => {
  // How the runs were measured always; of further runs and heads what the reader has opened, as everything would be a hundred sheets.
  for (const details of document.querySelectorAll("details.section, details.notes, #method details.part")) details.open = true;
});
