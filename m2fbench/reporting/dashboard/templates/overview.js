"use strict";
// Filters, kept in the address so that a view can be shared and the back button works; sorting.

const form = document.querySelector("form.filters");
if (form) {
  const list = document.querySelector("table.series");
  const rows = Array.from(list.tBodies[0].rows, (row) => ({ row, data: row.dataset, text: row.textContent.toLowerCase(), machines: row.dataset.machine.split("\n") }));
  const names = ["suite", "row", "variant", "machine", "figure", "state", "q"];
  const everything = Boolean(form.dataset.everything);
  const main = new Set(form.dataset.main.split("\n"));
  const found = document.getElementById("found");
  let timer = 0;

  const wanted = () => Object.fromEntries(names.map((name) => [name, form.elements[name].value]));

  function address(values, sort) {
    const query = new URLSearchParams();
    for (const name of names) if (values[name]) query.set(name, values[name]);
    if (sort) query.set("sort", sort);
    const text = query.toString();
    return text ? `?${text}` : "";
  }

  function apply(values) {
    const words = values.q.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    let all = 0;
    for (const { row, data, text, machines } of rows) {
      const asked = values.figure === "" ? data.main === "1" || !everything : values.figure === "*" || values.figure === data.figure;
      const matches = asked && ["suite", "row", "variant", "state"].every((name) => !values[name] || data[name] === values[name])
        && (!values.machine || machines.includes(values.machine)) && words.every((word) => text.includes(word));
      row.hidden = !matches;
      shown += matches;
      all += 1;
    }
    found.textContent = `${shown} of ${all} series`;
    document.querySelector(".nothing").hidden = shown > 0;
    list.classList.toggle("empty", shown === 0);
    for (const link of document.querySelectorAll(".counts a")) {
      if (link.dataset.state === values.state) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  // Which page has the figures asked for: the first one the main ones, the other one all.
  function elsewhere(values) {
    if (!Number(form.dataset.others)) return null;
    const other = values.figure === "*" || (values.figure !== "" && !main.has(values.figure));
    if (!everything && other) return "all.html";
    return everything && values.figure === "" ? "index.html" : null;
  }

  function changed(push) {
    const values = wanted();
    const sort = new URLSearchParams(location.search).get("sort");
    const page = elsewhere(values);
    if (page) {
      location.assign(page + address(values, sort));
      return;
    }
    const to = address(values, sort) || location.pathname;
    history[push ? "pushState" : "replaceState"](null, "", to);
    apply(values);
  }

  function restore() {
    const query = new URLSearchParams(location.search);
    for (const name of names) {
      const field = form.elements[name];
      field.value = query.get(name) ?? (name === "figure" && everything ? "*" : "");
      if (field.tagName === "SELECT" && field.selectedIndex < 0) field.value = name === "figure" && everything ? "*" : "";
    }
    const [index, direction] = (query.get("sort") ?? "").split("-");
    const column = list.tHead.rows[0].cells[Number(index || NaN)];
    if (column && !column.hasAttribute("data-fixed")) sortBy(list, Number(index), direction === "down");
    apply(wanted());
  }

  form.hidden = false;
  sortable(list, (index, descending) => {
    const sort = `${index}-${descending ? "down" : "up"}`;
    history.replaceState(null, "", address(wanted(), sort) || location.pathname);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("change", (event) => { if (event.target.tagName === "SELECT") changed(true); });
  form.elements.q.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => changed(false), 80); });
  for (const button of document.querySelectorAll("button.clear")) {
    button.addEventListener("click", () => {
      for (const name of names) form.elements[name].value = "";
      changed(true);
      form.elements.suite.focus();
    });
  }
  for (const link of document.querySelectorAll(".counts a")) {
    link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      form.elements.state.value = form.elements.state.value === link.dataset.state ? "" : link.dataset.state;
      changed(true);
    });
  }
  window.addEventListener("popstate", restore);
  window.addEventListener("pageshow", (event) => { if (event.persisted) restore(); });
  restore();
}
