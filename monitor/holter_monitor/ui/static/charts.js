// Lines over the step (or tokens, or time): uPlot with the house's look, linked cursors and zoom, incident bands, marks for NaN.

import uPlot from "./vendor/uPlot.js";
import { css, el } from "./dom.js";
import { number, short } from "./format.js";
import { Touch } from "./touch.js";

const INKS = { first: "--accent", second: "--second", third: "--third", fourth: "--fourth", fifth: "--fifth", critical: "--critical", faint: "--faint" };
const SEVERITIES = ["info", "warning", "critical"];
const ink = (name) => css(INKS[name] || "--accent");

// A chart of `series`: [{label, ink, values, low, high, fill, scale, format}] over `x`. `marks`: positions of what was not finite.
export class Chart {
  constructor({ title, height = 170, sync = null, onZoom = null, axis = null, signal, format = number, log = false }) {
    Object.assign(this, { title, height, sync, onZoom, axis, format, log });
    this.legend = el("div", { class: "legend" });
    this.plot = el("div", { class: "plot", tabindex: 0, role: "img", "aria-label": title });
    this.box = el("section", { class: "chart" }, this.legend, this.plot);
    this.content = null;
    this.u = null;
    new ResizeObserver(() => this.resize()).observe(this.plot);
    addEventListener("themechange", () => this.rebuild(), { signal });
    signal.addEventListener("abort", () => this.u?.destroy());
    this.plot.addEventListener("keydown", (event) => this.key(event));
  }

  // Show `content` {x, series, marks, bands, range}. The same shape as before updates in place: no jump, the cursor stays.
  set(content) {
    const same = this.u && this.content.series.length === content.series.length && this.content.log === content.log;
    this.content = content;
    if (!content.x.length) return this.clear();
    if (!same) return this.rebuild();
    this.u.setData(this.columns(), false);
    this.u.batch(() => {
      this.u.setScale("x", this.range());
      for (const scale of Object.keys(this.u.scales)) if (scale !== "x") this.u.setScale(scale, { min: null, max: null });
    });
    this.u.redraw(true, true);
    this.caption(this.u.cursor.idx);
  }

  clear() {
    this.u?.destroy();
    this.u = null;
    this.plot.replaceChildren(el("p", { class: "none" }, "not logged in this window"));
    this.caption(null);
  }

  columns() {
    const columns = [this.content.x];
    for (const series of this.content.series) {
      columns.push(series.values);
      if (series.low) columns.push(series.low, series.high);
    }
    return columns;
  }

  range() {
    const { x, range } = this.content;
    const [from, to] = range || [x[0], x[x.length - 1]];
    return { min: from, max: to > from ? to : from + 1 };
  }

  rebuild() {
    if (!this.content || !this.content.x.length) return;
    this.u?.destroy();
    this.plot.replaceChildren();
    this.u = new uPlot(this.options(), this.columns(), this.plot);
    this.u.setScale("x", this.range());
    if (this.onZoom) new Touch(this.u, this.onZoom);
    this.caption(null);
  }

  options() {
    const series = [{}], bands = [];
    for (const one of this.content.series) {
      series.push({ stroke: ink(one.ink), width: one.fill ? 1 : 1.4, fill: one.fill ? ink(one.ink) + "2e" : undefined, scale: one.scale || "y", points: { show: one.values.length < 3, size: 5 }, spanGaps: false });
      if (one.low) {
        const hidden = { width: 0, stroke: "transparent", points: { show: false } };
        series.push(hidden, { ...hidden });
        bands.push({ series: [series.length - 1, series.length - 2], fill: ink(one.ink) + "26" });
      }
    }
    const gutter = parseInt(css("--gutter"), 10);
    const grid = { stroke: css("--rule"), width: 1 };
    const font = "12px system-ui, sans-serif"; // whole pixels: uPlot scales the digits before "px" and nothing before a point
    const axes = [
      { stroke: css("--faint"), grid: { show: false }, ticks: { show: false }, font, size: 26, space: this.plot.clientWidth < 500 ? 64 : 90, values: (u, at) => at.map((v) => this.axis.format(v, at)) },
      { stroke: css("--faint"), grid, ticks: { show: false }, font, size: gutter, gap: 6, space: 34, values: (u, at) => at.map((v) => (v === null ? "" : this.format === number ? short(v) : this.format(v))) },
    ];
    const log = this.content.log;
    return {
      width: Math.max(120, this.plot.clientWidth), height: this.height, padding: [8, 12, 0, 0], series, bands, axes, legend: { show: false },
      scales: { x: { time: false }, y: log ? { distr: 3 } : { range: (u, min, max) => this.yRange(u, min, max) }, lost: { range: (u, min, max) => [0, Math.max(max, 1e-9) * 1.05] } },
      cursor: { y: false, sync: this.sync ? { key: this.sync.key, scales: ["x", null] } : undefined, drag: { x: Boolean(this.onZoom), y: false, setScale: false }, points: { size: 6 }, focus: { prox: -1 } },
      hooks: {
        drawClear: [(u) => this.drawBands(u)],
        draw: [(u) => this.drawMarks(u)],
        setCursor: [(u) => this.caption(u.cursor.idx)],
        setSelect: [(u) => this.selected(u)],
      },
    };
  }

  // The first steps of a run stand so high that all the rest would be a flat line: with `settle`, the scale is the rest's and they run out of the top.
  yRange(u, min, max) {
    const { x, series, settle } = this.content;
    if (settle && x.length > 60) {
      const from = Math.ceil(x.length * settle), own = series.filter((one) => !one.scale);
      const rest = own.flatMap((one) => [one.low || one.values, one.high || one.values]).flatMap((column) => column.slice(from)).filter(Number.isFinite);
      if (rest.length) [min, max] = [Math.min(...rest), Math.max(...rest)];
    }
    return min === null ? [0, 1] : uPlot.rangeNum(min, max, 0.08, true);
  }

  selected(u) {
    if (u.select.width < 4) return;
    const from = u.posToVal(u.select.left, "x"), to = u.posToVal(u.select.left + u.select.width, "x");
    u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.onZoom?.(from, to);
  }

  drawBands(u) {
    const { ctx, bbox } = u;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const bands = (this.content.bands || []).map((band) => ({ ...band, left: u.valToPos(band.from, "x", true), right: Math.max(u.valToPos(band.to, "x", true), u.valToPos(band.from, "x", true) + 2 * devicePixelRatio) }));
    for (const band of bands.sort((one, other) => SEVERITIES.indexOf(one.severity) - SEVERITIES.indexOf(other.severity))) this.drawBand(u, band);
    this.nameBands(u, bands);
    ctx.fillStyle = css("--faint") + "80";
    for (const at of this.content.ticks || []) ctx.fillRect(u.valToPos(at, "x", true), bbox.top + bbox.height - 5 * devicePixelRatio, devicePixelRatio, 5 * devicePixelRatio);
    ctx.restore();
  }

  // Washes do not add up to mud: the worse one takes the place of what it covers.
  drawBand({ ctx, bbox }, { left, right, severity }) {
    ctx.clearRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = css(`--${severity}`) + "17";
    ctx.fillRect(left, bbox.top, right - left, bbox.height);
    ctx.fillStyle = css(`--${severity}`);
    ctx.fillRect(left, bbox.top, right - left, 2 * devicePixelRatio);
  }

  // After all washes, so that an onset inside a worse trouble stays in sight; names one under the other where they would meet.
  nameBands({ ctx, bbox }, bands) {
    const px = devicePixelRatio, ends = []; // where each line of names is free again
    ctx.font = `${11 * px}px system-ui, sans-serif`;
    for (const { left, right, severity, label } of [...bands].sort((one, other) => one.left - other.left)) {
      ctx.fillStyle = css(`--${severity}`);
      ctx.fillRect(left, bbox.top, px, bbox.height);
      const start = Math.max(left, bbox.left) + 6 * px, wide = label ? ctx.measureText(label).width : 0;
      if (!label || start + wide > Math.min(right, bbox.left + bbox.width) - 4 * px) continue;
      const free = ends.findIndex((end) => end < start), line = free < 0 ? ends.length : free;
      ends[line] = start + wide + 8 * px;
      if (line < 4) ctx.fillText(label, start, bbox.top + (15 + 13 * line) * px);
    }
  }

  drawMarks(u) {
    const { ctx, bbox } = u, arm = 3 * devicePixelRatio, foot = bbox.top + bbox.height - 6 * devicePixelRatio;
    ctx.save();
    ctx.strokeStyle = css("--critical");
    ctx.lineWidth = 1.5 * devicePixelRatio;
    ctx.beginPath();
    for (const at of this.content.marks || []) {
      const x = u.valToPos(at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.moveTo(x - arm, foot - arm), ctx.lineTo(x + arm, foot + arm), ctx.moveTo(x - arm, foot + arm), ctx.lineTo(x + arm, foot - arm);
    }
    ctx.stroke();
    ctx.restore();
  }

  // The line over the plot: the values under the cursor, or the newest ones.
  caption(index) {
    const { x, series, marks } = this.content || { x: [], series: [] };
    const at = index ?? x.length - 1;
    this.plot.ariaLabel = `${this.title}: arrows move the cursor${this.onZoom ? ", plus and minus zoom, escape resets" : ""}`;
    const parts = [el("h3", {}, this.title)];
    for (const one of series) {
      const value = index === null || index === undefined ? newest(one.values) : one.values[at], show = one.format || this.format;
      const spread = one.low && one.low[at] !== null && one.low[at] !== undefined && one.high[at] !== one.low[at] ? ` ${show(one.low[at])} … ${show(one.high[at])}` : "";
      const dot = series.length > 1 ? el("i", { "data-ink": one.ink }) : null;
      if (x.length) parts.push(el("span", {}, dot, one.label ? `${one.label} ` : "", el("b", {}, value === null || value === undefined ? "–" : show(value)), spread));
    }
    if (marks?.length) parts.push(el("span", {}, el("i", { "data-ink": "critical" }), "× NaN or infinite"));
    if (index !== null && index !== undefined && x.length) parts.push(el("span", { class: "at" }, this.axis.label(x[at])));
    this.legend.replaceChildren(...parts);
  }

  resize() {
    if (this.u && this.plot.clientWidth && this.u.width !== this.plot.clientWidth) this.u.setSize({ width: this.plot.clientWidth, height: this.height });
  }

  key(event) {
    if (!this.u) return;
    const { x } = this.content, now = this.u.cursor.idx ?? x.length - 1, { min, max } = this.u.scales.x;
    const step = event.shiftKey ? 10 : 1, width = max - min;
    const move = { ArrowLeft: -step, ArrowRight: step }[event.key];
    if (move) {
      const at = Math.max(0, Math.min(x.length - 1, now + move));
      this.u.setCursor({ left: this.u.valToPos(x[at], "x"), top: 10 });
    } else if (event.key === "+" || event.key === "=") this.onZoom?.(x[now] - width / 4, x[now] + width / 4);
    else if (event.key === "-") this.onZoom?.(min - width / 2, max + width / 2);
    else if (event.key === "Escape" || event.key === "0") this.onZoom?.(null, null);
    else return;
    event.preventDefault();
  }
}

function newest(values) {
  for (let i = values.length - 1; i >= 0; i--) if (values[i] !== null && values[i] !== undefined) return values[i];
  return null;
}

export function cursorGroup() {
  return uPlot.sync(String(Math.random()));
}
