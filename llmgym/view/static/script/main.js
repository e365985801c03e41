// Which page is shown, what runs have grown to, and keys.

const PAGES = { curves: curvesPage, episodes: episodesPage, episode: episodePage, group: groupPage, compare: comparePage, pair: pairPage };
const NAV = [["curves", "Curves"], ["episodes", "Episodes"], ["compare", "Compare"]];
const EVERY = 2000; // milliseconds between two looks at growing runs
let latest = null;

async function show() {
  const { page, query } = here();
  const mine = (latest = {});
  let content;
  try {
    if (!runs.length) await look();
    content = PAGES[page] ? await PAGES[page](query) : [h("h1", {}, "There is no such page.")];
  } catch (error) {
    content = [h("h1", {}, "This cannot be shown"), h("p", { class: "bad", role: "alert" }, error.message)];
  }
  if (latest !== mine) return;
  const main = document.getElementById("main");
  main.replaceChildren(...content.flat().filter(Boolean));
  document.title = `${main.querySelector("h1").textContent} – llmgym`;
  const current = { group: "episodes", episode: "episodes", pair: "compare" }[page] || page;
  document.getElementById("nav").replaceChildren(...NAV.filter(([name]) => name !== "compare" || runs.length > 1).map(([name, title]) =>
    h("a", { href: address(name, {}), "aria-current": name === current ? "page" : null }, title)));
  performance.mark("shown");
}

async function look() {
  ({ runs } = await ask("runs", {}));
  document.getElementById("faults").replaceChildren(...runs.flatMap((run) => run.faults).map((fault) => h("div", {}, fault)));
  const pending = total(runs.map((run) => run.pending));
  const told = held ? "a report: nothing is followed" : pending ? `reading ${pending} files` : `up to date: ${runs.map((run) => run.steps).join(" and ")} steps`;
  const state = document.getElementById("state");
  if (state.textContent !== told) state.textContent = told;
}

async function follow() {
  const before = JSON.stringify(runs);
  try {
    if (!document.hidden) await look();
    if (before !== JSON.stringify(runs)) await grow();
  } catch {
    document.getElementById("state").textContent = "the server does not answer";
  }
  setTimeout(follow, EVERY);
}

// Shows what is new, unless somebody is using what would be replaced.
async function grow() {
  const { page, query } = here(), main = document.getElementById("main");
  if (page === "episodes" && main.querySelector("#results")) await fill(main.querySelector("#results"), { run: runs[0].label, ...query });
  else if (page === "curves" && (document.activeElement === main || !main.contains(document.activeElement)) && !main.querySelector("svg:hover")) {
    const at = scrollY;
    await show();
    scrollTo(0, at);
  }
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const main = document.getElementById("main");
  const press = (selector) => { const found = main.querySelector(selector); if (found) found.click(); };
  if (event.key === "j" || event.key === "k") {
    const all = [...main.querySelectorAll("[data-line]")];
    const at = all.indexOf(document.activeElement) + (event.key === "j" ? 1 : -1);
    if (all.length) all[Math.min(all.length - 1, Math.max(0, at))].focus();
  } else if (event.key === "[") press('[data-go="prev"]');
  else if (event.key === "]") press('[data-go="next"]');
  else if (event.key === "g" || event.key === "c") press(`[data-key="${event.key}"]`);
  else if (event.key === "?") document.getElementById("help").showModal();
  else if (event.key === "/") {
    const field = main.querySelector("input, select");
    if (field) { event.preventDefault(); field.focus(); }
  }
}

document.getElementById("help-button").addEventListener("click", () => document.getElementById("help").showModal());
document.addEventListener("keydown", key);
window.addEventListener("hashchange", async () => { await show(); scrollTo(0, 0); document.getElementById("main").focus({ preventScroll: true }); });
show().then(() => { if (!held) setTimeout(follow, EVERY); });
