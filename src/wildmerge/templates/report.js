"use strict";

// The number that a cell shows, or its text: what rows are sorted by.
function valueOf(cell) {
  const text = cell.textContent.trim().replace(/\u2212/g, "-");
  const number = parseFloat(text.replace(/[,\u00a0]/g, ""));
  return Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
  return typeof one === "number" ? -1 : 1; // texts, such as a dash, go last
}

// Rows stay within their block: a table has a body a base.
function sortBy(header) {
  const table = header.closest("table");
  const descending = header.getAttribute("aria-sort") !== "descending";
  const column = [...header.parentNode.children].indexOf(header);
  table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter((row) => !row.classList.contains("block"));
    rows.sort((a, b) => {
      const order = compare(valueOf(a.cells[column]), valueOf(b.cells[column]));
      return descending ? -order : order;
    });
    body.append(...rows);
  }
}

// The table as it stands, a row a line; names of blocks fill a column of their own.
function csvOf(table) {
  const quote = (text) => `"${text.trim().replace(/\s+/g, " ").replace(/\u2212/g, "-").replace(/"/g, '""')}"`;
  const blocks = table.querySelector("tr.block") !== null;
  const lines = [];
  for (const row of table.tHead.rows) {
    const cells = [...row.cells].flatMap((cell) => [cell.textContent, ...Array(cell.colSpan - 1).fill("")]);
    lines.push((blocks ? ["", ...cells] : cells).map(quote).join(","));
  }
  for (const body of table.tBodies) {
    const block = body.querySelector("tr.block");
    for (const row of body.rows) {
      if (row === block) continue;
      const cells = [...row.cells].map((cell) => cell.textContent);
      lines.push((blocks ? [block ? block.textContent : "", ...cells] : cells).map(quote).join(","));
    }
  }
  return lines.join("\n") + "\n";
}

function save(button) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csvOf(document.getElementById(button.dataset.table))], { type: "text/csv" }));
  link.download = `${button.dataset.table}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// One method or expert, in all tables and figures; the same click again ends it.
function highlight(key) {
  const ends = document.body.dataset.key === key || !key;
  document.body.dataset.key = ends ? "" : key;
  document.querySelectorAll("tr[data-key]").forEach((row) => {
    row.classList.toggle("on", !ends && row.dataset.key === key);
  });
  document.querySelectorAll("svg").forEach((picture) => {
    const marked = [...picture.querySelectorAll("[data-key]")];
    const here = !ends && marked.some((part) => part.dataset.key === key);
    marked.forEach((part) => part.classList.toggle("off", here && part.dataset.key !== key));
  });
  const bar = document.getElementById("highlight");
  bar.hidden = ends;
  bar.textContent = ends ? "" : `${key}  ×`;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.id === "highlight") highlight("");
  else if (button.classList.contains("csv")) save(button);
  else if (button.classList.contains("key")) highlight(button.closest("tr").dataset.key);
  else if (button.closest("th")) sortBy(button.closest("th"));
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
