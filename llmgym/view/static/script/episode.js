// The pages of one episode, and of a group.

async function episodePage(query) {
  const episode = await ask("episode", { run: query.run, step: query.step, index: query.index });
  const order = sampledAt(episode);
  const mask = { name: "mask", title: "mask: sampled or not", values: order, note: "All tokens are shown, also those of the chat template." };
  const colours = [...episode.colours, mask];
  const wanted = colours.find((one) => one.name === query.colour && one.values);
  const state = { colour: wanted || colours.find((one) => one.values), all: query.all === "1" };
  const talk = h("div"), side = h("div", { class: "panel", "aria-live": "polite" });
  const draw = () => {
    if (!episode.tokens.length) {
      talk.replaceChildren(...conversation(episode, state.colour, order));
      return;
    }
    const whole = state.all || state.colour.name === "mask";
    talk.replaceChildren(legend(state.colour), ...(whole ? everyToken(episode, state.colour, order) : conversation(episode, state.colour, order)));
    const table = state.colour.name !== "mask" && most(episode, state.colour, order);
    const title = !table ? state.colour.title : state.colour.name === "log_prob" ? "The least probable tokens" : `Tokens with the most ${short(state.colour)}`;
    side.replaceChildren(h("h2", {}, title), ...(table ? [table] : []), h("p", {}, state.colour.note));
    const names = { ...named(episode), colour: state.colour.name === "log_prob" ? "" : state.colour.name, all: state.all ? "1" : "" };
    history.replaceState(null, "", address("episode", names));
  };
  draw();
  return [
    h("h1", {}, `Episode ${episode.step}.${episode.index}: `, outcome(episode.success), `, score ${fixed(episode.score)}`),
    facts(episode), learnt(episode), await neighbours(episode), scores(episode),
    h("div", { class: "sides" }, h("section", { "aria-label": "Conversation" }, talk), h("aside", { "aria-label": "Tokens and times" },
      ...(episode.tokens.length ? [control(colours, state, draw), side] : [unseen()]), times(episode))),
  ];
}

function facts(episode) {
  const cut = episode.replies.filter((reply) => reply.finish_reason === "length").length;
  return h("p", { class: "soft" }, swatch(episode.run), [`run ${episode.run}`, `step ${episode.step}`, episode.task, episode.seat ? `seat ${episode.seat}` : null, `ending: ${episode.ending}`,
    `${episode.turns} turns`, episode.tokens.length ? `${shown(episode.length)} of ${shown(episode.tokens.length)} tokens were sampled` : `${shown(episode.length)} tokens sampled, as the server counts them`, cut ? `${cut} replies cut off` : null]
    .filter(Boolean).join(" · "));
}

// What an episode is compared with, and what it comes to.
function learnt(episode) {
  if (!known(episode.score)) return null;
  const values = new Set(episode.colours.find((one) => one.name === "advantage").values || []);
  const advantage = values.size === 1 ? [...values][0] : null;
  return h("p", {}, `Reward ${fixed(episode.score)}; mean of the ${episode.siblings} in its group ${fixed(episode.group_mean)}`,
    known(advantage) && ["; advantage ", weighed(advantage)], known(advantage) && episode.formula && ` = ${episode.formula}`, ".");
}

const weighed = (advantage) => h("strong", { class: advantage < 0 ? "bad" : advantage > 0 ? "good" : "" }, signed(advantage));

async function neighbours(episode) {
  const at = (move, title, rel) => h("a", { href: address("episode", { ...named(episode), index: episode.index + move }), "data-go": rel }, title);
  const others = runs.filter((run) => run.label !== episode.run);
  return h("nav", { class: "toolbar", "aria-label": "Other episodes" },
    episode.index > 0 && at(-1, "← previous", "prev"), at(1, "next →", "next"),
    h("a", { href: address("group", named(episode)), "data-key": "g" }, `its group of ${episode.siblings}`),
    link("episodes", { run: episode.run, step: episode.step }, `all of step ${episode.step}`),
    others.map((run, place) => h("a", { href: address("pair", { ...named(episode), other: run.label }), "data-key": place ? null : "c" }, `the same task in ${run.label}`)));
}

function conversation(episode, colour, order) {
  const replies = repliesOf(episode);
  return episode.messages.map((message, at) => {
    const reply = replies[at];
    const words = [message.content, ...message.calls.map((call) => `\n→ ${call}`)];
    const tokens = reply && reply.stop > reply.start ? tokensOf(episode, reply.start, reply.stop, colour, order) : [];
    const said = !tokens.length ? words : episode.pieces ? tokens : [words, h("p", { class: "soft" }, "No tokenizer was found for this run: its tokens by number."), tokens];
    const body = h("div", { class: !reply && rowsOfText(message.content) > SHORT ? "said short" : "said" }, said);
    const note = reply ? `turn ${episode.replies.indexOf(reply) + 1}: ${shown(reply.tokens)} tokens, ${reply.finish_reason === "length" ? "cut off" : "complete"}, reward ${shown(reply.reward)}, policy version ${reply.weight_version}`
      : body.className.includes("short") && h("button", { type: "button", "aria-expanded": "false", onclick: (event) => {
        const cut = body.classList.toggle("short");
        event.target.textContent = cut ? "show all" : "show less";
        event.target.setAttribute("aria-expanded", String(!cut));
      } }, "show all");
    return h("section", { class: `turn ${reply ? "assistant" : ""}` }, h("h3", {}, h("span", {}, message.role + (message.name ? ` ${message.name}` : "")), h("span", {}, note)), body);
  });
}

const SHORT = 9; // rows of a message that are shown until all of it is asked for
const rowsOfText = (text) => total(text.split("\n").map((line) => Math.max(1, Math.ceil(line.length / 90))));

function everyToken(episode, colour, order) {
  const starts = episode.row_starts, ends = [...starts.slice(1), episode.tokens.length];
  const title = (row) => (starts.length > 1 ? `Row ${row + 1} of ${starts.length}: the conversation as the template rendered it again` : "All tokens, as the model read and sampled them");
  return starts.map((start, row) => h("section", { class: "turn" }, h("h3", {}, title(row)),
    h("div", { class: "said" }, tokensOf(episode, start, ends[row], colour, order))));
}

function unseen() {
  return h("div", { class: "panel" }, h("h2", {}, "No tokens"), h("p", {}, "Nobody here has seen tokens of this episode: a server played it, or it ended before it began."));
}

function scores(episode) {
  const kind = episode.score_kind === "reward" ? "" : ` (${episode.score_kind})`;
  return h("section", {}, h("h2", {}, `Score ${fixed(episode.score)}${kind} and its parts`),
    episode.score_error && h("p", { class: "bad" }, `No score: ${episode.score_error}`), bars(episode.parts, episode.run));
}

function control(colours, state, draw) {
  const all = h("input", { type: "checkbox", checked: state.all, onchange: (event) => { state.all = event.target.checked; draw(); } });
  return h("div", { class: "panel" }, h("h2", {}, "Tokens coloured by"), h("fieldset", {}, h("legend", { class: "skip" }, "What tokens are coloured by"),
    colours.map((one) => h("label", {},
      h("input", { type: "radio", name: "colour", value: one.name, disabled: !one.values, checked: one === state.colour, onchange: () => { state.colour = one; draw(); } }),
      ` ${one.title}`, !one.values && h("span", { class: "note" }, one.note)))),
  h("label", {}, all, " show the chat template's tokens too"));
}

function times(episode) {
  const measured = Object.entries(episode.times);
  return h("div", { class: "panel" }, h("h2", {}, `Time of step ${episode.step}`),
    h("p", { class: "soft" }, "Files hold the times of whole steps, and none of single episodes. In seconds:"),
    measured.length ? h("table", {}, h("tbody", {}, measured.map(([name, value]) => h("tr", {}, h("td", {}, name), h("td", { class: "number" }, shown(value)))))) : h("p", {}, "Nothing was measured."));
}

async function groupPage(query) {
  const group = await ask("group", { run: query.run, step: query.step, index: query.index });
  const [first] = group.episodes;
  const alike = new Map(); // episodes by what they said and earned
  for (const one of group.episodes) {
    const key = JSON.stringify([ownWords(one), one.score, one.score_error, one.success, one.ending, one.parts]);
    alike.set(key, [...(alike.get(key) || []), one]);
  }
  const prompt = first.messages.slice(0, firstReply(first));
  const scored = group.episodes.map((one) => one.score).filter(known);
  const common = commonStarts(group.episodes.map(ownWords));
  const differ = Object.keys(first.parts).filter((name) => group.episodes.some((one) => one.parts[name] !== first.parts[name]));
  const equal = Object.entries(first.parts).filter(([name, value]) => known(value) && !differ.includes(name));
  return [
    h("h1", {}, `Group of ${group.count}: ${first.task}, step ${first.step}`),
    h("nav", { class: "toolbar", "aria-label": "Other episodes" }, h("span", { class: "soft" }, swatch(first.run), `run ${first.run}`), link("episodes", { run: first.run, step: first.step }, `all of step ${first.step}`),
      link("episodes", { run: first.run, step: first.step, outcome: "failure" }, `failures of step ${first.step}`)),
    h("p", {}, scored.length ? `Scores from ${fixed(Math.min(...scored))} to ${fixed(Math.max(...scored))}, mean ${fixed(mean(scored))}; ` : "No scores; ",
      `${group.episodes.filter((one) => one.success === 1).length} of ${group.episodes.length} succeeded.`, group.formula && ` Advantage = ${group.formula}.`,
      group.count > group.episodes.length ? ` The first ${group.episodes.length} are shown.` : ""),
    equal.length > 0 && h("p", { class: "soft" }, "Parts that are the same in all of them: ", equal.map(([name, value]) => `${name} ${fixed(value, 2)}`).join(", ")),
    h("details", {}, h("summary", {}, "What they were all asked"), prompt.map((one) => h("section", { class: "turn" }, h("h3", {}, one.role), h("div", { class: "said" }, one.content)))),
    h("h2", {}, "What each replied"),
    h("p", { class: "soft" }, "Episodes with the same replies are in one box. Each reply is grey for as long as it is the same in all of them."),
    h("div", { class: "group" }, [...alike.values()].map((same) => [same, same[0]]).map(([same, one]) => h("article", { class: { 0: "failed", 1: "succeeded" }[one.success] },
      h("h3", {}, outcome(one.success), same.length > 1 && `, ${same.length} times`),
      h("p", {}, same.map((own) => [h("a", { href: address("episode", { ...named(own), colour: "push" }), "data-line": true }, `${own.step}.${own.index}`), " "])),
      h("p", {}, `score ${fixed(one.score)}`, known(one.advantage) && [", advantage ", weighed(one.advantage), same.length > 1 && " each"]),
      one.score_error && h("p", { class: "bad" }, one.score_error),
      bars(Object.fromEntries(differ.map((name) => [name, one.parts[name]])), one.run),
      ownWords(one).map((said, turn) => h("div", { class: "said" }, h("span", { class: "alike" }, said.slice(0, common[turn])), said.slice(common[turn])))))),
  ];
}

const firstReply = (episode) => {
  const at = repliesOf(episode).findIndex(Boolean);
  return at < 0 ? episode.messages.length : at;
};

const ownWords = (episode) => {
  const replies = repliesOf(episode);
  return episode.messages.filter((one, at) => replies[at]).map((one) => [one.content, ...one.calls].join("\n"));
};

// How much of each turn's reply is the same in all of them, in characters, up to the end of a word.
function commonStarts(all) {
  return all[0].map((said, turn) => {
    let end = 0;
    while (end < said.length && all.every((one) => (one[turn] || "")[end] === said[end])) end += 1;
    if (all.every((one) => one[turn] === said)) return end;
    while (end > 0 && /\w/.test(said[end - 1])) end -= 1;
    return end;
  });
}
