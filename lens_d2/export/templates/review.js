"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const parse = (id) => JSON.parse($(id).textContent);
  const { ledger, verdicts: KINDS, proposals } = parse("index");
  // The boxes' checksums are part of the name: another ledger's verdicts are never taken for this one's.
  const storageKey = `lens_d2 review ${ledger} ${proposals.length} ${hash(proposals.map((p) => p[1]).join())}`;
  const verdicts = proposals.map((proposal) => proposal[2]);
  const done = []; // what can be undone: [place, the verdict before]
  let shown = proposals.map((_, place) => place); // by the filter
  let place = -1;
  let saved = true;

  function hash(text) {
    let value = 0;
    for (const character of text) value = (value * 31 + character.codePointAt(0)) >>> 0;
    return value.toString(16);
  }

  function recall() {
    let kept = {};
    try {
      kept = JSON.parse(localStorage.getItem(storageKey)) ?? {};
    } catch (error) {
      forgetful(error);
    }
    proposals.forEach(([id], at) => { if (KINDS.includes(kept[id])) verdicts[at] = kept[id]; else if (kept[id] === "") verdicts[at] = ""; });
  }

  function keep() {
    saved = false;
    try {
      localStorage.setItem(storageKey, JSON.stringify(Object.fromEntries(proposals.map(([id], at) => [id, verdicts[at]]))));
    } catch (error) {
      forgetful(error);
    }
  }

  function forgetful(error) {
    console.info(`verdicts are not kept: ${error.message}`);
    $("storage").hidden = false;
  }

  function show(at) {
    place = at;
    const main = $("proposal");
    const some = shown.length > 0;
    main.hidden = !some;
    $("nothing").hidden = some;
    if (!some) {
      $("nothing").textContent = proposals.length ? "No such proposals." : "The ledger has no proposals to judge.";
      return refresh();
    }
    main.innerHTML = parse(`row-${place}`);
    const verdict = document.createElement("p");
    verdict.className = "verdict";
    main.querySelector(".provenance").prepend(verdict);
    $("number").value = place + 1;
    refresh();
  }

  function refresh() {
    const verdict = verdicts[place] ?? "";
    $("proposal").dataset.verdict = verdict;
    const told = document.querySelector(".verdict");
    if (told) told.textContent = verdict || "not judged";
    for (const button of document.querySelectorAll(".keys [data-action]")) button.classList.toggle("now", button.dataset.action === verdict);
    const count = Object.fromEntries(KINDS.map((kind) => [kind, verdicts.filter((each) => each === kind).length]));
    const judged = KINDS.reduce((sum, kind) => sum + count[kind], 0);
    for (const kind of KINDS) document.querySelector(`#track .${kind}`).style.width = `${(100 * count[kind]) / Math.max(proposals.length, 1)}%`;
    $("count").textContent = `${judged} of ${proposals.length} judged: ${KINDS.map((kind) => `${count[kind]} ${kind}`).join(", ")}`;
  }

  // The next place in the list, forwards or backwards, that passes a test; where none does, the same place.
  function step(direction, test = () => true) {
    const list = direction > 0 ? shown : shown.toReversed();
    const beyond = list.find((each) => (each - place) * direction > 0 && test(each));
    return beyond ?? place;
  }

  const open = (at) => verdicts[at] === "";
  const nextOpen = () => {
    const ahead = step(1, open);
    return ahead !== place ? ahead : shown.find(open) ?? place;
  };

  function judge(verdict) {
    if (!shown.length) return;
    done.push([place, verdicts[place]]);
    verdicts[place] = verdict;
    keep();
    const next = nextOpen();
    if (next === place) refresh();
    else show(next);
  }

  function undo() {
    const last = done.pop();
    if (!last) return;
    verdicts[last[0]] = last[1];
    keep();
    if (!shown.includes(last[0])) filter("all");
    show(last[0]);
  }

  function filter(kind) {
    $("filter").value = kind;
    shown = proposals.map((_, at) => at).filter((at) => kind === "all" || verdicts[at] === (kind === "open" ? "" : kind));
  }

  function save() {
    const entries = proposals.map(([id, boxes], at) => [id, { verdict: verdicts[at], boxes }]).filter(([, entry]) => entry.verdict);
    const content = JSON.stringify({ ledger, verdicts: Object.fromEntries(entries) }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content + "\n"], { type: "application/json" }));
    link.download = `${ledger.replace(/\.[a-z]+$/, "")}_verdicts.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    saved = true;
  }

  const actions = {
    ...Object.fromEntries(KINDS.map((kind) => [kind, () => judge(kind)])),
    undo, save,
    next: () => show(step(1)),
    previous: () => show(step(-1)),
    open: () => show(nextOpen()),
    boxes: () => document.body.classList.toggle("no-boxes"),
  };
  const keys = {
    a: "accepted", r: "rejected", u: "unsure", z: "undo", Backspace: "undo", n: "open", b: "boxes", s: "save",
    ArrowRight: "next", ArrowLeft: "previous",
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select")) return;
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action || (event.repeat && KINDS.includes(action))) return;
    event.preventDefault();
    actions[action]();
  });
  document.addEventListener("click", (event) => {
    const action = event.target.closest("[data-action]")?.dataset.action;
    if (!action) return;
    actions[action]();
    document.activeElement?.blur(); // the keys go on working
  });
  $("number").addEventListener("change", (event) => {
    const wanted = Math.min(Math.max(Number(event.target.value) || 1, 1), proposals.length) - 1;
    if (!shown.includes(wanted)) filter("all");
    show(wanted);
    event.target.blur();
  });
  $("filter").addEventListener("change", (event) => {
    filter(event.target.value);
    show(shown.includes(place) ? place : shown[0] ?? -1);
    event.target.blur();
  });
  addEventListener("beforeunload", (event) => {
    if (!saved && !$("storage").hidden) event.preventDefault();
  });

  recall();
  show(proposals.length ? shown.find(open) ?? 0 : -1);
  if (!proposals.length) { shown = []; show(-1); }
})();
