"use strict";
// What all other scripts share: the data, the runs that are highlighted and drawn, and how numbers are spelt.

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const MISSING = "–";
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const DASH_ARRAYS = ["", "6 3", "1.5 3", "6 3 1.5 3", "10 3", "10 3 1.5 3"];

const picked = new Set(); // highlighted in every figure
const drawn = new Set(RUNS.slice(0, DATA.shownRuns).map((_, place) => place)); // whose curves are drawn
const listeners = [];

function byId(id) {
  return document.getElementById(id);
}

// An element with properties and children; text is always text, never HTML.
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}

function makeSvg(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function cssColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// What a figure calls a run: its name, which finds it in the table, and what it varies; where there is no room for both
// in every run, what it varies, which tells more; where there is none for that either, its name.
const CALLS = [
  ({ name, label }) => (name === label || label.endsWith(`(${name})`) ? label : `${name} · ${label}`),
  ({ label }) => label,
  ({ name }) => name,
];
const widths = CALLS.map((call) => Math.max(...RUNS.map((run) => call(run).length)));

function called(run, length = 56) {
  const name = (CALLS.find((_, place) => widths[place] <= length) ?? CALLS[2])(RUNS[run]);
  return name.length > length ? `${name.slice(0, length - 1)}…` : name;
}

function colorOf(run) {
  return cssColor(`--c${RUNS[run].color}`);
}

// As `prefopt/report/shown.py` spells it.
function number(value) {
  if (value === null || value === undefined) return MISSING;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e7) return value.toExponential(2).replace(/\.?0+e/, "e");
  if (size >= 1000) return value.toLocaleString("en", { maximumFractionDigits: 0 });
  return String(Number(value.toPrecision(4)));
}

function setting(value) {
  if (value === null || value === undefined) return MISSING;
  return typeof value === "number" && Math.abs(value) < 1e-4 && value !== 0 ? value.toExponential() : String(value);
}

// "eval/heldout/loss" -> ["heldout", "loss"]; what training logs has no set.
function splitMetric(name) {
  const match = /^eval\/([^/]+)\/(.*)$/.exec(name);
  return match ? [match[1], match[2]] : ["", name];
}

function shownMetric(name) {
  return DATA.spoken[name] ?? name;
}

function withDirection(name) {
  const way = DATA.preference[name];
  return shownMetric(name) + (way > 0 ? ", more is better" : way < 0 ? ", less is better" : "");
}

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => make("option", { value, textContent: text })));
  if (chosen !== undefined) select.value = String(chosen);
}

// Tell everybody that other runs are highlighted ("picked") or drawn ("drawn").
function changed(what) {
  for (const listener of listeners) listener(what);
}

function toggle(set, run, on, what) {
  if (on === undefined ? !set.has(run) : on) set.add(run);
  else set.delete(run);
  changed(what);
}

function pick(run) {
  toggle(picked, run, undefined, "picked");
}

// Runs whose curves are drawn, highlighted ones last and so on top.
function visibleRuns() {
  const all = RUNS.map((_, run) => run).filter((run) => drawn.has(run) || picked.has(run));
  return [...all.filter((run) => !picked.has(run)), ...all.filter((run) => picked.has(run))];
}

function faded(run) {
  return picked.size > 0 && !picked.has(run);
}

function swatch(run, width = 26) {
  const line = makeSvg("line", { x1: 1, x2: width - 1, y1: 5, y2: 5, "stroke-width": 2.5 });
  line.style.stroke = `var(--c${RUNS[run].color})`;
  line.setAttribute("stroke-dasharray", DASH_ARRAYS[RUNS[run].dash]);
  return line;
}
