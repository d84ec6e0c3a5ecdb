// Runs over each other, at equal tokens or equal steps, and how far each stands from the first.

import { copyLink, remember } from "../address.js";
import { all, get } from "../api.js";
import { Chart, cursorGroup } from "../charts.js";
import { difference, resampled, smoothed } from "../curves.js";
import { el, folded, link, show } from "../dom.js";
import { measured, number, short, words } from "../format.js";
import { segments } from "../parts.js";
import { Ruler } from "../ruler.js";

const INKS = ["first", "second", "third", "fourth", "fifth"];
const GRID = 600;
const HALF = 7; // cells on both sides that the difference is smoothed over: 2.5 % of the width in all
const METRICS = ["loss", "grad_norm", "tokens_per_second", "step_time_seconds", "lr"];

export async function render(box, { query, signal }) {
  document.title = "Compare · Holter";
  await new Comparison(await all("/runs", {}, signal, 1000), query, signal).start(box);
}

class Comparison {
  constructor(runs, query, signal) {
    const asked = (query.get("runs") || "").split(",").filter((id) => runs.some((run) => run.id === id)).slice(0, INKS.length);
    Object.assign(this, { runs, signal, chosen: asked.length ? asked : suggestion(runs), axis: query.get("axis") === "step" ? "step" : "tokens", metric: METRICS.find((name) => name === query.get("metric")) || "loss" });
    const group = cursorGroup(), axis = { format: (v, at) => this.ruler.tick(v, at), label: (v) => this.ruler.label(v) };
    this.ruler = new Ruler("step", { total: null, times: null });
    this.over = new Chart({ title: "", height: 280, sync: group, axis, signal, format: (v) => measured(this.metric, v) });
    this.apart = new Chart({ title: "", height: 150, sync: group, axis, signal, format: (v) => percent(v) });
    this.choice = el("select", { "aria-label": "Add a run", onchange: () => this.choice.value && this.choose([...this.chosen, this.choice.value]) });
    this.hint = el("p", { class: "soft small" });
    this.table = el("div", { class: "card table" });
  }

  async start(box) {
    const pick = el("select", { "aria-label": "Metric", onchange: () => { this.metric = pick.value; this.load(); } }, METRICS.map((name) => el("option", { value: name, selected: name === this.metric }, words(name))));
    const equal = segments("At equal", [["tokens", "Equal tokens"], ["step", "Equal steps"]], this.axis, (value) => { this.axis = value; this.load(); });
    box.append(el("div", { class: "head" }, el("h1", {}, "Compare")));
    if (!this.runs.length) return box.append(el("p", { class: "empty" }, "No run yet. Two of them can be held against each other here."));
    box.append(el("div", { class: "tools" }, this.choice, pick, equal, el("button", { type: "button", class: "quiet push", onclick: copyLink }, "Copy link")), this.hint, this.table, el("div", {}, this.over.box, this.apart.box));
    await this.load();
  }

  choose(chosen) {
    this.chosen = chosen;
    this.load();
  }

  async load() {
    remember({ runs: this.chosen.join(","), axis: this.axis === "tokens" ? null : this.axis, metric: this.metric === "loss" ? null : this.metric });
    this.paintChoice();
    const answers = await Promise.all(this.chosen.map((id) => get(`/runs/${encodeURIComponent(id)}/curves`, { metrics: `${this.metric},tokens`, max_points: 1500 }, this.signal)));
    this.draw(answers);
  }

  name(id) {
    return this.runs.find((run) => run.id === id)?.name || id;
  }

  paintChoice() {
    show(this.choice, el("option", { value: "" }, "Add a run …"), this.runs.filter((run) => !this.chosen.includes(run.id)).map((run) => el("option", { value: run.id }, `${run.project} / ${run.name}`)));
    this.choice.disabled = this.chosen.length >= INKS.length;
  }

  draw(answers) {
    const isByTokens = this.axis === "tokens" && answers.length > 0 && answers.every((answer) => answer.total.step.length > 1), kind = isByTokens ? "tokens" : "step";
    this.hint.textContent = this.axis === "tokens" && !isByTokens && answers.length ? "Not every run logs tokens: compared at equal steps." : "";
    const lines = answers.map((answer) => {
      const ruler = new Ruler(kind, answer), curve = answer.curves[this.metric];
      return { x: curve ? curve.step.map((step) => ruler.at(step)) : [], y: curve ? curve.mean : [] };
    });
    this.ruler = new Ruler(kind, answers[0] || { total: null, times: null });
    this.over.title = words(this.metric);
    this.apart.title = this.chosen.length ? "Difference to the base, smoothed" : "Difference";
    const known = lines.filter((one) => one.x.length);
    this.paintTable(lines, kind);
    if (!known.length) return this.over.set({ x: [], series: [] }), this.apart.set({ x: [], series: [] });
    const from = Math.min(...known.map((one) => one.x[0])), to = Math.max(...known.map((one) => one.x.at(-1)));
    const x = Array.from({ length: GRID }, (_, i) => from + ((to - from) * i) / (GRID - 1));
    this.paint(x, lines.map((one) => resampled(one, x)));
  }

  paint(x, values) {
    const shared = { x, log: false, settle: 0.03 }, names = this.chosen.map((id) => clipped(this.name(id)));
    this.over.set({ ...shared, series: values.map((own, i) => ({ label: names[i], ink: INKS[i], values: own })) });
    const rest = values.slice(1).map((own, i) => ({ label: names[i + 1], ink: INKS[i + 1], values: smoothed(difference(own, values[0]), HALF) }));
    this.apart.set(rest.length ? { ...shared, series: rest } : { x: [], series: [] });
  }

  // The runs, with a number for each where all of them have been: the only place at which they can be told apart by one.
  paintTable(lines, kind) {
    this.table.hidden = !lines.length;
    const spans = lines.filter((one) => one.x.length), at = Math.min(...spans.map((one) => one.x.at(-1))), near = (2 * HALF + 1) / GRID;
    const means = lines.map((one) => mean(one.y.filter((value, i) => Number.isFinite(value) && one.x[i] <= at && one.x[i] > at * (1 - near))));
    const place = !spans.length ? "" : kind === "tokens" ? ` at ${short(at)} tokens` : ` at step ${number(Math.round(at))}`;
    const heads = ["Run", words(this.metric) + place, "to the base", `${kind === "tokens" ? "tokens" : "steps"} so far`, ""];
    show(this.table, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head, i) => el("th", { class: i ? "num" : null }, head)))), el("tbody", {}, lines.map((line, i) => this.line(i, line, { kind, own: means[i], base: means[0] })))));
  }

  line(i, { x }, { kind, own, base }) {
    const id = this.chosen[i], others = this.chosen.filter((one) => one !== id), end = x.length ? x.at(-1) : null;
    return el("tr", {}, el("td", {}, el("i", { class: "dot", "data-ink": INKS[i] }), el("a", { href: link("runs", id) }, folded(this.name(id)))),
      el("td", { class: "num" }, measured(this.metric, own)), el("td", { class: "num" }, !i ? "the base" : own !== null && base ? percent((own / base - 1) * 100) : "–"),
      el("td", { class: "num" }, kind === "tokens" ? short(end) : number(end)),
      el("td", { class: "num" }, i ? el("button", { type: "button", class: "quiet", "aria-label": `Make ${this.name(id)} the base`, title: "Hold the others against this one", onclick: () => this.choose([id, ...others]) }, "make base") : null,
        el("button", { type: "button", class: "quiet", "aria-label": `Remove ${this.name(id)}`, title: "Remove", onclick: () => this.choose(others) }, "×")));
  }
}

const clipped = (name) => (name.length > 34 ? `${name.slice(0, 20)}…${name.slice(-12)}` : name);
const percent = (value) => `${value > 0 ? "+" : value < 0 ? "−" : ""}${number(Math.abs(value), 3)} %`;
const mean = (values) => (values.length ? values.reduce((sum, one) => sum + one, 0) / values.length : null);

// The newest run and its reference, or the two newest of one project.
function suggestion(runs) {
  const [newest] = runs;
  if (!newest) return [];
  const other = runs.find((run) => run.id !== newest.id && run.project === newest.project && (!newest.reference || run.name === newest.reference || run.id === newest.reference));
  return other ? [other.id, newest.id] : [newest.id];
}
