// Where the ranks of a run stand: their newest stacks, equal ones together, and the button that asks for new ones.

import { get, listen, post } from "./api.js";
import { el, show, toast } from "./dom.js";
import { ago, clock, number, ranks, sentence } from "./format.js";
import { calmly } from "./parts.js";

export class Standing {
  constructor(run, { incident = null, signal }) {
    Object.assign(this, { path: `/runs/${encodeURIComponent(run)}/stacks`, incident, signal, shown: "", isWaiting: false, isEmpty: true });
    this.ask = el("button", { type: "button", onclick: () => this.request() }, "Take stacks of all ranks");
    this.said = el("div", { class: "standing" });
    this.box = el("section", { class: "card" }, el("h2", {}, "Where the ranks stand"), this.said, el("div", { class: "actions" }, this.ask));
    const again = calmly(() => this.load(), 1000, signal);
    listen((message) => this.isWaiting && message.run === run && again(), signal);
  }

  async load() {
    const found = await get(this.path, {}, this.signal), key = JSON.stringify(found);
    this.isWaiting = found.waiting.length > 0;
    if (key === this.shown) return; // a stack that somebody reads stays open
    this.shown = key;
    this.isEmpty = !found.items.length;
    show(this.said, this.words(found), this.missing(found), found.items.map((group, index) => this.group(group, index === 0 && found.items.length > 1)));
  }

  words(found) {
    if (!found.items.length) return el("p", { class: "soft" }, this.isWaiting ? "Asked; the node agents hear it within 15 seconds." : "No stacks were taken yet. The ranks are read from outside and go on.");
    return el("p", {}, el("b", {}, sentence(found.sentence)), el("span", { class: "soft", title: clock(found.taken) }, ` · ${ago(found.taken)}${found.step === null ? "" : `, at step ${number(found.step)}`}`));
  }

  missing(found) {
    if (!found.waiting.length) return null;
    const nodes = found.waiting.slice(0, 4).join(", ") + (found.waiting.length > 4 ? ` and ${number(found.waiting.length - 4)} more` : "");
    return el("p", { class: "soft small" }, `No answer yet from ${nodes}.`);
  }

  group(group, isOpen) {
    return el("details", { open: isOpen }, el("summary", {}, sentence(ranks(group.ranks)), " in ", el("code", {}, group.where)), el("pre", { tabindex: 0 }, group.stack));
  }

  async request() {
    try {
      await post(this.path, { incident: this.incident });
      toast("Asked: the node agents hear it within 15 seconds.");
      await this.load();
    } catch (error) { toast(error.message); }
  }
}
