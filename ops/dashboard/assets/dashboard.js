// Fetches the state every few seconds and draws it. Text is inserted as text, never as HTML.
"use strict";

const EVERY_MS = 5000;
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#7f6cc5", "#8c564b"];
const charts = new Map();
const byId = (id) => document.getElementById(id);
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const number = (value, digits = 3) =>
  value == null ? "–" : value.toLocaleString("en", { maximumSignificantDigits: digits, notation: digits < 9 && Math.abs(value) >= 1e5 ? "compact" : "standard" });
const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)}%`);
const when = (ms) => (ms > 0 ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–");

function table(id, heads, rows, empty) {
  const cell = (tag, value, index) =>
    element(tag, { className: heads[index].startsWith(" ") ? "number" : "" }, value instanceof Node ? value : String(value));
  byId(id).replaceChildren(
    ...(rows.length
      ? [
          element("thead", {}, element("tr", {}, ...heads.map((head, index) => cell("th", head.trim(), index)))),
          element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, index) => cell("td", value, index))))),
        ]
      : [element("caption", { className: "empty" }, empty)]),
  );
}

// --- charts

function tick(seconds, step) {
  const iso = new Date(seconds * 1000).toISOString();
  if (step >= 86400) return iso.slice(5, 10);
  return iso.slice(11, step < 60 ? 19 : 16);
}

function options(width, lines, format) {
  const axis = { stroke: style("--muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { stroke: style("--grid") } };
  return {
    width,
    height: 210,
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.08 : 1] } },
    axes: [
      { ...axis, values: (_, ticks, _axis, _space, step) => ticks.map((seconds) => tick(seconds, step)) },
      { ...axis, size: 56, values: (_, ticks) => ticks.map((value) => format(value)) },
    ],
    series: [
      { value: (_, seconds) => (seconds == null ? "–" : when(seconds * 1000)) },
      ...lines.map((label, index) => ({
        label,
        stroke: index ? PALETTE[index % PALETTE.length] : style("--learned"),
        width: 1.6,
        spanGaps: true,
        points: { show: false },
        value: (_, value) => (value == null ? "–" : format(value)),
      })),
    ],
  };
}

function draw(id, times, columns, format) {
  const place = byId(id);
  const lines = Object.keys(columns);
  let chart = charts.get(id);
  if (!times.length || !lines.length) {
    chart?.plot.destroy();
    charts.delete(id);
    place.replaceChildren(element("div", { className: "empty" }, "Nothing yet."));
    return;
  }
  const data = [times.map((ms) => ms / 1000), ...Object.values(columns)];
  if (chart && chart.lines === lines.join()) {
    chart.plot.setData(data);
    return;
  }
  chart?.plot.destroy();
  place.replaceChildren();
  charts.set(id, { lines: lines.join(), plot: new uPlot(options(place.clientWidth, lines, format), data, place) });
}

function resize() {
  for (const [id, { plot }] of charts) plot.setSize({ width: byId(id).clientWidth, height: 210 });
}

function redraw() {
  for (const { plot } of charts.values()) plot.destroy();
  charts.clear();
  if (shown) show(shown);
}

// --- the state

let shown = null;

function show(state) {
  shown = state;
  const summary = byId("summary");
  summary.className = state.status;
  summary.textContent = `Status: ${state.status}. ${state.served == null ? "No version" : `Version ${state.served}`} is served. ${when(state.now)} UTC`;
  byId("checks").replaceChildren(
    ...state.checks.map((check) =>
      element(
        "div",
        { className: `check ${check.status}` },
        element("b", {}, `${check.name}: ${check.status}`),
        element("span", {}, check.summary),
        ...(check.remedy ? [element("em", {}, `→ ${check.remedy}`)] : []),
      ),
    ),
  );
  draw("lag", state.lag.time, { records: state.lag.records }, number);
  if (state.trends) showTrends(state);
  table(
    "segments",
    ["strategy", "segment", " turns", " share", " reward"],
    state.segments.map((one) => [
      one.strategy, one.segment || "all queries", number(one.turns), percent(one.share),
      `${one.reward.toFixed(3)} ± ${one.deviation.toFixed(3)}`,
    ]),
    "No policy yet.",
  );
  table(
    "alarms",
    ["since", "rate", " before", " after", "detected"],
    state.alarms.map((one) => [
      when(one.since), one.measure.replaceAll("_", " ") + (one.strategy && ` of ${one.strategy}`),
      one.before.toFixed(3), one.after.toFixed(3), when(one.raised),
    ]),
    "No drift detected.",
  );
}

function showTrends({ trends: { answers, intake, versions }, served }) {
  draw("rates", answers.time, {
    clicked: answers.clicked, defect: answers.defects, "barged in": answers.barged_in, rephrased: answers.rephrased,
  }, percent);
  const of = (name) => Object.fromEntries(Object.entries(answers.strategies).map(([strategy, trend]) => [strategy, trend[name]]));
  draw("rewards", answers.time, of("reward"), number);
  draw("shares", answers.time, of("share"), percent);
  draw("intake", intake.time, { events: intake.events, late: intake.late, "dead letters": intake.dead_letters }, number);
  const learned = versions.filter((one) => one.watermark > 0).reverse();
  draw("freshness", learned.map((one) => one.created), { seconds: learned.map((one) => (one.created - one.watermark) / 1000) }, number);
  table(
    "versions",
    [" version", "created", "watermark", " rows", "verdict", "reason"],
    versions.slice(0, 50).map((one) => [
      one.version === served ? `${one.version} (served)` : one.version, when(one.created), when(one.watermark),
      number(one.rows, 9), one.canary ? `${one.verdict}, ${percent(one.canary)}` : one.verdict ?? "–", one.reason ?? "",
    ]),
    "No version yet.",
  );
}

async function refresh() {
  try {
    const response = await fetch("api/state");
    if (!response.ok) throw new Error(await response.text());
    show(await response.json());
  } catch (error) {
    byId("summary").className = "critical";
    byId("summary").textContent = `The dashboard's server does not answer: ${error.message}`;
  }
  setTimeout(refresh, EVERY_MS);
}

// --- the search box

function explain({ query, rewriting }) {
  if (!rewriting) return `“${query}” is not rewritten.`;
  const becomes = `“${query}” is rewritten to “${rewriting.target}”`;
  if (rewriting.layer === "pinned") return `${becomes}, because the rewrite is pinned.`;
  return `${becomes}: ${percent(rewriting.probability)} of the people who start with it get there by rephrasing and succeed (from ${number(rewriting.support)} turns).`;
}

// Explains the rewrite: the verdict, the likeliest path through the chain with each step's probability, and all rephrases.
function why({ explanation: why }) {
  if (!why) return [element("p", { className: "note" }, "No explanation: the store does not allow reading its sums.")];
  const { source, target, path, steps } = why;
  const turns = `${number(source.turns)} turns: ${percent(source.success)} succeeded, ${percent(source.rephrased)} were rephrased.`;
  const parts = [element("p", { className: "note" }, `${source.turns ? turns : "Nobody has asked this query."} Verdict: ${why.verdict}.`)];
  if (path.length) {
    const way = element("p", { id: "path" }, element("b", {}, path[0].source));
    for (const step of path) way.append(` → ${percent(step.share)} → `, element("b", {}, step.target));
    way.append(` → ${percent(target.success)} → success`);
    parts.push(way);
  }
  if (steps.length) parts.push(element("div", { className: "scroll" }, element("table", { id: "steps" })));
  return parts;
}

function showAnswer(answer) {
  const place = byId("answer");
  place.hidden = false;
  if (answer.error) {
    place.replaceChildren(element("p", { className: "critical" }, answer.error));
    return;
  }
  const rewrite = explain(answer);
  const most = Math.max(...answer.choices.map((one) => one.reward + 2 * one.deviation), 1e-9);
  const bar = ({ reward, deviation }) => {
    const made = element("div", { className: "bar", title: `${reward} ± ${deviation}` }, element("i"), element("u"));
    const at = (value) => `${100 * Math.min(Math.max(value / most, 0), 1)}%`;
    made.firstChild.style.left = at(reward - 2 * deviation);
    made.firstChild.style.right = `calc(100% - ${at(reward + 2 * deviation)})`;
    made.lastChild.style.left = at(reward);
    return made;
  };
  const allocation = element("table", { id: "allocation" });
  const recalled = element("table", { id: "recalled" });
  const guess = answer.recalled[0]?.guess;
  const guessed = guess ? `, as a guess from “${guess.query}” (${percent(guess.similarity)} similar)` : "";
  place.replaceChildren(
    element("h3", {}, "Rewrite"), element("p", {}, rewrite), ...why(answer),
    element(
      "div", { className: "sides" },
      element("div", {}, element("h3", {}, `Allocation by version ${answer.version}`), element("div", { className: "scroll" }, allocation)),
      element("div", {}, element("h3", {}, `Recalled${guessed}`), element("div", { className: "scroll" }, recalled)),
    ),
  );
  const steps = answer.explanation?.steps.slice(0, 10) ?? [];
  if (steps.length) {
    table(
      "steps",
      ["rephrased to", " probability", " turns", " people, at least"],
      steps.map((one) => [one.target, percent(one.share), number(one.turns), number(one.people)]),
      "",
    );
  }
  table(
    "allocation",
    ["strategy", "expected reward ± 2 standard deviations", " mean", " candidates", " propensity"],
    answer.choices.map((one) => [one.strategy, bar(one), one.reward.toFixed(3), one.candidates, percent(one.propensity)]),
    "",
  );
  table(
    "recalled",
    ["entity", " score", " at least", " exposures"],
    answer.recalled.map((one) => [one.entity_id, one.score.toFixed(3), one.lower.toFixed(3), number(one.evidence)]),
    "No entity is known to work for this query.",
  );
}

async function ask(event) {
  event?.preventDefault();
  const asked = new URLSearchParams(new FormData(byId("ask")));
  if (!asked.get("text").trim()) return;
  history.replaceState(null, "", `#${asked.get("text")}`);
  try {
    const response = await fetch(`api/query?${asked}`);
    showAnswer(await response.json());
  } catch (error) {
    showAnswer({ error: `The dashboard's server does not answer: ${error.message}` });
  }
}

byId("ask").addEventListener("submit", ask);
byId("text").value = decodeURIComponent(location.hash.slice(1));
addEventListener("resize", resize);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
refresh();
ask();
