// The table of runs: sorted by its heads, filtered by a box; a row highlights its run everywhere.

function setUpTable() {
  const table = byId("runs");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const runOf = (row) => Number(row.dataset.run);
  const heads = [...table.tHead.rows[0].cells];

  for (const head of heads) head.firstElementChild.addEventListener("click", () => sortBy(head));
  byId("filter").addEventListener("input", filter);
  byId("clear").addEventListener("click", () => {
    picked.clear();
    changed("picked");
  });
  byId("draw-these").addEventListener("click", () => {
    drawn.clear();
    const first = [...body.rows].filter((row) => !row.hidden).slice(0, DATA.shownRuns);
    first.forEach((row) => drawn.add(runOf(row)));
    changed("drawn");
  });
  byId("draw-these").hidden = RUNS.length <= DATA.shownRuns;
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("input")) pick(runOf(row));
  });
  body.addEventListener("change", (event) => {
    if (event.target.matches(".draw")) toggle(drawn, runOf(event.target.closest("tr")), event.target.checked, "drawn");
  });
  for (const node of table.querySelectorAll(".swatch")) node.append(swatch(Number(node.dataset.swatch)));
  for (const box of document.querySelectorAll("[data-column]")) {
    box.addEventListener("change", () => showColumn(Number(box.dataset.column), box.checked));
  }
  listeners.push(mark);
  mark();

  function sortBy(head) {
    const kind = head.firstElementChild.dataset.kind;
    const way = DATA.preference[head.title];
    const first = kind === "number" && head.className === "metric" && way >= 0 ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    for (const each of heads) each.setAttribute("aria-sort", each === head ? order : "none");
    const place = head.cellIndex;
    const keyed = [...body.rows].map((row) => [row.cells[place].dataset.v, row]);
    const sign = order === "ascending" ? 1 : -1;
    // What is missing stays below, whichever way the others go.
    keyed.sort(([a], [b]) => (a === "" ? 1 : 0) - (b === "" ? 1 : 0) || sign * compare(a, b));
    body.append(...keyed.map(([, row]) => row));
  }

  function filter() {
    const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    let left = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      left += !row.hidden;
    }
    byId("filtered").textContent = words.length ? `${left} of ${rows.length}` : "";
  }

  function showColumn(column, on) {
    const place = heads.filter((head) => head.className)[column].cellIndex;
    for (const row of table.rows) row.cells[place].hidden = !on;
  }

  function mark() {
    for (const row of rows) {
      const run = runOf(row);
      row.classList.toggle("picked", picked.has(run));
      row.querySelector(".pick").setAttribute("aria-pressed", picked.has(run));
      row.querySelector(".draw").checked = drawn.has(run);
    }
    byId("clear").disabled = picked.size === 0;
  }
}

// Numbers by size, everything else by its letters.
function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
  return a.localeCompare(b, "en", { numeric: true });
}

setUpTable();
