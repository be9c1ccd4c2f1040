// Making elements. Everything that memories and models wrote becomes text here, never HTML.

export function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  set(made, attributes);
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  set(made, attributes);
  made.append(...children.flat(Infinity));
  return made;
}

function set(made, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
}

export async function ask(path, given = {}) {
  const query = new URLSearchParams(Object.entries(given).filter(([, value]) => value !== null && value !== undefined));
  let answer;
  try {
    answer = await fetch(`api/${path}${query.size ? `?${query}` : ""}`);
  } catch {
    throw new Error("The viewer does not answer. Is `memorist view` still running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.problem || `The viewer answered ${answer.status}; its terminal may say why.`);
  return told;
}

export function say(text) {
  document.getElementById("news").textContent = text;
}

// Numbers as people read them.
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return value.toLocaleString("en");
  if (size >= 1e6 || size < 1e-3) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

export const share = (value) => (value === null || value === undefined ? "not recorded" : `${number(100 * value)} %`);

export function time(text) {
  const when = new Date(text);
  return Number.isNaN(when.getTime()) ? String(text) : when.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
}

export function bytes(count) {
  if (count < 1e3) return `${count} bytes`;
  return count < 1e6 ? `${(count / 1e3).toFixed(0)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export const several = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

export function table(caption, head, rows, css = "") {
  const numeric = (value) => typeof value === "number" || value === null;
  const cell = (value, place) => {
    if (place === 0) return el("th", { scope: "row" }, value);
    return el("td", numeric(value) ? { class: "n" } : {}, numeric(value) ? number(value) : value);
  };
  const right = (place) => place && rows.some((row) => numeric(row[place]));
  return el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": caption },
    el("table", { class: css },
      el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((text, place) => el("th", { scope: "col", class: right(place) ? "n" : null }, text)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}

// What costs work is drawn when it is opened.
export function folded(title, draw, open = false) {
  const box = el("details", { open }, el("summary", {}, title));
  let drawn = false;
  const show = () => {
    if (box.open && !drawn) {
      drawn = true;
      box.append(...[draw()].flat());
    }
  };
  box.addEventListener("toggle", show);
  show();
  return box;
}

export const link = (to, ...children) => el("a", { href: to }, ...children);
export const path = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
