// Line charts as inline SVG: axes with labels, a readout by pointer and keyboard, and the same numbers as a table.

import { el, folded, number, say, svg, table } from "./dom.js";

const WIDE = 360, HIGH = 210, LEFT = 52, RIGHT = 16, TOP = 8, BOTTOM = 34;
export const LOOKS = 6; // kinds of lines that the style sheet tells apart, by colour and by dashes

// lines: [{ name, points: [[x, y], …] }]
export function chart({ title, across, up, lines, dots = false, note = "" }) {
  const shown = lines.filter((line) => line.points.length);
  const all = shown.flatMap((line) => line.points);
  if (!all.length) return el("figure", {}, el("figcaption", {}, title), el("p", { class: "dim" }, "No numbers."));
  const xs = range(all.map(([x]) => x)), ys = range(all.map(([, y]) => y), true);
  const x = (value) => LEFT + ((value - xs.low) / (xs.high - xs.low)) * (WIDE - LEFT - RIGHT);
  const y = (value) => HIGH - BOTTOM - ((value - ys.low) / (ys.high - ys.low)) * (HIGH - BOTTOM - TOP);
  const cursor = svg("line", { class: "cursor", y1: TOP, y2: HIGH - BOTTOM, x1: -9, x2: -9 });
  const drawing = svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": told(title, shown), tabindex: 0 },
    grid(xs, ys, x, y, across, up),
    shown.map((line, place) => drawn(line.points, lines.indexOf(line), x, y, dots || line.points.length === 1, place)),
    cursor);
  const reading = el("p", { class: "reading", "aria-hidden": "true" }, "\u00a0");
  readable(drawing, cursor, reading, shown, x, across);
  return el("figure", {},
    el("figcaption", {}, title),
    lines.length > 1 ? legend(lines.map((line) => line.name)) : null,
    drawing, reading, note ? el("p", { class: "dim small" }, note) : null,
    folded("As a table", () => numbers(title, across, shown)));
}

export function legend(names) {
  return el("ul", { class: "legend" }, names.map((name, place) => el("li", {},
    svg("svg", { viewBox: "0 0 26 8", class: "sample", "aria-hidden": "true" },
      svg("line", { class: `line look${place % LOOKS}`, x1: 1, x2: 25, y1: 4, y2: 4 })), name)));
}

function range(values, room = false) {
  let low = Math.min(...values), high = Math.max(...values);
  if (low === high) [low, high] = [low - Math.max(0.5, Math.abs(low) * 0.1), high + Math.max(0.5, Math.abs(high) * 0.1)];
  const margin = room ? (high - low) * 0.04 : 0;
  return { low: low - margin, high: high + margin };
}

function ticks({ low, high }, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) found.push(Number((at * step).toPrecision(12)));
  return found;
}

function grid(xs, ys, x, y, across, up) {
  const whole = xs.high - xs.low >= 2;
  return [
    ticks(ys, 4).map((at) => [
      svg("line", { class: "grid", x1: LEFT, x2: WIDE - RIGHT, y1: y(at), y2: y(at) }),
      svg("text", { class: "tick", x: LEFT - 5, y: y(at) + 3.5, "text-anchor": "end" }, number(at))]),
    ticks(xs, 5).filter((at) => !whole || Number.isInteger(at)).map((at) =>
      svg("text", { class: "tick", x: x(at), y: HIGH - BOTTOM + 14, "text-anchor": "middle" }, number(at))),
    svg("text", { class: "axis", x: (LEFT + WIDE - RIGHT) / 2, y: HIGH - 4, "text-anchor": "middle" }, across),
    svg("text", { class: "axis", transform: `translate(10 ${(TOP + HIGH - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, up),
  ];
}

function drawn(points, place, x, y, dots) {
  const look = `look${place % LOOKS}`;
  const parts = [svg("polyline", { class: `line ${look}`, points: points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ") })];
  if (dots) parts.push(...points.map(([a, b]) => svg("circle", { class: `dot ${look}`, cx: x(a), cy: y(b), r: 3 })));
  return parts;
}

function told(title, lines) {
  const each = lines.map(({ name, points }) => {
    const values = points.map(([, value]) => value);
    return `${name ? `${name}: ` : ""}${number(values[0])} at first, ${number(values.at(-1))} at last, between ` +
      `${number(Math.min(...values))} and ${number(Math.max(...values))}`;
  });
  return `Chart of ${title}. ${each.join(". ")}. Left and right arrow keys read points.`;
}

function readable(drawing, cursor, reading, lines, x, across) {
  const places = [...new Set(lines.flatMap((line) => line.points.map(([at]) => at)))].sort((a, b) => a - b);
  let now = -1;
  const show = (place, aloud) => {
    now = Math.max(0, Math.min(places.length - 1, place));
    const at = places[now];
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    const values = lines.map((line) => [line.name, line.points.find(([one]) => one === at)]).filter(([, point]) => point);
    const text = `${across} ${number(at)}: ${values.map(([name, [, value]]) => `${name ? `${name} ` : ""}${number(value)}`).join(", ")}`;
    reading.textContent = text;
    if (aloud) say(text);
  };
  drawing.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * WIDE;
    show(places.reduce((best, one, place) => (Math.abs(x(one) - at) < Math.abs(x(places[best]) - at) ? place : best), 0), false);
  });
  drawing.addEventListener("keydown", (event) => {
    const far = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: places.length - 1 }[event.key];
    if (far === undefined) return;
    event.preventDefault();
    show(far, true);
  });
}

function numbers(title, across, lines) {
  const places = [...new Set(lines.flatMap((line) => line.points.map(([at]) => at)))].sort((a, b) => a - b);
  const found = lines.map((line) => new Map(line.points));
  const head = [across, ...lines.map((line) => line.name || title)];
  return table(title, head, places.map((at) => [number(at), ...found.map((values) => values.get(at) ?? null)]));
}
