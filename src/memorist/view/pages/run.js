// The views of a run, or of two beside each other: curves, final numbers, evaluations, trajectories, recipe.

import { chart, legend } from "./charts.js";
import { ask, bytes, el, folded, link, number, path, say, several, table } from "./dom.js";
import { oneView } from "./trajectory.js";

const NAMES = {
  reward: "Reward (mean worth of a run)", loss: "Loss", length: "Tokens of a decision", decisions: "Decisions in a step",
  truncated_share: "Share of decisions cut by the token limit", groups: "Groups of siblings",
  flat_groups: "Groups whose runs all earned the same (nothing is learnt)", seconds: "Seconds for a step",
  update_seconds: "Seconds for the update", tokens_per_second: "Tokens per second", peak_memory_bytes: "Peak memory, bytes",
  left: "Seconds left (estimate)", grad_norm: "Size of the gradient", tokens: "Tokens with loss", row_tokens: "Tokens computed",
  shared_share: "Share of tokens computed once for several", lr: "Learning rate", skipped: "Steps skipped",
};
const PREFIXES = {
  "terms.": "Reward term: ", "measures.": "Measure: ", "operations.": "Operations: ", "codes.": "Result codes: ",
  loss: "Loss, update ", clip_fraction: "Share of clipped tokens, update ", entropy_estimate: "Entropy (estimate), update ",
  ratio_error: "Error of probabilities computed again, update ",
};
const SECTIONS = [
  ["Reward and its terms", (name) => name === "reward" || name.startsWith("terms.")],
  ["What the tasks measure", (name) => name.startsWith("measures.")],
  ["Learning", (name) => /^(loss|grad|clip|entropy|ratio|kl|lr|skipped|pairs|right|critic|value)/.test(name)],
  ["Actions", (name) => /^(operations|codes)\./.test(name) || ["length", "decisions", "truncated_share", "groups", "flat_groups"].includes(name)],
  ["Time, memory and everything else", () => true],
];

export function called(name) {
  if (NAMES[name]) return NAMES[name];
  const prefix = Object.keys(PREFIXES).find((one) => name.startsWith(one));
  const rest = prefix ? name.slice(prefix.length).replace(/^_/, "") : name;
  return (prefix ? PREFIXES[prefix] + rest : name).replaceAll("_", " ").trim();
}

export async function runViews(place) {
  const runs = await Promise.all(place.names.map((_, run) => ask(`run/${run}`)));
  const two = runs.length > 1;
  if (two && runs[0].name === runs[1].name) place.folders.forEach((folder, run) => { runs[run].name = folder; });
  const views = [];
  if (runs.some((run) => run.measured))
    views.push({ name: "Curves", href: "#/", at: (parts) => !parts.length, draw: () => curvesView(runs) },
      { name: "Final numbers", href: "#/final", at: ([first]) => first === "final", draw: () => finalView(runs) });
  if (runs.some((run) => run.evaluated))
    views.push({ name: "After each stage", href: "#/stages", at: ([first]) => first === "stages", draw: () => evaluationsView(runs) });
  if (runs.some((run) => run.scored))
    views.push({ name: "Scores", href: "#/scores", at: ([first]) => first === "scores", draw: () => scoresView(runs) });
  runs.forEach((run, n) => {
    const name = two ? `Trajectories of ${run.name}` : "Trajectories";
    const mine = (parts, kind) => parts[0] === kind && Number(parts[1]) === n;
    views.push({ name, href: path("files", n), at: (parts) => mine(parts, "files") && parts.length < 3, draw: () => filesView(run, n) },
      { under: name, at: (parts) => mine(parts, "files"), draw: (parts) => fileView(n, parts[2], Number(parts[3] || 1)) },
      { under: name, at: (parts) => mine(parts, "one"), draw: (parts) => oneView(n, parts[2], Number(parts[3] || 1)) });
  });
  if (runs.some((run) => run.recipe !== null))
    views.push({ name: two ? "Recipes" : "Recipe", href: "#/recipe", at: ([first]) => first === "recipe", draw: () => recipeView(runs) });
  return views;
}

const curvesOf = (runs) => Promise.all(runs.map((_, run) => ask(`run/${run}/curves`)));

async function curvesView(runs) {
  const found = await curvesOf(runs);
  const stages = [...new Set(found.flat().map((stage) => stage.stage))].sort((a, b) => a - b);
  const drawn = stages.map((number) => stageCurves(runs, number, found.map((of) => of.find((one) => one.stage === number))));
  if (!drawn.length) drawn.push(el("p", {}, "No steps were written down here (metrics.jsonl is missing or empty)."));
  return { title: runs.length > 1 ? "Curves of two runs" : "Curves", drawn: [runs.length > 1 ? legend(runs.map((run) => run.name)) : null, ...drawn] };
}

function heading(stage) {
  return `Stage ${stage.stage + 1}: ${stage.kind}${stage.role ? ` of ${stage.role}` : ""}, ` +
    `${stage.done}${stage.steps && stage.steps !== stage.done ? ` of ${stage.steps}` : ""} steps`;
}

function stageCurves(runs, number, stages) {
  const there = stages.filter(Boolean);
  const names = [...new Set(there.flatMap((stage) => Object.keys(stage.series)))];
  const moving = names.filter((name) => there.some((stage) => (stage.series[name] || []).some(([, value]) => value !== 0)));
  const still = names.filter((name) => !moving.includes(name));
  const titles = [...new Set(there.map(heading))];
  const each = Math.max(...there.map((stage) => stage.each));
  const taken = new Set();
  const sections = SECTIONS.map(([title, fits], place) => {
    const own = moving.filter((name) => !taken.has(name) && fits(name));
    own.forEach((name) => taken.add(name));
    if (!own.length) return null;
    const draw = () => el("div", { class: "charts" }, own.map((name) => chart({
      title: called(name), across: "step", up: name.includes(".") ? name.split(".").slice(1).join(".") : name.replaceAll("_", " "),
      lines: stages.map((stage, run) => ({ name: runs.length > 1 ? runs[run].name : "", points: stage?.series[name] || [] })),
    })));
    return folded(`${title} (${own.length})`, draw, place < 3);
  });
  return el("section", { "aria-label": titles.join(" / ") }, el("h2", {}, titles.join(" / ")),
    each > 1 ? el("p", { class: "dim" }, `Each point is the mean of ${each} steps.`) : null, sections.filter(Boolean),
    still.length ? el("p", { class: "dim small" }, `Always 0: ${still.map(called).join("; ")}.`) : null);
}

async function finalView(runs) {
  const found = await curvesOf(runs);
  const stages = [...new Set(found.flat().map((stage) => stage.stage))].sort((a, b) => a - b);
  const two = runs.length > 1;
  const drawn = stages.map((number) => {
    const of = found.map((all) => all.find((one) => one.stage === number));
    const names = [...new Set(of.filter(Boolean).flatMap((stage) => Object.keys(stage.final)))];
    const rows = names.map((name) => {
      const values = of.map((stage) => stage?.final[name] ?? null);
      const both = two && values.every((value) => value !== null);
      return [called(name), ...values, ...(two ? [both ? values[1] - values[0] : null] : [])];
    });
    const title = `${[...new Set(of.filter(Boolean).map(heading))].join(" / ")}: mean of the last ${of.find(Boolean).last} steps`;
    return table(title, ["", ...runs.map((run) => (two ? run.name : "value")), ...(two ? ["difference (second − first)"] : [])], rows);
  });
  if (!drawn.length) drawn.push(el("p", {}, "No steps were written down here."));
  return { title: two ? "Final numbers of two runs" : "Final numbers", drawn };
}

async function evaluationsView(runs) {
  const found = await Promise.all(runs.map((_, run) => ask(`run/${run}/evaluations`)));
  const two = runs.length > 1;
  const measures = [...new Set(found.flat().flatMap((row) => Object.keys(row.measures || {})))];
  const lines = (measure) => found.flatMap((rows, run) => [...new Set(rows.map((row) => row.name))].map((name) => ({
    name: two ? `${name}, ${runs[run].name}` : name,
    points: rows.filter((row) => row.name === name && typeof row.measures?.[measure] === "number").map((row) => [row.after, row.measures[measure]]),
  }))).filter((line) => line.points.length);
  return { title: "All tasks after each stage", drawn: [
    el("p", {}, "Measures of held-out tasks before the first stage (0) and after each, by models that act greedily. What falls after a stage that was about something else was forgotten."),
    el("div", { class: "charts" }, measures.map((measure) => chart({ title: called(measure), across: "stages done", up: measure, lines: lines(measure), dots: true }))),
  ] };
}

async function scoresView(runs) {
  const found = await Promise.all(runs.map((_, run) => ask(`run/${run}/scores`)));
  const rows = found.flatMap((all, run) => all.map((row) => ({ ...row, run: runs[run].name })));
  const names = [...new Set(rows.flatMap((row) => Object.keys(row.means)))];
  const head = ["system", "benchmark", "protocol", ...(runs.length > 1 ? ["run"] : []), "questions", ...names];
  return { title: "Scores", drawn: [
    el("p", {}, "Means over the questions that the evaluation wrote down, of all categories. The command's own table says how they are counted by category, with intervals."),
    table("Means by system and protocol", head, rows.map((row) => [row.system, row.benchmark, row.protocol,
      ...(runs.length > 1 ? [row.run] : []), row.questions, ...names.map((name) => row.means[name] ?? null)])),
  ] };
}

function recipeView(runs) {
  const lines = runs.map((run) => (run.recipe || "").split("\n"));
  const texts = runs.map((run, n) => el("section", { "aria-label": `Recipe of ${run.name}` },
    runs.length > 1 ? el("h2", {}, run.name) : null,
    run.recipe === null ? el("p", {}, "No recipe.yaml here.") :
      el("pre", { tabindex: 0, "aria-label": `Recipe of ${run.name}` }, lines[n].flatMap((line) => {
        const alone = runs.length > 1 && line.trim() && !lines[1 - n].includes(line);
        return [alone ? el("mark", {}, line) : line, "\n"];
      }))));
  const note = runs.length > 1 ? el("p", {}, "Marked: lines that the other recipe does not have.") : null;
  return { title: runs.length > 1 ? "Recipes" : "Recipe", drawn: [note, el("div", { class: runs.length > 1 ? "beside" : "" }, texts)] };
}

function filesView(run, n) {
  const rows = run.files.map((file) => [
    file.bytes ? link(path("files", n, file.name), file.name) : el("span", { class: "dim" }, file.name),
    file.stage === null ? "" : String(file.stage + 1), file.step === null ? "" : String(file.step),
    file.bytes ? bytes(file.bytes) : "empty (nothing acted in this step)"]);
  return { title: `Trajectories of ${run.name}`, drawn: [rows.length
    ? table("Files of trajectories: what agents saw and did at some steps", ["file", "stage", "step", "size"], rows)
    : el("p", {}, "No trajectories were written down here. A recipe's log_every says how often they are.")] };
}

async function fileView(n, name, page) {
  const found = await ask(`run/${n}/file`, { name, page: page - 1 });
  const title = `${name}: ${several(found.all, "trajectory", "trajectories")}`;
  const first = (page - 1) * 100;
  const groups = found.groups.map((group) => groupTable(n, name, group));
  say(`Page ${page} of ${found.pages}`);
  return { title, drawn: [
    el("p", {}, link(path("files", n), "All files"), ` · ${(first + 1).toLocaleString("en")} to ${(first + found.groups.reduce((sum, group) => sum + group.runs.length, 0)).toLocaleString("en")}. `,
      "Runs of one task from the same start are siblings: learning compares them."),
    pager(n, name, page, found.pages), ...groups, found.pages > 1 ? pager(n, name, page, found.pages, "below") : null] };
}

function pager(n, name, page, pages, where = "above") {
  if (pages < 2) return null;
  const to = (number, text) => (number < 1 || number > pages ? el("span", { class: "dim" }, text) : link(path("files", n, name, number), text));
  const field = el("input", { type: "number", min: 1, max: pages, value: page, "aria-label": `Page, of ${pages}`, required: true });
  const go = (event) => {
    event.preventDefault();
    location.hash = path("files", n, name, Math.max(1, Math.min(pages, Number(field.value) || 1)));
  };
  return el("nav", { class: "pager", "aria-label": `Pages, ${where}` }, to(page - 1, "← Earlier"),
    el("form", { onsubmit: go }, field, ` of ${pages} `, el("button", { type: "submit" }, "Go")), to(page + 1, "Later →"));
}

function groupTable(n, name, group) {
  const terms = [...new Set(group.runs.flatMap((run) => Object.keys(run.terms || {})))];
  const rows = group.runs.map((run) => {
    const to = link(path("one", n, name, run.number + 1), `${run.number + 1}`);
    if (run.problem) return [to, run.problem];
    return [to, run.total, ...terms.map((term) => run.terms[term] ?? null), run.decisions, el("span", { class: "said" }, run.said)];
  });
  const totals = group.runs.filter((run) => !run.problem).map((run) => run.total);
  const flat = totals.length > 1 && totals.every((total) => total === totals[0]);
  const caption = `Task ${group.task || "unknown"}: ${several(group.runs.length, "run")}${flat ? ", all earned the same" : ""}`;
  return table(caption, ["run", "total", ...terms, "decisions", "last decision"], rows, "group");
}
