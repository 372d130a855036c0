// A person searches, clicks and rephrases; the page shows what was done and why. Text goes in as text, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const percent = (value) => `${(100 * value).toFixed(1)}%`;
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(4)}`;
const counted = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? response.statusText);
  return answer;
}

function complain(error) {
  byId("about").textContent = `This did not work: ${error.message}`;
  byId("about").className = "critical";
}

async function busy(work) {
  const buttons = document.querySelectorAll("#ask button, .people button");
  for (const button of buttons) button.disabled = true;
  try {
    await work();
  } catch (error) {
    complain(error);
  } finally {
    for (const button of buttons) button.disabled = false;
  }
}

// --- searching

let asked = null;

const search = (text, rewrite = true) =>
  busy(async () => {
    if (!text.trim()) return;
    byId("text").value = text;
    asked = await call("api/search", { text, rewrite });
    show(asked);
  });

function show(answer) {
  const policy = answer.version == null ? "nothing learned yet" : `policy version ${answer.version}`;
  byId("heading").textContent = `${counted(answer.results.length, "result", "results")} for “${answer.served}”`;
  byId("understood").textContent =
    `${policy}, ${answer.milliseconds.toFixed(0)} ms. ` +
    (answer.understood.length ? `Understood: ${answer.understood.map(([role, words]) => `${role} “${words}”`).join(", ")}.` : "");
  byId("order").textContent = answer.order || "Nothing is learned yet: the strategies take turns.";
  showRewriting(answer);
  byId("results").replaceChildren(...answer.results.map((result) => resultItem(answer, result)));
  showAsked(answer);
  const remembered = answer.results.filter((result) => result.remembered != null);
  byId("memory").textContent = remembered.length
    ? `${counted(remembered.length, "result has", "results have")} worked for this query before; see the scores beside them.`
    : "Nothing is known about this particular query yet. Click something, and let the next person ask the same.";
}

function showRewriting(answer) {
  const place = byId("rewriting");
  place.hidden = !answer.rewriting;
  if (!answer.rewriting) return;
  const original = element("button", { type: "button", textContent: `Search for “${answer.text}” instead` });
  original.addEventListener("click", () => search(answer.text, false));
  place.replaceChildren(
    `Showing results for “${answer.served}”: of those who asked “${answer.text}”, `,
    `${percent(answer.rewriting.probability)} are expected to find what they want through this rewrite (${answer.rewriting.layer} layer). `,
    original,
  );
}

function resultItem(answer, result) {
  const link = element("button", { type: "button", textContent: result.title });
  const item = element("li", {}, link);
  link.addEventListener("click", () => click(answer, result, item));
  if (result.body) item.append(element("p", {}, result.body));
  for (const [strategy, rank] of Object.entries(result.ranks)) item.append(element("span", { className: "tag" }, `${strategy} #${rank}`));
  if (result.remembered != null) {
    item.append(element("span", { className: "tag remembered" }, `remembered, score ${result.remembered.toFixed(2)}`));
  }
  if (result.moved) {
    const places = counted(Math.abs(result.moved), "place", "places");
    item.append(element("span", { className: "tag moved" }, `${result.moved > 0 ? "up" : "down"} ${places}`));
  }
  if (result.reasons.length) item.append(reasons(result));
  return item;
}

function reasons(result) {
  const rows = result.reasons.map(({ column, contribution }) =>
    element("tr", {}, element("td", {}, column), element("td", { className: "number" }, signed(contribution))),
  );
  return element(
    "details",
    {},
    element("summary", {}, `ranked by ${signed(result.score)}, compared with the average candidate`),
    element("table", {}, element("tbody", {}, ...rows)),
  );
}

async function click(answer, result, item) {
  if (item.classList.contains("clicked")) return;
  try {
    await call("api/click", { query_id: answer.query_id, doc_id: result.doc_id });
    item.classList.add("clicked");
  } catch (error) {
    complain(error);
  }
}

function showAsked(answer) {
  const most = Math.max(0.01, ...answer.asked.map((one) => (one.reward ?? 0) + (one.deviation ?? 0)));
  const rows = answer.asked.map((one) =>
    element(
      "tr",
      {},
      element("td", {}, one.strategy),
      element("td", { className: "number" }, one.candidates || "–"),
      element("td", { className: "number" }, one.found.toLocaleString("en")),
      element("td", {}, one.reward == null ? "–" : bar(one.reward, one.deviation, most)),
    ),
  );
  const heads = ["strategy", "asked", "has", "expected reward"].map((head, index) =>
    element("th", { className: index === 1 || index === 2 ? "number" : "" }, head),
  );
  byId("asked").replaceChildren(element("thead", {}, element("tr", {}, ...heads)), element("tbody", {}, ...rows));
}

function bar(reward, deviation, most) {
  const share = (value) => `${(100 * Math.min(Math.max(value / most, 0), 1)).toFixed(1)}%`;
  const range = element("i");
  range.style.left = share(reward - deviation);
  range.style.right = `calc(100% - ${share(reward + deviation)})`;
  const mean = element("u");
  mean.style.left = `min(${share(reward)}, 100% - .2rem)`;
  return element("div", { className: "bar", title: `${reward.toFixed(3)} ± ${deviation.toFixed(3)}` }, range, mean);
}

// --- learning

function showLearned(learned) {
  const policy = learned.version == null ? "Nothing learned yet" : `Policy version ${learned.version}`;
  byId("learned").textContent =
    `You are person ${learned.person.toLocaleString("en")}. ${policy}: ${counted(learned.turns, "turn", "turns")}, ` +
    `${counted(learned.clicks, "click", "clicks")}, ${counted(learned.remembered, "query", "queries")} remembered.`;
  byId("rewrites").replaceChildren(
    ...(learned.rewrites.length
      ? learned.rewrites.map(([from, to]) => element("tr", {}, element("td", {}, from), element("td", {}, `→ ${to}`)))
      : [element("caption", { className: "empty" }, "None yet. Search, click nothing, rephrase, and click; after a few people, it becomes a rewrite.")]),
  );
}

const learn = (path, body) =>
  busy(async () => {
    byId("learned").textContent = "Learning …";
    showLearned(await call(path, body));
    if (asked) {
      byId("heading").textContent = "Search again, and compare";
      byId("results").replaceChildren();
    }
  });

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  search(byId("text").value);
});
byId("next").addEventListener("click", () => learn("api/next", {}));
byId("crowd").addEventListener("click", () => learn("api/crowd", { people: 50 }));

busy(async () => {
  const about = await call("api/about");
  byId("about").textContent = `${about.corpus}: ${about.documents.toLocaleString("en")} documents, ${about.strategies.length} strategies`;
  byId("examples").append(
    "Try: ",
    ...about.examples.map((text) => {
      const example = element("button", { type: "button", className: "example", textContent: text });
      example.addEventListener("click", () => search(text));
      return example;
    }),
  );
  showLearned(await call("api/learned"));
}).then(() => {
  const linked = decodeURIComponent(location.hash.slice(1));
  if (linked) search(linked);
});
