// Numbers, times and names as people read them.

const UNITS = ["", "k", "M", "B", "T"]; // B, as people count tokens and parameters

export function number(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value; // "NaN", "Infinity"
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e15)) return value.toExponential(2).replace("e-", "e−").replace("e+", "e");
  if (size >= 1e5) return short(value);
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumFractionDigits: 6 });
}

export function short(value) {
  if (value === null || value === undefined) return "–";
  let size = Math.abs(value), unit = 0;
  while (size >= 1000 && unit < UNITS.length - 1) (size /= 1000), unit++;
  return (value < 0 ? "−" : "") + Number(size.toPrecision(3)) + UNITS[unit];
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const s = Math.abs(seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 90) return `${Number(s.toFixed(s < 10 ? 1 : 0))} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 129600) return `${Number((s / 3600).toFixed(1))} h`;
  return `${Number((s / 86400).toFixed(1))} d`;
}

export function ago(iso, now = Date.now()) {
  if (!iso) return "–";
  const seconds = (now - Date.parse(iso)) / 1000;
  return seconds < 5 ? "now" : `${duration(Math.round(seconds))} ago`;
}

export function clock(iso) {
  if (!iso) return "–";
  const time = new Date(iso);
  const day = time.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
  return time.toLocaleString("en-GB", { ...day, hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

// A moment to come or gone, with its day where it is not today: "14:30", "26 Nov, 14:30".
export function until(iso) {
  const time = new Date(iso), day = time.toDateString() === new Date().toDateString() ? {} : { month: "short", day: "numeric" };
  return time.toLocaleString("en-GB", { ...day, hour: "2-digit", minute: "2-digit" });
}

// 0-3, 7, 9-11 (8)
export function ranks(list) {
  if (!list || !list.length) return "all ranks";
  const sorted = [...list].sort((a, b) => a - b), parts = [];
  for (let i = 0, j; i < sorted.length; i = j) {
    for (j = i + 1; j < sorted.length && sorted[j] === sorted[j - 1] + 1; j++);
    parts.push(j - i > 1 ? `${sorted[i]}–${sorted[j - 1]}` : `${sorted[i]}`);
  }
  const shown = parts.slice(0, 12).join(", ") + (parts.length > 12 ? ", …" : "");
  return (sorted.length === 1 ? "rank " : "ranks ") + shown + (sorted.length > 3 ? ` (${sorted.length})` : "");
}

// The first letter large, as a sentence begins.
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}

export function words(name) {
  return String(name).replaceAll("_", " ");
}

// A metric's name without the unit, which stands with the value.
export function title(metric) {
  return words(metric.replace(/_(seconds|bytes|bytes_per_second|ratio|celsius|watts|hertz|total)(?=$|\.)/, ""));
}

const SCALES = [
  [/_seconds$/, (v) => duration(v)],
  [/_bytes(\.|$)/, (v) => bytes(v)],
  [/_bytes_per_second(\.|$)/, (v) => `${bytes(v)}/s`],
  [/(_ratio|_share|^share_.*)$/, (v) => `${number(v * 100, 3)} %`],
  [/_celsius$/, (v) => `${number(v, 3)} °C`],
  [/_watts$/, (v) => `${number(v, 4)} W`],
  [/_hertz$/, (v) => (v >= 1e9 ? `${number(v / 1e9, 3)} GHz` : `${number(v / 1e6, 3)} MHz`)],
];

// A value in the unit that its metric's name says.
export function measured(metric, value) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (!Number.isFinite(value)) return "NaN";
  const scale = SCALES.find(([pattern]) => pattern.test(metric));
  return scale ? scale[1](value) : number(value);
}

function bytes(value) {
  let size = Math.abs(value), unit = 0;
  while (size >= 1024 && unit < 5) (size /= 1024), unit++;
  return `${Number(size.toPrecision(3))} ${["B", "KiB", "MiB", "GiB", "TiB", "PiB"][unit]}`;
}
