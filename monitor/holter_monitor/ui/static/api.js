// The collector's REST and its stream. The token, where one is needed, lives in this tab only.

import { el, toast } from "./dom.js";

const KEY = "holter-token";

export class Problem extends Error {
  constructor(status, document) {
    const remedy = document.remedy ? `: ${document.remedy}` : "";
    super(`${document.title || "The collector answered " + status}${remedy}`);
    this.status = status;
  }
}

function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

async function call(method, path, { params, body, signal } = {}) {
  const given = Object.entries(params || {}).flatMap(([name, value]) => [value].flat().map((one) => [name, one])); // a list is a parameter said several times
  const query = new URLSearchParams(given.filter(([, value]) => value !== null && value !== undefined));
  const url = `/api/v1${path}${query.size ? "?" + query : ""}`;
  const options = { method, signal, headers: headers() };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(url, options);
  if (answer.status === 401 && (await askForToken())) return call(method, path, { params, body, signal });
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return answer.status === 204 ? null : answer.json();
}

export const get = (path, params, signal) => call("GET", path, { params, signal });
export const post = (path, body) => call("POST", path, { body });
export const remove = (path) => call("DELETE", path);

// A picture that may need the token: its own request, then a blob.
export async function picture(path, signal) {
  const answer = await fetch(`/api/v1${path}`, { headers: headers(), signal });
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  return URL.createObjectURL(await answer.blob());
}

// All pages of a list, at most `limit` entries.
export async function all(path, params, signal, limit = 2000) {
  const items = [];
  let cursor = null;
  do {
    const page = await get(path, { ...params, cursor }, signal);
    items.push(...page.items);
    cursor = page.next;
  } while (cursor && items.length < limit);
  return items;
}

let asking = null;
function askForToken() {
  asking ??= new Promise((done) => {
    const input = el("input", { type: "password", name: "token", autocomplete: "off", required: true, "aria-label": "Token" });
    const form = el("form", { method: "dialog" },
      el("h2", {}, "This collector asks for a token"),
      el("p", { class: "soft" }, "One with the scope ", el("code", {}, "read"), "; to acknowledge and silence, ", el("code", {}, "operate"), ". It stays in this tab."),
      input, el("div", { class: "actions" }, el("button", { class: "primary" }, "Go on")));
    const dialog = el("dialog", {}, form);
    dialog.addEventListener("close", () => {
      if (input.value) sessionStorage.setItem(KEY, input.value.trim());
      dialog.remove();
      asking = null;
      done(Boolean(input.value));
    });
    document.body.append(dialog);
    dialog.showModal();
  });
  return asking;
}

// Server-sent events over fetch, because EventSource cannot carry a token. One connection for the whole page.
const listeners = new Set();
export function listen(listener, signal) {
  listeners.add(listener);
  signal.addEventListener("abort", () => listeners.delete(listener));
}

export async function follow(status) {
  for (let wait = 1000; ; wait = Math.min(wait * 2, 30000)) {
    try {
      const answer = await fetch("/api/v1/stream", { headers: { ...headers(), Accept: "text/event-stream" } });
      if (answer.ok) {
        status("live");
        wait = 1000;
        for (const listener of listeners) listener({ type: "connected" }); // what happened since the page was asked for, nobody has told it
        await drain(answer.body.pipeThrough(new TextDecoderStream()).getReader());
      }
    } catch { /* the next try says it */ }
    status("reconnecting");
    await new Promise((done) => setTimeout(done, wait));
  }
}

async function drain(reader) {
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = block.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      if (lines.length) spread(lines.map((line) => line.slice(5).trim()).join("\n"));
    }
  }
}

function spread(text) {
  let message;
  try { message = JSON.parse(text); } catch { return; }
  for (const listener of listeners) listener(message);
}

export function failed(error) {
  if (error.name !== "AbortError") toast(error.message);
}
