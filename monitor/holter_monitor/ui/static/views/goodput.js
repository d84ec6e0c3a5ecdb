// Where the GPU time of all runs went: by cause, project and run, with failures and what the dearest incidents cost.

import { remember, whole } from "../address.js";
import { get } from "../api.js";
import { el, folded, link, show, svg } from "../dom.js";
import { duration, number, sentence, until, words } from "../format.js";
import { calmly, facts, segments, severity } from "../parts.js";

const CAUSES = [
  ["productive", "effective training time"], ["startup", "starting up"], ["data", "waiting for data"], ["stragglers", "waiting for slow ranks"],
  ["checkpoints", "checkpoints"], ["evaluations", "evaluations"], ["stalls", "stalls and hangs"], ["recomputed", "steps done again after a restart"],
  ["down", "down between attempts"], ["other", "in an attempt, in no recorded step"],
];
const SHOWN = 100;
const percent = (share) => (share === null ? "–" : `${number(share * 100, 3)} %`);
const hours = (value) => `${number(value, 3)} h`;

export async function render(box, { query, signal }) {
  document.title = "Goodput · Holter";
  let days = whole(query, "days") || 7, price = Number(query.get("price")) || null;
  const body = el("div", { class: "view" });
  const load = async () => {
    const since = new Date(Date.now() - days * 86_400_000).toISOString();
    paint(body, await get("/goodput", { since, gpu_hour_price: price }, signal), price);
  };
  const settle = () => {
    remember({ days, price });
    return load();
  };
  const cost = el("input", { type: "number", min: 0, max: 1e6, step: "any", value: price, placeholder: "–", "aria-label": "Price of a GPU-hour", onchange: () => { price = Number(cost.value) || null; settle(); } });
  box.append(
    el("div", { class: "head" }, el("h1", {}, "Goodput"), el("p", { class: "soft" }, "GPU-hours of all runs by what they went into; no second counts twice.")),
    el("div", { class: "tools" }, segments("Time", [[1, "24 h"], [7, "7 days"], [30, "30 days"], [90, "90 days"]], days, (chosen) => { days = chosen; settle(); }),
      el("label", {}, "Price of a GPU-hour ", cost)),
    body);
  await load();
  const clock = setInterval(calmly(load, 1000, signal), 60_000);
  signal.addEventListener("abort", () => clearInterval(clock));
}

function paint(body, fleet, price) {
  if (!fleet.runs) return show(body, el("p", { class: "empty" }, "No run lived in this time. The hours are written some ten seconds behind the runs."));
  const spent = fleet.gpu_hours, money = (value) => (price === null ? null : number(value * price, 4));
  show(body,
    facts([
      ["Goodput", percent(fleet.goodput), `of ${number(spent.wall, 4)} GPU-hours`],
      ["Lost", hours(spent.wall - spent.productive), price === null ? "of GPUs" : `${number(fleet.lost_money, 4)} in money`],
      ["Failures", number(fleet.failures)],
      ["Between failures", duration(fleet.seconds_between_failures), "mean"],
      ["To recover", duration(fleet.seconds_to_recover), "mean, to the first step"],
      ["Runs", number(fleet.runs), `since ${until(fleet.since)}`],
    ]),
    bar(spent),
    table(["Where it went", "GPU-hours", "Share", price === null ? null : "Money"], CAUSES.filter(([cause]) => spent[cause] > 0).map(([cause, name]) =>
      [[el("span", { class: `key ${cause}` }), name], number(spent[cause], 3), percent(spent[cause] / spent.wall), money(spent[cause])])),
    el("h2", {}, "By project"), shares("Project", fleet.projects, (share) => `${share.project} (${share.runs})`),
    el("h2", {}, "By run, largest loss first"), shares("Run", fleet.items.slice(0, SHOWN), (share) => el("a", { href: link("runs", share.run) }, `${share.project} / `, folded(share.name))),
    fleet.incidents.length ? [el("h2", {}, "The dearest incidents"), el("ul", { class: "list" }, fleet.incidents.map((one) => incident(one, money)))] : null);
}

function bar(spent) {
  let x = 0;
  const shown = CAUSES.filter(([cause]) => spent[cause] > 0);
  const label = shown.map(([cause, name]) => `${name} ${percent(spent[cause] / spent.wall)}`).join(", ");
  return svg("svg", { class: "spent", viewBox: "0 0 100 4", preserveAspectRatio: "none", role: "img", "aria-label": label }, shown.map(([cause, name]) => {
    const width = (100 * spent[cause]) / spent.wall, piece = svg("rect", { class: cause, x, width, height: 4 }, svg("title", {}, `${name}: ${percent(spent[cause] / spent.wall)}`));
    x += width;
    return piece;
  }));
}

function shares(head, rows, name) {
  return table([head, "Goodput", "GPU-hours", "Lost", "Mostly to", "Failures"], rows.map((share) => {
    const spent = share.gpu_hours, lost = CAUSES.slice(1).filter(([cause]) => spent[cause] > 0).sort(([one], [other]) => spent[other] - spent[one])[0];
    return [name(share), percent(share.goodput), number(spent.wall, 3), number(spent.wall - spent.productive, 3), lost ? `${lost[1]} (${number(spent[lost[0]], 3)} h)` : "–", number(share.failures)];
  }));
}

function incident(one, money) {
  const cost = [`${duration(one.cost_seconds)} lost`, `${number(one.gpu_hours, 3)} GPU-hours`, money(one.gpu_hours)].filter(Boolean).join(", ");
  return el("li", {}, el("a", { class: `incident row${one.state === "resolved" ? " over" : ""}`, href: link("incidents", one.id) },
    severity(one.severity), el("span", { class: "sentence" }, sentence(one.summary)), el("span", { class: "when" }, cost),
    el("span", { class: "under" }, el("span", {}, words(one.kind)), el("span", {}, `${one.project} / `, folded(one.run_name)), el("span", {}, `from step ${number(one.onset_step)}`))));
}

function table(heads, rows) {
  const kept = (cells) => cells.filter((cell) => cell !== null);
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, kept(heads).map((head) => el("th", {}, head)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, kept(cells).map((cell) => el("td", {}, cell)))))));
}
