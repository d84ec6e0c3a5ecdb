// All incidents, newest first; those that are not resolved by default.

import { all, listen } from "../api.js";
import { el, show } from "../dom.js";
import { calmly, incidentRow, segments } from "../parts.js";

export async function render(box, { signal }) {
  document.title = "Incidents · Holter";
  const list = el("ul", { class: "list" });
  const kinds = el("select", { "aria-label": "Kind" }, el("option", { value: "" }, "all kinds"));
  let which = "now", incidents = [];

  const paint = () => {
    const chosen = kinds.value;
    const names = [...new Set(incidents.map((incident) => incident.kind))].sort();
    show(kinds, el("option", { value: "" }, "all kinds"), names.map((kind) => el("option", { value: kind, selected: kind === chosen }, kind.replaceAll("_", " "))));
    const shown = incidents.filter((incident) => !incident.parent && (!chosen || incident.kind === chosen));
    show(list, shown.length ? shown.map((incident) => incidentRow(incident)) : el("li", { class: "empty" }, which === "now" ? "Nothing is wrong that Holter knows of." : "No incident yet."));
  };
  const load = async () => {
    const states = which === "now" ? ["open", "acknowledged"] : [undefined];
    const found = await Promise.all(states.map((state) => all("/incidents", { state, limit: 500 }, signal)));
    incidents = found.flat().sort((a, b) => (a.created < b.created ? 1 : -1));
    paint();
  };
  const choice = segments("Which incidents", [["now", "Not resolved"], ["all", "All"]], which, (value) => {
    which = value;
    load();
  });
  kinds.addEventListener("change", paint);
  box.append(el("div", { class: "head" }, el("h1", {}, "Incidents")), el("div", { class: "tools" }, choice, kinds), list);
  const again = calmly(load, 1000, signal);
  listen((message) => message.type !== "step" && message.type !== "run" && again(), signal);
  await load();
}
