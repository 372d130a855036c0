// Fetches the state every few seconds and draws it. Text is inserted as text, never as HTML.
"use strict";

const EVERY_MS = 5000;
const HEIGHT = 190;
const SERIES = 5; // maximum number of lines in a chart
const POINTS = 30; // number of points that a line is smoothed over
const ROWS = 10; // maximum number of rows in a list
const PALETTE = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b"];
const RANGES = { "3 h": 3, "12 h": 12, all: Infinity };
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
const signed = (value) => `${value >= 0 ? "+" : "−"}${(100 * Math.abs(value)).toFixed(1)}%`;
const points = (value) => `${signed(value).slice(0, -1)} points`;
const when = (ms) => (ms > 0 ? new Date(ms).toISOString().slice(0, 19).replace("T", " ") : "–");

function ago(ms) {
  const seconds = Math.max(ms, 0) / 1000;
  if (seconds < 120) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(0)} h` : `${(seconds / 86400).toFixed(0)} days`;
}

// A head that begins with a space belongs to a column of numbers.
function table(id, heads, rows, empty) {
  const cell = (tag, value, index) =>
    element(tag, { className: heads[index].startsWith(" ") ? "number" : "", ...(tag === "th" && { scope: "col" }) }, value instanceof Node ? value : String(value));
  byId(id).replaceChildren(
    ...(rows.length
      ? [
          element("thead", {}, element("tr", {}, ...heads.map((head, index) => cell("th", head.trim(), index)))),
          element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((value, index) => cell("td", value, index))))),
        ]
      : [element("caption", { className: "empty" }, empty)]),
  );
}

// A query as a link that searches for it.
const asking = (text) => element("a", { href: `#${encodeURIComponent(text)}` }, text || "(empty)");

// --- charts

let hours = Infinity;

// Times and columns within the range, smoothed, without lines over times that have no data.
function prepared(times, columns, weights) {
  const from = times.findIndex((ms) => ms >= times.at(-1) - hours * 3600_000);
  const steps = times.slice(1).map((ms, index) => ms - times[index]);
  const step = Math.min(...steps);
  const width = Math.max(Math.ceil((times.length - from) / POINTS), 1);
  const at = [];
  for (let index = from; index < times.length; index += 1) {
    if (index > from && times[index] - times[index - 1] > 3 * step) at.push(null);
    at.push(index);
  }
  const smooth = (column, index) => {
    let total = 0, weight = 0;
    for (let near = Math.max(index - width + 1, from); near <= index; near += 1) {
      if (column[near] == null || times[index] - times[near] > 3 * step * width) continue;
      const own = weights?.[near] ?? 1;
      total += own * column[near];
      weight += own;
    }
    return weight ? [total / weight, weight] : [null, 0];
  };
  const seconds = at.map((index, place) => (index == null ? (times[at[place - 1]] + step) / 1000 : times[index] / 1000));
  const lines = Object.fromEntries(
    Object.entries(columns).map(([label, column]) => [label, at.map((index) => (index == null ? [null, 0] : smooth(column, index)))]),
  );
  return { seconds, lines };
}

function tick(seconds, step) {
  const iso = new Date(seconds * 1000).toISOString();
  return step >= 86400 ? iso.slice(5, 10) : iso.slice(11, step < 60 ? 19 : 16);
}

// Labels at the ends of the lines, so that nobody needs to compare colours with a key; they give way to each other.
function labelled(plot) {
  const { ctx } = plot;
  const ratio = devicePixelRatio;
  const ends = plot.series
    .map((one, index) => ({ one, index }))
    .filter(({ one, index }) => index && one.label && one.show !== false)
    .map(({ one, index }) => {
      const last = plot.data[index].findLastIndex((value) => value != null);
      return { text: one.label, colour: one._stroke ?? one.stroke(), y: last < 0 ? null : plot.valToPos(plot.data[index][last], "y", true) };
    })
    .filter(({ y }) => y != null)
    .sort((one, other) => one.y - other.y);
  ctx.save();
  ctx.font = `${11 * ratio}px ${style("--font")}`;
  ctx.textBaseline = "middle";
  ctx.textAlign = "left";
  let free = -Infinity;
  for (const { text, colour, y } of ends) {
    const place = Math.max(y, free);
    free = place + 12 * ratio;
    ctx.fillStyle = typeof colour === "function" ? colour() : colour;
    ctx.fillText(text.length > 12 ? `${text.slice(0, 11)}…` : text, plot.bbox.left + plot.bbox.width + 5 * ratio, place);
  }
  ctx.restore();
}

// Thin lines where something happened.
const marked = (events) => (plot) => {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = style("--muted");
  ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const ms of events) {
    const x = plot.valToPos(ms / 1000, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
};

function options(width, labels, format, { banded, events = [], padded }) {
  const axis = { stroke: style("--muted"), grid: { stroke: style("--grid"), width: 1 }, ticks: { stroke: style("--grid") } };
  const hidden = { label: "", stroke: "transparent", points: { show: false } };
  const drawn = labels.map((label, index) => ({
    label,
    stroke: index ? PALETTE[index % PALETTE.length] : style("--learned"),
    width: 1.8,
    points: { show: (plot, series, first, last) => last - first < 2, size: 6 },
    value: (_, value) => (value == null ? "–" : format(value)),
  }));
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [12, 84, 0, 0],
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "UTC"),
    scales: {
      x: { range: (_, low, high) => (low === high ? [low - padded / 2, high + padded / 2] : [low, high]) },
      y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high ?? 0) > 0 ? high * 1.08 : 1] },
    },
    axes: [
      { ...axis, values: (_, ticks, _axis, _space, step) => ticks.map((seconds) => tick(seconds, step)) },
      { ...axis, size: 60, values: (_, ticks) => ticks.map((value) => format(value)) },
    ],
    series: [{}, ...drawn, ...(banded ? [hidden, hidden] : [])],
    bands: banded ? [{ series: [drawn.length + 1, drawn.length + 2], fill: `${PALETTE[0]}33` }] : [],
    hooks: { draw: [labelled, marked(events)] },
  };
}

// Draws lines, with a 95% band around the first one if they are shares of `weights` turns.
function draw(id, times, columns, format, { weights, banded = false, events } = {}) {
  const place = byId(id);
  charts.get(id)?.destroy();
  charts.delete(id);
  const labels = Object.keys(columns).slice(0, SERIES);
  if (!times.length || !labels.length || labels.every((label) => columns[label].every((value) => value == null))) {
    place.replaceChildren(element("div", { className: "empty" }, "Nothing yet."));
    return;
  }
  const { seconds, lines } = prepared(times, Object.fromEntries(labels.map((label) => [label, columns[label]])), weights);
  const values = labels.map((label) => lines[label].map(([value]) => value));
  const around = (sign) =>
    lines[labels[0]].map(([value, weight]) => (value == null ? null : Math.min(Math.max(value + sign * 1.96 * Math.sqrt((value * (1 - value)) / weight), 0), 1)));
  const data = [seconds, ...values, ...(banded ? [around(1), around(-1)] : [])];
  const canvas = element("div");
  canvas.setAttribute("role", "img");
  const last = (column) => column.findLast((value) => value != null);
  canvas.setAttribute("aria-label", labels.map((label, index) => `${label}: ${format(last(values[index]))}`).join(", "));
  const rows = element("table", { id: `${id}-table` });
  const open = place.querySelector("details")?.open ?? false;
  place.replaceChildren(canvas, element("details", { open }, element("summary", {}, "As a table"), element("div", { className: "scroll", tabIndex: 0 }, rows)));
  table(
    rows.id,
    ["time", ...labels.map((label) => ` ${label}`)],
    seconds.map((time, index) => [when(1000 * time), ...values.map((column) => (column[index] == null ? "–" : format(column[index])))]).slice(-20).reverse(),
    "",
  );
  charts.set(id, new uPlot(options(place.clientWidth, labels, format, { banded, events, padded: 3600 }), data, canvas));
}

const redraw = () => shown && show(shown);

// --- the state

let shown = null;

function show(state) {
  shown = state;
  document.title = `${state.store} – Backchannel`;
  const summary = byId("summary");
  summary.className = state.status;
  const version = state.served == null ? "No version is served yet" : `Version ${state.served} is served`;
  summary.textContent = `${version} from ${state.store}. ${when(state.now)} UTC`;
  showHealth(state);
  showTiles(state);
  const alarms = state.alarms.map((one) => one.since);
  if (state.trends) showTrends(state, alarms);
  draw("lag", state.lag.time, { records: state.lag.records }, number);
  showSegments(state.segments, state.doubled, state.goals);
  showListings(state.listings);
  showFailures(state.repairs);
  showRules(state.rules);
  byId("invalid").hidden = !state.invalid;
  byId("letters").textContent = `${number(state.invalid, 9)} since the beginning.`;
  byId("satisfaction").textContent = state.satisfaction ? `Satisfied: ${state.satisfaction}.` : "";
  showHorizon(state.horizon);
  byId("order").textContent = state.ranking?.verdict ?? "No policy yet.";
  table(
    "weights",
    ["feature", " weight", " 95% interval", " in the prior order"],
    (state.ranking?.weights ?? []).map((one) => [
      one.column, one.weight.toFixed(4),
      `${(one.weight - 1.96 * one.deviation).toFixed(4)} to ${(one.weight + 1.96 * one.deviation).toFixed(4)}`,
      one.prior.toFixed(4),
    ]),
    "No features are declared.",
  );
  showTastes(state.tastes);
  table(
    "alarms",
    ["since", "rate", " before", " after", "noticed"],
    state.alarms.slice(0, ROWS).map((one) => [
      when(one.since), one.measure.replaceAll("_", " ") + (one.strategy && ` of ${one.strategy}`),
      one.before.toFixed(3), one.after.toFixed(3), when(one.raised),
    ]),
    "No rate has changed.",
  );
}

// The long-term metric beside the short one.
function showHorizon(horizon) {
  byId("horizon").hidden = !horizon;
  if (!horizon) return;
  const { surrogate, strategies, warnings, rest } = horizon;
  const known = `A return is another visit ${surrogate.least_days} to ${surrogate.days} days later. ${number(surrogate.mature, 9)} of ${number(surrogate.visits, 9)} visits are mature; signals predict the others, corrected by what has matured.`;
  byId("returns").textContent = [known, ...warnings.map((one) => `Warning: ${one}.`)].join(" ");
  const within = (one) => (one ? `${percent(one.value)} (${percent(one.low)} to ${percent(one.high)})` : "–");
  const brings = (one) => (one ? `${one.value.toFixed(2)} (${one.low.toFixed(2)} to ${one.high.toFixed(2)})` : "–");
  table(
    "longterm",
    ["strategy", " visits", " success of a turn", " returns expected", " of mature visits", " predicted by signals", " correction", " rest of the session"],
    Object.entries(strategies).map(([name, one]) => [
      name, number(one.visits), percent(one.success), within(one.value), within(one.returned),
      percent(one.predicted), one.value ? points(one.value.value - one.predicted) : "–",
      brings(rest[name]?.value),
    ]),
    "No visits yet.",
  );
  const { "": base, ...signals } = surrogate.weights ?? {};
  const adds = Object.entries(signals).map(([name, weight]) => `${name.replaceAll("_", " ")} ${points(weight)}`);
  byId("surrogate").textContent = adds.length
    ? `Of a visit without any, ${percent(base)} are predicted to be followed by a return; what a signal adds to that: ${adds.join(", ")}.`
    : "Too few people have come back, or not, to say what signals predict.";
  table(
    "cohorts",
    ["visits since", " mature visits", " predicted before", " followed by a return", " difference"],
    (surrogate.cohorts ?? []).map((one) => [
      when(one.begins), number(one.visits), percent(one.predicted), percent(one.returned),
      `${points(one.error.value)} (${points(one.error.low)} to ${points(one.error.high)})`,
    ]),
    "None are mature yet.",
  );
}

function showTastes(tastes) {
  const means = Object.entries(tastes?.means ?? {}).flatMap(([feature, values]) =>
    Object.entries(values).map(([value, weight]) => [`${feature}=${value}`, weight]));
  means.sort((one, other) => Math.abs(other[1]) - Math.abs(one[1]));
  const usual = means.slice(0, ROWS).map(([name, weight]) => `${name} ${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(3)}`);
  byId("tastes").textContent = tastes
    ? `Own choices of ${number(tastes.people, 9)} users are known, and change the order for each. What all together choose adds to a score: ${usual.join(", ")}.`
    : "";
}

// One line while all is well; only what is wrong is spelled out.
function showHealth({ checks }) {
  const wrong = checks.filter((check) => check.status !== "ok");
  const card = (check) =>
    element(
      "div", { className: `check ${check.status}` },
      element("b", {}, `${check.name}: ${check.status}`), element("span", {}, check.summary),
      ...(check.remedy ? [element("em", {}, `→ ${check.remedy}`)] : []),
    );
  const open = byId("health").querySelector("details")?.open ?? false;
  const fine = checks.filter((check) => check.status === "ok");
  byId("health").replaceChildren(
    element("div", { className: "checks" }, ...wrong.map(card)),
    element(
      "details", { open },
      element("summary", { className: wrong.length ? "" : "ok" }, wrong.length ? `${fine.length} other checks are fine` : `All ${fine.length} checks are fine`),
      element("div", { className: "checks" }, ...fine.map(card)),
    ),
  );
}

function tile(title, value, note) {
  return element("div", { className: "tile" }, element("span", {}, title), element("b", {}, value), element("span", {}, note));
}

function showTiles({ now, trends, listings, served }) {
  const tiles = [];
  if (trends) {
    tiles.push(successTile(trends.answers), gainTile(trends.versions));
    if (listings) tiles.push(rewriteTile(listings));
    const current = trends.versions.find((one) => one.version === served);
    if (current) tiles.push(tile("Age of the served version", ago(now - current.created), `published ${when(current.created)}; learned up to ${when(current.watermark)}`));
  }
  byId("tiles").replaceChildren(...tiles);
}

// The later half of the turns shown beside the earlier one.
function successTile({ time, turns, reward }) {
  const sum = (from, to) => {
    let total = 0, weight = 0;
    for (let index = from; index < to; index += 1) {
      total += (turns[index] ?? 0) * (reward[index] ?? 0);
      weight += turns[index] ?? 0;
    }
    return { mean: weight ? total / weight : null, weight };
  };
  const half = Math.floor(time.length / 2);
  const [before, after] = [sum(0, half), sum(half, time.length)];
  const title = "Success of a turn";
  if (after.mean == null) return tile(title, "–", "no turns yet");
  if (before.mean == null) return tile(title, percent(after.mean), `in ${number(after.weight)} turns`);
  const spread = 1.96 * Math.sqrt((after.mean * (1 - after.mean)) / after.weight + (before.mean * (1 - before.mean)) / before.weight);
  const change = after.mean - before.mean;
  const surely = Math.abs(change) > spread ? "" : ", within chance";
  return tile(title, percent(after.mean), `${points(change)} (± ${(100 * spread).toFixed(1)}) from the half before${surely}; ${number(after.weight)} turns since ${when(time[half])}`);
}

function gainTile(versions) {
  const title = "Gain of the newest policy";
  const judged = versions.find((one) => one.gain);
  if (!judged) return tile(title, "–", "small steps go live at once; only leaps are judged");
  const { value, low, high } = judged.gain;
  const since = judged.canary == null ? `version ${judged.version}, by logged decisions` : `on trial with ${percent(judged.canary)} of the queries, version ${judged.version}`;
  return tile(title, signed(value), `over the served policy (${signed(low)} to ${signed(high)}); ${since}`);
}

function rewriteTile({ live, withdrawn, lift }) {
  const gain = lift.gain ? `success ${points(lift.gain.value)} to those held out (${signed(lift.gain.low).slice(0, -1)} to ${signed(lift.gain.high).slice(0, -1)})` : "none held out to compare with yet";
  return tile("Rewrites live", number(live, 9), `${gain}${withdrawn ? `; ${number(withdrawn, 9)} withdrawn` : ""}`);
}

function showTrends({ trends: { answers, intake, versions }, served }, alarms) {
  const events = [...alarms, ...versions.filter((one) => ["hold", "canary"].includes(one.verdict)).map((one) => one.watermark)];
  draw(
    "rates", answers.time,
    { success: answers.reward, clicked: answers.clicked, defect: answers.defects, "goal with a defect": answers.goal_defects, interrupted: answers.barged_in, rephrased: answers.rephrased },
    percent, { weights: answers.turns, banded: true, events },
  );
  const mean = (column) => column.reduce((total, value) => total + (value ?? 0), 0);
  const strategies = Object.entries(answers.strategies).sort(([, one], [, other]) => mean(other.share) - mean(one.share));
  const of = (name) => Object.fromEntries(strategies.map(([strategy, trend]) => [strategy, trend[name]]));
  draw("rewards", answers.time, of("reward"), number, { weights: answers.turns, events });
  draw("shares", answers.time, of("share"), percent, { weights: answers.turns, events });
  draw("intake", intake.time, { events: intake.events, late: intake.late, invalid: intake.dead_letters }, number);
  // Versions of a replayed log are not late.
  const made = versions.filter((one) => one.watermark > 0 && one.created - one.watermark < 86_400_000).reverse();
  draw("freshness", made.map((one) => one.created), { seconds: made.map((one) => (one.created - one.watermark) / 1000) }, number);
  table(
    "versions",
    ["version", "made", "learned up to", " rows", "changes", "gate", "gain over the served policy", "why"],
    versions.slice(0, ROWS).map((one, index) => [
      one.version === served ? `${one.version} (served)` : one.version, when(one.created), when(one.watermark),
      number(one.rows, 9), comparing(versions[index + 1]?.version, one.version), one.canary ? `${one.verdict}, ${percent(one.canary)}` : one.verdict ?? "–", one.gain ? gainBar(one.gain) : "–", one.reason ?? "",
    ]),
    "No version yet.",
  );
}

// A button that shows what a version changed.
function comparing(older, newer) {
  if (older == null) return "–";
  const button = element("button", { type: "button" }, `since ${older}`);
  button.addEventListener("click", () => compare(older, newer));
  return button;
}

async function compare(older, newer) {
  let lines;
  try {
    const said = await (await fetch(`api/changes?from=${older}&to=${newer}`)).json();
    lines = said.error ? [said.error] : said;
  } catch (error) {
    lines = [`The dashboard's server does not answer: ${error.message}`];
  }
  const [first, ...rest] = lines;
  byId("changes").replaceChildren(element("h3", {}, first), element("ul", {}, ...rest.map((line) => element("li", {}, line))));
  byId("changes").hidden = false;
  byId("changes").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

// Dead letters are read from Kafka, so only on request.
async function showReasons() {
  const heads = ["reason", " records", "newest", "found in", "value"];
  try {
    const said = await (await fetch("api/invalid-records")).json();
    const rows = said.error ? [] : said.map((one) => [one.reason, number(one.count, 9), when(one.written), one.place, one.value]);
    table("letter-reasons", heads, rows, said.error ?? "The topic holds none any more.");
  } catch (error) {
    table("letter-reasons", heads, [], `The dashboard's server does not answer: ${error.message}`);
  }
}

function showFailures(repairs) {
  byId("failures").hidden = !repairs.length;
  table(
    "repairs",
    ["turns of", "component", " turns", " share", " 95% interval", " defects saved"],
    repairs.map((one) => [
      one.kind === "all" ? "all" : `${one.kind} ${one.value}`, one.failure_point.replaceAll("_", " "), number(one.turns), percent(one.share.value),
      `${percent(one.share.low)} to ${percent(one.share.high)}`, number(one.saved.value),
    ]),
    "",
  );
}

function showRules(rules) {
  byId("taught").hidden = !rules.length;
  table("rules", ["rule", "by", "since"], rules.map((one) => [one.rule, one.by, when(one.since)]), "");
}

// An interval on a line from -50% to +50%, with zero in the middle.
function gainBar({ value, low, high }) {
  const made = element("div", { className: "bar gain", title: `${signed(value)} (${signed(low)} to ${signed(high)})` }, element("i"), element("u"));
  const at = (gain) => 100 * Math.min(Math.max(gain + 0.5, 0), 1);
  made.firstChild.style.left = `${at(low)}%`;
  made.firstChild.style.right = `${100 - at(high)}%`;
  made.lastChild.style.left = `${at(value)}%`;
  return made;
}

function showSegments(segments, doubled, goals) {
  const names = [...new Set(segments.map((one) => one.segment))];
  const strategies = [...new Set(segments.map((one) => one.strategy))];
  const of = new Map(segments.map((one) => [`${one.strategy}\n${one.segment}`, one]));
  const most = Math.max(...segments.map((one) => one.reward), 1e-9);
  const cell = (one) => {
    if (!one) return "–";
    const made = element("div", { className: "heat", title: `${one.reward.toFixed(4)} ± ${one.deviation.toFixed(4)} in ${number(one.turns)} turns` }, one.reward.toFixed(3), element("small", {}, percent(one.share)));
    made.style.setProperty("--heat", `${Math.round(55 * Math.max(one.reward, 0) / most)}%`);
    return made;
  };
  const pages = ({ value, low, high }) => `${signed(value)} (${signed(low)} to ${signed(high)})`;
  const learned = Object.keys(doubled).length > 0;
  const credited = Object.keys(goals).length > 0;
  table(
    "segments",
    ["strategy", ...names.map((name) => ` ${name || "all queries"}`), ...(learned ? [" pages with twice as many"] : []), ...(credited ? [" goals"] : [])],
    strategies.map((strategy) => [
      strategy,
      ...names.map((name) => cell(of.get(`${strategy}\n${name}`))),
      ...(learned ? [doubled[strategy] ? pages(doubled[strategy]) : "–"] : []),
      ...(credited ? [goals[strategy] ? percent(goals[strategy].reached) : "–"] : []),
    ]),
    "No policy yet.",
  );
}

function showListings(listings) {
  const rows = (some) => (some ?? []).map((one) => [asking(one.query), number(one.turns), percent(one.success)]);
  table("asked", ["query", " turns", " succeeded"], rows(listings?.asked), "Nothing yet.");
  table("failing", ["query", " turns", " succeeded"], rows(listings?.failing), "Nothing yet.");
  byId("lift").textContent = listings
    ? `${number(listings.live, 9)} are live, ${number(listings.withdrawn, 9)} withdrawn. Served in ${number(listings.lift.turns)} turns, held out in ${number(listings.lift.held_out)}.`
    : "";
  table(
    "rewrites",
    ["query", "to", "layer", " probability", " turns", "withdrawn"],
    (listings?.rewrites ?? []).map((one) => [asking(one.source), one.target, one.layer, percent(one.probability), number(one.turns), one.withdrawn]),
    "None yet.",
  );
  byId("text").placeholder = listings?.asked[0]?.query ?? "";
}

function showRanges() {
  byId("range").replaceChildren(
    ...Object.entries(RANGES).map(([label, value]) => {
      const button = element("button", { type: "button" }, label);
      button.setAttribute("aria-pressed", String(value === hours));
      button.addEventListener("click", () => {
        hours = value;
        showRanges();
        redraw();
      });
      return button;
    }),
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
  if (steps.length) parts.push(element("div", { className: "scroll", tabIndex: 0 }, element("table", { id: "steps" })));
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
      element("div", {}, element("h3", {}, `Allocation by version ${answer.version}`), element("div", { className: "scroll", tabIndex: 0 }, allocation)),
      element("div", {}, element("h3", {}, `Recalled${guessed}`), element("div", { className: "scroll", tabIndex: 0 }, recalled)),
    ),
  );
  const steps = answer.explanation?.steps.slice(0, ROWS) ?? [];
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
    ["strategy", "expected reward ± 2 standard deviations", " mean", " asked with probability", " candidates, expected", " in one draw"],
    answer.choices.map((one) => [one.strategy, bar(one), one.reward.toFixed(3), percent(one.propensity), number(one.expected), one.candidates]),
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
  history.replaceState(null, "", `#${encodeURIComponent(asked.get("text"))}`);
  try {
    const response = await fetch(`api/query?${asked}`);
    showAnswer(await response.json());
  } catch (error) {
    showAnswer({ error: `The dashboard's server does not answer: ${error.message}` });
  }
  if (event) byId("answer").scrollIntoView({ block: "nearest", behavior: "smooth" });
}

function askFromAddress(event) {
  byId("text").value = decodeURIComponent(location.hash.slice(1));
  ask(event);
}

byId("ask").addEventListener("submit", ask);
byId("reasons").addEventListener("click", showReasons);
addEventListener("hashchange", askFromAddress);
addEventListener("resize", redraw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
showRanges();
refresh();
askFromAddress();
