// Where answers are from: the server, or the data that a report carries, asked in the same words.

const carried = document.getElementById("data");
const held = carried ? JSON.parse(carried.textContent) : null;
let runs = [];

async function ask(path, query) {
  const given = Object.entries(query || {}).filter(([, value]) => known(value) && value !== "").map(([name, value]) => [name, String(value)]);
  if (held) return fromReport[path]({ run: held.runs[0].label, ...Object.fromEntries(given) });
  const text = new URLSearchParams(given).toString();
  const response = await fetch(`api/${path}${text ? `?${text}` : ""}`);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

const rowsOf = (run) => held.rows.filter((row) => row.run === run);

function fits(row, query) {
  const page = held.episodes[`${row.run}/${row.step}/${row.index}`];
  const told = query.everybody === "1" ? page.messages || [] : (page.messages || []).filter((one) => one.role === "assistant");
  const within = (value, low, high) => (!low || (known(value) && value >= Number(low))) && (!high || (known(value) && value <= Number(high)));
  const verdict = !known(row.success) ? "unknown" : row.success === 1 ? "success" : "failure";
  return (!query.step || row.step === Number(query.step)) && (!query.group || row.group === Number(query.group)) &&
    (!query.ending || row.ending === query.ending) && (!query.outcome || verdict === query.outcome) &&
    within(row.score, query.low, query.high) && within(row.length, query.shortest, query.longest) &&
    (!query.task || row.task === query.task.trim() || row.task.endsWith(` ${query.task.trim()}`)) &&
    (!query.text || told.some((one) => one.content.toLowerCase().includes(query.text.toLowerCase())));
}

function mean(values) {
  const there = values.filter(known);
  return there.length ? total(there) / there.length : null;
}

function summaryOf(rows, query) {
  const names = rows.length ? Object.keys(rows[0].parts) : [];
  const parts = names.map((name) => [name, mean(rows.map((row) => row.parts[name]))]);
  return {
    count: rows.length, among: rowsOf(query.run).filter((row) => fits(row, { ...query, outcome: "" })).length,
    tasks: query.step && query.outcome ? tally(rows) : [], scored: rows.filter((row) => known(row.score)).length, score: mean(rows.map((row) => row.score)),
    judged: rows.filter((row) => known(row.success)).length, successes: rows.filter((row) => row.success === 1).length,
    length: mean(rows.map((row) => row.length)), parts: Object.fromEntries(parts.filter(([, value]) => known(value))),
  };
}

// How many of each group are among some episodes of a step, the most first.
function tally(rows) {
  const groups = new Map();
  for (const row of rows) groups.set(row.group, [...(groups.get(row.group) || []), row]);
  const whole = ([first]) => rowsOf(first.run).filter((row) => row.step === first.step && row.group === first.group).length;
  return [...groups.values()].map((own) => ({ task: own[0].task, index: own[0].index, group: own[0].group, count: own.length, of: whole(own) }))
    .sort((one, other) => other.count - one.count || one.group - other.group).slice(0, 16);
}

const fromReport = {
  runs: () => ({ runs: held.runs }),
  metrics: (query) => held.metrics[query.run],
  episodes(query) {
    const sort = (!query.text && query.sort) || "-step";
    const key = sort.replace("-", ""), sign = sort.startsWith("-") ? -1 : 1;
    const found = rowsOf(query.run).filter((row) => fits(row, query)).sort((one, other) =>
      known(one[key]) - known(other[key]) ? known(other[key]) - known(one[key])
        : sign * (one[key] - other[key]) || other.step - one.step || one.index - other.index);
    const start = Number(query.from || 0), stop = Math.min(found.length, start + Number(query.count || 50));
    return { rows: found.slice(start, stop), from: start, to: stop, total: found.length, pending: 0, summary: summaryOf(found, query) };
  },
  replies: (query) => ({ replies: query.of.split(",").map((name) => {
    const said = (held.episodes[`${query.run}/${name.replace(".", "/")}`].messages || []).filter((one) => one.role === "assistant");
    return said.length ? said[said.length - 1].content : "";
  }) }),
  episode(query) {
    const found = held.episodes[`${query.run}/${query.step}/${query.index}`];
    if (!found) throw new Error("This report does not have this episode. " + held.sample);
    if (found.error) throw new Error(found.error);
    return found;
  },
  group(query) {
    const own = fromReport.episode(query);
    const siblings = rowsOf(own.run).filter((row) => row.step === own.step && row.group === own.group);
    const pages = siblings.map((row) => fromReport.episode(row)).map((page) => {
      const advantage = page.colours.find((one) => one.name === "advantage");
      return { ...page, advantage: advantage.values && advantage.values.length ? advantage.values[0] : null };
    });
    return { episodes: pages, count: pages.length, formula: own.formula };
  },
  tasks(query) {
    const sides = [query.run, query.other].map((run) => {
      const tasks = new Map();
      for (const row of rowsOf(run)) {
        const key = `${row.step}/${row.task}/${row.seat}`;
        tasks.set(key, [...(tasks.get(key) || []), row]);
      }
      return tasks;
    });
    const both = [...sides[0].keys()].filter((key) => sides[1].has(key)).map((key) => {
      const told = sides.map((tasks) => tasks.get(key)).map((rows) => ({
        step: rows[0].step, index: typical(rows).index, count: rows.length,
        score: mean(rows.map((row) => row.score)), success: mean(rows.map((row) => row.success)),
      }));
      return { task: sides[0].get(key)[0].task, sides: told, difference: known(told[0].score) && known(told[1].score) ? told[1].score - told[0].score : null };
    }).sort((one, other) => Math.abs(other.difference || 0) - Math.abs(one.difference || 0));
    const start = Number(query.from || 0), rows = both.slice(start, start + 50);
    return { rows, from: start, to: start + rows.length, total: both.length, missing: sides.map((tasks) => tasks.size - both.length) };
  },
};

// The one of a task's episodes whose score is nearest their mean.
function typical(rows) {
  const middle = mean(rows.map((row) => row.score));
  const off = (row) => known(row.score) ? Math.abs(row.score - middle) : Infinity;
  return rows.reduce((best, row) => off(row) < off(best) ? row : best);
}
