"use strict";
(() => {
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const slider = document.getElementById("score");
  const table = document.getElementById("detections");
  const cards = document.getElementById("cards");
  const MOST_NUMBERS = 20; // on the overview; with more boxes, numbers show on the one that is pointed at

  function filter() {
    const least = Number(slider.value);
    for (const element of all("[data-score]")) element.hidden = Number(element.dataset.score) < least;
    const rows = table ? all("tbody tr", table) : [];
    const shown = rows.filter((row) => !row.hidden).length;
    document.body.classList.toggle("crowded", shown > MOST_NUMBERS);
    document.getElementById("score-text").value = least.toFixed(2);
    document.getElementById("count").textContent = `${shown} of ${rows.length} detections shown`;
    if (table) document.getElementById("none-left").hidden = shown > 0;
  }

  function sort(header) {
    const column = Array.from(header.parentNode.children).indexOf(header);
    const descending = header.getAttribute("aria-sort") !== "descending";
    for (const other of all("th", header.parentNode)) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => Number(row.cells[column].dataset.value);
    const rows = all("tbody tr", table).sort((a, b) => (descending ? value(b) - value(a) : value(a) - value(b)));
    table.tBodies[0].append(...rows);
    cards.append(...rows.map((row) => document.getElementById(`detection-${row.dataset.number}`)));
  }

  function highlight(event) {
    const number = event.target.closest?.("tr[data-number], a.box")?.dataset.number;
    for (const element of all("tr[data-number], a.box")) element.classList.toggle("hot", element.dataset.number === number);
  }

  slider.addEventListener("input", filter);
  document.getElementById("boxes").addEventListener("change", (event) =>
    document.body.classList.toggle("no-boxes", !event.target.checked));
  document.addEventListener("mouseover", highlight);
  if (table) {
    for (const header of all("thead th", table)) header.querySelector("button").addEventListener("click", () => sort(header));
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !event.target.closest("a")) location.hash = `detection-${row.dataset.number}`;
    });
  }
  filter();
})();
