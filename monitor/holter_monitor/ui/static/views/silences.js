// What nobody is told of for a while: silences that hold, and maintenance windows that are still to come.

import { all, listen, remove } from "../api.js";
import { el, show, toast } from "../dom.js";
import { until, words } from "../format.js";
import { calmly, state } from "../parts.js";
import { askForSilence } from "../silencing.js";

export async function render(box, { signal }) {
  document.title = "Silences · Holter";
  const list = el("div", { class: "view" });
  const load = async () => paint(list, await all("/silences", {}, signal), load);
  box.append(el("div", { class: "head" }, el("h1", {}, "Silences"), el("p", { class: "soft" }, "Holter records and shows what a silence covers; it only tells nobody.")),
    el("div", { class: "tools" }, el("button", { type: "button", class: "primary", onclick: () => askForSilence({ made: load }) }, "New silence …")), list);
  const again = calmly(load, 1500, signal);
  listen((message) => message.type !== "step" && again(), signal);
  await load();
  const clock = setInterval(again, 30_000); // they begin and end by themselves
  signal.addEventListener("abort", () => clearInterval(clock));
}

function paint(list, silences, load) {
  const now = Date.now(), isComing = (one) => Date.parse(one.starts) > now;
  const groups = [["Now", silences.filter((one) => !isComing(one))], ["Maintenance windows to come", silences.filter(isComing)]];
  if (!silences.length) return show(list, el("p", { class: "empty" }, "Nothing is silenced: whoever is on call hears of everything. A silence that starts later is a maintenance window."));
  show(list, groups.filter(([, own]) => own.length).map(([name, own]) => el("section", { class: "view tight" }, el("h2", {}, name), el("ul", { class: "list" }, own.map((one) => row(one, isComing(one), load))))));
}

function row(silence, isComing, load) {
  const what = Object.entries(silence.matchers).map(([name, value]) => el("span", { class: "matcher" }, el("small", {}, name), " ", ["kind", "severity"].includes(name) ? words(value) : value));
  const end = async () => {
    try {
      await remove(`/silences/${encodeURIComponent(silence.id)}`);
      toast("Ended: what it covered is told of again.");
      await load();
    } catch (error) { toast(error.message); }
  };
  return el("li", { class: "silence" }, el("div", {}, el("p", { class: "what" }, what), el("p", {}, silence.reason),
    el("p", { class: "soft small" }, `by ${silence.author}, `, isComing ? `from ${until(silence.starts)} to ${until(silence.ends)}` : `until ${until(silence.ends)}`)),
    el("div", { class: "actions" }, state(isComing ? "waiting" : "silenced"), el("button", { type: "button", "aria-label": `End the silence: ${silence.reason}`, onclick: end }, isComing ? "Cancel" : "End")));
}
