// Figures: plotly is unpacked when the first one comes into view, and each is drawn when it does.

const figures = new Map(); // element -> { build, stale, inView, plotted }
let plotlyReady = null;

async function unpackPlotly() {
  const packed = byId("plotly");
  const bytes = Uint8Array.from(atob(packed.textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const source = await new Response(stream).text();
  packed.remove();
  // The policy of the page knows this text by its hash.
  document.head.append(make("script", { textContent: source }));
}

function plotly() {
  plotlyReady = plotlyReady || unpackPlotly();
  return plotlyReady;
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const figure = figures.get(entry.target);
      figure.inView = entry.isIntersecting;
      if (figure.inView) draw(entry.target);
    }
  },
  { rootMargin: "250px" },
);

// build() -> { traces, layout, onClick } or null where there is nothing to draw; called anew after every change.
function addFigure(node, build) {
  figures.set(node, { build, stale: true, inView: false, plotted: false });
  observer.observe(node);
}

// A figure that needs no plotly: paint() fills the element.
function addPainting(node, paint) {
  figures.set(node, { paint, stale: true, inView: false, plotted: false });
  observer.observe(node);
}

async function draw(node) {
  const figure = figures.get(node);
  if (!figure.stale) return;
  figure.stale = false;
  if (figure.paint) {
    figure.paint();
    return;
  }
  await plotly();
  const built = figure.build();
  node.classList.toggle("empty", !built);
  if (!built) {
    if (figure.plotted) Plotly.purge(node);
    figure.plotted = false;
    node.textContent = "Nothing to draw: no run has these values.";
    return;
  }
  if (!figure.plotted) node.replaceChildren();
  const { traces, layout } = built;
  if (layout.height) node.style.height = `${layout.height}px`;
  await Plotly.react(node, traces, { ...baseLayout(), ...layout, xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis) }, {
    displaylogo: false,
    responsive: true,
    modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
  });
  if (!figure.plotted) {
    node.on("plotly_click", (event) => {
      const run = event.points[0].data.meta ?? event.points[0].customdata;
      if (Number.isInteger(run)) pick(run);
    });
  }
  figure.plotted = true;
}

function redraw(node) {
  const figure = figures.get(node);
  if (!figure) return;
  figure.stale = true;
  if (figure.inView) draw(node);
}

function redrawAll() {
  for (const node of figures.keys()) redraw(node);
}

function baseLayout() {
  const text = cssColor("--text");
  return {
    autosize: true,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", size: 12, color: cssColor("--muted") },
    margin: { l: 58, r: 14, t: 8, b: 44 },
    showlegend: false,
    hovermode: "closest",
    hoverlabel: { bgcolor: cssColor("--card"), bordercolor: cssColor("--line"), font: { color: text, size: 13 }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: cssColor("--faint"), activecolor: text },
  };
}

function axis(own = {}) {
  const { title, ...rest } = own;
  return {
    gridcolor: cssColor("--grid"),
    zerolinecolor: cssColor("--line"),
    linecolor: cssColor("--line"),
    automargin: true,
    exponentformat: "power",
    title: title ? { text: title, standoff: 8, font: { size: 12 } } : undefined,
    ...rest,
  };
}

// Plotly reads a little HTML in its texts; a run's name is not meant to be any.
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function shorten(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
window.addEventListener("beforeprint", () => figures.forEach((_, node) => draw(node)));
listeners.push(redrawAll);
