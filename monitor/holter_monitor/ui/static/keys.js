// The keyboard: what each key does, said by "?"; "/" goes to the search.

import { el } from "./dom.js";

const KEYS = [
  ["Everywhere", [["?", "this list"], ["/", "to the search"], ["Tab, Enter", "from control to control, and into it"], ["Esc", "close a dialog"]]],
  ["On a chart", [["← →", "move the cursor; with Shift ten points"], ["+ −", "zoom in at the cursor, zoom out"], ["Esc or 0", "leave the zoom"], ["drag, pinch", "zoom; two taps leave it"]]],
  ["On the heat map", [["← ↑ ↓ →", "from cell to cell"], ["Enter", "open the rank"]]],
];

export function help() {
  if (document.querySelector("dialog[open]")) return;
  const close = el("button", { class: "primary" }, "Close");
  const dialog = el("dialog", { class: "help", "aria-label": "Keyboard" }, el("form", { method: "dialog" }, el("h2", {}, "Keyboard"), KEYS.map(([place, keys]) => [
    el("h3", {}, place), el("dl", {}, keys.map(([key, what]) => el("div", {}, el("dt", {}, el("kbd", {}, key)), el("dd", {}, what))))]).flat(), close));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

export function listenToKeys() {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, dialog")) return;
    if (event.key === "?") help();
    else if (event.key === "/") document.querySelector("main input[type=search]")?.focus();
    else return;
    event.preventDefault();
  });
}
