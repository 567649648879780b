"use strict";
// Sorting: each heading is a button; numbers sort by data-value, everything else by its text.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column], down));
      body.append(...rows);
    });
  });
}

function compare(a, b, down) {
  const [x, y] = [a, b].map((cell) => parseFloat(cell.dataset.value));
  const numeric = "value" in a.dataset || "value" in b.dataset;
  if (numeric && (isNaN(x) || isNaN(y))) return isNaN(x) - isNaN(y); // what is missing comes last
  const order = numeric ? x - y : a.textContent.trim().localeCompare(b.textContent.trim());
  return down ? -order : order;
}

// Provenance: a cell opens a dialog with the runs that its number comes from.
const data = JSON.parse(document.getElementById("data").textContent);
const dialog = document.getElementById("provenance");
document.addEventListener("click", (event) => {
  const button = event.target.closest("button.cell");
  if (!button) return;
  const cell = data.cells[button.dataset.cell];
  document.getElementById("provenance-title").textContent = cell.title;
  const body = document.getElementById("provenance-body");
  body.replaceChildren(element("p", cell.text), ...cell.runs.flatMap(run));
  dialog.showModal();
});

function run(path) {
  const list = document.createElement("dl");
  for (const [name, value] of data.runs[path].facts) {
    list.append(element("dt", name), element("dd", value));
  }
  const spec = document.createElement("details");
  spec.append(element("summary", "spec"), element("pre", data.runs[path].spec));
  return [element("h3", path), list, spec];
}

function element(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}
