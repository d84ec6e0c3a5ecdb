// What a view was set to, kept behind the "?" of its address: a link that is copied shows the same window to whoever opens it.

import { toast } from "./dom.js";

// Write `settings` into the address without a new entry in the history; null and "" leave no trace.
export function remember(settings) {
  const [path, query] = location.hash.split("?");
  const kept = new URLSearchParams(query || "");
  for (const [name, value] of Object.entries(settings)) {
    if (value === null || value === undefined || value === "") kept.delete(name);
    else kept.set(name, value);
  }
  history.replaceState(null, "", `${path || "#/"}${kept.size ? `?${kept}` : ""}`);
}

export function whole(query, name) {
  const value = query.get(name);
  return value !== null && /^\d{1,15}$/.test(value) ? Number(value) : null;
}

export async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    toast("The link to this view is copied.");
  } catch { // over plain http from another machine the browser gives no clipboard
    toast(`Copy it from here: ${location.href}`);
  }
}
