// Parallel consistency: what must be equal over ranks is equal, what must differ differs. The table that would have caught the TP seed bug at step 0.

import { all, get } from "../api.js";
import { el, link } from "../dom.js";
import { clock, number, ranks, words } from "../format.js";
import { incidentRow, runHead } from "../parts.js";

const KINDS = ["tp_duplicate_shards", "replica_mismatch", "rank_disagreement", "memory_corruption"];
const MOST_RANKS = 64; // rows of the table of ranks; beyond it only those that differ

export async function render(box, { ids, signal }) {
  const path = `/runs/${encodeURIComponent(ids[0])}`, events = (word, most) => all(`${path}/events`, { event: word, limit: 500 }, signal, most);
  const [run, prints, watches, off, ...found] = await Promise.all([
    get(path, {}, signal), events("fingerprint", 5000), events("watch", 20000), events("watch_off", 5000), ...KINDS.map((kind) => all("/incidents", { run: ids[0], kind, limit: 500 }, signal)),
  ]);
  document.title = `Parallel consistency of ${run.name} · Holter`;
  const incidents = found.flat(), seen = new Set([...prints, ...watches].map((event) => event.rank)), layout = watches.filter((event) => event.attrs.table).at(-1);
  box.append(...runHead(run, "Parallel consistency"), el("h2", {}, verdict(incidents, seen, prints)));
  if (!seen.size && !incidents.length) return box.append(el("p", { class: "empty" }, "This run sends no fingerprints. One line before the first step:", el("code", {}, "run.watch(model, optimizer)")));
  const newest = prints.length ? `, newest at step ${number(prints.at(-1).step)} (${clock(prints.at(-1).time)})` : "";
  const parts = [
    el("p", { class: "soft" }, prints.length ? `Fingerprints of ${ranks([...seen])} of ${number(run.world_size)}${newest}.` : `${seen.size} of ${number(run.world_size)} ranks are watched; no fingerprint has come yet.`),
    checks(incidents, prints, layout),
    incidents.length ? el("ul", { class: "list" }, incidents.map((incident) => incidentRow(incident, { isNamed: false }))) : null,
    rankByRank(run, { prints, watches, off, incidents }), layout ? startUp(layout) : null,
  ];
  box.append(...parts.filter(Boolean));
}

function verdict(incidents, seen, prints) {
  if (incidents.length) return `${incidents.length} ${incidents.length === 1 ? "finding" : "findings"}`;
  if (!seen.size) return "Not watched";
  return prints.length ? "Nothing stands out" : "Nothing compared yet"; // a check that has not run must not look passed
}

const CHECKS = [
  ["tp_duplicate_shards", "Tensor-parallel shards differ from each other", "equal shards are correlated initialisation: the TP seed bug", (name, model) => model.includes(name)],
  ["replica_mismatch", "Data-parallel replicas are bit-identical", "replicas that drift apart train different models", (name, model) => !model.includes(name)],
  ["rank_disagreement", "Ranks agree on what they agreed on", "step, learning rate, dtype, configuration", () => true],
  ["memory_corruption", "Weights change only by the optimizer", "a bit that flips between two steps", null],
];

function checks(incidents, prints, layout) {
  const { sizes = {}, model_axes = [] } = layout?.attrs.table || {};
  return el("div", { class: "card table" }, el("table", {}, el("thead", {}, el("tr", {}, ["Must hold", "Why", "Found"].map((head) => el("th", { class: head === "Why" ? "desk" : null }, head)))),
    el("tbody", {}, CHECKS.map(([kind, rule, why, isAbout]) => {
      const broken = incidents.filter((incident) => incident.kind === kind);
      const hasPeers = !layout || !isAbout || Object.entries(sizes).some(([axis, size]) => size > 1 && isAbout(axis, model_axes));
      const [word, text] = broken.length ? [broken.some((incident) => incident.state !== "resolved") ? "open" : "resolved", `${broken.length} × ${words(kind)}`]
        : !hasPeers ? ["none", "nothing to compare"] : prints.length ? ["resolved", "holds"] : ["waiting", "not compared yet"];
      return el("tr", {}, el("td", {}, rule), el("td", { class: "soft desk" }, why), el("td", {}, el("span", { class: "state", "data-word": word }, text)));
    }))));
}

// Each rank: where it stands on the mesh, whether its layout is the one of the most, how far its fingerprints came, and what was found on it.
function rankByRank(run, { prints, watches, off, incidents }) {
  const last = new Map(prints.map((event) => [event.rank, event.step])), why = new Map(off.map((event) => [event.rank, event.attrs.reason]));
  const own = new Map(watches.map((event) => [event.rank, event.attrs])), found = (rank) => incidents.filter((incident) => incident.ranks.includes(rank));
  const layouts = new Map();
  for (const { layout } of own.values()) layouts.set(layout, (layouts.get(layout) || 0) + 1);
  const usual = [...layouts].sort((one, other) => other[1] - one[1])[0]?.[0], newest = Math.max(-1, ...last.values());
  const rows = Array.from({ length: Math.max(run.world_size || 0, ...[...own.keys()].map((rank) => rank + 1)) }, (_, rank) => {
    const attrs = own.get(rank), is = attrs === undefined ? "not watched" : why.has(rank) ? `switched off: ${why.get(rank)}` : attrs.layout !== usual ? "another layout" : newest >= 0 && (last.get(rank) ?? -1) < newest ? "behind" : "alike";
    return { rank, mesh: attrs?.mesh || {}, is, step: last.get(rank), found: found(rank) };
  });
  const odd = rows.filter((row) => row.is !== "alike" || row.found.length), shown = (rows.length > MOST_RANKS ? odd : rows).slice(0, 4 * MOST_RANKS);
  const note = rows.length > MOST_RANKS ? `${number(rows.length - odd.length)} of ${number(rows.length)} ranks are alike${odd.length > shown.length ? `; the first ${shown.length} of the others` : odd.length ? "; the others" : ""}` : `${odd.length ? number(rows.length - odd.length) : "All"} of ${number(rows.length)} ranks are alike`;
  const axes = [...new Set(rows.flatMap((row) => Object.keys(row.mesh)))];
  return el("section", { class: "view tight" }, el("h2", {}, "Rank by rank"), el("p", { class: "soft" }, note), shown.length ? el("div", { class: "card table" }, el("table", {},
    el("thead", {}, el("tr", {}, ["Rank", ...axes, "Layout and fingerprints", "Newest step", "Found"].map((head) => el("th", {}, head)))),
    el("tbody", {}, shown.map((row) => el("tr", {}, el("td", {}, el("a", { href: link("runs", run.id, "ranks", row.rank) }, `rank ${row.rank}`)),
      axes.map((axis) => el("td", { class: "whole" }, row.mesh[axis] ? `${row.mesh[axis][0]} of ${row.mesh[axis][1]}` : "–")),
      el("td", {}, el("span", { class: "state", "data-word": { alike: "resolved", behind: "silent", "not watched": "none" }[row.is] || "open" }, row.is)), el("td", {}, row.step === undefined ? "–" : number(row.step)),
      el("td", {}, row.found.length ? row.found.slice(0, 3).map((incident, i) => [i ? ", " : "", el("a", { href: link("incidents", incident.id) }, words(incident.kind))]).flat() : "–")))))) : null);
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
