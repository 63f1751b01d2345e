"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    let rising = false;
    cell.querySelector("button").addEventListener("click", () => {
      const number = cell.classList.contains("number");
      const value = (row) => {
        const text = row.cells[column].textContent;
        return number ? (text === "-" ? -Infinity : Number(text.replaceAll(",", ""))) : text;
      };
      rising = !rising;
      const compare = (a, b) => (number ? value(a) - value(b) : value(a).localeCompare(value(b)));
      body.append(...[...body.rows].sort((a, b) => (rising ? 1 : -1) * (compare(a, b) || 0)));
    });
  });
}
