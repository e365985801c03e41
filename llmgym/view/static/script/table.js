// The table of episodes, with filters and pages.

const COUNT = 50;
const MOST_PARTS = 6; // that have a column
const ENDINGS = "terminated: the environment was done; truncated: it reached its limit of turns; others: a limit on tokens, or a fault";

async function episodesPage(query) {
  const run = runs.find((one) => one.label === query.run) || runs[0];
  const results = h("div", { id: "results" });
  const state = { ...query, run: run.label };
  const filled = fill(results, state);
  if (!state.text) await filled; // a search may take long, and shows what it has found so far
  return [h("h1", {}, "Episodes"), held && h("p", { class: "soft" }, held.sample), filters(run, state, results), results];
}

function filters(run, state, results) {
  const field = (name, title, attributes) => h("label", {}, title, h("input", { name, value: state[name] || "", ...attributes }));
  const choice = (name, title, options) => h("label", {}, title, h("select", { name }, options.map(([value, text]) =>
    h("option", { value, selected: (state[name] || "") === value }, text))));
  const number = { type: "number", step: "any" }, whole = { type: "number", min: 0, step: 1 };
  const form = h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
    choice("run", "Run", runs.map((one) => [one.label, one.label])),
    field("step", "Step", whole),
    choice("outcome", "Outcome", [["", "all"], ["failure", "failures only"], ["success", "successes only"], ["unknown", "no verdict"]]),
    choice("ending", "Ending", [["", "any"], ...run.endings.map((one) => [one, one])]),
    field("low", "Score from", number), field("high", "Score to", number),
    field("shortest", "Tokens from", whole), field("longest", "Tokens to", whole),
    field("task", "Seed or row", { type: "text", size: 12 }),
    field("text", "Text in replies", { type: "search", size: 20 }),
    h("label", { class: "check" }, h("input", { type: "checkbox", name: "everybody", value: "1", checked: state.everybody === "1" }), "search all messages, not just replies"),
    h("button", { type: "button", onclick: () => { location.hash = address("episodes", { run: state.run }); } }, "Clear"));
  let waiting = null;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const given = { ...Object.fromEntries(new FormData(form)), sort: state.sort };
      history.replaceState(null, "", address("episodes", given));
      for (const name of Object.keys(state)) delete state[name];
      Object.assign(state, given);
      if (event.target.name === "run") show(); else fill(results, given);
    }, event.target.type === "search" || event.target.type === "text" ? 200 : 0);
  });
  return form;
}

async function fill(results, state) {
  const asked = (results.asked = {}); // an answer that comes late is not shown
  let answer;
  try {
    answer = await ask("episodes", { ...state, count: COUNT });
    while (!held && state.text && answer.rows.length < COUNT && answer.to < answer.total && results.asked === asked) {
      draw(results, state, answer, true);
      const more = await ask("episodes", { ...state, from: answer.to, count: COUNT - answer.rows.length });
      answer = { ...more, from: answer.from, rows: [...answer.rows, ...more.rows] };
    }
  } catch (error) {
    if (results.asked === asked) results.replaceChildren(h("p", { class: "bad", role: "alert" }, error.message));
    return;
  }
  if (results.asked !== asked) return;
  draw(results, state, answer, false);
  performance.mark("filled");
  fillReplies(results, answer.rows);
}

async function fillReplies(results, rows) {
  if (!rows.length) return;
  const cells = [...results.querySelectorAll("td.wide")];
  try {
    const { replies } = await ask("replies", { run: rows[0].run, of: rows.map((row) => `${row.step}.${row.index}`).join(",") });
    cells.forEach((cell, at) => { cell.textContent = replies[at].length > 160 ? `${replies[at].slice(0, 160)}…` : replies[at]; });
    performance.mark("replied");
  } catch (error) {
    cells.forEach((cell) => { cell.textContent = error.message; });
  }
}

function draw(results, state, answer, searching) {
  const told = answer.rows.map((row) => row.parts); // of the parts, those that tell these episodes from what is right
  const parts = Object.keys(told[0] || {}).filter((name) => told.some((one) => one[name] !== 1)).slice(0, MOST_PARTS);
  const sorted = state.sort || "-step";
  const arrow = (name) => (sorted === name ? " ▲" : sorted === `-${name}` && !(name === "step" && state.step) ? " ▼" : "");
  const column = (name, title) => h("th", { class: "number", scope: "col", "aria-sort": sorted === name ? "ascending" : sorted === `-${name}` ? "descending" : null },
    h("button", { type: "button", title: `Sort by ${title}`, disabled: Boolean(state.text),
      onclick: () => { location.hash = address("episodes", { ...state, from: "", sort: sorted === `-${name}` ? name : `-${name}` }); } },
    title, arrow(name)));
  const verdict = !state.outcome; // which is the same in all lines otherwise
  const focus = results.contains(document.activeElement) && document.activeElement.getAttribute("href");
  results.replaceChildren(
    summarised(state, answer, searching),
    h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, column("step", "step.episode"), column("score", "score"), verdict && h("th", { scope: "col" }, "outcome"), h("th", { scope: "col" }, "last reply"),
        parts.map((name) => h("th", { class: "number", scope: "col", title: partOf(state.run, name) }, name)),
        h("th", { scope: "col", title: "Opens its group: all episodes of the same task in the same step" }, "task (its group)"),
        h("th", { scope: "col", title: ENDINGS }, "ending"),
        column("turns", "turns"), column("length", "tokens"))),
      h("tbody", {}, answer.rows.map((row) => h("tr", { onclick: (event) => { if (!event.target.closest("a")) location.hash = address("episode", named(row)); } },
        h("td", { class: "number" }, h("a", { href: address("episode", named(row)), "data-line": true }, `${row.step}.${row.index}`)),
        h("td", { class: "number" }, fixed(row.score)), verdict && h("td", {}, outcome(row.success)), h("td", { class: "wide" }),
        parts.map((name) => h("td", { class: low(row.parts[name]) ? "number bad" : "number" }, fixed(row.parts[name], 2))),
        h("td", {}, link("group", named(row), row.task, row.seat ? `, seat ${row.seat}` : "")), h("td", {}, row.ending), h("td", { class: "number" }, row.turns),
        h("td", { class: "number" }, shown(row.length))))))),
    pager("episodes", state, answer));
  const back = focus && [...results.querySelectorAll("a")].find((one) => one.getAttribute("href") === focus);
  if (back) back.focus();
}

function summarised(state, answer, searching) {
  const { summary } = answer;
  if (!summary) {
    const how = searching ? "Searching" : answer.to < answer.total ? "Searched" : "Searched all";
    return h("p", { role: "status" }, `${how}: ${shown(answer.to)} of ${shown(answer.total)} episodes; ${answer.rows.length} found here, the newest first.`);
  }
  const what = { failure: "are failures", success: "are successes", unknown: "have no verdict" }[state.outcome];
  const all = `episodes${state.step ? ` of step ${state.step}` : ""}`;
  const told = what ? `${shown(summary.count)} of ${shown(summary.among)} ${all} ${what}` : `${shown(summary.count)} ${all}`;
  return h("div", {},
    h("p", { role: "status" }, h("strong", {}, told), answer.pending ? ` so far; ${answer.pending} files are still to be read` : "",
      summary.judged && !state.outcome ? `: ${shown(summary.successes)} successes (${(100 * summary.successes / summary.judged).toFixed(1)} %)` : "",
      known(summary.score) ? `; mean score ${fixed(summary.score)}` : "", known(summary.length) ? `; ${shown(summary.length, 1)} sampled tokens each` : "",
      summary.count > summary.scored ? `; ${shown(summary.count - summary.scored)} without a score` : "", "."),
    summary.tasks.length > 0 && h("p", {}, `${{ failure: "Failures", success: "Successes", unknown: "No verdict" }[state.outcome]} by task: `, summary.tasks.map((one, at) => [at ? ", " : "",
      link("group", { run: state.run, step: state.step, index: one.index }, one.task), ` (${one.count} of ${one.of})`]), "."),
    Object.keys(summary.parts).length > 0 && [h("p", {}, "Mean of each part of their scores:"), bars(summary.parts, state.run)]);
}

function pager(page, state, answer) {
  const go = (from, title, rel) => h("button", { type: "button", "data-go": rel, onclick: () => { location.hash = address(page, { ...state, from: from || "" }); } }, title);
  const first = answer.rows.length ? answer.from + 1 : 0;
  return h("nav", { class: "toolbar", "aria-label": "Pages of the table" },
    answer.from > 0 && (state.text ? h("button", { type: "button", "data-go": "prev", onclick: () => history.back() }, "← Back") : go(Math.max(0, answer.from - COUNT), "← Previous", "prev")),
    h("span", {}, state.text ? "" : `${shown(first)} to ${shown(answer.to)} of ${shown(answer.total)}`),
    answer.to < answer.total && go(answer.to, "Next →", "next"));
}
