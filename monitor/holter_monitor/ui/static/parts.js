// Pieces that several views share: states, badges, lines of lists, facts, the head of a run.

import { el, folded, link, svg } from "./dom.js";
import { ago, clock, duration, number, ranks, sentence, words } from "./format.js";

export const state = (word) => el("span", { class: "state", "data-word": word }, word);
export const severity = (word, count) => el("span", { class: "severity", "data-word": word }, count ? `${count} ${word}` : word);

export function facts(entries) {
  return el("dl", { class: "facts" }, entries.filter(Boolean).map(([name, value, rest, isBad]) =>
    el("div", {}, el("dt", {}, name), el("dd", { class: isBad ? "bad" : null }, value, rest ? [" ", el("small", {}, rest)] : []))));
}

// A small line without axes. Gaps stay gaps.
export function sparkline(values, label) {
  const known = values.filter((v) => Number.isFinite(v)), late = known.slice(Math.floor(known.length * 0.08));
  const low = Math.min(...late), span = Math.max(...late) - low || 1; // the start runs out of the top, so that the rest has a shape
  let path = "", pen = "M";
  values.forEach((value, index) => {
    if (!Number.isFinite(value)) return (pen = "M");
    path += `${pen}${((index / Math.max(1, values.length - 1)) * 100).toFixed(2)} ${Math.max(-8, 28 - ((value - low) / span) * 24).toFixed(2)}`;
    pen = "L";
  });
  return svg("svg", { class: "spark", viewBox: "0 0 100 32", preserveAspectRatio: "none", role: "img", "aria-label": label }, svg("path", { d: path || "M0 0" }));
}

export function incidentRow(incident, { isNamed = true } = {}) {
  const cause = incident.causes?.[0]?.sentence;
  const under = [
    el("span", {}, words(incident.kind)),
    isNamed ? el("span", {}, `${incident.project} / `, folded(incident.run_name)) : null,
    el("span", {}, `from step ${number(incident.onset_step)}${incident.end_step !== null ? ` to ${number(incident.end_step)}` : ""}`),
    incident.ranks.length ? el("span", {}, ranks(incident.ranks)) : null,
    incident.cost ? el("span", {}, `${duration(incident.cost)} lost`) : null,
    incident.silence ? el("span", { title: "A silence covers it: nobody was told" }, "silenced") : null,
    cause ? el("span", {}, cause) : null,
  ];
  return el("li", {}, el("a", { class: `incident row${incident.state === "resolved" ? " over" : ""}`, href: link("incidents", incident.id) },
    severity(incident.severity), el("span", { class: "sentence" }, sentence(incident.summary)),
    el("span", { class: "when", title: clock(incident.created) }, state(incident.state), " ", ago(incident.created)),
    el("span", { class: "under" }, under)));
}

const TABS = [["Curves", []], ["Ranks", ["ranks"]], ["Parallel consistency", ["consistency"]]];

export function runHead(run, tab) {
  return [
    el("div", { class: "head" },
      el("span", { class: "crumb" }, el("a", { href: "#/" }, "Runs"), ` / ${run.project}`),
      el("h1", {}, folded(run.name)), state(run.state)),
    el("nav", { class: "tabs", "aria-label": "Views of the run" }, TABS.map(([name, path]) =>
      el("a", { href: link("runs", run.id, ...path), "aria-current": name === tab ? "page" : null }, name))),
  ];
}

export function segments(name, options, chosen, choose) {
  const box = el("div", { class: "segments", role: "group", "aria-label": name });
  const buttons = options.map(([value, label]) => el("button", {
    type: "button", "aria-pressed": String(value === chosen),
    onclick: () => {
      for (const [index, button] of buttons.entries()) button.setAttribute("aria-pressed", String(options[index][0] === value));
      choose(value);
    },
  }, label));
  box.append(...buttons);
  return box;
}

// Call `work` soon, once for many calls; never while it is still running.
export function calmly(work, wait, signal) {
  let timer = 0, isBusy = false, isWanted = false;
  const run = async () => {
    timer = 0;
    isBusy = true;
    isWanted = false;
    try { await work(); } catch (error) { if (error.name !== "AbortError") console.warn(error.message); }
    isBusy = false;
    if (isWanted && !signal.aborted) timer = setTimeout(run, wait);
  };
  signal.addEventListener("abort", () => clearTimeout(timer));
  return () => {
    isWanted = true;
    if (!timer && !isBusy && !signal.aborted) timer = setTimeout(run, wait);
  };
}
