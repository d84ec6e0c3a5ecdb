// The horizontal axis: steps, tokens or time, and the way between them. Tokens and times come thinned; between them it is linear.

import { number, short } from "./format.js";

export class Ruler {
  constructor(axis, answer) {
    this.axis = axis;
    const { total, times } = answer;
    const source = axis === "tokens" ? total : axis === "time" ? times : null;
    this.steps = source?.step || [];
    this.values = source?.value || [];
    this.isPossible = axis === "step" || this.steps.length > 1;
  }

  at(step, time) {
    if (this.axis === "step") return step;
    if (this.axis === "time" && time !== undefined && time !== null) return time;
    return between(this.steps, this.values, step);
  }

  step(value) {
    return this.axis === "step" ? value : between(this.values, this.steps, value);
  }

  tick(value, at) {
    if (this.axis !== "time") return this.axis === "tokens" ? short(value) : value >= 1e5 ? short(value) : number(value);
    const span = at && at.length > 1 ? at[at.length - 1] - at[0] : 0, time = new Date(value * 1000);
    return time.toLocaleString("en-GB", span > 172800 ? { month: "short", day: "numeric" } : span < 600 ? { hour: "2-digit", minute: "2-digit", second: "2-digit" } : { hour: "2-digit", minute: "2-digit" });
  }

  label(value) {
    if (this.axis === "time") return new Date(value * 1000).toLocaleString("en-GB");
    return this.axis === "tokens" ? `${short(value)} tokens` : `step ${number(Math.round(value))}`;
  }
}

function between(from, to, value) {
  const last = from.length - 1;
  if (last < 0) return value;
  if (value <= from[0]) return to[0];
  if (value >= from[last]) return to[last];
  let low = 0, high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= value) low = middle;
    else high = middle;
  }
  const share = from[high] === from[low] ? 0 : (value - from[low]) / (from[high] - from[low]);
  return to[low] + share * (to[high] - to[low]);
}
