// The frame: which view the address names, the live mark, light and dark.

import { failed, follow } from "./api.js";
import { el, show } from "./dom.js";
import { help, listenToKeys } from "./keys.js";

const ROUTES = [
  [/^\/?$/, "runs", () => import("./views/runs.js")],
  [/^\/runs\/([^/]+)$/, "runs", () => import("./views/run.js")],
  [/^\/runs\/([^/]+)\/ranks$/, "runs", () => import("./views/ranks.js")],
  [/^\/runs\/([^/]+)\/ranks\/(-?\d+)$/, "runs", () => import("./views/rank.js")],
  [/^\/runs\/([^/]+)\/consistency$/, "runs", () => import("./views/consistency.js")],
  [/^\/incidents$/, "incidents", () => import("./views/incidents.js")],
  [/^\/incidents\/([^/]+)$/, "incidents", () => import("./views/incident.js")],
  [/^\/goodput$/, "goodput", () => import("./views/goodput.js")],
  [/^\/compare$/, "compare", () => import("./views/compare.js")],
  [/^\/silences$/, "silences", () => import("./views/silences.js")],
];
const main = document.getElementById("main");
let current = null;

async function route() {
  current?.abort();
  const life = (current = new AbortController());
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const found = ROUTES.map(([pattern, page, load]) => [path.match(pattern), page, load]).find(([match]) => match);
  for (const anchor of document.querySelectorAll(".bar nav a")) {
    if (anchor.dataset.page === found?.[1]) anchor.setAttribute("aria-current", "page");
    else anchor.removeAttribute("aria-current");
  }
  if (!found) return show(main, el("p", { class: "empty" }, "There is no such page. ", el("a", { href: "#/" }, "All runs")));
  try {
    const view = await found[2]();
    const box = el("div", { class: "view" });
    const ready = view.render(box, { ids: found[0].slice(1).map(decodeURIComponent), query: new URLSearchParams(query || ""), signal: life.signal });
    if (life.signal.aborted) return;
    show(main, box);
    await ready;
    scrollTo(0, 0);
  } catch (error) {
    if (life.signal.aborted) return;
    failed(error);
    show(main, el("p", { class: "empty" }, error.message, " ", el("a", { href: "#/" }, "All runs")));
  }
}

function live(state) {
  const mark = document.getElementById("live");
  mark.dataset.state = state;
  mark.lastElementChild.textContent = state;
}

function theme() {
  const root = document.documentElement;
  const saved = localStorage.getItem("holter-theme");
  if (saved) root.dataset.theme = saved;
  document.getElementById("theme").addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = isDark ? "light" : "dark";
    localStorage.setItem("holter-theme", root.dataset.theme);
    window.dispatchEvent(new Event("themechange"));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.dispatchEvent(new Event("themechange")));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
theme();
document.getElementById("keys").addEventListener("click", help);
listenToKeys();
addEventListener("hashchange", route);
route();
follow(live);
