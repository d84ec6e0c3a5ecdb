// All runs: which live, which are sick, and the shape of their loss.

import { all, get, listen } from "../api.js";
import { el, folded, link, show } from "../dom.js";
import { ago, duration, number } from "../format.js";
import { calmly, severity, sparkline, state } from "../parts.js";

const RECENT = 2000; // steps that a sparkline looks back

export async function render(box, { signal }) {
  document.title = "Runs · Holter";
  const summary = el("p", { class: "soft" });
  const search = el("input", { type: "search", placeholder: "Find a run", "aria-label": "Find a run" });
  const which = el("select", { "aria-label": "State" }, ["all states", "running", "silent", "waiting", "failed", "finished"].map((word) => el("option", { value: word === "all states" ? "" : word }, word)));
  const list = el("ul", { class: "list" });
  const sparks = new Sparks(signal);
  let runs = [], troubles = new Map();

  const paint = () => {
    const wanted = search.value.trim().toLowerCase();
    const shown = runs.filter((run) => (!which.value || run.state === which.value) && `${run.project}/${run.name}`.toLowerCase().includes(wanted));
    summary.textContent = sentence(runs, troubles);
    if (shown.length) show(list, shown.map((run) => row(run, troubles.get(run.id) || {}, sparks)));
    else show(list, el("li", { class: "empty" }, runs.length ? "No run fits." : ["No run yet. Three lines in train.py:", el("code", {}, 'import holter; run = holter.init(project="…", name="…"); run.step(step, loss=loss)')]));
  };
  const load = async () => {
    const [found, open] = await Promise.all([all("/runs", {}, signal, 1000), unresolved(signal)]);
    runs = found;
    troubles = open;
    paint();
  };
  search.addEventListener("input", paint);
  which.addEventListener("change", paint);
  box.append(el("div", { class: "head" }, el("h1", {}, "Runs"), summary), el("div", { class: "tools" }, search, which), list);
  const again = calmly(load, 3000, signal);
  listen((message) => {
    sparks.stale.add(message.run);
    again();
  }, signal);
  await load();
}

async function unresolved(signal) {
  const lists = await Promise.all(["open", "acknowledged"].map((word) => all("/incidents", { state: word, limit: 500 }, signal)));
  const troubles = new Map();
  for (const incident of lists.flat()) {
    if (incident.parent) continue;
    const counts = troubles.get(incident.run) || {};
    counts[incident.severity] = (counts[incident.severity] || 0) + 1;
    troubles.set(incident.run, counts);
  }
  return troubles;
}

function sentence(runs, troubles) {
  const count = (word) => runs.filter((run) => run.state === word).length;
  const critical = [...troubles.values()].reduce((sum, counts) => sum + (counts.critical || 0), 0);
  const parts = [`${count("running")} training`];
  if (count("silent")) parts.push(`${count("silent")} silent`);
  if (count("failed")) parts.push(`${count("failed")} failed`);
  parts.push(critical ? `${critical} critical ${critical === 1 ? "incident" : "incidents"}` : "nothing critical");
  return parts.join(" · ");
}

function row(run, counts, sparks) {
  const badges = ["critical", "warning"].filter((word) => counts[word]).map((word) => severity(word, counts[word]));
  return el("li", {}, el("a", { class: "run row", href: link("runs", run.id) },
    el("span", {}, el("span", { class: "name" }, folded(run.name)), el("span", { class: "under" }, el("span", {}, run.project), state(run.state))),
    sparks.of(run),
    sparks.goodput(run),
    el("span", { class: "cell" }, run.last_step === null ? "–" : number(run.last_step), el("small", {}, "step")),
    el("span", { class: "cell" }, number(run.world_size), el("small", {}, run.world_size === 1 ? "rank" : "ranks")),
    el("span", { class: "cell" }, ago(run.updated), el("small", {}, "last word")),
    el("span", { class: "badges" }, badges.length ? badges : el("span", { class: "small faint" }, run.state === "running" ? "healthy" : ""))));
}

// The loss and the goodput of each run that is in sight, asked for once and again when the run moved on.
class Sparks {
  constructor(signal) {
    this.signal = signal;
    this.known = new Map();
    this.shares = new Map(); // the cells of goodput by run, filled with the same visit
    this.stale = new Set();
    this.watcher = new IntersectionObserver((entries) => entries.filter((e) => e.isIntersecting).forEach((e) => this.load(e.target)), { rootMargin: "200px" });
    signal.addEventListener("abort", () => this.watcher.disconnect());
  }

  of(run) {
    const slot = el("span", {});
    slot.run = run;
    if (this.known.has(run.id)) slot.append(this.known.get(run.id));
    if (!this.known.has(run.id) || this.stale.has(run.id)) this.watcher.observe(slot);
    return slot;
  }

  goodput(run) {
    const cell = this.shares.get(run.id) || el("span", { class: "cell" }, "–", el("small", {}, "goodput"));
    this.shares.set(run.id, cell);
    return cell;
  }

  async load(slot) {
    const { run } = slot;
    this.watcher.unobserve(slot);
    this.stale.delete(run.id);
    try {
      const from = Math.max(0, (run.last_step || 0) - RECENT);
      const path = `/runs/${encodeURIComponent(run.id)}`;
      const [{ curves }, { goodput, wall_seconds: wall }] = await Promise.all([get(`${path}/curves`, { metrics: "loss", from_step: from, max_points: 90 }, this.signal), get(`${path}/goodput`, {}, this.signal)]);
      if (goodput !== null) this.goodput(run).replaceChildren(`${number(goodput * 100, 2)} %`, el("small", { title: `of ${duration(wall)}` }, "goodput"));
      const values = curves.loss?.mean || [];
      const drawing = sparkline(values, `loss of the last ${number(RECENT)} steps`);
      this.known.set(run.id, drawing);
      slot.replaceChildren(drawing);
    } catch (error) {
      if (error.name !== "AbortError") slot.replaceChildren();
    }
  }
}
