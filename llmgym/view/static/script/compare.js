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
        h("td", {}, h("a", { "data-line": true, href: address("pair", { run, step: row.sides[0].step, index: row.sides[0].index, other }) }, row.task)),
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
    rows.map((row) => h("option", { value: row.index, selected: row.index === value }, `${row.step}.${row.index}: ${fixed(row.score)} ${row.success === 1 ? "✓" : row.success === 0 ? "✗" : ""}`))));
  const [one, two] = [left, right].map(ownWords);
  const turn = one.findIndex((said, at) => said !== two[at]);
  const differ = turn >= 0 || two.length > one.length;
  return [
    h("h1", {}, `The same task in two runs: ${left.task}, step ${left.step}`),
    h("p", {}, differ ? `The replies are the same up to turn ${Math.max(0, turn < 0 ? one.length : turn) + 1}, where the first difference is marked.` : "The replies are the same, word for word."),
    h("form", { class: "filters" }, select(`Episode of ${left.run}`, mine.rows, left.index, "index"), select(`Episode of ${other}`, same, right.index, "oindex"),
      link("compare", { run: left.run, other }, "all tasks that both played")),
    h("div", { class: "pair" }, [[left, mine.rows], [right, same]].map(([side, rows]) => h("div", {},
      h("h3", {}, swatch(side.run), side.run), h("p", {}, link("episode", named(side), `${side.step}.${side.index}`), " ", outcome(side.success), `, score ${fixed(side.score)}. `,
        `Of its ${rows.length} siblings here ${rows.filter((row) => row.success === 1).length} succeeded, mean ${fixed(mean(rows.map((row) => row.score)))}.`), bars(side.parts)))),
    asked(left),
    [...Array(Math.max(one.length, two.length)).keys()].map((at) => h("section", { "aria-label": `Turn ${at + 1}` }, h("h2", {}, `Turn ${at + 1}`, one[at] === two[at] ? ": the same" : ""),
      between(left, right, at),
      one[at] === two[at] ? h("div", { class: "said alike" }, one[at]) : h("div", { class: "pair" }, [[one[at], two[at]], [two[at], one[at]]].map(([said, against]) => h("div", {}, h("div", { class: "said" }, marked(said, against, at === turn || (turn < 0 && at >= one.length)))))))),
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
    return own.length > turn ? side.messages.slice(own[turn - 1] + 1, own[turn]).map((one) => `${one.role}: ${one.content}`).join("\n") : "(this episode has no such turn)";
  });
  if (heard[0] === heard[1]) return h("div", { class: "said soft" }, heard[0]);
  return h("div", { class: "pair" }, heard.map((text) => h("div", { class: "said soft" }, text)));
}

// A reply with what is alike in grey, and a mark where it first differs from another.
function marked(said, against, first) {
  if (!known(said)) return h("span", { class: "soft" }, "(no such turn)");
  if (said === against) return h("span", { class: "alike" }, said);
  let end = 0;
  while (end < said.length && end < (against || "").length && said[end] === against[end]) end += 1;
  const word = said.slice(end).match(/^(\w+|\s|\W)?/)[0];
  let start = end;
  while (start > 0 && /\w/.test(said[start - 1]) && /\w/.test(said[end] || "")) start -= 1;
  return [h("span", { class: "alike" }, said.slice(0, start)), first && h("span", { class: "tag" }, "first difference"),
    h("mark", { class: "first" }, said.slice(start, end) + word || "(ends here)"), said.slice(end + word.length)];
}
