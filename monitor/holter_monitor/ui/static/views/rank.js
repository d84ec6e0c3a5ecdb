// One rank: where it lives, and everything that it, its GPU and its host logged lately.

import { get } from "../api.js";
import { Chart, cursorGroup } from "../charts.js";
import { el, link } from "../dom.js";
import { measured, number, title } from "../format.js";
import { facts, runHead } from "../parts.js";
import { Ruler } from "../ruler.js";

const ORDER = ["step_time_seconds", "compute_seconds", "data_wait_seconds", "loss", "grad_norm", "tokens_per_second"];

export async function render(box, { ids, signal }) {
  const path = `/runs/${encodeURIComponent(ids[0])}`;
  const [run, place] = await Promise.all([get(path, {}, signal), get(`${path}/ranks/${ids[1]}`, {}, signal)]);
  document.title = `Rank ${place.rank} of ${run.name} · Holter`;
  const mesh = Object.entries(place.place).filter(([name, value]) => !["node", "gpu"].includes(name) && value !== null && typeof value !== "object");
  const ruler = new Ruler("step", { total: null, times: null }), group = cursorGroup();
  const draw = (lines) => {
    const names = Object.keys(lines).sort((a, b) => order(a) - order(b) || a.localeCompare(b));
    return el("div", { class: "grid-small" }, names.map((name) => line(name, lines[name], { ruler, group, signal })));
  };
  const own = split(place.metrics, (name) => !/^(gpu|process)_/.test(name)), machine = split(place.metrics, (name) => /^(gpu|process)_/.test(name));
  box.append(...runHead(run, "Ranks"), el("h2", {}, `Rank ${place.rank}`),
    facts([["Node", place.node || "–"], ["GPU", place.place.gpu ?? "–"], ...mesh.map(([name, value]) => [name, String(value)]), ["From step", number(place.from_step)]]),
    el("p", { class: "actions" }, place.rank > 0 ? el("a", { class: "text", href: link("runs", run.id, "ranks", place.rank - 1) }, "← rank before") : null,
      place.rank < run.world_size - 1 ? el("a", { class: "text", href: link("runs", run.id, "ranks", place.rank + 1) }, "next rank →") : null));
  for (const [title, lines] of [["Its steps", own], ["Its GPU and process", machine], ["Its host", place.host]]) {
    if (Object.keys(lines).length) box.append(el("h2", {}, title), draw(lines));
  }
  if (!Object.keys(place.metrics).length) box.append(el("p", { class: "empty" }, "This rank has logged nothing in the newest steps."));
}

const order = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length);
const split = (lines, isWanted) => Object.fromEntries(Object.entries(lines).filter(([name]) => isWanted(name)));

function line(name, { step, value }, { ruler, group, signal }) {
  const chart = new Chart({ title: title(name), height: 110, sync: group, signal, format: (v) => measured(name, v), axis: { format: (v, at) => ruler.tick(v, at), label: (v) => ruler.label(v) } });
  const values = value.map((v) => (typeof v === "string" ? null : v));
  queueMicrotask(() => chart.set({ x: step, series: [{ label: "", ink: "first", values }], marks: step.filter((_, i) => typeof value[i] === "string"), log: false }));
  return chart.box;
}
