// Metrics over the settings of a sweep: a heat map of two settings, and lines across all of them.

const SCALE = [[0, "#440154"], [0.25, "#3b528b"], [0.5, "#21918c"], [0.75, "#5ec962"], [1, "#fde725"]]; // viridis

const MOST_AXES = 8;

function valuesOf(key) {
  const seen = [...new Set(RUNS.map((run) => setting(run.varied[key])))];
  return seen.sort((a, b) => (a === MISSING ? 1 : b === MISSING ? -1 : compare(a, b)));
}

function sweptKeys() {
  return DATA.varied.filter((key) => valuesOf(key).length > 1);
}

function isSeed(key) {
  return key.endsWith("seed");
}

function measuredMetrics() {
  return DATA.metrics.filter((name) => RUNS.filter((run) => Number.isFinite(run.metrics[name])).length > 1);
}

// A metric in which runs differ, and of which one direction is better.
function firstMetric(names) {
  const differ = (name) => new Set(RUNS.map((run) => run.metrics[name])).size > 1;
  return names.find((name) => name.endsWith("rewards/accuracy") && differ(name)) ||
    names.find((name) => DATA.preference[name] && differ(name)) || names[0];
}

function meanOf(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function heatFigure() {
  const [x, y, metric] = ["heat-x", "heat-y", "heat-metric"].map((id) => byId(id).value);
  const runs = RUNS.map((_, run) => run).filter((run) => Number.isFinite(RUNS[run].metrics[metric]));
  if (!runs.length) return null;
  const at = (run, key) => setting(RUNS[run].varied[key]);
  const xaxis = { title: plain(x), type: "category", categoryorder: "array", categoryarray: valuesOf(x) };
  if (!y || y === x) return overOneSetting(runs, x, metric, xaxis);
  const rows = valuesOf(y);
  const cells = rows.map((row) => valuesOf(x).map((column) =>
    runs.filter((run) => at(run, x) === column && at(run, y) === row).map((run) => RUNS[run].metrics[metric])));
  const several = cells.flat().some((values) => values.length > 1);
  byId("heat-note").textContent = several ? "A cell is the mean over the other settings." : "";
  const heat = {
    type: "heatmap", x: valuesOf(x).map(plain), y: rows.map(plain),
    z: cells.map((row) => row.map(meanOf)),
    text: cells.map((row) => row.map((values) => (values.length ? number(meanOf(values)) : ""))),
    customdata: cells.map((row) => row.map((values) => values.length)),
    texttemplate: "%{text}", textfont: { size: 14 }, xgap: 3, ygap: 3,
    colorscale: SCALE, reversescale: DATA.preference[metric] < 0,
    colorbar: { thickness: 12, outlinewidth: 0, title: { text: "" } },
    hoverongaps: false,
    hovertemplate: `${plain(x)} %{x}<br>${plain(y)} %{y}<br><b>%{text}</b>, mean of %{customdata}<extra></extra>`,
  };
  const yaxis = { title: plain(y), type: "category", categoryorder: "array", categoryarray: rows.map(plain), showgrid: false };
  return { traces: [heat], layout: { xaxis: { ...xaxis, showgrid: false }, yaxis, height: Math.max(320, 110 + 46 * rows.length) } };
}

function overOneSetting(runs, key, metric, xaxis) {
  byId("heat-note").textContent = "A dot is a run; the line is their mean.";
  const values = valuesOf(key);
  const of = (value) => runs.filter((run) => setting(RUNS[run].varied[key]) === value).map((run) => RUNS[run].metrics[metric]);
  const line = { type: "scatter", mode: "lines", x: values.map(plain), y: values.map((value) => meanOf(of(value))),
    line: { color: cssColor("--faint"), width: 2 }, hoverinfo: "skip", connectgaps: true };
  const dots = {
    type: "scatter", mode: "markers",
    x: runs.map((run) => plain(setting(RUNS[run].varied[key]))), y: runs.map((run) => RUNS[run].metrics[metric]),
    text: runs.map((run) => plain(called(run))), customdata: runs,
    marker: { size: runs.map((run) => (picked.has(run) ? 15 : 10)), color: runs.map(colorOf), opacity: runs.map((run) => (faded(run) ? 0.2 : 0.9)) },
    hovertemplate: "<b>%{text}</b><br>%{y:.4~g}<extra></extra>",
  };
  return { traces: [line, dots], layout: { xaxis, yaxis: { title: plain(withDirection(metric)) }, height: 360 } };
}

function setUpHeat() {
  if (!byId("heat-x")) return;
  const keys = sweptKeys();
  const metrics = measuredMetrics();
  const wished = [...keys.filter((key) => !isSeed(key)), ...keys.filter(isSeed)];
  const options = keys.map((key) => [key, key]);
  fill(byId("heat-x"), options, wished[0]);
  fill(byId("heat-y"), [["", "(nothing)"], ...options], wished[1] || "");
  fill(byId("heat-metric"), metrics.map((name) => [name, withDirection(name)]), firstMetric(metrics));
  const node = document.querySelector('[data-figure="heat"]');
  for (const id of ["heat-x", "heat-y", "heat-metric"]) byId(id).addEventListener("change", () => redraw(node));
  addFigure(node, heatFigure);
}

// A colour of the scale; share: from 0 to 1.
function scaleColor(share) {
  const place = Math.min(SCALE.length - 2, Math.floor(share * (SCALE.length - 1)));
  const [from, to] = [SCALE[place], SCALE[place + 1]];
  const part = (share - from[0]) / (to[0] - from[0]);
  const mix = [1, 3, 5].map((at) => {
    const [a, b] = [from, to].map((stop) => parseInt(stop[1].slice(at, at + 2), 16));
    return Math.round(a + part * (b - a));
  });
  return `rgb(${mix.join(",")})`;
}

// Places (0 to 1, from below) of each run on an axis, and its ticks. Few values stand at even distances.
function parallelAxis(values, isMetric) {
  const seen = [...new Set(values.filter((value) => value !== undefined).map(setting))].sort(compare);
  const numbers = values.every((value) => value === undefined || typeof value === "number");
  if (!numbers || (seen.length <= 8 && !isMetric)) {
    const place = (text) => (seen.length > 1 ? seen.indexOf(text) / (seen.length - 1) : 0.5);
    return { at: (value) => place(setting(value)), ticks: seen.slice(0, 24).map((text) => [text, place(text)]) };
  }
  const finite = values.filter((value) => value !== undefined);
  const [least, most] = [Math.min(...finite), Math.max(...finite)];
  const isLog = !isMetric && least > 0 && most / least > 50;
  const scaled = (value) => (isLog ? Math.log(value / least) / Math.log(most / least) : (value - least) / (most - least || 1));
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => [number(isLog ? least * (most / least) ** share : least + share * (most - least)), share]);
  return { at: scaled, ticks };
}

function drawParallel() {
  const box = byId("parallel");
  const metric = byId("parallel-metric").value;
  const runs = RUNS.map((_, run) => run).filter((run) => Number.isFinite(RUNS[run].metrics[metric]));
  const told = sweptKeys().filter((key) => !isSeed(key)); // a seed orders nothing
  const keys = (told.length ? told : sweptKeys()).slice(0, MOST_AXES);
  const columns = [...keys.map((key) => [DATA.shortKeys[key], runs.map((run) => RUNS[run].varied[key] ?? undefined)]),
    [shownMetric(metric), runs.map((run) => RUNS[run].metrics[metric])]];
  const axes = columns.map(([title, values], at) => ({ title, values, ...parallelAxis(values, at === columns.length - 1) }));
  const [top, bottom, side] = [40, 300, 70];
  const width = Math.max(box.parentElement.clientWidth - 8, 2 * side + 150 * (axes.length - 1));
  const x = (place) => side + (place * (width - 2 * side)) / (axes.length - 1);
  const y = (share) => bottom - share * (bottom - top);
  const svg = makeSvg("svg", { width, height: bottom + 24, role: "img", "aria-label": `${metric} over all settings` });
  const last = axes[axes.length - 1];
  const order = runs.map((_, place) => place).sort((a, b) => picked.has(runs[a]) - picked.has(runs[b]));
  for (const place of order) {
    const run = runs[place];
    const points = axes.map((each, at) => (each.values[place] === undefined ? null : [x(at), y(each.at(each.values[place]))])).filter(Boolean);
    const path = points.map(([px, py], at) => {
      const [qx, qy] = points[at - 1] || [];
      return at ? `C${(qx + px) / 2},${qy} ${(qx + px) / 2},${py} ${px},${py}` : `M${px},${py}`;
    }).join("");
    const share = last.at(last.values[place]);
    const color = scaleColor(DATA.preference[metric] < 0 ? 1 - share : share);
    const line = makeSvg("path", { d: path, fill: "none", stroke: color, "stroke-width": picked.has(run) ? 4 : 2, class: "lane" });
    line.style.opacity = picked.has(run) ? 1 : faded(run) ? 0.1 : Math.max(0.15, Math.min(0.85, 40 / runs.length));
    line.append(makeSvg("title", {}, `${called(run, 200)}\n${shownMetric(metric)} ${number(RUNS[run].metrics[metric])}`));
    line.addEventListener("click", () => pick(run));
    svg.append(line);
  }
  axes.forEach((each, at) => {
    svg.append(makeSvg("line", { x1: x(at), x2: x(at), y1: top, y2: bottom, class: "axis" }));
    const anchor = at === axes.length - 1 ? "end" : at ? "middle" : "start";
    const shift = at === axes.length - 1 ? side - 6 : at ? 0 : 6 - side;
    svg.append(makeSvg("text", { x: x(at) + shift, y: 18, class: "axis-title", "text-anchor": anchor }, shorten(each.title, 26)));
    const isLast = at === axes.length - 1;
    for (const [text, share] of each.ticks) {
      svg.append(makeSvg("text", { x: x(at) + (isLast ? 8 : -8), y: y(share) + 4, class: "tick", "text-anchor": isLast ? "start" : "end" }, shorten(text, 18)));
    }
  });
  box.replaceChildren(svg);
}

function setUpParallel() {
  if (!byId("parallel")) return;
  const metrics = measuredMetrics();
  if (!metrics.length) return;
  fill(byId("parallel-metric"), metrics.map((name) => [name, withDirection(name)]), firstMetric(metrics));
  const node = byId("parallel");
  byId("parallel-metric").addEventListener("change", () => redraw(node));
  addPainting(node, drawParallel);
  new ResizeObserver(() => redraw(node)).observe(node.parentElement);
}

setUpHeat();
setUpParallel();
