// The views of a memory: its users, a user's records at any commit, what each commit did, search, histories.

import { ask, el, folded, link, number, path, say, several, table, time } from "./dom.js";

const MODES = { fused: "words and meaning", lexical: "words", vector: "meaning" };

export function memoryViews() {
  return [
    { name: "Users", href: "#/", at: (parts) => !parts.length, draw: () => usersView() },
    { under: "Users", at: ([first, user]) => first === "user" && user, draw: (parts) => userView(parts) },
    { under: "Users", at: ([first, user, id]) => first === "record" && user && id, draw: ([, user, id]) => recordView(user, id) },
  ];
}

async function usersView() {
  const list = el("ul", { class: "users" });
  const count = el("p", { role: "status" });
  const field = el("input", { type: "search", id: "like", autocomplete: "off" });
  let turn = 0;
  const fill = async () => {
    const mine = ++turn;
    const found = await ask("memory/users", { like: field.value });
    if (mine !== turn) return;
    list.replaceChildren(...found.users.map((user) => el("li", {}, link(path("user", user), user))));
    const cut = found.found > found.users.length ? `, of which the first ${found.users.length} are shown` : "";
    count.textContent = `${several(found.found, "user")} of ${found.all.toLocaleString("en")}${cut}.`;
  };
  field.addEventListener("input", fill);
  await fill();
  return { title: "Whose memory?", drawn: [el("p", {}, el("label", { for: "like" }, "Find a user "), field), count, list] };
}

async function userView([, user, ...rest]) {
  const { commits, modes } = await ask("memory/commits", { user });
  const title = `Memory of ${user}`;
  if (!commits.length) return { title, drawn: [el("p", {}, "Nothing was ever remembered of this user, or all of it was erased.")] };
  const asked = rest[0] === "at" ? Number(rest[1]) : commits.at(-1).number;
  let place = commits.findLastIndex((commit) => commit.number <= asked);
  if (place < 0) place = 0;
  const records = el("section", { "aria-label": "Records" }), changes = el("section", { "aria-label": "What this commit did" });
  const found = el("section", { "aria-label": "What was found" });
  const search = searching(user, modes, () => commits[place].number, found, rest[2] === "find" ? { mode: rest[3], query: rest[4] } : null);
  const fill = async (page = 0) => {
    const commit = commits[place];
    const moment = await ask("memory/moment", { user, commit: commit.number, page });
    if (commit !== commits[place]) return; // the slider has moved on
    changes.replaceChildren(el("h2", {}, `What commit ${commit.number} did`), el("div", { class: "changes" }, moment.changes.map((change) => changed(user, change))));
    records.replaceChildren(...listed(user, commit, moment, fill));
  };
  const slider = sliding(commits, place, (to) => {
    place = to;
    readdress(user, "at", commits[place].number);
    fill().catch((problem) => say(problem.message));
    search.again();
  });
  await Promise.all([fill(), search.again()]);
  return { title, drawn: [slider, search.form, found, changes, records] };
}

// The address follows what is shown, without a step back for each; not where somebody has gone elsewhere meanwhile.
function readdress(user, ...rest) {
  if (location.hash.startsWith(path("user", user))) history.replaceState(null, "", path("user", user, ...rest));
}

const did = (kinds) => Object.entries(kinds).map(([kind, count]) => `${count} ${kind}`).join(", ");
const when = (at) => (at ? time(at) : "time not recorded");

function sliding(commits, place, moved) {
  const told = (at) => `Commit ${commits[at].number}, ${when(commits[at].at)}: ${did(commits[at].kinds)}`;
  const label = el("output", { for: "moment", id: "when" }, told(place));
  const slider = el("input", { type: "range", id: "moment", min: 0, max: commits.length - 1, step: 1, value: place, "aria-valuetext": told(place) });
  const back = el("button", { type: "button", "aria-label": "Earlier commit" }, "←"), on = el("button", { type: "button", "aria-label": "Later commit" }, "→");
  let waiting = 0;
  const show = () => {
    const at = Number(slider.value);
    label.textContent = told(at);
    slider.setAttribute("aria-valuetext", told(at));
    back.disabled = at === 0;
    on.disabled = at === commits.length - 1;
    clearTimeout(waiting);
    waiting = setTimeout(() => moved(at), 60); // while it is dragged, only where it rests is asked for
  };
  const step = (by) => {
    slider.value = String(Number(slider.value) + by);
    show();
  };
  slider.addEventListener("input", show);
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  back.disabled = place === 0;
  on.disabled = place === commits.length - 1;
  return el("section", { class: "moment", "aria-label": "Moment" },
    el("label", { for: "moment" }, `Moment (${several(commits.length, "commit")} changed this memory; arrow keys move)`),
    el("div", { class: "slide" }, back, slider, on), label);
}

function listed(user, commit, moment, turn) {
  const fill = async (page) => {
    try {
      await turn(page);
      document.querySelector(".counted").focus(); // the button that was pressed is gone
    } catch (problem) {
      say(problem.message);
    }
  };
  const pages = moment.pages < 2 ? [] : [el("nav", { class: "pager", "aria-label": "Pages of records" },
    el("button", { type: "button", disabled: moment.page === 0, onclick: () => fill(moment.page - 1) }, "← Older"),
    `page ${moment.page + 1} of ${moment.pages}`,
    el("button", { type: "button", disabled: moment.page === moment.pages - 1, onclick: () => fill(moment.page + 1) }, "Newer →"))];
  return [el("h2", { class: "counted", tabindex: -1 }, `${several(moment.all, "record")} after commit ${commit.number}`), ...pages,
    el("ul", { class: "records" }, moment.records.map((record) => el("li", { class: record.changed ? "card fresh" : "card" },
      record.changed ? [chip(record.changed), el("span", { class: "unseen" }, "Changed by this commit. ")] : null,
      el("span", { class: "memo" }, record.text), about(user, record))))];
}

const chip = (kind) => el("span", { class: `op ${["ADD", "UPDATE", "DELETE", "NOOP"].includes(kind) ? kind : "other"}` }, kind);

function about(user, record) {
  const metadata = Object.keys(record.payload).length ? JSON.stringify(record.payload) : "";
  const scope = record.scope.slice(1).filter(Boolean);
  const parts = [`said ${time(record.updated)}`, record.created === record.updated ? "" : `first said ${time(record.created)}`,
    scope.length ? `agent and session: ${scope.join(", ")}` : "", record.key ? `key: ${record.key}` : "",
    record.expires ? `holds until ${time(record.expires)}${new Date(record.expires) < new Date() ? " (passed)" : ""}` : "",
    metadata ? `metadata: ${metadata}` : ""].filter(Boolean);
  return el("span", { class: "about" }, `${parts.join(" · ")} · `, link(path("record", user, record.id), `history of ${record.id}`));
}

export function changed(user, change) {
  const { before, after } = change;
  const now = after || before;
  const known = (value) => value || el("em", {}, "not recorded");
  const metadata = Object.keys(now.payload).length ? JSON.stringify(now.payload) : "none";
  const had = after ? "" : "It had been "; // what a DELETE came from is not kept, where its record came from is
  const [was, is] = differing(before?.text, after?.text);
  return el("article", { class: "card change", "aria-label": `${change.kind} of ${change.id}` },
    el("h3", {}, chip(change.kind), link(path("record", user, change.id), change.id)),
    el("dl", {},
      el("dt", {}, "Before"), el("dd", { class: "memo" }, before ? was : el("em", {}, "nothing")),
      el("dt", {}, "After"), el("dd", { class: "memo" }, after ? is : el("em", {}, "gone")),
      el("dt", {}, "Why"), el("dd", {}, known(change.reason)),
      el("dt", {}, had ? `${had}said in` : "Said in"), el("dd", {}, known(now.source.join(", "))),
      el("dt", {}, had ? `${had}said at` : "Said at"), el("dd", {}, time(now.updated)),
      el("dt", {}, "Key"), el("dd", {}, now.key || "none"),
      el("dt", {}, "Metadata"), el("dd", {}, metadata),
      el("dt", {}, "Who decided, how likely"), el("dd", {}, decider(now.payload))));
}

// A bank keeps who decided only where the application wrote it into the metadata.
function decider(payload) {
  const found = ["decided_by", "policy", "model", "probability"].filter((name) => payload[name] !== undefined).map((name) => `${name}: ${payload[name]}`);
  return found.length ? found.join(", ") : el("em", {}, "not recorded");
}

// The words that only one of two texts has, between what they begin and end with alike.
function differing(before, after) {
  if (before === undefined || after === undefined) return [before, after];
  const [a, b] = [before, after].map((text) => text.split(/(?<=\s)/));
  let head = 0, tail = 0;
  while (head < Math.min(a.length, b.length) && a[head] === b[head]) head++;
  while (tail < Math.min(a.length, b.length) - head && a.at(-1 - tail) === b.at(-1 - tail)) tail++;
  const cut = (words, tag) => [words.slice(0, head).join(""), el(tag, {}, words.slice(head, words.length - tail).join("")), words.slice(words.length - tail).join("")];
  return [cut(a, "del"), cut(b, "ins")];
}

function searching(user, modes, commit, found, first) {
  const field = el("input", { type: "search", id: "query", value: first?.query || "", autocomplete: "off" });
  const mode = el("select", { id: "mode" }, modes.map((one) => el("option", { value: one, selected: one === (first?.mode || "fused") }, MODES[one] || one)));
  let turn = 0;
  const again = async () => {
    const query = field.value.trim(), mine = ++turn;
    if (!query) return found.replaceChildren();
    try {
      const told = await ask("memory/search", { user, query, mode: mode.value, commit: commit() });
      if (mine !== turn) return undefined;
      found.replaceChildren(...hits(user, told, commit()));
      readdress(user, "at", commit(), "find", mode.value, query);
      say(several(told.hits.length, "hit"));
    } catch (problem) {
      found.replaceChildren(el("p", { class: "problem", role: "alert" }, problem.message));
    }
    return undefined;
  };
  const form = el("form", { role: "search", class: "search", onsubmit: (event) => { event.preventDefault(); again(); } },
    el("label", { for: "query" }, "Search at this moment"), field, el("label", { for: "mode" }, "by"), mode, el("button", { type: "submit" }, "Search"));
  mode.addEventListener("change", again);
  return { form, again };
}

const PARTS = { lexical: "words in common (BM25, 0 or more)", vector: "nearness in meaning (cosine, −1 to 1)", recency: "how recent" };

function hits(user, told, commit) {
  if (!told.hits.length) return [el("h2", {}, "Nothing was found"), el("p", {}, "No record at this moment has anything of it.")];
  const weights = Object.entries(told.weights);
  const names = [...new Set(told.hits.flatMap((hit) => Object.keys(hit.parts)))];
  const sum = weights.length ? `The score is ${weights.map(([name, weight]) => `${number(weight)} × ${name}`).join(" + ")}, each part first set in relation to the best that was found. ` : "";
  return [el("h2", {}, `${several(told.hits.length, "hit")} at commit ${commit}`),
    el("p", { class: "dim" }, sum, names.map((name) => `${name}: ${PARTS[name] || name}`).join("; "), "."),
    table("Hits, best first", ["record", "score", ...names], told.hits.map((hit) =>
      [link(path("record", user, hit.record.id), hit.record.text), hit.score, ...names.map((name) => hit.parts[name] ?? null)]), "hits")];
}

async function recordView(user, id) {
  const found = await ask("memory/history", { user, id });
  const drawn = found.map((change) => el("section", { "aria-label": `Commit ${change.commit}` },
    el("h2", {}, link(path("user", user, "at", change.commit), `Commit ${change.commit}`), `, ${when(change.at)}`), changed(user, change)));
  return { title: `History of ${id}`, drawn: [el("p", {}, link(path("user", user), `Memory of ${user}`)),
    ...(drawn.length ? drawn : [el("p", {}, "There is no such record of this user, or it was erased.")])] };
}
