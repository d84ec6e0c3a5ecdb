// What there is to resume from: the newest whole checkpoint, its copy, which one goes next, how long the room lasts. Nothing where nobody watches.

import { get } from "./api.js";
import { el, show } from "./dom.js";
import { ago, clock, duration, measured, number } from "./format.js";
import { facts } from "./parts.js";

export class Saved {
  constructor(run, signal) {
    Object.assign(this, { path: `/runs/${encodeURIComponent(run)}/checkpoints`, signal });
    this.said = el("div", {});
    this.list = el("details", {});
    this.box = el("section", { class: "card", hidden: true }, el("h2", {}, "Checkpoints"), this.said, this.list);
  }

  async load() {
    const found = await get(this.path, {}, this.signal);
    this.box.hidden = !found.folder;
    if (!found.folder) return;
    show(this.said, el("p", { class: "soft" }, el("code", {}, found.folder), found.copy_folder ? [", copied to ", el("code", {}, found.copy_folder)] : []),
      this.problem(found.folder, found.problem), this.problem(found.copy_folder, found.copy_problem), facts(this.facts(found)));
    const isOpen = this.list.open;
    show(this.list, el("summary", {}, `${number(found.items.length)} in all`), this.table(found));
    this.list.open = isOpen;
  }

  problem(place, text) {
    return text ? el("p", { class: "wrong" }, `${place} does not answer: ${text}`) : null;
  }

  facts(found) {
    const age = found.newest_written ? ago(found.newest_written) : "";
    return [
      ["Newest whole", found.newest || "none", age, !found.newest],
      found.copy_folder ? ["Newest copied", found.newest_copied || "none", "", found.newest_copied !== found.newest] : null,
      found.interval_seconds ? ["One every", duration(found.interval_seconds)] : null,
      found.keep ? ["Retention keeps", number(found.keep)] : null,
      found.free_bytes === null ? null : ["Free", measured("_bytes", found.free_bytes), found.room === null ? "" : `room for ${number(found.room)} more`, found.room === 0],
      found.full_seconds === null ? null : ["Full in", duration(found.full_seconds), "", found.full_seconds < 86400],
    ];
  }

  table(found) {
    const heads = ["Checkpoint", "Size", "Written", "State", ...(found.copy_folder ? ["Copy"] : []), ""];
    const rows = [...found.items].reverse().map((item) => [item.name, measured("_bytes", item.bytes), clock(item.written), item.state, ...(found.copy_folder ? [item.copy_state || "–"] : []), item.expires ? "goes next" : ""]);
    return el("div", { class: "table" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map((head) => el("th", {}, head)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)))))));
  }
}
