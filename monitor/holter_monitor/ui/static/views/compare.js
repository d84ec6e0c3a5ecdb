// Runs over each other, at equal tokens or equal steps, and how far each stands from the first.

import { all, get } from "../api.js";
import { Chart, cursorGroup } from "../charts.js";
import { el, link, show } from "../dom.js";
import { number, words } from "../format.js";
import { segments } from "../parts.js";
import { Ruler } from "../ruler.js";

const INKS = ["first", "second", "third", "critical", "faint"];
const GRID = 600;
const METRICS = ["loss", "grad_norm", "tokens_per_second", "step_time_seconds", "lr"];

export async function render(box, { query, signal }) {
  document.title = "Compare · Holter";
  const runs = await all("/runs", {}, signal, 1000);
  let chosen = (query.get("runs") || "").split(",").filter((id) => runs.some((run) => run.id === id)).slice(0, INKS.length), axis = "tokens", metric = "loss";
  if (!chosen.length) chosen = suggestion(runs);
  const group = cursorGroup();
  const state = { ruler: new Ruler("step", { total: null, times: null }) };
  const look = { format: (v, at) => state.ruler.tick(v, at), label: (v) => state.ruler.label(v) };
  const curves = new Chart({ title: "", height: 280, sync: group, axis: look, signal });
  const apart = new Chart({ title: "", height: 150, sync: group, axis: look, signal, format: (v) => `${number(v, 3)} %` });
  const choice = el("select", { "aria-label": "Add a run" });
  const list = el("div", { class: "actions" }), hint = el("p", { class: "soft small" });
  const pick = el("select", { "aria-label": "Metric" }, METRICS.map((name) => el("option", { value: name }, words(name))));

  const load = async () => {
    history.replaceState(null, "", `#/compare?runs=${chosen.map(encodeURIComponent).join(",")}`);
    const name = (id) => runs.find((run) => run.id === id)?.name || id;
    show(list, chosen.map((id) => el("button", { type: "button", title: "Remove", "aria-label": `Remove ${name(id)}`, onclick: () => { chosen = chosen.filter((one) => one !== id); load(); } }, name(id), " ×")));
    show(choice, el("option", { value: "" }, "Add a run …"), runs.filter((run) => !chosen.includes(run.id)).map((run) => el("option", { value: run.id }, `${run.project} / ${run.name}`)));
    choice.disabled = chosen.length >= INKS.length;
    const answers = await Promise.all(chosen.map((id) => get(`/runs/${encodeURIComponent(id)}/curves`, { metrics: `${metric},tokens`, max_points: 1500 }, signal)));
    draw(answers, chosen.map(name));
  };

  const draw = (answers, names) => {
    const useTokens = axis === "tokens" && answers.length > 0 && answers.every((answer) => answer.total.step.length > 1);
    hint.textContent = axis === "tokens" && !useTokens && answers.length ? "Not every run logs tokens: compared at equal steps." : "";
    const lines = answers.map((answer) => {
      const ruler = new Ruler(useTokens ? "tokens" : "step", answer), curve = answer.curves[metric];
      return { x: curve ? curve.step.map((step) => ruler.at(step)) : [], y: curve ? curve.mean : [] };
    });
    state.ruler = new Ruler(useTokens ? "tokens" : "step", answers[0] || { total: null, times: null });
    curves.title = words(metric);
    apart.title = names[0] ? `Difference to ${names[0]}` : "Difference";
    const known = lines.filter((one) => one.x.length);
    if (!known.length) return curves.set({ x: [], series: [] }), apart.set({ x: [], series: [] });
    const from = Math.min(...known.map((one) => one.x[0])), to = Math.max(...known.map((one) => one.x.at(-1)));
    const x = Array.from({ length: GRID }, (_, i) => from + ((to - from) * i) / (GRID - 1));
    const onGrid = lines.map((one) => resampled(one, x));
    curves.set({ x, log: false, settle: 0.03, series: onGrid.map((values, i) => ({ label: names[i], ink: INKS[i], values })) });
    apart.set(onGrid.length < 2 ? { x: [], series: [] } : { x, log: false, settle: 0.03, series: onGrid.slice(1).map((values, i) => ({ label: names[i + 1], ink: INKS[i + 1], values: values.map((v, j) => (v === null || onGrid[0][j] === null ? null : (v / onGrid[0][j] - 1) * 100)) })) });
  };

  choice.addEventListener("change", () => choice.value && ((chosen = [...chosen, choice.value]), load()));
  pick.addEventListener("change", () => { metric = pick.value; load(); });
  box.append(el("div", { class: "head" }, el("h1", {}, "Compare")), el("div", { class: "tools" }, choice, pick, segments("At equal", [["tokens", "Equal tokens"], ["step", "Equal steps"]], axis, (value) => { axis = value; load(); })), list, hint, el("div", {}, curves.box, apart.box));
  await load();
}

// The newest run and its reference, or the two newest of one project.
function suggestion(runs) {
  const [newest] = runs;
  if (!newest) return [];
  const other = runs.find((run) => run.id !== newest.id && run.project === newest.project && (!newest.reference || run.name === newest.reference || run.id === newest.reference));
  return other ? [other.id, newest.id] : [newest.id];
}

// The mean of a line's points in each cell of the grid; between points linear, outside nothing.
function resampled({ x, y }, grid) {
  const values = new Array(grid.length).fill(null), cell = grid[1] - grid[0];
  let index = 0;
  for (let i = 0; i < grid.length; i++) {
    const from = grid[i] - cell / 2, to = grid[i] + cell / 2;
    while (index < x.length && x[index] < from) index++;
    let sum = 0, count = 0;
    for (let j = index; j < x.length && x[j] < to; j++) if (y[j] !== null) (sum += y[j]), count++;
    if (count) values[i] = sum / count;
    else if (index > 0 && index < x.length && y[index - 1] !== null && y[index] !== null) values[i] = y[index - 1] + ((y[index] - y[index - 1]) * (grid[i] - x[index - 1])) / (x[index] - x[index - 1] || 1);
  }
  return values;
}
