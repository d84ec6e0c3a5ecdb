// Elements are made here and nowhere else: text is always text, so a run named "<script>" is a run named "<script>".

const SVG = "http://www.w3.org/2000/svg";

export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

// Replace what `parent` shows. Whoever stands on one of its links or buttons with the keyboard goes on standing there.
export function show(parent, ...children) {
  const active = parent.contains(document.activeElement) ? identity(document.activeElement) : null;
  parent.replaceChildren(...children.flat().filter(Boolean));
  if (active) [...parent.querySelectorAll("a, button, select, input")].find((one) => identity(one) === active)?.focus({ preventScroll: true });
}

function identity(node) {
  return node.getAttribute("href") || node.getAttribute("aria-label") || node.textContent;
}

// A long name with the places where it may break: after a mark rather than in a word.
export function folded(name) {
  return String(name).split(/(?<=[./_#:=-])/).flatMap((part, index) => (index ? [el("wbr"), part] : [part]));
}

// Addresses inside the page. Ids come from the server and are escaped all the same.
export function link(...parts) {
  return "#/" + parts.map(encodeURIComponent).join("/");
}

let hideToast = 0;
export function toast(text) {
  const box = document.getElementById("toast");
  box.textContent = text;
  box.hidden = false;
  clearTimeout(hideToast);
  hideToast = setTimeout(() => (box.hidden = true), 6000);
}

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
