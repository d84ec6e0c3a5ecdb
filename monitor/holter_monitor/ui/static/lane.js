// The strip above the charts: attempts, declared events and incidents on the same axis. Incidents are links, reachable by keyboard.

import { css, el, link, show, svg } from "./dom.js";
import { number, words } from "./format.js";

const RIGHT = 22; // the charts' own right edge
const MAX_TICKS = 400;
const MAX_ROWS = 4;
const TROUBLE = 70; // where the first row of troubles begins
const LETTER = 6; // pixels that a letter of a label takes at most
const RANK = { critical: 3, warning: 2, info: 1 };

export class Lane {
  constructor() {
    this.drawing = svg("svg", { class: "lane", height: 84, role: "group", "aria-label": "Attempts, events and incidents along the run" });
    this.box = el("div", { class: "lane-box" }, this.drawing);
    new ResizeObserver(() => this.paint()).observe(this.box);
  }

  show(content) {
    this.content = content;
    this.paint();
  }

  paint() {
    if (!this.content) return;
    const { attempts, events, incidents, ruler, range, last } = this.content;
    const width = this.box.clientWidth || 800, left = parseInt(css("--gutter"), 10) + 4, right = width - RIGHT;
    const place = (value) => left + ((value - range[0]) / (range[1] - range[0] || 1)) * (right - left);
    const clipped = (from, to) => [Math.max(left, Math.min(right, place(from))), Math.max(left, Math.min(right, place(to)))];
    const parts = [
      svg("text", { x: 7, y: 22 }, "attempt"), svg("text", { x: 7, y: 45 }, "events"), svg("text", { x: 7, y: TROUBLE + 8 }, "trouble"),
    ];
    attempts.forEach((attempt, index) => {
      if (attempt.first_step === null) return;
      const next = attempts.slice(index + 1).find((later) => later.first_step !== null);
      const end = next ? Math.min(next.first_step, attempt.last_step ?? last) : attempt.last_step ?? last;
      const [from, to] = clipped(ruler.at(attempt.first_step), ruler.at(end));
      if (to - from < 1) return;
      parts.push(svg("rect", { class: "attempt", x: from, y: 9, width: Math.max(1, to - from - 1.5), height: 18, rx: 4 }, title(`attempt ${attempt.number}, ${attempt.state}, steps ${number(attempt.first_step)} to ${number(attempt.last_step)}`)));
      if (to - from > 22) parts.push(svg("text", { class: "attempt-name", x: from + 7, y: 22 }, `${attempt.number}`));
    });
    const seen = events.map((event) => ({ event, x: place(ruler.at(event.step)) })).filter(({ x }) => x >= left && x <= right).slice(-MAX_TICKS);
    for (const { event, x } of seen) parts.push(svg("g", {}, svg("line", { class: "tick", x1: x, x2: x, y1: 35, y2: 45 }), svg("rect", { class: "hit", x: x - 3, y: 32, width: 6, height: 16 }, title(`${words(event.event)} at step ${number(event.step)} ${describe(event.attrs)}`))));
    for (const { word, at } of labels(seen, left, right)) parts.push(svg("text", { class: "event-name", x: at, y: 58 }, word));
    const rows = []; // where each row of troubles is free again
    for (const incident of [...incidents].sort((one, other) => RANK[other.severity] - RANK[one.severity] || one.onset_step - other.onset_step)) {
      if (incident.parent) continue;
      const end = incident.end_step ?? (incident.state === "resolved" ? incident.detected_step : last);
      if (place(ruler.at(end)) < left || place(ruler.at(incident.onset_step)) > right) continue;
      const [from, to] = clipped(ruler.at(incident.onset_step), ruler.at(end)), wide = Math.max(5, to - from);
      let row = rows.findIndex((taken) => taken.every(([a, b]) => from > b + 2 || from + wide < a - 2));
      if (row < 0) row = Math.min(rows.length, MAX_ROWS - 1);
      (rows[row] ??= []).push([from, from + wide]);
      const y = TROUBLE + row * 11;
      parts.push(svg("a", { href: link("incidents", incident.id), "aria-label": `${incident.severity}: ${incident.summary}` },
        svg("rect", { class: "hit", x: from - 3, y: y - 2, width: wide + 6, height: 11 }), svg("rect", { class: "trouble", "data-word": incident.severity, x: from, y, width: wide, height: 7, rx: 3 }, title(incident.summary))));
    }
    const height = TROUBLE + 13 + Math.max(0, rows.length - 1) * 11;
    this.drawing.setAttribute("height", height);
    this.drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    show(this.drawing, parts);
  }
}

// Names under the ticks, as many as stand clear of each other: the rarest words first, since the hundredth checkpoint says least.
function labels(seen, left, right) {
  const count = new Map(), taken = [];
  for (const { event } of seen) count.set(event.event, (count.get(event.event) || 0) + 1);
  for (const { event, x } of [...seen].sort((one, other) => count.get(one.event.event) - count.get(other.event.event))) {
    const word = event.attrs?.name && typeof event.attrs.name === "string" ? event.attrs.name.slice(0, 24) : words(event.event), wide = word.length * LETTER;
    const at = Math.max(left, Math.min(right - wide, x - wide / 2));
    if (taken.every((one) => at > one.at + one.wide + 8 || at + wide + 8 < one.at)) taken.push({ word, at, wide });
  }
  return taken;
}

function title(text) {
  return svg("title", {}, text);
}

function describe(attrs) {
  const entries = Object.entries(attrs || {}).slice(0, 4).map(([name, value]) => `${name} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  return entries.length ? `(${entries.join(", ")})` : "";
}
