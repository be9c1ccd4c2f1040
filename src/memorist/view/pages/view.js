// Which view stands at which address (#/…), so that every view can be linked to and Back works.

import { ask, el, link, say } from "./dom.js";
import { memoryViews } from "./memory.js";
import { runViews } from "./run.js";

const main = document.getElementById("main");
let place, views, asked = 0;

// The skip link moves the focus and leaves the address alone, which says what is shown.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

async function start() {
  try {
    place = await ask("place");
  } catch (problem) {
    main.replaceChildren(wrong(problem));
    return;
  }
  document.getElementById("place").textContent = place.names.join(" beside ");
  views = place.kind === "run" ? await runViews(place) : memoryViews(place);
  addEventListener("hashchange", () => show(true));
  await show(false);
}

async function show(moved) {
  const turn = ++asked;
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(part).filter((one) => one !== "");
  const view = views.find((one) => one.at(parts)) || views[0];
  say("Loading");
  main.setAttribute("aria-busy", "true");
  let title, drawn;
  try {
    ({ title, drawn } = await view.draw(parts));
  } catch (problem) {
    [title, drawn] = ["Cannot be shown", [wrong(problem)]];
  }
  if (turn !== asked) return; // something else was asked for meanwhile
  main.removeAttribute("aria-busy");
  document.title = `${title} – ${place.names.join(" beside ")} – Memorist`;
  navigation(view);
  main.replaceChildren(el("h1", {}, title), ...drawn.filter(Boolean));
  if (moved) {
    scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
  say(title);
}

function part(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text; // a lone % in an address that somebody typed
  }
}

function navigation(now) {
  const listed = views.filter((view) => view.name);
  document.getElementById("views").replaceChildren(...listed.map((view) =>
    el("li", {}, el("a", { href: view.href, "aria-current": view === now || view.name === now.under ? "page" : null }, view.name))));
}

function wrong(problem) {
  return el("p", { class: "problem", role: "alert" }, problem.message, " ", link("#/", "Back to the start"));
}

start();
