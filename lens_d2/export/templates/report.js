(() => {
  const $ = (id) => document.getElementById(id);
  const all = (selector, root = document) => Array.from(root.querySelectorAll(selector));
  const scan = JSON.parse($("scan").textContent);
  const stack = new SliceStack(scan, $("slices").textContent.split("\n"));
  const findings = new Map(scan.findings.map((finding) => [finding.number, finding]));
  const slider = $("score");
  const table = $("findings");
  const cards = $("cards");
  const MOST_NUMBERS = 20; // on the projections; with more boxes, numbers show on the one that is pointed at
  let selected = null;

  const rows = () => (table ? all("tbody tr", table) : []);
  const numberOf = (element) => Number(element.dataset.number);
  const shownNumbers = () => rows().filter((row) => !row.hidden).map(numberOf);
  const isShown = (finding) => finding.score >= Number(slider.value);

  const viewer = new Viewer($("viewer"), stack, { marks: () => scan.findings.filter(isShown), onMark: select });
  const ofCard = new Map(all("article").map((card) => {
    const finding = findings.get(numberOf(card));
    return [card, new Viewer(card.querySelector(".viewer"), stack, { finding, marks: () => [finding] })];
  }));
  Viewer.active = viewer;

  function filter() {
    const least = Number(slider.value);
    for (const element of all("[data-score]")) element.hidden = Number(element.dataset.score) < least;
    const shown = shownNumbers().length;
    document.body.classList.toggle("crowded", shown > MOST_NUMBERS);
    $("score-text").value = least.toFixed(2);
    $("count").textContent = `${shown} of ${rows().length} findings shown`;
    if (table) $("none-left").hidden = shown > 0;
    $("printed").textContent = `Score at least ${least.toFixed(2)}: ${$("count").textContent}`;
    if (selected !== null && !isShown(findings.get(selected))) deselect();
    if (scan.calibration) explain(least);
    viewer.draw();
    drawInIdleTime();
  }

  // The share of detections with such a score that were lesions, as lens_d2.evaluation.operating_points has it.
  function explain(score) {
    const [slope, intercept] = scan.calibration;
    const certain = Math.min(Math.max(score, 1e-6), 1 - 1e-6);
    const share = 100 / (1 + Math.exp(-(slope * Math.log(certain / (1 - certain)) + intercept)));
    $("meant-score").textContent = score.toFixed(2);
    $("meant-share").textContent = share < 1 ? "fewer than 1" : share > 99 ? "more than 99" : `about ${Math.round(share)}`;
    for (const button of all("[data-threshold]")) {
      button.setAttribute("aria-pressed", Math.abs(Number(button.dataset.threshold) - score) < 0.0015);
    }
  }

  function select(number) {
    selected = number;
    const finding = findings.get(number);
    for (const row of rows()) row.classList.toggle("selected", numberOf(row) === number);
    for (const box of all("a.box")) box.classList.toggle("selected", numberOf(box) === number);
    reveal(table.querySelector("tr.selected"));
    const details = Object.assign(document.createElement("a"), { href: `#finding-${number}`, textContent: "details" });
    $("current").replaceChildren(`${finding.title}, `, details);
    viewer.suit(finding.window);
    viewer.show(stack.placeOf(finding.key));
  }

  function deselect() {
    selected = null;
    for (const element of all("tr.selected, a.box.selected")) element.classList.remove("selected");
    $("current").replaceChildren();
  }

  // Scrolls the list, not the page, until it shows a row.
  function reveal(row) {
    const list = table.parentNode;
    const top = row.offsetTop - table.tHead.offsetHeight;
    const bottom = row.offsetTop + row.offsetHeight - list.clientHeight;
    list.scrollTop = Math.min(Math.max(list.scrollTop, bottom), top);
  }

  // The next finding of the table, as it is sorted. Whoever has left the scan for the cards goes on among these.
  function go(direction) {
    const numbers = shownNumbers();
    if (!numbers.length) return;
    const place = numbers.indexOf(selected);
    const next = place < 0 ? (direction > 0 ? 0 : numbers.length - 1) : (place + direction + numbers.length) % numbers.length;
    select(numbers[next]);
    const { bottom } = $("viewer").getBoundingClientRect();
    if (bottom > 160) {
      Viewer.active = viewer;
      return;
    }
    const card = $(`finding-${numbers[next]}`);
    card.scrollIntoView();
    Viewer.active = ofCard.get(card);
  }

  function sort(header) {
    const column = Array.from(header.parentNode.children).indexOf(header);
    const before = header.getAttribute("aria-sort");
    const order = before ? (before === "ascending" ? "descending" : "ascending") : header.dataset.first;
    for (const other of all("th", header.parentNode)) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const value = (row) => row.cells[column].dataset.value;
    const sign = order === "ascending" ? 1 : -1;
    const compare = header.classList.contains("name")
      ? (a, b) => (a === "") - (b === "") || sign * a.localeCompare(b) // the unnamed last
      : (a, b) => sign * (a - b);
    const sorted = rows().sort((a, b) => compare(value(a), value(b)));
    table.tBodies[0].append(...sorted);
    cards.append(...sorted.map((row) => $(`finding-${row.dataset.number}`)));
  }

  function highlight(event) {
    const number = event.target.closest?.("tr[data-number], a.box")?.dataset.number;
    for (const element of all("tr[data-number], a.box")) element.classList.toggle("hot", element.dataset.number === number);
  }

  // Cards that come near the screen are drawn at once, the others when there is time, so that they print.
  const waiting = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting && !ofCard.get(target).drawn) ofCard.get(target).draw();
  }, { rootMargin: "600px" });
  const idle = window.requestIdleCallback ?? ((callback) => setTimeout(callback, 50));
  function drawInIdleTime() {
    idle(async () => {
      const [card] = Array.from(ofCard).find(([each, { drawn }]) => !each.hidden && !drawn) ?? [];
      if (!card) return;
      await ofCard.get(card).draw();
      drawInIdleTime();
    });
  }

  const toggleBoxes = () => document.body.classList.toggle("no-boxes", !$("boxes").checked);
  const keys = {
    n: () => go(1), j: () => go(1), p: () => go(-1), k: () => go(-1),
    r: () => Viewer.active.reset(),
    b: () => { $("boxes").checked = !$("boxes").checked; toggleBoxes(); },
    ArrowRight: () => Viewer.active.step(1),
    ArrowLeft: () => Viewer.active.step(-1),
  };
  Object.keys(scan.presets).forEach((preset, i) => { keys[i + 1] = () => Viewer.active.choose(preset); });

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  document.addEventListener("wheel", (event) => { Viewer.lastPageWheel = event.timeStamp; }, { passive: true });
  document.addEventListener("mouseover", highlight);
  document.addEventListener("click", (event) => {
    const box = event.target.closest(".projections a.box");
    if (box) {
      event.preventDefault();
      select(numberOf(box));
    }
    const back = event.target.closest("[data-show]");
    if (back) select(Number(back.dataset.show));
  });
  slider.addEventListener("input", filter);
  for (const button of all("[data-threshold]")) button.addEventListener("click", () => {
    slider.value = Math.floor(Number(button.dataset.threshold) * 1000) / 1000;
    filter();
  });
  $("boxes").addEventListener("change", toggleBoxes);
  if (table) {
    $("next").addEventListener("click", () => go(1));
    $("previous").addEventListener("click", () => go(-1));
    for (const header of all("thead th", table)) header.querySelector("button").addEventListener("click", () => sort(header));
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr");
      if (row && !event.target.closest("a")) select(numberOf(row));
    });
  }
  for (const card of ofCard.keys()) waiting.observe(card);
  filter();
  if (shownNumbers().length) select(shownNumbers()[0]);
})();
