// Evaluations: figures with their intervals, and likelihood against length.

const MOST_WHISKERS = 60;

// "heldout/rewards/accuracy" -> ["heldout", "rewards/accuracy"]: the same metric of several sets stands together.
function splitFigure(name) {
  const at = name.indexOf("/");
  return at < 0 ? ["", name] : [name.slice(0, at), name.slice(at + 1)];
}

function whiskerFigure() {
  const wished = byId("whisker-figure").value;
  const rows = [];
  for (const { run, name, figures: found } of DATA.evaluations) {
    for (const [key, [value, low, high, count]] of Object.entries(found)) {
      const [set, metric] = splitFigure(key);
      if (JSON.stringify([name, metric]) === wished && value !== null) rows.push({ run, set, value, low, high, count });
    }
  }
  if (!rows.length) return null;
  const sets = new Set(rows.map((row) => row.set));
  const way = DATA.preference[DATA.metrics.find((name) => name.endsWith(JSON.parse(wished)[1]))] < 0 ? -1 : 1;
  rows.sort((a, b) => way * (b.value - a.value));
  const shown = rows.slice(0, MOST_WHISKERS).reverse();
  const label = (row) => plain(called(row.run, innerWidth < 600 ? 18 : 36) + (sets.size > 1 ? ` · ${row.set}` : ""));
  const within = (row) => (row.low === null || row.high === null ? "no interval" : `95 %: ${number(row.low)} to ${number(row.high)}`);
  const traces = shown.map((row, place) => ({
    type: "scatter", mode: "markers", x: [row.value], y: [place], meta: row.run,
    text: [`<b>${label(row)}</b><br>${number(row.value)}<br>${within(row)}${row.count ? `<br>of ${row.count.toLocaleString("en")}` : ""}`],
    opacity: faded(row.run) ? 0.2 : 1,
    marker: { size: picked.has(row.run) ? 13 : 10, color: colorOf(row.run) },
    error_x: row.low === null || row.high === null ? undefined : {
      type: "data", symmetric: false, array: [row.high - row.value], arrayminus: [row.value - row.low],
      color: colorOf(row.run), thickness: 2, width: 5,
    },
    hovertemplate: "%{text}<extra></extra>",
  }));
  const yaxis = { tickmode: "array", tickvals: shown.map((_, place) => place), ticktext: shown.map(label), range: [-0.7, shown.length - 0.3], zeroline: false };
  const rest = rows.length > shown.length ? `, the best ${shown.length} of ${rows.length}` : "";
  return { traces, layout: { xaxis: { title: plain(JSON.parse(wished)[1] + rest), zeroline: false }, yaxis, height: 90 + 28 * shown.length } };
}

function setUpWhiskers() {
  const select = byId("whisker-figure");
  if (!select) return;
  const seen = new Map();
  for (const { name, figures: found } of DATA.evaluations) {
    for (const key of Object.keys(found)) {
      const metric = splitFigure(key)[1];
      seen.set(JSON.stringify([name, metric]), `${name}: ${metric}`);
    }
  }
  const options = [...seen];
  const wished = options.find(([, text]) => /win_rate|accuracy/.test(text)) || options[0];
  if (!wished) return;
  fill(select, options, wished[0]);
  const node = document.querySelector('[data-figure="whisker"]');
  select.addEventListener("change", () => redraw(node));
  addFigure(node, whiskerFigure);
}

function scatterFigure() {
  const { chosen, rejected } = DATA.scatter[Number(byId("scatter-of").value)];
  const dots = ([x, y], name, color, symbol) => ({
    type: "scatter", mode: "markers", x, y, name, marker: { color: cssColor(color), symbol, size: 7, opacity: 0.6 },
    hovertemplate: `${name}<br>%{x} tokens<br>%{y:.3f} nats per token<extra></extra>`,
  });
  return {
    traces: [dots(rejected, "rejected", "--c1", "diamond-open"), dots(chosen, "chosen", "--c0", "circle")],
    layout: {
      xaxis: { title: "length of the response, tokens" }, yaxis: { title: "mean log-probability, nats per token" }, height: 420,
      showlegend: true, legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" }, margin: { l: 58, r: 14, t: 34, b: 44 },
    },
  };
}

function setUpScatter() {
  const select = byId("scatter-of");
  if (!select) return;
  fill(select, DATA.scatter.map(({ run, name }, place) => [place, `${called(run)} · ${name}`]));
  const node = document.querySelector('[data-figure="scatter"]');
  select.addEventListener("change", () => redraw(node));
  addFigure(node, scatterFigure);
}

setUpWhiskers();
setUpScatter();
