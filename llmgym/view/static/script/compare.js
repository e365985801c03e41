// Two runs side by side: the tasks that both played, and two episodes of one.

async function comparePage(query) {
  if (runs.length < 2) return [h("h1", {}, "Compare"), h("p", {}, "Open two runs to compare them: llmgym view RUN RUN.")];
  const run = query.run || runs[0].label, other = query.other || runs.find((one) => one.label !== run).label;
  const answer = await ask("tasks", { run, other, from: query.from });
  const pick = (name, value) => h("label", {}, name === "run" ? "First run" : "Second run", h("select", {
    onchange: (event) => { location.hash = address("compare", { run, other, [name]: event.target.value }); },
  }, runs.map((one) => h("option", { value: one.label, selected: one.label === value }, one.label))));
  return [
    h("h1", {}, "Tasks that both runs played"),
    h("form", { class: "filters" }, pick("run", run), pick("other", other)),
    h("p", {}, `${shown(answer.total)} tasks of the same step, seed and seat; those first on which the runs differ most. `,
      answer.missing.map((count, side) => (count ? `${side ? "The second" : "The first"} run alone played ${shown(count)} more. ` : ""))),
    held && h("p", { class: "soft" }, held.sample),
    answer.total ? h("div", { class: "scroll" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", {}, "task"), h("th", { class: "number" }, "step"), [run, other].map((label) => [h("th", { class: "number" }, swatch(label), "score"), h("th", { class: "number" }, "success")]),
        h("th", { class: "number" }, "difference"))),
      h("tbody", {}, answer.rows.map((row) => h("tr", {},
        h("td", {}, h("a", { "data-line": true, href: address("pair", { run, step: row.sides[0].step, index: row.sides[0].index, other, oindex: row.sides[1].index }) }, row.task)),
        h("td", { class: "number" }, row.sides[0].step),
        row.sides.map((side) => [h("td", { class: "number" }, fixed(side.score)), h("td", { class: "number" }, known(side.success) ? `${Math.round(side.success * side.count)} of ${side.count}` : "–")]),
        h("td", { class: `number ${row.difference < 0 ? "bad" : row.difference > 0 ? "good" : ""}` }, known(row.difference) ? signed(row.difference) : "–")))))) : null,
    pager("compare", { run, other }, answer),
  ];
}

async function pairPage(query) {
  const left = await ask("episode", { run: query.run, step: query.step, index: query.index });
  const other = query.other || (runs.find((one) => one.label !== left.run) || {}).label;
  const [mine, theirs] = await Promise.all([
    ask("episodes", { run: left.run, step: left.step, group: left.group, sort: "step", count: 64 }),
    ask("episodes", { run: other, step: left.step, task: left.task, sort: "step", count: 64 }),
  ]);
  const same = theirs.rows.filter((row) => row.seat === left.seat);
  if (!same.length) return [h("h1", {}, "Compare"), h("p", {}, `${other} has no episode of ${left.task} at step ${left.step}.`), link("compare", { run: left.run, other }, "Tasks that both played")];
  const own = mine.rows.findIndex((row) => row.index === left.index);
  const chosen = same.find((row) => String(row.index) === query.oindex) || same[Math.max(0, own)] || same[0];
  const right = await ask("episode", named(chosen));
  const select = (title, rows, value, name) => h("label", {}, title, h("select", { onchange: (event) => { location.hash = address("pair", { ...named(left), other, oindex: right.index, [name]: event.target.value }); } },
    rows.map((row) => h("option", { value: row.index, selected: row.index === value }, `${row.step}.${row.index}: score ${fixed(row.score)} ${row.success === 1 ? "✓" : row.success === 0 ? "✗" : ""}`))));
  const [one, two] = [left, right].map(ownWords);
  const turn = one.findIndex((said, at) => said !== two[at]);
  const first = turn >= 0 ? turn : two.length > one.length ? one.length : null; // turn that differs
  const what = known(first) && difference(one[first], two[first]);
  return [
    h("h1", {}, `The same task in two runs: ${left.task}, step ${left.step}`),
    h("p", {}, `One of the ${mine.rows.length} episodes of this task in the first run, and one of ${same.length} in the second. `,
      known(first) ? `They first differ in turn ${first + 1}, ${what}.` : "Their replies are the same, word for word."),
    h("form", { class: "filters" }, select(`One of ${mine.rows.length} in ${left.run}`, mine.rows, left.index, "index"), select(`One of ${same.length} in ${other}`, same, right.index, "oindex"),
      link("compare", { run: left.run, other }, "all tasks that both played")),
    h("div", { class: "pair" }, [[left, mine.rows], [right, same]].map(([side, rows]) => h("div", {},
      h("h3", {}, swatch(side.run), side.run), h("p", {}, link("episode", named(side), `${side.step}.${side.index}`), " ", outcome(side.success), `, score ${fixed(side.score)}`),
        h("p", {}, `All ${rows.length} episodes of this task: ${rows.filter((row) => row.success === 1).length} succeeded, mean score ${fixed(mean(rows.map((row) => row.score)))}.`), bars(side.parts, side.run)))),
    asked(left),
    [...Array(Math.max(one.length, two.length)).keys()].map((at) => h("section", { "aria-label": `Turn ${at + 1}` }, h("h2", {}, `Turn ${at + 1}: `, one[at] === two[at] ? "the same in both" : at === first ? `the first difference, ${what}` : "differs too"),
      between(left, right, at),
      one[at] === two[at] ? box("assistant", one[at], "alike") : h("div", { class: "pair" }, [[left, one[at], two[at]], [right, two[at], one[at]]].map(([side, said, against]) => box(["assistant ", swatch(side.run)], marked(said, against)))))),
  ];
}

function asked(episode) {
  return h("details", {}, h("summary", {}, "What both were asked"), episode.messages.slice(0, firstReply(episode)).map((one) =>
    h("section", { class: "turn" }, h("h3", {}, one.role), h("div", { class: "said" }, one.content))));
}

// What was said to the agents before a turn, after the first one.
function between(left, right, turn) {
  if (!turn) return null;
  const heard = [left, right].map((side) => {
    const own = repliesOf(side).map((reply, at) => (reply ? at : -1)).filter((at) => at >= 0);
    return own.length > turn ? side.messages.slice(own[turn - 1] + 1, own[turn]) : [{ role: "", content: "(this episode has no such turn)" }];
  });
  const told = (messages) => messages.map((one) => box(one.role, one.content, "soft"));
  if (JSON.stringify(heard[0]) === JSON.stringify(heard[1])) return told(heard[0]);
  return h("div", { class: "pair" }, heard.map((messages) => h("div", {}, told(messages))));
}

function box(title, said, kind = "") {
  return h("section", { class: "turn" }, h("h3", {}, h("span", {}, title)), h("div", { class: `said ${kind}` }, said));
}

// In what two replies differ: in which keys, if both are JSON objects.
function difference(one, other) {
  const [left, right] = [one, other].map((said) => {
    try { return JSON.parse(said); } catch { return null; }
  });
  const object = (value) => value && typeof value === "object" && !Array.isArray(value);
  if (!object(left) || !object(right)) return "at the marked word";
  const keys = [...new Set([...Object.keys(left), ...Object.keys(right)])].filter((key) => JSON.stringify(left[key]) !== JSON.stringify(right[key]));
  return keys.length ? `in ${keys.slice(0, 5).join(" and ")}` : "in white space or order";
}

// A reply with what is alike in grey, and a mark where it first differs from another.
function marked(said, against) {
  if (!known(said)) return h("span", { class: "soft" }, "(no such turn)");
  if (said === against) return h("span", { class: "alike" }, said);
  let end = 0;
  while (end < said.length && end < (against || "").length && said[end] === against[end]) end += 1;
  const word = said.slice(end).match(/^(\w+|\s|\W)?/)[0];
  let start = end;
  while (start > 0 && /\w/.test(said[start - 1]) && /\w/.test(said[end] || "")) start -= 1;
  return [h("span", { class: "alike" }, said.slice(0, start)),
    h("mark", { class: "first" }, said.slice(start, end) + word || "(ends here)"), said.slice(end + word.length)];
}
