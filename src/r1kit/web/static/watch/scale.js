// From numbers to pixels: axes and thinning. No DOM.

/** Round values between `low` and `high`, about `count` of them. */
export function ticks(low, high, count, whole = false) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  if (whole) step = Math.max(1, Math.round(step));
  const values = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index += 1)
    values.push(index * step);
  return values;
}

/** `0.5`, `40%`, `12k`, `1e-5`. */
export function tick(value, isShare) {
  if (isShare) return `${Number((100 * value).toPrecision(3))}%`;
  const size = Math.abs(value);
  if (size >= 1000) return `${Number((value / 1000).toPrecision(4))}k`;
  return size > 0 && size < 0.001 ? value.toExponential(1).replace(".0", "") : String(Number(value.toPrecision(3)));
}

/** A path through points, at most four of them for each column of pixels: its first, lowest, highest and last one. */
export function path(steps, values, x, y) {
  const points = [];
  for (let index = 0; index < steps.length;) {
    const column = Math.floor(x(steps[index]));
    const first = index;
    let [low, high] = [index, index];
    for (; index < steps.length && Math.floor(x(steps[index])) === column; index += 1) {
      if (values[index] < values[low]) low = index;
      if (values[index] > values[high]) high = index;
    }
    points.push(...new Set([first, low, high, index - 1].sort((a, b) => a - b)));
  }
  return points
    .map((index, i) => `${i ? "L" : "M"}${x(steps[index]).toFixed(1)} ${y(values[index]).toFixed(1)}`)
    .join("");
}

// not Math.min(...values): a long run has more values than a call has arguments
export const min = (values) => values.reduce((a, b) => Math.min(a, b), Infinity);
export const max = (values) => values.reduce((a, b) => Math.max(a, b), -Infinity);

/** The index of the step nearest to `step` in a sorted list; -1 in an empty one. */
export function nearest(steps, step) {
  let [low, high] = [0, steps.length - 1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (steps[middle] < step) low = middle + 1;
    else high = middle;
  }
  return low > 0 && step - steps[low - 1] <= steps[low] - step ? low - 1 : Math.min(low, steps.length - 1);
}
