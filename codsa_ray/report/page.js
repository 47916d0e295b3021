// Tables sort by click or by key on their headings; long tables fold; an error leaves its mark for tests to find.
"use strict";
window.onerror = (message) => { document.documentElement.dataset.error = String(message); };

const FOLD = 12;

function key(cell) {
  const text = cell.dataset.sort !== undefined ? cell.dataset.sort : cell.textContent.trim();
  const value = Number(text);
  return text === "" ? null : Number.isNaN(value) ? text.toLowerCase() : value;
}

function compare(a, b) {
  if (a === null || b === null) return 0;
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function sort(table, index, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [key(row.cells[index]), row]);
  rows.sort((a, b) => {
    if ((a[0] === null) !== (b[0] === null)) return a[0] === null ? 1 : -1;
    return down ? compare(b[0], a[0]) : compare(a[0], b[0]);
  });
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows.map((pair) => pair[1]));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((heading, index) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(table, index, heading));
  });
  const extra = table.tBodies[0].rows.length - FOLD;
  if (extra > 3) {
    const toggle = document.createElement("button");
    toggle.type = "button";
    toggle.className = "toggle";
    const say = () => {
      const folded = table.classList.contains("folded");
      toggle.textContent = folded ? "Show " + extra + " more rows" : "Show fewer rows";
      toggle.setAttribute("aria-expanded", String(!folded));
    };
    table.classList.add("folded");
    toggle.addEventListener("click", () => { table.classList.toggle("folded"); say(); });
    say();
    table.closest(".scroll").after(toggle);
  }
}

window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
