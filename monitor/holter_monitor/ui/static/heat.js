// The heat map: float32 from the server, one putImageData, then the browser scales it. 16,384 ranks paint in milliseconds.

import { css, el } from "./dom.js";
import { number } from "./format.js";

const APART = 6; // deviations at which the colour is full

export class HeatMap {
  constructor(signal, { format, open }) {
    Object.assign(this, { format, open, mode: "apart", at: null });
    this.canvas = el("canvas", { tabindex: 0, role: "img", "aria-label": "Heat map; arrows move, enter opens the rank" });
    this.read = el("div", { class: "read", "aria-live": "polite" });
    this.feet = el("div", { class: "feet" });
    this.box = el("section", { class: "heat" }, this.read, this.canvas, this.feet);
    this.canvas.addEventListener("pointermove", (event) => this.point(this.cell(event)));
    this.canvas.addEventListener("click", (event) => { this.point(this.cell(event)); this.enter(); });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    addEventListener("themechange", () => this.paint(), { signal });
  }

  set(answer) {
    const bytes = Uint8Array.from(atob(answer.values), (letter) => letter.charCodeAt(0));
    this.answer = answer;
    this.values = new Float32Array(bytes.buffer);
    this.width = answer.steps.length;
    this.box.hidden = !this.width;
    if (this.width) this.paint();
  }

  paint(mode = this.mode) {
    if (!this.values || !this.width) return;
    this.mode = mode;
    const { width, values } = this, height = this.answer.rows.length, started = performance.now();
    const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer), color = this.colors();
    for (let i = 0; i < values.length; i++) pixels[i] = color(values[i], i % width);
    this.canvas.width = width;
    this.canvas.height = height;
    this.canvas.style.height = `${Math.max(60, Math.min(620, height * Math.max(3, Math.min(22, 480 / height))))}px`;
    this.canvas.getContext("2d").putImageData(image, 0, 0);
    this.canvas.dataset.paintMs = (performance.now() - started).toFixed(1);
    performance.mark("heat painted"); // benchmarks/page.py reads it
    this.legend();
  }

  legend() {
    const { steps, sampled, rows, by } = this.answer;
    const ends = this.mode === "apart" ? ["below the others", "above"] : [this.format(this.low), this.format(this.high)];
    this.feet.replaceChildren(el("span", {}, `step ${number(steps[0])}`), el("span", {}, ends[0], el("i", { class: "scale" }), ends[1]), el("span", {}, `step ${number(steps.at(-1))}`));
    if (!this.at) this.read.textContent = `${number(rows.length)} ${by === "node" ? "nodes" : "ranks"} × ${number(steps.length)} ${sampled ? "sampled steps" : "columns"}; a cell is its farthest rank`;
  }

  // A function from value and column to a pixel.
  colors() {
    const none = packed(hex(css("--card"))), middle = hex(css("--raised")), cold = [42, 111, 196], warm = [196, 56, 46], bad = packed([255, 0, 200]);
    const shades = Array.from({ length: 255 }, (_, i) => packed(mix(middle, i < 127 ? cold : warm, Math.min(1, Math.abs(i - 127) / 127))));
    const place = this.mode === "apart" ? this.apart() : this.level();
    return (value, column) => {
      if (value !== value) return none; // nothing was logged
      if (value === Infinity) return bad; // a NaN was logged
      return shades[Math.max(0, Math.min(254, Math.round(127 + place(value, column) * 127)))];
    };
  }

  // Deviations from the column's median, in units of the map's own typical spread.
  apart() {
    const { center } = this.answer, away = [];
    const stride = Math.max(1, Math.floor(this.values.length / 20000));
    for (let i = 0; i < this.values.length; i += stride) if (Number.isFinite(this.values[i])) away.push(Math.abs(this.values[i] / center[i % this.width] - 1));
    away.sort((a, b) => a - b);
    const spread = Math.max(0.01, 1.4826 * (away[away.length >> 1] || 0));
    return (value, column) => (value / center[column] - 1) / spread / APART;
  }

  level() {
    const known = this.values.filter(Number.isFinite).sort();
    this.low = known[Math.floor(known.length * 0.01)] ?? 0;
    this.high = known[Math.floor(known.length * 0.99)] ?? 1;
    const span = this.high - this.low || 1;
    return (value) => ((value - this.low) / span) * 2 - 1;
  }

  cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.width), row = Math.floor(((event.clientY - box.top) / box.height) * this.answer.rows.length);
    return { row: Math.max(0, Math.min(this.answer.rows.length - 1, row)), column: Math.max(0, Math.min(this.width - 1, column)) };
  }

  point(at) {
    this.at = at;
    const place = this.answer.rows[at.row], value = this.values[at.row * this.width + at.column], center = this.answer.center[at.column];
    const shown = value !== value ? "nothing logged" : value === Infinity ? "NaN or infinite" : this.format(value);
    this.read.replaceChildren(el("b", {}, place.name), place.rank !== null ? ` on ${place.node}` : "", `, step ${number(this.answer.steps[at.column])}: `, el("b", {}, shown), center === null ? "" : ` (median of all ${this.format(center)})`);
  }

  key(event) {
    const move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter") return this.enter();
    if (!move) return;
    event.preventDefault();
    const at = this.at || { row: 0, column: this.width - 1 };
    this.point({ row: Math.max(0, Math.min(this.answer.rows.length - 1, at.row + move[0])), column: Math.max(0, Math.min(this.width - 1, at.column + move[1])) });
  }

  enter() {
    if (!this.at) return;
    const rank = this.answer.rows[this.at.row].rank ?? this.answer.outliers.find((one) => one.row === this.at.row)?.rank ?? this.answer.first_ranks?.[this.at.row];
    if (rank !== undefined && rank !== null) this.open(this.at.row, rank);
  }
}

const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
const mix = (a, b, share) => a.map((v, i) => Math.round(v + (b[i] - v) * share));
const packed = ([r, g, b]) => (255 << 24) | (b << 16) | (g << 8) | r;
