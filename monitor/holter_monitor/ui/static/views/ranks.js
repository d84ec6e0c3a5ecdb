// All ranks of a run as a heat map, a row a node or a rank, and the ones that stand apart by name.

import { remember, whole } from "../address.js";
import { get, listen } from "../api.js";
import { el, link, show } from "../dom.js";
import { measured, number, title } from "../format.js";
import { HeatMap } from "../heat.js";
import { calmly, runHead, segments } from "../parts.js";

const SPANS = [[120, "120 steps"], [1000, "1,000"], [0, "Whole run"]];
const FIRST = ["compute_seconds", "step_time_seconds", "data_wait_seconds"];

export async function render(box, { ids, query, signal }) {
  const path = `/runs/${encodeURIComponent(ids[0])}`;
  const [run, metrics] = await Promise.all([get(path, {}, signal), get(`${path}/metrics`, {}, signal).then((page) => page.items)]);
  document.title = `Ranks of ${run.name} · Holter`;
  const names = metrics.filter((name) => !name.startsWith("host_"));
  let metric = query.get("metric") || FIRST.find((name) => names.includes(name)) || names[0], span = SPANS.find(([steps]) => steps === whole(query, "newest"))?.[0] ?? 120;

  const choice = el("select", { "aria-label": "Metric" }, names.map((name) => el("option", { value: name, selected: name === metric }, title(name))));
  const window_ = segments("Window", SPANS, span, (value) => { span = value; load(); });
  const apart = el("section", { class: "view tight" }), map = new HeatMap(signal, { format: (value) => measured(metric, value), open: (row, rank) => (location.hash = link("runs", run.id, "ranks", rank)) });
  const kind = segments("Colour", [["apart", "Apart from the others"], ["value", "Value"]], "apart", (value) => map.paint(value));
  choice.addEventListener("change", () => { metric = choice.value; load(); });
  box.append(...runHead(run, "Ranks").filter(Boolean), el("div", { class: "tools" }, choice, window_, kind), apart, map.box);
  if (!names.length) return show(box, ...runHead(run, "Ranks"), el("p", { class: "empty" }, "No rank has logged anything yet."));

  const load = async () => {
    remember({ metric, newest: span === 120 ? null : span });
    const last = (await get(path, {}, signal)).last_step || 0;
    const answer = await get(`${path}/heatmap`, { metric, columns: 120, from_step: span === 0 ? 0 : Math.max(0, last - span + 1) }, signal);
    map.set(answer);
    show(apart, outliers(run, answer, metric));
  };
  const again = calmly(load, 4000, signal);
  listen((message) => ((message.run === run.id && message.type === "run") || message.type === "connected") && again(), signal);
  await load();
}

function outliers(run, answer, metric) {
  if (!answer.outliers.length) return el("p", { class: "soft" }, answer.rows.length ? `No ${answer.by} stands apart in ${title(metric)}.` : "Not logged in this window.");
  const tops = answer.outliers.slice(0, 8).map(({ row, score, rank }) => {
    const place = answer.rows[row];
    return el("li", {}, el("a", { class: "incident row", href: link("runs", run.id, "ranks", rank) },
      el("b", {}, `rank ${rank}`), el("span", { class: "sentence" }, `${title(metric)} ${score > 0 ? "above" : "below"} the others`), el("span", { class: "when" }, `${score > 0 ? "+" : "−"}${number(Math.abs(score), 2)} deviations`),
      el("span", { class: "under" }, place.node)));
  });
  return [el("h2", {}, answer.outliers.length === 1 ? "One stands apart" : `${answer.outliers.length} stand apart`), el("ul", { class: "list" }, tops)];
}
