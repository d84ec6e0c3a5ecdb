// Parallel consistency: what must be equal over ranks is equal, what must differ differs. The table that would have caught the TP seed bug at step 0.

import { all, get } from "../api.js";
import { el, show } from "../dom.js";
import { clock, number, ranks, words } from "../format.js";
import { incidentRow, runHead } from "../parts.js";

const KINDS = ["tp_duplicate_shards", "replica_mismatch", "rank_disagreement", "memory_corruption"];

export async function render(box, { ids, signal }) {
  const path = `/runs/${encodeURIComponent(ids[0])}`;
  const [run, prints, watches, ...found] = await Promise.all([
    get(path, {}, signal), all(`${path}/events`, { event: "fingerprint", limit: 500 }, signal, 5000), all(`${path}/events`, { event: "watch", limit: 500 }, signal, 5000), ...KINDS.map((kind) => all("/incidents", { run: ids[0], kind, limit: 500 }, signal)),
  ]);
  document.title = `Parallel consistency of ${run.name} · Holter`;
  const incidents = found.flat(), seen = new Set([...prints, ...watches].map((event) => event.rank));
  const layout = watches.filter((event) => event.attrs.table).at(-1);
  const verdict = incidents.length ? `${incidents.length} ${incidents.length === 1 ? "finding" : "findings"}` : seen.size ? "Nothing stands out" : "Not watched";
  box.append(...runHead(run, "Parallel consistency"), el("h2", {}, verdict));
  if (!seen.size) return box.append(el("p", { class: "empty" }, "This run sends no fingerprints. One line before the first step:", el("code", {}, "run.watch(model, optimizer)")));
  const newest = prints.length ? `, newest at step ${number(prints.at(-1).step)} (${clock(prints.at(-1).time)})` : "";
  box.append(el("p", { class: "soft" }, `Fingerprints of ${ranks([...seen])} of ${number(run.world_size)}${newest}.`),
    checks(incidents), layout ? startUp(layout) : "", incidents.length ? el("ul", { class: "list" }, incidents.map((incident) => incidentRow(incident, { isNamed: false }))) : null);
}

const CHECKS = [
  ["tp_duplicate_shards", "Tensor-parallel shards differ from each other", "equal shards are correlated initialisation: the TP seed bug"],
  ["replica_mismatch", "Data-parallel replicas are bit-identical", "replicas that drift apart train different models"],
  ["rank_disagreement", "Ranks agree on what they agreed on", "step, learning rate, dtype, configuration"],
  ["memory_corruption", "Weights change only by the optimizer", "a bit that flips between two steps"],
];

function checks(incidents) {
  return el("div", { class: "card table" }, el("table", {}, el("thead", {}, el("tr", {}, ["Must hold", "Why", "Found"].map((head) => el("th", {}, head)))),
    el("tbody", {}, CHECKS.map(([kind, rule, why]) => {
      const broken = incidents.filter((incident) => incident.kind === kind);
      const word = broken.some((incident) => incident.state !== "resolved") ? "open" : "resolved";
      return el("tr", {}, el("td", {}, rule), el("td", { class: "soft" }, why), el("td", {}, el("span", { class: "state", "data-word": word }, broken.length ? `${broken.length} × ${words(kind)}` : "holds")));
    }))));
}

// Which family of tensors lies how on the mesh, and how Holter knows: what was guessed is meant to be corrected by the reader.
function startUp({ attrs }) {
  const { tensors, kinds, sizes, model_axes } = attrs.table, families = new Map();
  for (const [name, kind] of tensors) {
    const family = name.replace(/(?<![A-Za-z0-9])\d+(?![A-Za-z0-9])/g, "*"), key = JSON.stringify([family, kind]);
    families.set(key, { family, kind, count: (families.get(key)?.count || 0) + 1 });
  }
  const axes = [...new Set([...model_axes, ...kinds.flatMap(([, , placed]) => Object.keys(placed))])];
  const mesh = Object.entries(sizes).map(([axis, size]) => `${axis} ${size}`).join(" × ") || "one rank";
  return el("section", { class: "view tight" }, el("h2", {}, "How the tensors lie"), el("p", { class: "soft" }, `${number(tensors.length)} tensors on a mesh of ${mesh}`),
    el("div", { class: "card table" }, el("table", {}, el("thead", {}, el("tr", {}, ["Tensors", "Count", "Local shape", "dtype", ...axes, "Known from"].map((head) => el("th", {}, head)))),
      el("tbody", {}, [...families.values()].map(({ family, kind, count }) => {
        const [dtype, shape, placed, source] = kinds[kind];
        return el("tr", {}, el("td", {}, el("code", {}, family)), el("td", {}, number(count)), el("td", {}, shape.join(" × ") || "scalar"), el("td", {}, dtype), axes.map((axis) => el("td", { class: placed[axis] === "?" ? "faint" : null }, placement(placed[axis]))), el("td", { class: "soft" }, source));
      })))));
}

function placement(how) {
  if (!how) return "–";
  if (how[0] === "S") return `sharded, dimension ${how.slice(1)}`;
  if (how[0] === "B") return `alike in ${how.slice(1)} blocks`;
  return { R: "replicated", P: "partial", "?": "unknown" }[how] || how;
}
