// Numbers, times and counts as the page shows them; the report uses the same forms.

/** `97.8 %`, `1,234`, `0.0123`, `3.1e-6`. */
export function number(value, isShare = false) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (isShare) return `${(100 * value).toFixed(1)} %`;
  const size = Math.abs(value);
  if (size >= 100) return Math.round(value).toLocaleString("en");
  if (size === 0 || size >= 0.001) return String(Number(value.toPrecision(3)));
  return value.toExponential(1).replace("e+", "e");
}

/** With its sign, a real minus, and as many digits as a column of them needs. */
export const signed = (value) =>
  typeof value === "number" ? `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}` : "–";

/** `48 s`, `7 min`, `1 h 05 min`, `2 d 3 h`. */
export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "";
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const many = (count, word, words = `${word}s`) => `${count.toLocaleString("en")} ${count === 1 ? word : words}`;

export const clock = (date = new Date()) => date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
