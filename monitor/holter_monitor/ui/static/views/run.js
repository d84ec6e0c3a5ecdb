// One run: what it learns and what it loses, by step, tokens or time; attempts, events and incidents on the same axis.

import { copyLink, remember, whole } from "../address.js";
import { all, get, listen } from "../api.js";
import { Chart, cursorGroup } from "../charts.js";
import { el, show, toast } from "../dom.js";
import { ago, clock, duration, measured, number, short, words } from "../format.js";
import { Lane } from "../lane.js";
import { calmly, facts, incidentRow, runHead, segments } from "../parts.js";
import { Ruler } from "../ruler.js";
import { Saved } from "../saved.js";
import { Standing } from "../standing.js";

const METRICS = "loss,grad_norm,tokens_per_second,step_time_seconds,data_wait_seconds,tokens,lr";
const SETTLE = 0.03; // share of the whole run that does not set the vertical scale
const TAILS = [[0, "Whole run"], [10000, "10,000"], [1000, "1,000"], [100, "100"]]; // the newest steps, moving with the run
const QUIET = ["rank_started", "rank_finished", "agent_started", "agent_stopped", "fingerprint", "watch", "flight_recorder", "checkpoint_files"]; // one a rank, or many a checkpoint: they would drown the rest

export async function render(box, { ids, query, signal }) {
  const page = new RunPage(ids[0], query, signal);
  await page.start(box);
}

class RunPage {
  constructor(id, query, signal) {
    const axis = ["tokens", "time"].find((one) => one === query.get("axis")) || "step", tail = TAILS.find(([steps]) => steps === whole(query, "newest"))?.[0] || 0;
    const from = whole(query, "from"), to = whole(query, "to"), isZoomed = from !== null && to !== null && to > from;
    Object.assign(this, { id, signal, path: `/runs/${encodeURIComponent(id)}`, axis, window: isZoomed ? [from, to] : [null, null], tail, isLog: query.get("log") === "1" });
    const group = cursorGroup();
    const common = { signal, sync: group, axis: { format: (v, at) => this.ruler.tick(v, at), label: (v) => this.ruler.label(v) }, onZoom: (from, to) => this.zoom(from, to) };
    this.charts = {
      loss: new Chart({ ...common, title: "Loss", height: 210 }),
      grad_norm: new Chart({ ...common, title: "Gradient norm" }),
      throughput: new Chart({ ...common, title: "Throughput" }),
      data_wait_seconds: new Chart({ ...common, title: "Data wait", height: 130, format: duration }),
    };
    this.facts = el("div", {});
    this.lane = new Lane();
    this.incidentList = el("ul", { class: "list" });
    this.reset = el("button", { type: "button", hidden: !isZoomed, onclick: () => this.zoom(null, null) }, "Leave the zoom");
    this.tails = segments("Newest steps", TAILS, tail, (tail) => this.follow(tail));
    this.standing = new Standing(id, { signal });
    this.saved = new Saved(id, signal);
    this.more = el("details", { class: "card" });
  }

  async start(box) {
    await this.loadRun();
    const axes = segments("Horizontal axis", [["step", "Step"], ["tokens", "Tokens"], ["time", "Time"]], this.axis, (axis) => this.turn(axis));
    const log = el("label", {}, el("input", { type: "checkbox", checked: this.isLog, onchange: (event) => { this.isLog = event.target.checked; this.keep(); this.paint(); } }), "logarithmic");
    this.head = el("div", { class: "view" }, runHead(this.run, "Curves"));
    box.append(this.head, this.facts,
      el("div", { class: "tools" }, axes, this.tails, log, this.reset, el("button", { type: "button", class: "quiet push", onclick: copyLink }, "Copy link")),
      el("div", {}, this.lane.box, Object.values(this.charts).map((chart) => chart.box)),
      el("section", { class: "view tight" }, el("h2", {}, "Incidents"), this.incidentList), this.saved.box, this.standing.box, this.more);
    const again = calmly(() => this.refresh(), 1500, this.signal);
    listen((message) => (message.run === this.id || message.type === "connected") && again(), this.signal); // before the curves: they take a while
    await Promise.all([this.loadCurves(), this.saved.load(), this.standing.load()]);
    this.standing.box.hidden = this.standing.isEmpty && ["finished", "failed"].includes(this.run.state); // nobody is there to be asked
  }

  async loadRun() {
    const signal = this.signal;
    [this.run, this.attempts, this.incidents, this.events, this.goodput] = await Promise.all([
      get(this.path, {}, signal), get(`${this.path}/attempts`, {}, signal).then((page) => page.items),
      all("/incidents", { run: this.id, limit: 500 }, signal), this.declared(), get(`${this.path}/goodput`, {}, signal),
    ]);
    document.title = `${this.run.name} · Holter`;
  }

  async declared() {
    const found = await all(`${this.path}/events`, { limit: 500, without: QUIET }, this.signal, 5000);
    return found.filter((event) => event.step !== null);
  }

  async refresh() {
    await this.loadRun();
    show(this.head, runHead(this.run, "Curves"));
    await Promise.all([this.loadCurves(), this.saved.load()]);
  }

  async loadCurves() {
    const points = Math.min(1400, Math.max(300, Math.round(this.lane.box.clientWidth || 900)));
    const isTail = this.tail && this.window[0] === null;
    const [from_step, to_step] = isTail ? [Math.max(0, (this.run.last_step || 0) - this.tail + 1), null] : this.window;
    this.shown = [from_step, to_step];
    this.curves = await get(`${this.path}/curves`, { metrics: METRICS, from_step, to_step, max_points: points }, this.signal);
    this.ruler = new Ruler(this.axis, this.curves);
    this.paint();
  }

  turn(axis) {
    const ruler = new Ruler(axis, this.curves);
    if (!ruler.isPossible) toast(axis === "tokens" ? "This run does not log tokens." : "No times are known yet.");
    this.axis = ruler.isPossible ? axis : "step";
    this.ruler = new Ruler(this.axis, this.curves);
    this.keep();
    this.paint();
  }

  follow(tail) {
    this.tail = tail;
    this.zoom(null, null);
  }

  // From and to in the units of the axis; null is the whole run.
  zoom(from, to) {
    this.window = from === null ? [null, null] : [Math.max(0, Math.floor(this.ruler.step(from))), Math.ceil(this.ruler.step(to))];
    if (from !== null && this.window[1] <= this.window[0]) this.window[1] = this.window[0] + 1;
    this.reset.hidden = from === null;
    this.keep();
    this.loadCurves().catch((error) => error.name !== "AbortError" && toast(error.message));
  }

  keep() {
    const [from, to] = this.window;
    remember({ from, to, axis: this.axis === "step" ? null : this.axis, newest: this.tail || null, log: this.isLog ? 1 : null });
  }

  paint() {
    const { curves } = this.curves, x = (curve) => curve.step.map((step, i) => this.ruler.at(step, curve.time[i]));
    const last = this.curves.to_step, shared = { bands: this.bands(last), ticks: this.events.map((event) => this.ruler.at(event.step)), range: this.range(), settle: this.shown[0] === null ? SETTLE : 0 };
    const spread = (curve, more) => ({ label: "", ink: "first", values: curve.mean, low: curve.min, high: curve.max, ...more });
    const marks = (curve) => curve.step.filter((_, i) => curve.non_finite[i]).map((step) => this.ruler.at(step));
    for (const name of ["loss", "grad_norm", "data_wait_seconds"]) {
      const curve = curves[name];
      const bands = name === "loss" ? shared.bands : shared.bands.map((band) => ({ ...band, label: "" })); // named once, on the first chart
      this.charts[name].set({ ...shared, bands, x: curve ? x(curve) : [], series: curve ? [spread(curve)] : [], marks: curve ? marks(curve) : [], log: this.isLog && name !== "data_wait_seconds" });
    }
    this.paintThroughput(curves, x, shared, spread);
    this.lane.show({ attempts: this.attempts, events: this.events, incidents: this.incidents, ruler: this.ruler, range: this.range(), last });
    this.paintFacts();
    this.paintMore();
    const shown = this.incidents.filter((incident) => !incident.parent);
    performance.mark("curves painted"); // benchmarks/page.py reads it
    show(this.incidentList, shown.length ? shown.map((incident) => incidentRow(incident, { isNamed: false })) : el("li", { class: "empty" }, "None so far."));
  }

  // Tokens a second where they are logged, else steps a second; with the time lost so far as an area under it.
  paintThroughput(curves, x, shared, spread) {
    const curve = curves.tokens_per_second || curves.step_time_seconds, isTokens = Boolean(curves.tokens_per_second);
    if (!curve) return this.charts.throughput.set({ ...shared, x: [], series: [] });
    const format = isTokens ? (v) => `${short(v)} tok/s` : (v) => duration(v);
    const series = [spread(curve, { label: isTokens ? "a rank" : "step time", format })];
    const lost = this.curves.lost;
    if (lost && lost.step.length) {
      const byStep = new Map(lost.step.map((step, i) => [step, lost.seconds[i]]));
      let known = null;
      const values = curve.step.map((step) => (known = byStep.get(step) ?? known));
      series.push({ label: "time lost to slow steps", ink: "second", values, fill: true, scale: "lost", format: duration });
    }
    this.charts.throughput.set({ ...shared, bands: shared.bands.map((band) => ({ ...band, label: "" })), x: x(curve), series, log: false });
  }

  bands(last) {
    return this.incidents.filter((incident) => !incident.parent).map((incident) => ({
      from: this.ruler.at(incident.onset_step), to: this.ruler.at(incident.end_step ?? (incident.state === "resolved" ? incident.detected_step : last)), severity: incident.severity, label: words(incident.kind),
    }));
  }

  range() {
    const [from, to] = this.shown;
    return [this.ruler.at(from ?? this.curves.from_step), this.ruler.at(to ?? this.curves.to_step)];
  }

  paintFacts() {
    const { run, attempts, curves } = this, newest = (name) => curves.curves[name]?.mean.at(-1);
    const rate = newest("tokens_per_second"), lost = curves.lost?.seconds.at(-1);
    show(this.facts, facts([
      ["Step", run.last_step === null ? "–" : number(run.last_step)],
      newest("loss") === undefined ? null : ["Loss", number(newest("loss"))],
      rate === undefined ? null : ["Tokens a second", short(rate * run.world_size), `${short(rate)} a rank`],
      lost === undefined ? null : ["Lost to slow steps", duration(lost), curves.lost.share === null ? "" : `${number(curves.lost.share * 100, 2)} % of the time`, curves.lost.share > 0.05],
      this.goodput.goodput === null ? null : ["Goodput", `${number(this.goodput.goodput * 100, 3)} %`, `of ${duration(this.goodput.wall_seconds)}`],
      ["Ranks", number(run.world_size)],
      ["Attempts", number(attempts.length), attempts.length ? `since ${clock(attempts[0].started)}` : ""],
      ["Last word", ago(run.updated)],
    ]));
  }

  paintMore() {
    const isOpen = this.more.open;
    const goodput = Object.entries(this.goodput).filter(([name, value]) => /_seconds$/.test(name) && value > 0);
    show(this.more, el("summary", {}, "Attempts, events, where the time went, configuration"),
      table(["Attempt", "State", "Started", "Lasted", "Ranks", "Steps"], this.attempts.map((a) => [
        `${a.number}`, a.state, clock(a.started), duration(((a.ended ? Date.parse(a.ended) : Date.now()) - Date.parse(a.started)) / 1000), number(a.world_size), `${number(a.first_step)} – ${number(a.last_step)}`])),
      this.events.length ? table(["Event", "Step", "When", "Said"], this.events.slice(-200).reverse().map((e) => [e.event, number(e.step), clock(e.time), JSON.stringify(e.attrs)])) : null,
      goodput.length ? table(["Wall time", ""], goodput.map(([name, value]) => [words(name.replace("_seconds", "")), measured(name, value)])) : null,
      table(["Configuration", ""], Object.entries(this.run.config || {}).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)])));
    this.more.open = isOpen;
  }
}

function table(heads, rows) {
  return el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", {}, head)))),
    el("tbody", {}, rows.length ? rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)))) : el("tr", {}, el("td", { class: "faint" }, "none")))));
}
