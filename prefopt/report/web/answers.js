// Answers side by side with their differing words marked; and what one run was made of.

const ANSWERS_AT_A_TIME = 4;
let answersShown = ANSWERS_AT_A_TIME;

// Which words of two texts are in no longest common subsequence: [[word, isOther], ...] for each text.
function differing(left, right) {
  const [a, b] = [left, right].map((text) => text.match(/\s+|\S+/g) || []);
  if (a.length * b.length > 4e6) return [[[left, false]], [[right, false]]]; // too long to compare while somebody waits
  const width = b.length + 1;
  const lengths = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      lengths[i * width + j] = a[i] === b[j] ? lengths[(i + 1) * width + j + 1] + 1 : Math.max(lengths[(i + 1) * width + j], lengths[i * width + j + 1]);
    }
  }
  const [ours, theirs] = [[], []];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      ours.push([a[i++], false]);
      theirs.push([b[j++], false]);
    } else if (j >= b.length || (i < a.length && lengths[(i + 1) * width + j] >= lengths[i * width + j + 1])) {
      ours.push([a[i++], true]);
    } else {
      theirs.push([b[j++], true]);
    }
  }
  return [ours, theirs];
}

function answerBox(title, words) {
  const text = make("p", { className: "text" });
  for (const [word, isOther] of words) text.append(isOther && word.trim() ? make("mark", {}, word) : word);
  if (!words.length) text.append(make("em", {}, "nothing at all"));
  return make("div", { className: "answer" }, make("h4", {}, title), text);
}

function showAnswers() {
  const sides = ["answers-left", "answers-right"].map((id) => byId(id));
  const [[runA, keyA], [runB, keyB]] = sides.map((select) => JSON.parse(select.value));
  const titles = sides.map((select) => select.selectedOptions[0].textContent);
  const byPrompt = new Map(RUNS[runB].samples.map((row) => [row.prompt, row]));
  const rows = RUNS[runA].samples.filter((row) => byPrompt.has(row.prompt) && keyA in row && keyB in byPrompt.get(row.prompt));
  const cards = rows.slice(0, answersShown).map((row) => {
    const texts = [row[keyA], byPrompt.get(row.prompt)[keyB]].map((place) => DATA.texts[place].trim());
    const [left, right] = differing(...texts);
    const card = make("article", { className: "card exchange" }, make("h3", { className: "prompt" }, DATA.texts[row.prompt]),
      make("div", { className: "pair" }, answerBox(titles[0], left), answerBox(titles[1], right)));
    if ("chosen" in row) card.append(make("p", { className: "note" }, make("b", {}, "chosen in the data: "), DATA.texts[row.chosen].trim()));
    return card;
  });
  byId("answers-body").replaceChildren(...cards);
  byId("answers-count").textContent = rows.length ? `${cards.length} of ${rows.length}` : "These two have no prompt in common.";
  byId("answers-more").hidden = cards.length === rows.length;
}

function setUpAnswers() {
  if (!byId("answers-left")) return;
  const with_ = RUNS.map((_, run) => run).filter((run) => RUNS[run].samples.length);
  const options = with_.flatMap((run) => ["before", "after"].map((key) => [JSON.stringify([run, key]), `${called(run)}, ${key} training`]));
  fill(byId("answers-left"), options, options[0][0]);
  fill(byId("answers-right"), options, options[1][0]);
  for (const id of ["answers-left", "answers-right"]) byId(id).addEventListener("change", showAnswers);
  byId("answers-more").addEventListener("click", () => {
    answersShown += 2 * ANSWERS_AT_A_TIME;
    showAnswers();
  });
  showAnswers();
}

function smallTable(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first),
    ...rest.map((value) => make("td", { className: typeof value === "number" ? "number" : "" }, typeof value === "number" ? value.toLocaleString("en") : value ?? MISSING))));
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...lines));
  return make("div", { className: "card" }, make("div", { className: "scroll", tabIndex: 0 }, table));
}

function command(title, text) {
  const words = make("pre", { tabIndex: 0 }, text);
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    getSelection().selectAllChildren(words); // where the clipboard is refused, a person copies it by hand
    await navigator.clipboard?.writeText(text);
    if (navigator.clipboard) copy.textContent = "Copied";
  });
  return make("div", { className: "card" }, make("div", { className: "tools" }, make("h3", {}, title), copy), words);
}

function showDetails() {
  const run = RUNS[Number(byId("details-run").value)];
  const parts = [];
  if (run.folder) parts.push(make("p", { className: "note" }, run.folder));
  if (run.manifest !== null) {
    const { about, packages, command: words, repeat } = DATA.blocks[run.manifest];
    if (words) parts.push(command("Started by", words));
    if (repeat) parts.push(command("Once more, from what the folder recorded", repeat));
    parts.push(make("div", { className: "cards" }, smallTable("Machine and start", ["what", "value"], about), smallTable("Versions", ["package", "version"], packages)));
  }
  if (run.data !== null) {
    const sources = DATA.blocks[run.data];
    const rows = sources.map((one) => [one.set, one.path, one.format, one.read, one.kept, one.pairs, one.truncated]);
    parts.push(smallTable("Rows of the data", ["set", "file", "format", "read", "kept", "pairs", "texts cut"], rows));
    const left = sources.flatMap((one) => Object.entries(one.left_out).map(([reason, count]) => [one.set, reason, count]));
    if (left.length) parts.push(smallTable("Rows left out", ["set", "reason", "rows"], left));
  }
  byId("details-body").replaceChildren(...parts);
}

function setUpDetails() {
  const select = byId("details-run");
  if (!select) return;
  const known = RUNS.map((_, run) => run).filter((run) => RUNS[run].data !== null || RUNS[run].manifest !== null);
  fill(select, known.map((run) => [run, called(run)]));
  select.addEventListener("change", showDetails);
  showDetails();
}

setUpAnswers();
setUpDetails();
document.documentElement.dataset.ready = "yes";
