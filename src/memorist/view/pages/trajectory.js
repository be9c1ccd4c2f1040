// One trajectory: each decision with what was seen and done, its tokens, and the rewards by term.

import { ask, el, folded, link, number, path, say, several, share, table } from "./dom.js";

export async function oneView(n, name, line) {
  const one = await ask(`run/${n}/one`, { name, number: line - 1 });
  const step = (to, text) => (to < 1 || to > one.all ? el("span", { class: "dim" }, text) : link(path("one", n, name, to), text));
  return { title: `Trajectory ${line} of ${name}`, drawn: [
    el("nav", { class: "pager", "aria-label": "Trajectories" }, step(line - 1, "← Previous"),
      link(path("files", n, name, one.page + 1), "Its page"), step(line + 1, "Next →")),
    el("p", {}, "Task ", el("strong", {}, one.task), `, seed ${one.seed}, ${several(one.decisions.length, "decision")}, total reward `,
      el("strong", {}, number(one.total)), "."),
    rewards(one), ...one.decisions.map((decision, place) => decided(one, decision, place)), facts(one.facts)] };
}

function rewards(one) {
  if (!one.rewards.length) return el("p", {}, "No reward was given.");
  const where = (reward) => {
    if (reward.decision === null) return "the whole run";
    return `decision ${reward.decision + 1}${reward.span ? `, tokens ${reward.span[0] + 1} to ${reward.span[1]}` : ""}`;
  };
  const rows = one.rewards.map((reward) => [reward.name, reward.value, reward.weight,
    reward.decision === null ? reward.value * reward.weight : null, where(reward)]);
  const gate = one.gate ? `Where the term ${one.gate} is 0, no term lowers the reward, and what was won is never spent whole; so the worth that learning saw can differ from the plain sum.` : "";
  return el("section", { "aria-label": "Rewards" },
    table("Rewards by term", ["term", "value", "weight", "counts as", "given to"], rows),
    el("p", { class: "dim small" }, "The total is the sum of what is given to the whole run. ", gate));
}

function decided(one, decision, place) {
  const title = `Decision ${place + 1}: ${decision.role}`;
  const own = one.rewards.filter((reward) => reward.decision === place);
  const pictures = decision.pictures.map(([wide, high]) => `${wide} × ${high}`);
  return el("section", { class: "card", "aria-label": title }, el("h2", {}, title),
    el("p", { class: "dim" }, `Played by ${decision.policy}. ${drawn(decision.drawn)} ${stopped(decision.stop)}`),
    pictures.length ? el("p", { class: "dim" }, `With ${several(pictures.length, "picture")} (${pictures.join(", ")} pixels), which logs leave out.`) : null,
    decision.system ? folded("System text", () => text(decision.system)) : null,
    decision.turns.length ? folded(`Earlier in the same window: ${several(decision.turns.length, "turn")}`, () => decision.turns.map((turn) =>
      [turn.system ? text(turn.system) : null, el("h4", {}, "Asked"), text(turn.prompt), el("h4", {}, "Answered"), text(turn.reply)].filter(Boolean)).flat()) : null,
    el("h3", {}, decision.turns.length ? "What came next" : "What it was shown"), text(decision.prompt),
    el("h3", {}, decision.options ? "What it chose" : "What it wrote"),
    decision.options ? options(decision) : reply(decision, own, one.learner),
    own.length ? table(`Rewards of decision ${place + 1}`, ["term", "value", "for"], own.map((reward) => [reward.name, reward.value, spanned(decision, reward.span)])) : null);
}

const text = (content) => el("pre", { class: "text", tabindex: 0, "aria-label": "Text" }, content || "(nothing)");

function drawn(how) {
  if (how.temperature === 0) return "It took what was most likely.";
  const more = [how.top_k ? `among the ${how.top_k} most likely` : "", how.top_p < 1 ? `among what makes up ${share(how.top_p)}` : "",
    how.limited ? `limited at ${several(how.limited, "position")} to what is allowed` : ""].filter(Boolean);
  return `Drawn at temperature ${number(how.temperature)}${more.length ? `, ${more.join(", ")}` : ""}.`;
}

const STOPS = { end: "It ended by itself.", length: "The token limit cut it.", prompt_too_long: "What it was shown left no room; nothing was written." };
const stopped = (why) => STOPS[why] || "";

function spanned(decision, span) {
  if (!span) return "the decision";
  const part = decision.pieces ? decision.pieces.slice(...span).join("") : "";
  return `tokens ${span[0] + 1} to ${span[1]}${part ? `: ${part}` : ""}`;
}

function options(decision) {
  const ordered = decision.options.map((option, at) => ({ ...option, at })).sort((a, b) => (a.place ?? 1e9) - (b.place ?? 1e9));
  const note = decision.learns ? "The choice carries loss: learning makes it more or less likely." : "This choice carries no loss here.";
  return [el("p", { class: "dim" }, note), table("Options, the chosen ones first", ["option", "chosen", "probability", "position"], ordered.map((option) =>
    [option.text, option.place === null ? "" : `chosen ${option.place + 1}.`, option.place === null ? "" : share(option.probability), String(option.at + 1)]))];
}

function reply(decision, own, learner) {
  if (!decision.count) return [text(decision.text), el("p", { class: "dim" }, "Only text was recorded, no tokens.")];
  if (!decision.pieces) {
    const known = decision.probabilities.filter((value) => value !== null);
    const least = known.length ? `; the least likely had probability ${share(Math.min(...known))}` : "";
    return [text(decision.text), el("p", { class: "dim" }, `${several(decision.count, "token")}${least}. No tokenizer of this policy was found in the run's folder or among the bundled models, so where tokens begin is not shown.`)];
  }
  const trained = decision.trained.filter(Boolean).length;
  const note = learner === null ? "Nothing learns from this file." : decision.learns
    ? `${trained} of ${several(decision.count, "token")} count in the loss.` : `The role ${decision.role} does not learn in this stage; no token counts in the loss.`;
  const marked = new Set(own.filter((reward) => reward.span).flatMap(({ span: [from, to] }) => Array.from({ length: to - from }, (_, at) => from + at)));
  return [key(learner === null, marked.size > 0), el("p", { class: "dim" }, `${note} Tokens by ${decision.tokenizer}.`),
    tokens(decision, marked, learner === null),
    folded(`The whole window as tokens (${several(decision.window.length, "token")} before the reply)`, () => whole(decision, learner === null))];
}

function key(nothing, spans) {
  const sample = (css, word) => el("li", {}, el("span", { class: `token ${css}`, "aria-hidden": "true" }, "token"), ` ${word}`);
  return el("ul", { class: "legend" }, sample("trained", nothing ? "written by the policy" : "trained: counts in the loss"),
    sample("trained rare", "the darker, the less likely it was"), sample("masked", nothing ? "written by a tool or the environment" : "masked: carries no loss"),
    spans ? sample("rewarded", "has a reward of its own") : null);
}

const AUTHORS = { policy: "the policy", tool: "a tool", environment: "the environment" };

// One stop of the Tab key; arrow keys move inside. Whoever hovers or moves reads the token below.
function tokens(decision, marked, nothing) {
  const reading = el("p", { class: "reading", role: "status" }, "Point at a token, or move with the arrow keys, to read its probability.");
  const id = `t${Math.random().toString(36).slice(2)}`;
  const on = nothing ? decision.written : decision.trained;
  const parts = decision.pieces.map((piece, at) => {
    const made = el("span", { class: `token ${on[at] ? "trained" : "masked"}${marked.has(at) ? " rewarded" : ""}`, role: "option", id: `${id}-${at}`,
      "aria-selected": "false", "aria-label": piece.trim() ? null : spoken(piece) }, visible(piece));
    const likely = decision.probabilities[at];
    if (on[at] && likely !== null && likely !== undefined) made.style.setProperty("--rare", String(1 - likely));
    return made;
  });
  const box = el("div", { class: "tokens", role: "listbox", tabindex: 0, "aria-label": `Reply, ${several(parts.length, "token")}` }, parts);
  let now = -1;
  const show = (at) => {
    if (at < 0 || at >= parts.length || at === now) return;
    if (now >= 0) parts[now].setAttribute("aria-selected", "false");
    now = at;
    parts[at].setAttribute("aria-selected", "true");
    box.setAttribute("aria-activedescendant", parts[at].id);
    // What the environment put there was not drawn, so it has no probability.
    const likely = decision.written[at] ? `probability ${share(decision.probabilities[at])}` : "not drawn, so without a probability";
    const author = AUTHORS[decision.authors[at]] || "somebody unknown";
    const loss = nothing ? "" : `, ${decision.trained[at] ? "counts in the loss" : "carries no loss"}`;
    reading.textContent = `Token ${at + 1} of ${parts.length}, “${visible(decision.pieces[at])}”: ${likely}, written by ${author}${loss}.`;
  };
  box.addEventListener("pointerover", (event) => show(parts.indexOf(event.target)));
  box.addEventListener("keydown", (event) => {
    const to = { ArrowLeft: now - 1, ArrowUp: now - 10, ArrowRight: now + 1, ArrowDown: now + 10, Home: 0, End: parts.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    show(Math.max(0, Math.min(parts.length - 1, to)));
    parts[now].scrollIntoView({ block: "nearest" });
  });
  return el("div", {}, box, reading);
}

function whole(decision, nothing) {
  const media = (at) => decision.media.some(([from, to]) => from <= at && at < to);
  const seen = decision.window.map((piece, at) => el("span", { class: `token masked${media(at) ? " media" : ""}` }, visible(piece)));
  const on = nothing ? decision.written : decision.trained;
  const done = decision.pieces.map((piece, at) => el("span", { class: `token ${on[at] ? "trained" : "masked"}` }, visible(piece)));
  return [el("p", { class: "dim" }, "What was written earlier in this window is masked here; it counts in its own decision."),
    el("div", { class: "tokens", tabindex: 0, role: "region", "aria-label": "The whole window" }, seen, done)];
}

const visible = (piece) => piece.replaceAll("\n", "↵\n") || "·";
const spoken = (piece) => (piece === "" ? "part of a letter" : piece.includes("\n") ? "line break" : "space");

function facts(found) {
  const names = Object.keys(found || {});
  if (!names.length) return null;
  const rows = names.flatMap((name) => {
    const value = found[name];
    if (value && typeof value === "object" && !Array.isArray(value)) return Object.entries(value).map(([inner, one]) => [`${name}: ${inner}`, plain(one)]);
    return [[name, plain(value)]];
  });
  return el("section", { "aria-label": "Facts" }, table("Facts written down about this run (they carry no loss)", ["fact", "value"], rows));
}

const plain = (value) => (typeof value === "number" || value === null ? value : typeof value === "string" ? value : JSON.stringify(value));
