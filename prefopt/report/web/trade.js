// Trade-offs: runs by two objectives, a third as colour; the front and its hypervolume were computed by prefopt.

function tradeFigure() {
  const places = ["trade-x", "trade-y", "trade-z"].map((id) => byId(id).value).filter((value) => value !== "").map(Number);
  const chosen = [...new Set(places)];
  const found = DATA.fronts.found[[...chosen].sort((a, b) => a - b).join(",")];
  const note = byId("trade-note");
  if (!found) {
    note.textContent = chosen.length < 2 ? "Choose two different objectives." : "Fewer than two runs have all of these.";
    return null;
  }
  const names = chosen.map((place) => DATA.fronts.objectives[place]);
  const [first, second, third] = names;
  const value = (run, name) => RUNS[run].metrics[name];
  const front = new Set(found.front);
  const sorted = [...chosen].sort((a, b) => a - b);
  const corner = sorted.map((place, at) => `${shownMetric(DATA.fronts.objectives[place])} ${number(found.reference[at])}`).join(", ");
  note.textContent = `${front.size} of ${found.points.length} runs are on the front: no other run is better in one of these ` +
    `and as good in the rest. Hypervolume ${number(found.hypervolume)}, from the worst values (${corner}).`;
  const layout = {
    xaxis: { title: plain(withDirection(first)) }, yaxis: { title: plain(withDirection(second)) }, height: 440,
  };
  const dots = (runs, style) => ({
    type: "scatter", mode: "markers", x: runs.map((run) => value(run, first)), y: runs.map((run) => value(run, second)),
    text: runs.map((run) => plain(called(run))), customdata: runs,
    hovertemplate: `<b>%{text}</b><br>${plain(shownMetric(first))} %{x:.4~g}<br>${plain(shownMetric(second))} %{y:.4~g}<extra></extra>`,
    ...style,
  });
  const opacity = (run, plainly) => (faded(run) ? 0.12 : plainly);
  const behind = found.points.filter((run) => !front.has(run));
  const ahead = found.points.filter((run) => front.has(run)).sort((a, b) => value(a, first) - value(b, first));
  const color = (runs) => third
    ? { color: runs.map((run) => value(run, third)), colorscale: SCALE, reversescale: DATA.preference[third] < 0, cmin: least(third), cmax: most(third) }
    : { color: runs.map(colorOf) };
  const traces = [];
  if (!third) traces.push(steps(ahead, first, second, value));
  traces.push(dots(behind, { marker: { ...color(behind), size: 9, opacity: behind.map((run) => opacity(run, 0.35)) } }));
  const [left, right] = [least(first), most(first)];
  const side = (run, at) => {
    const share = (value(run, first) - left) / (right - left || 1);
    const across = share < 0.3 ? "right" : share > 0.7 ? "left" : "center";
    return `${at % 2 ? "bottom" : "top"} ${across}`; // neighbours do not write over each other
  };
  traces.push(dots(ahead, {
    mode: ahead.length <= 6 && innerWidth > 640 ? "markers+text" : "markers", textposition: ahead.map(side), cliponaxis: false,
    textfont: { size: 11, color: cssColor("--text") },
    marker: {
      ...color(ahead), size: ahead.map((run) => (picked.has(run) ? 19 : 14)), opacity: ahead.map((run) => opacity(run, 1)),
      line: { width: 2, color: cssColor("--text") },
      ...(third ? { colorbar: { thickness: 12, outlinewidth: 0, title: { text: plain(shownMetric(third)), side: "right" } } } : {}),
    },
  }));
  return { traces, layout };

  function least(name) {
    return Math.min(...found.points.map((run) => value(run, name)));
  }
  function most(name) {
    return Math.max(...found.points.map((run) => value(run, name)));
  }
}

// The edge of what the front dominates, as steps.
function steps(front, first, second, value) {
  const up = DATA.preference[first] >= 0;
  return {
    type: "scatter", mode: "lines", x: front.map((run) => value(run, first)), y: front.map((run) => value(run, second)),
    line: { shape: up ? "vh" : "hv", color: cssColor("--faint"), width: 1.5, dash: "dot" }, hoverinfo: "skip",
  };
}

function setUpTrade() {
  if (!byId("trade-x")) return;
  const options = DATA.fronts.objectives.map((name, place) => [place, withDirection(name)]);
  const first = DATA.fronts.first.split(",");
  fill(byId("trade-x"), options, first[0]);
  fill(byId("trade-y"), options, first[1]);
  fill(byId("trade-z"), [["", "(nothing more)"], ...options], first[2] ?? "");
  const node = document.querySelector('[data-figure="trade"]');
  for (const id of ["trade-x", "trade-y", "trade-z"]) byId(id).addEventListener("change", () => redraw(node));
  addFigure(node, tradeFigure);
}

setUpTrade();
