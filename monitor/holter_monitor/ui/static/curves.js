// Curves of several runs on one grid, so that they can be held against each other.

// The mean of a line's points in each cell of the grid; between points linear, outside nothing.
export function resampled({ x, y }, grid) {
  const values = new Array(grid.length).fill(null), cell = grid[1] - grid[0];
  let index = 0;
  for (let i = 0; i < grid.length; i++) {
    const from = grid[i] - cell / 2, to = grid[i] + cell / 2;
    while (index < x.length && x[index] < from) index++;
    let sum = 0, count = 0;
    for (let j = index; j < x.length && x[j] < to; j++) if (y[j] !== null) (sum += y[j]), count++;
    if (count) values[i] = sum / count;
    else if (index > 0 && index < x.length && y[index - 1] !== null && y[index] !== null) values[i] = y[index - 1] + ((y[index] - y[index - 1]) * (grid[i] - x[index - 1])) / (x[index] - x[index - 1] || 1);
  }
  return values;
}

// The mean of each value and its `half` neighbours on both sides; a gap stays a gap and lends nothing.
export function smoothed(values, half) {
  return values.map((value, i) => {
    if (!Number.isFinite(value)) return null;
    const near = values.slice(Math.max(0, i - half), i + half + 1).filter(Number.isFinite);
    return near.reduce((sum, one) => sum + one, 0) / near.length;
  });
}

// How far `values` stand from `base`, in percent of it.
export function difference(values, base) {
  return values.map((value, i) => (Number.isFinite(value) && Number.isFinite(base[i]) && base[i] !== 0 ? (value / base[i] - 1) * 100 : null));
}
