// One incident: what, since when, which rank, why, what it costs, what to do; and the hand of whoever answers it.

import { copyLink } from "../address.js";
import { all, get, listen, picture, post } from "../api.js";
import { Chart, cursorGroup } from "../charts.js";
import { el, link, show, toast } from "../dom.js";
import { ago, clock, duration, measured, number, ranks, sentence, title, words } from "../format.js";
import { calmly, facts, incidentRow, severity, state } from "../parts.js";
import { Ruler } from "../ruler.js";
import { askForSilence } from "../silencing.js";
import { Standing } from "../standing.js";

const COMPANION = { loss: "grad_norm", grad_norm: "loss", tokens_per_second: "data_wait_seconds", step_time_seconds: "data_wait_seconds" };
const AROUND = 150;
const OF_TIME = /^(hang|straggler|rank_lost|.*_stalls?|throughput_.*)$/; // where a program stands has no say in what it computes

export async function render(box, { ids, signal }) {
  const path = `/incidents/${encodeURIComponent(ids[0])}`;
  const page = el("div", { class: "view" });
  box.append(page);
  let incident = null, evidence = null, standing = null, kin = [];
  const load = async () => {
    incident = await get(path, {}, signal);
    document.title = `${words(incident.kind)} · ${incident.run_name} · Holter`;
    const others = await all("/incidents", { run: incident.run, limit: 500 }, signal);
    kin = others.filter((other) => other.parent === incident.id || other.id === incident.parent);
    evidence ??= new Evidence(incident, signal);
    if (OF_TIME.test(incident.kind)) standing ??= new Standing(incident.run, { incident: incident.id, signal });
    paint();
    await Promise.all([evidence.load(incident), standing?.load()]);
  };
  const act = async (verb, body) => {
    try {
      incident = await post(`${path}/${verb}`, body);
      paint();
      return true;
    } catch (error) { toast(error.message); }
    return false;
  };
  const answer = new Answer(act), top = el("div", { class: "view" }), left = el("div", { class: "stack" }), past = el("div", { class: "past" });
  const paint = () => {
    answer.update(incident);
    show(top, head(incident));
    show(left, causes(incident), family(incident, kin), numbers(incident));
    show(past, history(incident));
    if (!page.firstChild) page.append(top, evidence.box, el("div", { class: "columns" }, el("div", { class: "why" }, left, standing?.box), el("div", { class: "answer" }, answer.box), past));
  };
  const again = calmly(load, 1500, signal);
  const isOurs = (message) => message.type === "incidents" && (!incident || message.run === incident.run);
  listen((message) => (isOurs(message) || message.type === "connected") && again(), signal); // before the first load: it takes a while
  await load();
}

function head(incident) {
  const until = incident.end_step !== null ? ` to ${number(incident.end_step)}` : incident.state === "resolved" ? "" : ", still going on";
  return [
    el("div", { class: "head" }, el("span", { class: "crumb" }, el("a", { href: "#/incidents" }, "Incidents"), " / ", el("a", { href: link("runs", incident.run) }, `${incident.project} / ${incident.run_name}`)),
      severity(incident.severity), state(incident.state), el("span", { class: "soft small" }, words(incident.kind))),
    el("h1", { class: "lead" }, sentence(incident.summary)),
    todo(incident),
    facts([
      ["Steps", `${number(incident.onset_step)}${until}`], ["Seen at step", number(incident.detected_step)],
      ["Cost", incident.cost === null ? "–" : duration(incident.cost), incident.cost === null ? "" : "lost"],
      ["About", incident.ranks.length === 1 ? el("a", { href: link("runs", incident.run, "ranks", incident.ranks[0]) }, ranks(incident.ranks)) : incident.scope === "run" ? ranks(incident.ranks) : incident.scope, incident.nodes.length ? incident.nodes.slice(0, 4).join(", ") : ""],
      ["Opened", ago(incident.created), clock(incident.created)],
      incident.acknowledged_by ? ["Acknowledged by", incident.acknowledged_by, ago(incident.acknowledged)] : null,
    ]),
  ];
}

// Against the likely cause; where to look, as long as none is sure.
function todo(incident) {
  const action = incident.causes[0]?.action, leads = incident.evidence?.look_at || [];
  if (!action && !leads.length) return null;
  return el("div", { class: "todo" }, el("h3", {}, "What to do"), action ? el("p", {}, sentence(action)) : null,
    leads.length ? [el("p", {}, action ? "Look also at" : "Look, in this order, at"), el("ol", {}, leads.map((lead) => el("li", {}, lead)))] : null);
}

// What it is a symptom of, and what is a symptom of it: one trouble, one alert, and still nothing hidden.
function family(incident, kin) {
  if (!kin.length) return null;
  const title_ = incident.parent ? "A symptom of" : kin.length === 1 ? "Its symptom" : `Its ${kin.length} symptoms`;
  return el("section", { class: "view tight" }, el("h2", {}, title_), el("ul", { class: "list" }, kin.map((other) => incidentRow(other, { isNamed: false }))));
}

function causes(incident) {
  if (!incident.causes.length) return el("section", { class: "card" }, el("h2", {}, "Why"), el("p", { class: "soft" }, "No cause stands out from what was recorded. The numbers below are what the alert rests on."));
  return el("section", { class: "card" }, el("h2", {}, "Why, most likely first"), incident.causes.map((cause) => el("div", { class: "cause" },
    el("span", { class: "sure", title: "how sure" }, typeof cause.confidence === "number" ? `${Math.round(cause.confidence * 100)}%` : "?"),
    el("div", {}, el("p", {}, el("b", {}, words(cause.cause || "")), cause.sentence ? `: ${cause.sentence}` : ""),
      el("ul", {}, (cause.evidence || []).map((line) => el("li", {}, spoken(line))), (cause.against || []).map((line) => el("li", { class: "against" }, `against it: ${spoken(line)}`))),
      cause.action ? el("p", { class: "small" }, el("b", {}, "Do: "), cause.action) : null))));
}

function numbers(incident) {
  const isSaid = (value) => value !== null && value !== "" && !(Array.isArray(value) && !value.length);
  const rows = Object.entries(incident.evidence || {}).filter(([name, value]) => isSaid(value) && name !== "stacks" && name !== "look_at"); // they have places of their own
  if (!rows.length) return null;
  return el("section", { class: "card" }, el("h2", {}, "Evidence"), el("div", { class: "table pairs" }, el("table", {}, el("tbody", {},
    rows.map(([name, value]) => el("tr", {}, el("th", {}, words(name)), el("td", {}, typeof value === "number" ? measured(name, value) : spoken(value))))))));
}

function spoken(value) {
  if (Array.isArray(value)) {
    const shown = value.slice(0, 24).map((one) => (typeof one === "object" && one !== null ? JSON.stringify(one) : typeof one === "number" ? number(one) : String(one)));
    return shown.join(", ") + (value.length > 24 ? `, … (${value.length})` : "");
  }
  return typeof value === "object" && value !== null ? JSON.stringify(value) : typeof value === "number" ? number(value) : String(value);
}

// Made once: what somebody is writing survives every update of the page.
class Answer {
  constructor(act) {
    const note = el("textarea", { "aria-label": "Note", placeholder: "A word for whoever looks next", maxlength: 10000 });
    const send = async () => note.value.trim() && (await act("note", { note: note.value.trim() })) && (note.value = "");
    this.acknowledge = el("button", { type: "button", class: "primary", onclick: () => act("acknowledge", {}) }, "Acknowledge");
    this.resolve = el("button", { type: "button", onclick: () => act("resolve", {}) }, "Resolve");
    this.box = el("section", { class: "card" }, el("h2", {}, "Answer"), el("div", { class: "actions" }, this.acknowledge, this.resolve,
      el("button", { type: "button", onclick: () => silence(this.incident) }, "Silence …")), note,
    el("div", { class: "actions" }, el("button", { type: "button", onclick: send }, "Add note")));
  }

  update(incident) {
    this.incident = incident;
    this.acknowledge.disabled = incident.state !== "open";
    this.resolve.disabled = incident.state === "resolved";
  }
}

function history(incident) {
  return el("section", { class: "card" }, el("h2", {}, "History"), el("ol", { class: "history" }, [...incident.history].reverse().map((change) => el("li", {},
    el("time", { datetime: change.at, title: clock(change.at) }, ago(change.at)),
    el("div", {}, el("b", {}, change.change), change.actor ? ` by ${change.actor}` : "", change.note ? el("p", { class: "soft" }, change.note) : null)))));
}

// Hide this kind of trouble, of this run or everywhere, for a while.
function silence({ kind, project, run_name: run }) {
  askForSilence({ reaches: [[`${words(kind)} of this run`, { project, run, kind }], ["everything of this run", { project, run }], [`${words(kind)} in ${project}`, { project, kind }]] });
}

// The window of the run's page that shows the incident with as much again before and after it.
function around({ onset_step, detected_step, end_step }) {
  const end = end_step ?? detected_step, span = Math.max(AROUND, end - onset_step);
  return `?from=${Math.max(0, onset_step - span)}&to=${end + span}`;
}

// The incident's metric, and the one that explains it, around the onset.
class Evidence {
  constructor(incident, signal) {
    this.signal = signal;
    const metric = incident.metric || "loss";
    this.names = [metric, COMPANION[metric]].filter(Boolean);
    const group = cursorGroup();
    const axis = { format: (v, at) => this.ruler.tick(v, at), label: (v) => this.ruler.label(v) };
    this.charts = this.names.map((name, index) => new Chart({ title: title(name), height: index ? 120 : 200, sync: group, axis, signal, format: (v) => measured(name, v) }));
    const image = el("button", { type: "button", onclick: () => this.save(incident) }, "Save as picture"), share = el("button", { type: "button", onclick: copyLink }, "Copy link");
    this.box = el("div", {}, this.charts.map((chart) => chart.box), el("div", { class: "actions under-charts" }, image, share, el("a", { class: "text", href: link("runs", incident.run) + around(incident) }, "Open the run there")));
  }

  async load(incident) {
    const span = incident.end_step === null ? 0 : incident.end_step - incident.onset_step;
    const window_ = incident.evidence?.window, first = Array.isArray(window_) && Number.isInteger(window_[0]) ? Math.min(window_[0], incident.onset_step) : incident.onset_step;
    const answer = await get(`/runs/${encodeURIComponent(incident.run)}/curves`, {
      metrics: this.names.join(","), max_points: 700, from_step: Math.max(0, first - Math.max(AROUND, Math.ceil(span / 3))),
      to_step: incident.end_step === null ? null : incident.end_step + Math.max(AROUND, Math.ceil(span / 3)),
    }, this.signal);
    this.ruler = new Ruler("step", answer);
    const bands = [{ from: incident.onset_step, to: incident.end_step ?? (incident.state === "resolved" ? incident.detected_step : answer.to_step), severity: incident.severity }];
    this.names.forEach((name, index) => {
      const curve = answer.curves[name];
      this.charts[index].set({
        x: curve?.step || [], bands, ticks: [incident.detected_step], range: [answer.from_step, answer.to_step], log: false,
        series: curve ? [{ label: "", ink: "first", values: curve.mean, low: curve.min, high: curve.max }] : [],
        marks: curve ? curve.step.filter((_, i) => curve.non_finite[i]) : [],
      });
      if (index && !curve) this.charts[index].box.remove();
    });
  }

  async save(incident) {
    try {
      const url = await picture(`/incidents/${encodeURIComponent(incident.id)}/plot.png`, this.signal);
      el("a", { href: url, download: `holter-${incident.id}.png` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 10000);
    } catch (error) { toast(error.message); }
  }
}
