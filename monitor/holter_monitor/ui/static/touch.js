// Fingers on a chart: two pinch and pull the window, two quick taps leave the zoom. One finger scrolls the page, or moves the cursor.

const QUICK = 300; // milliseconds between the taps of a double tap
const NEAR = 30; // pixels

export class Touch {
  constructor(u, onZoom) {
    Object.assign(this, { u, onZoom, fingers: new Map(), held: null, window: null, tap: null });
    for (const name of ["pointerdown", "pointermove", "pointerup", "pointercancel"]) u.over.addEventListener(name, (event) => event.pointerType === "touch" && this[name](event));
  }

  pointerdown(event) {
    this.fingers.set(event.pointerId, this.place(event));
    this.held = this.fingers.size === 2 ? this.places().map((x) => this.u.posToVal(x, "x")) : null;
  }

  pointermove(event) {
    if (!this.fingers.has(event.pointerId)) return;
    this.fingers.set(event.pointerId, this.place(event));
    if (!this.held) return this.u.setCursor({ left: this.place(event), top: 10 });
    const [left, right] = this.places(), [from, to] = this.held;
    if (right - left < 10) return; // fingers over each other would ask for an endless window
    const unit = (to - from) / (right - left), min = from - left * unit; // what was under a finger stays under it
    this.window = [min, min + this.u.over.clientWidth * unit]; // uPlot takes a scale over only later
    this.u.setScale("x", { min: this.window[0], max: this.window[1] });
  }

  pointerup(event) {
    const { window } = this, x = this.place(event);
    this.fingers.delete(event.pointerId);
    if (this.held) {
      this.held = this.window = this.tap = null;
      this.fingers.clear();
      return window && this.onZoom(...window);
    }
    const isSecond = this.tap && event.timeStamp - this.tap.at < QUICK && Math.abs(x - this.tap.x) < NEAR;
    this.tap = isSecond ? null : { at: event.timeStamp, x };
    if (isSecond) this.onZoom(null, null);
  }

  pointercancel(event) { // the browser took the finger to scroll
    this.fingers.delete(event.pointerId);
    this.held = this.window = null;
  }

  place(event) {
    return event.clientX - this.u.over.getBoundingClientRect().left;
  }

  places() {
    return [...this.fingers.values()].sort((a, b) => a - b);
  }
}
