// The page of curves: every metric by its name, all runs in one picture each.

const FIRST = ["success", "reward", "accuracy", "loss", "entropy", "kl", "grad_norm", "reply_tokens", "groups_without_signal", "replies_cut_off"];
const SIZE = { width: 360, height: 170, left: 46, right: 8, top: 8, bottom: 22 };
const MOST_POINTS = 600;
const FEW = 5; // steps, that the start and the end of a curve are means of
const lines = {}; // of metrics, by run
const meanings = new Map(); // of metrics, by their names

async function readMetrics(label) {
  const own = lines[label] || { edition: 0, count: 0, columns: {} };
  const answer = await ask("metrics", { run: label, from: own.count, edition: own.edition });
  for (const [name, words] of Object.entries(answer.meanings)) meanings.set(name, words);
  const fresh = answer.from === 0 ? { columns: {}, count: 0 } : own;
  for (const [name, values] of Object.entries(answer.columns)) {
    const before = fresh.columns[name] || new Array(fresh.count).fill(null);
    fresh.columns[name] = before.concat(values);
  }
  const count = fresh.count + answer.count;
  for (const values of Object.values(fresh.columns)) while (values.length < count) values.push(null);
  lines[label] = { edition: answer.edition, count, columns: fresh.columns };
}

async function curvesPage(query) {
  await Promise.all(runs.map((run) => readMetrics(run.label)));
  const find = h("input", { id: "find", type: "search", value: query.find || "", placeholder: "part/ or kl" });
  const smooth = h("input", { id: "smooth", type: "range", min: 0, max: 0.95, step: 0.05, value: query.smooth || 0.6 });
  const charts = h("div"), weight = h("span");
  const draw = () => {
    weight.textContent = smooth.value;
    charts.replaceChildren(...sections(find.value.trim().toLowerCase(), Number(smooth.value)));
    history.replaceState(null, "", address("curves", { find: find.value, smooth: smooth.value === "0.6" ? "" : smooth.value }));
  };
  find.addEventListener("input", draw);
  smooth.addEventListener("input", draw);
  draw();
  return [
    h("h1", {}, runs.length > 1 ? `Curves of ${runs.length} runs` : `Curves of ${runs[0].label}`),
    overview(),
    h("form", { class: "filters", onsubmit: (event) => event.preventDefault() },
      h("label", { for: "find" }, "Show metrics with this in their name", find),
      h("label", { for: "smooth" }, h("span", {}, "Smoothing ", weight, " (thin lines are not smoothed)"), smooth)),
    charts,
  ];
}

function overview() {
  const judged = runs.some((run) => run.evaluations.length);
  return h("div", { class: "scroll" }, h("table", {},
    h("thead", {}, h("tr", {}, h("th", {}, "Run"), h("th", { class: "number" }, "Steps"), h("th", { class: "number" }, "Episodes"),
      h("th", {}, "Success in training: first → last steps"), judged && h("th", {}, "On held-out tasks (95 % interval)"))),
    h("tbody", {}, runs.map((run) => h("tr", {},
      h("td", {}, swatch(run.label), run.label, optionsOf(run)), h("td", { class: "number" }, shown(run.steps)), h("td", { class: "number" }, shown(run.episodes)),
      h("td", {}, ends(run)), judged && h("td", { class: "wraps" }, heldOut(run.evaluations)))))));
}

// The options of a run; beside other runs, those that are not the same in all that have them.
function optionsOf(run) {
  const told = Object.entries(run.options).filter(([name, value]) => runs.length < 2 || runs.some((one) => name in one.options && one.options[name] !== value));
  return h("div", { class: "soft wraps" }, told.map(([name, value]) => `${name} ${value}`).join(", "));
}

// How many of some steps its start and its end are, which have none in common.
const few = (values) => Math.max(1, Math.min(FEW, Math.floor(values.length / 2)));

function ends(run) {
  const values = (lines[run.label].columns.success || []).filter(known);
  if (!values.length) return "–";
  const count = few(values), shortest = Math.min(...runs.map((one) => one.steps));
  const until = (end) => shown(mean(values.slice(0, end).slice(-count)));
  return [h("div", {}, `${until(count)} → ${until(values.length)} (means of ${count} step${count > 1 ? "s" : ""})`),
    shortest >= count && shortest < run.steps && h("div", { class: "soft" }, `${until(shortest)} at step ${shortest}, where the shortest run ends`)];
}

function heldOut(evaluations) {
  const told = (one) => `${fixed(one.success)} (${fixed(one.success_low)} to ${fixed(one.success_high)})`;
  const when = (one) => (one.step ? `step ${one.step}` : "before training");
  if (evaluations.length < 2) return evaluations.map((one) => `${one.measure} ${told(one)}, ${shown(one.episodes)} episodes`).join("") || "–";
  const [first, last] = [evaluations[0], evaluations[evaluations.length - 1]];
  const verdict = last.success_low > first.success_high ? h("span", { class: "good" }, `▲ better than ${when(first)}`)
    : last.success_high < first.success_low ? h("span", { class: "bad" }, `▼ worse than ${when(first)}`) : h("span", { class: "soft" }, `no clear difference from ${when(first)}`);
  return [h("div", {}, `${last.measure} ${told(first)} → ${told(last)}`), h("div", {}, verdict, h("span", { class: "soft" }, ` · after step ${last.step}, ${shown(last.episodes)} episodes`))];
}

function sections(find, smoothing) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(lines[run.label].columns)))].filter((name) => name !== "step");
  const chosen = names.filter((name) => name.toLowerCase().includes(find));
  if (!chosen.length) return [h("p", {}, names.length ? `No metric's name has “${find}”.` : "No step has been measured yet.")];
  const rank = (name) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length);
  chosen.sort((one, other) => rank(one) - rank(other) || one.localeCompare(other));
  const groups = new Map();
  for (const name of chosen) {
    const title = name.includes("/") ? name.split("/")[0] : "";
    groups.set(title, [...(groups.get(title) || []), name]);
  }
  const ordered = [...groups].sort(([one], [other]) => (one !== "") - (other !== "") || (other === "part") - (one === "part") || one.localeCompare(other));
  return ordered.map(([title, members]) => h("section", {}, h("h2", {}, title ? `${title}/…` : "Metrics"),
    h("div", { class: "charts" }, members.map((name) => chart(name, smoothing)))));
}

function smoothed(values, weight) {
  let sum = 0, mass = 0;
  return values.map((value) => {
    if (known(value)) [sum, mass] = [weight * sum + (1 - weight) * value, weight * mass + 1 - weight];
    return mass ? sum / mass : null;
  });
}

function thinned(points) {
  if (points.length <= MOST_POINTS) return points;
  const size = Math.ceil((2 * points.length) / MOST_POINTS), kept = [];
  for (let start = 0; start < points.length; start += size) {
    const part = points.slice(start, start + size).sort((one, other) => one[1] - other[1]);
    kept.push(...[part[0], part[part.length - 1]].sort((one, other) => one[0] - other[0]));
  }
  return kept;
}

function chart(name, smoothing) {
  const series = runs.map((run) => {
    const { step = [], [name]: values = [] } = lines[run.label].columns;
    const points = (ys) => step.map((x, at) => [x, ys[at]]).filter(([x, y]) => known(x) && known(y));
    const measure = name === "reward" ? "reward" : "success"; // which holds what an evaluation is of: success, or accuracy
    const judged = run.evaluations.filter((one) => known(one[measure]) && (name === "reward" || one.measure === name));
    return { label: run.label, raw: points(values), smooth: points(smoothed(values, smoothing)), judged, measure };
  });
  const all = series.flatMap((one) => [...one.raw, ...one.judged.flatMap((at) => [[at.step, at[one.measure]],
    ...(one.measure === "success" ? [[at.step, at.success_low], [at.step, at.success_high]] : [])])]).filter(([, y]) => known(y));
  const svg = h("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "img", tabindex: 0, "aria-label": spoken(name, series) });
  const read = h("output", {});
  if (all.length) plot(svg, read, name, series, axes(all));
  const meaning = meanings.get(name);
  return h("div", { class: "chart" }, h("h3", {}, name), meaning && h("p", { class: "meaning", title: meaning }, meaning), read, svg);
}

function spoken(name, series) {
  return `${name}. ` + series.filter((one) => one.raw.length).map((one) => {
    const [first, last] = [one.raw[0], one.raw[one.raw.length - 1]];
    return `${one.label}: ${shown(first[1])} at step ${first[0]}, ${shown(last[1])} at step ${last[0]}`;
  }).join("; ");
}

function axes(points) {
  let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const [x, y] of points) [left, right, low, high] = [Math.min(left, x), Math.max(right, x), Math.min(low, y), Math.max(high, y)];
  if (low >= 0 && high <= 1 && high > 0.5) [low, high] = [0, 1];
  const least = 0.05 * Math.max(Math.abs(low), Math.abs(high)); // so that a small change looks small
  if (high - low < least) [low, high] = [(low + high - least) / 2, (low + high + least) / 2];
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  if (left === right) right = left + 1;
  const { width, height, top, bottom } = SIZE;
  return {
    left, right, low, high,
    x: (value) => SIZE.left + ((value - left) / (right - left)) * (width - SIZE.left - SIZE.right),
    y: (value) => height - bottom - ((value - low) / (high - low)) * (height - top - bottom),
  };
}

// A number beside an axis, with as many digits as its neighbours.
function tick(value, scale) {
  const digits = 1 - Math.floor(Math.log10(scale.high - scale.low));
  return digits > 6 || Math.abs(value) >= 1e6 ? shown(value, 2) : value.toFixed(Math.max(0, digits));
}

function plot(svg, read, name, series, scale) {
  const { width, height, left, right } = SIZE;
  for (const part of [0, 0.5, 1]) {
    const value = scale.low + part * (scale.high - scale.low), y = scale.y(value);
    svg.append(h("line", { class: "grid", x1: left, x2: width - right, y1: y, y2: y }),
      h("text", { x: left - 5, y: y + 4, "text-anchor": "end" }, tick(value, scale)));
  }
  for (const [at, anchor] of [[scale.left, "start"], [Math.round((scale.left + scale.right) / 2), "middle"], [scale.right, "end"]]) {
    svg.append(h("text", { x: scale.x(at), y: height - 6, "text-anchor": anchor }, anchor === "start" ? `step ${at}` : String(at)));
  }
  const path = (points) => thinned(points).map(([x, y], at) => `${at ? "L" : "M"}${scale.x(x).toFixed(1)} ${scale.y(y).toFixed(1)}`).join("");
  for (const [place, one] of series.entries()) {
    const radius = 2.5 + 1.5 * (series.length - 1 - place); // where two are in the same place, both are seen
    svg.append(h("g", { class: runClass(one.label) }, h("path", { class: "line raw", d: path(one.raw) }), h("path", { class: "line", d: path(one.smooth) }),
      one.judged.map((at) => [one.measure === "success" && h("line", { class: "held", x1: scale.x(at.step), x2: scale.x(at.step), y1: scale.y(at.success_low), y2: scale.y(at.success_high) }),
        h("circle", { class: "held", cx: scale.x(at.step), cy: scale.y(at[one.measure]), r: radius })])));
  }
  const cursor = h("line", { class: "cursor", y1: SIZE.top, y2: height - SIZE.bottom, visibility: "hidden" });
  svg.append(cursor);
  const values = (of) => series.map((one, at) => [at ? " · " : "", h("span", { class: runClass(one.label) }, shown(of(one, at)))]).flat();
  const last = (one) => one.raw.slice(-few(one.raw)).map(([, y]) => y);
  const counts = [...new Set(series.filter((one) => one.raw.length).map((one) => few(one.raw)))].join(" or ");
  const ending = [counts === "1" ? "last step: " : `mean of the last ${counts} steps: `, ...values((one) => mean(last(one)))];
  const judged = series.some((one) => one.judged.length) ? h("div", {}, "● held out, last: ", ...values((one) => (one.judged.length ? one.judged[one.judged.length - 1][one.measure] : null))) : "";
  const rest = () => read.replaceChildren(...ending, judged);
  const measured = [...new Set(series.flatMap((one) => one.raw.map(([x]) => x)))].sort((one, other) => one - other);
  const maps = series.map((one) => new Map(one.raw));
  let step = null;
  const point = (wanted) => {
    step = wanted;
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", scale.x(step));
    cursor.setAttribute("x2", scale.x(step));
    read.replaceChildren(`step ${step}: `, ...values((one, at) => maps[at].get(step)));
  };
  const leave = () => { cursor.setAttribute("visibility", "hidden"); rest(); };
  rest();
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const at = scale.left + (((event.clientX - box.left) / box.width) * width - left) / (width - left - right) * (scale.right - scale.left);
    point(measured.reduce((best, one) => (Math.abs(one - at) < Math.abs(best - at) ? one : best), measured[0]));
  });
  svg.addEventListener("pointerleave", leave);
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move) {
      event.preventDefault();
      point(measured[Math.min(measured.length - 1, Math.max(0, step === null ? 0 : measured.indexOf(step) + move))]);
    } else if (event.key === "Enter" && step !== null) location.hash = address("episodes", { step });
  });
  svg.addEventListener("click", () => { if (step !== null) location.hash = address("episodes", { step }); });
}
