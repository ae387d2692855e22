// Learning curves: panels of one metric each, a line per run, the same colour and dash as in the table.

const UNITS = { "logps/chosen": "nats per response", "logps/rejected": "nats per response", length: "tokens",
  stopped: "share of answers", repetition: "share of 4-grams", drift_per_token: "nats per token", drift: "nats" };
const PANELS = {
  learning: [["loss", "Loss"]],
  rewards: [["rewards/margin", "Margin"], ["rewards/accuracy", "Accuracy"]],
  logps: [["logps/chosen", "Chosen"], ["logps/rejected", "Rejected"]],
  drift: [["samples/length", "Length"], ["samples/stopped", "Stopped by itself"], ["samples/repetition", "Repetition"],
    ["samples/drift_per_token", "Drift of chosen responses"]],
};
let smoothing = drawn.size > 6 ? 0.7 : 0; // many noisy lines cannot be told apart

function curvesNamed(metric) {
  return DATA.curves.filter((curve) => splitMetric(curve)[1] === metric);
}

// Exponential moving average, corrected for its start, of what training logs at every step.
function smooth(values) {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  });
}

function curveFigure(curve) {
  const [set, metric] = splitMetric(curve);
  const traces = [];
  for (const run of visibleRuns()) {
    const points = RUNS[run].curves[curve];
    if (!points) continue;
    const few = points[0].length <= 25;
    traces.push({
      x: points[0],
      y: set || metric.startsWith("samples/") || !smoothing ? points[1] : smooth(points[1]),
      type: "scatter",
      mode: few ? "lines+markers" : "lines",
      name: plain(called(run)),
      meta: run,
      opacity: faded(run) ? 0.16 : 1,
      line: { color: colorOf(run), dash: DASHES[RUNS[run].dash], width: picked.has(run) ? 3.2 : 1.7 },
      marker: { size: picked.has(run) ? 7 : 5 },
      hovertemplate: "<b>%{fullData.name}</b><br>step %{x}<br>%{y:.4~g}<extra></extra>",
    });
  }
  if (!traces.length) return null;
  const unit = UNITS[metric] || UNITS[metric.replace("samples/", "")];
  return { traces, layout: { xaxis: { title: "step", rangemode: "tozero" }, yaxis: { title: unit } } };
}

function setUpPanels() {
  for (const box of document.querySelectorAll("[data-panels]")) {
    for (const [metric, title] of PANELS[box.dataset.panels]) {
      for (const curve of curvesNamed(metric)) {
        const set = splitMetric(curve)[0];
        const where = metric.startsWith("samples/") ? "" : set ? `, ${set}` : ", training";
        const node = make("div", { className: "plot" });
        const caption = make("figcaption", {}, title + where);
        if (where === ", training") caption.append(make("span", { className: "smoothed" }));
        box.append(make("figure", { className: "panel" }, caption, node));
        node.dataset.curve = curve;
        addFigure(node, () => curveFigure(curve));
      }
    }
  }
}

function setUpSmoothing() {
  const range = byId("smoothing");
  if (!range) return;
  const say = () => {
    byId("smoothing-says").textContent = smoothing ? smoothing.toFixed(2) : "none";
    const words = smoothing ? ` (moving average, ${smoothing.toFixed(2)})` : "";
    for (const node of document.querySelectorAll(".smoothed")) node.textContent = words;
  };
  range.value = smoothing;
  range.addEventListener("input", () => {
    smoothing = Number(range.value);
    say();
    redrawAll();
  });
  say();
  const legend = byId("legend");
  const shown = () => {
    const runs = RUNS.map((_, run) => run).filter((run) => drawn.has(run) || picked.has(run));
    const chips = runs.slice(0, DATA.shownRuns).map((run) => {
      const line = makeSvg("svg", { width: 26, height: 10, "aria-hidden": "true" }, swatch(run));
      const chip = make("button", { type: "button", className: "chip", title: called(run, 400) }, line, make("span", {}, called(run, 44)));
      chip.setAttribute("aria-pressed", picked.has(run));
      chip.classList.toggle("dim", faded(run));
      chip.addEventListener("click", () => pick(run));
      return chip;
    });
    legend.replaceChildren(...chips);
  };
  listeners.push(shown);
  shown();
}

function setUpAnyCurve() {
  const select = byId("curve-name");
  if (!select) return;
  const node = document.querySelector('[data-figure="curve"]');
  fill(select, DATA.curves.map((curve) => [curve, shownMetric(curve)]));
  if (DATA.curves.includes("grad_norm")) select.value = "grad_norm";
  select.addEventListener("change", () => redraw(node));
  addFigure(node, () => curveFigure(select.value));
}

setUpPanels();
setUpSmoothing();
setUpAnyCurve();
