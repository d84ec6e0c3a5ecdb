// The form that makes a silence: beside an incident with its own words, on the page of silences empty.

import { post } from "./api.js";
import { el, toast } from "./dom.js";
import { sentence, until } from "./format.js";

export const MATCHERS = ["project", "run", "kind", "severity", "node", "scope"]; // what the collector can match by
const HOURS = [[1, "1 hour"], [4, "4 hours"], [12, "12 hours"], [24, "1 day"], [72, "3 days"], [168, "1 week"]];

// Names are words where a person chose them from a list, and patterns only where a person typed them.
export const literal = (name) => name.replace(/[[*?]/g, "[$&]");

// Ask for a silence. `reaches`: [label, matchers] to choose from, or null for matchers that are typed. Calls `made` after the collector took it.
export function askForSilence({ reaches = null, made = () => {} } = {}) {
  const lasting = el("select", { name: "hours" }, HOURS.map(([value, text]) => el("option", { value, selected: value === 4 }, text)));
  const starts = el("input", { type: "datetime-local", name: "starts" });
  const reason = el("input", { name: "reason", required: true, placeholder: "Why nobody needs to hear of it", maxlength: 500 });
  const author = el("input", { name: "author", placeholder: "Your name", maxlength: 200, autocomplete: "name" });
  const what = reaches ? choice(reaches) : patterns();
  const cancel = el("button", { type: "button" }, "Cancel");
  const form = el("form", { method: "dialog" }, el("h2", {}, "Silence"), what.box, el("div", { class: "pair" }, el("label", {}, "From (empty: now)", starts), el("label", {}, "For how long", lasting)), el("label", {}, "Reason", reason), el("label", {}, "Author (a token's own name goes before)", author),
    el("div", { class: "actions" }, el("button", { class: "primary", type: "submit" }, "Silence"), cancel));
  const dialog = el("dialog", { "aria-label": "Silence" }, form);
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const begin = starts.value ? new Date(starts.value) : new Date();
    const ends = new Date(begin.getTime() + Number(lasting.value) * 3600e3).toISOString();
    try {
      await post("/silences", { matchers: what.matchers(), reason: reason.value, author: author.value.trim() || null, starts: starts.value ? begin.toISOString() : null, ends });
      toast(`Silenced until ${until(ends)}. Holter goes on recording.`);
      dialog.close();
      made();
    } catch (error) { toast(error.message); }
  });
  document.body.append(dialog);
  dialog.showModal();
}

function choice(reaches) {
  const select = el("select", { name: "reach" }, reaches.map(([label], index) => el("option", { value: index }, label)));
  return { box: el("label", {}, "What", select), matchers: () => Object.fromEntries(Object.entries(reaches[Number(select.value)][1]).map(([name, value]) => [name, literal(value)])) };
}

function patterns() {
  const inputs = MATCHERS.map((name) => el("input", { name, placeholder: "any", maxlength: 200, autocomplete: "off", autocapitalize: "off" }));
  return {
    box: el("fieldset", {}, el("legend", {}, "What: all that is filled in must match; * and ? are patterns"), MATCHERS.map((name, index) => el("label", {}, sentence(name), inputs[index]))),
    matchers: () => Object.fromEntries(inputs.map((input) => [input.name, input.value.trim()]).filter(([, value]) => value)),
  };
}
