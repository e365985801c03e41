// Tokens, coloured by what a file holds of them.

const SURE = 3; // nats at which a log-probability has its full colour
const AMOUNT = { log_prob: "much", entropy: "much" };

const short = (colour) => colour.title.split(":")[0];
const palette = (name) => AMOUNT[name] || "signed";

// What a token's colour says: how much of it, from -1 to 1.
function strength(colour, value, largest) {
  if (!known(value)) return 0;
  if (colour.name === "log_prob") return Math.min(1, -value / SURE);
  return largest ? value / largest : 0;
}

// The root of the amount, so that half of the most is seen well.
function tint(kind, amount, most = 0.75) {
  const which = kind === "signed" ? (amount < 0 ? "minus" : "plus") : kind;
  return `rgba(var(--${which}), ${(most * Math.sqrt(Math.min(1, Math.abs(amount)))).toFixed(3)})`;
}

function largestOf(colour) {
  return Math.max(0, ...(colour.values || []).filter(known).map(Math.abs));
}

// For each token, which of the sampled ones it is, or -1.
function sampledAt(episode) {
  const found = new Array(episode.tokens.length).fill(-1);
  let count = 0;
  for (const [start, stop] of episode.sampled) for (let at = start; at < stop; at += 1) found[at] = count++;
  return found;
}

function tokensOf(episode, start, stop, colour, order) {
  const largest = largestOf(colour);
  const spans = [];
  for (let at = start; at < stop; at += 1) {
    const place = order[at];
    const text = episode.pieces ? episode.pieces[at] : String(episode.tokens[at]);
    const span = h("span", { class: `token${place < 0 ? " other" : ""}${episode.pieces ? "" : " id"}`, title: describe(episode, at, place) }, text);
    if (colour.name === "mask" ? place >= 0 : place >= 0 && colour.values) {
      const [kind, amount] = colour.name === "mask" ? ["own", 0.4] : [palette(colour.name), strength(colour, colour.values[place], largest)];
      span.style.background = tint(kind, amount);
      span.style.boxShadow = `inset 0 -2px ${tint(kind, amount, 1)}`; // seen on dark pages too
    }
    spans.push(span);
  }
  return spans;
}

function describe(episode, at, place) {
  const values = place < 0 ? ["not sampled"] : episode.colours.filter((one) => one.values).map((one) => `${one.title} ${signed(one.values[place])}`);
  return `token ${at}, id ${episode.tokens[at]}: ${values.join("; ")}`;
}

function legend(colour) {
  if (colour.name === "mask") return h("p", { class: "legend" }, "Green tokens were sampled; the others were read.");
  const kind = palette(colour.name), largest = largestOf(colour), signedScale = kind === "signed";
  const has = (sign) => (colour.values || []).some((value) => known(value) && sign * value > 0);
  const [low, high] = colour.name === "log_prob" ? [`−${SURE} or less`, "0"] : signedScale ? [has(-1) ? signed(-largest) : "0", has(1) ? signed(largest) : "0"] : ["0", shown(largest)];
  const parts = signedScale ? [...(has(-1) ? [-1, -0.75, -0.5, -0.25] : []), 0, ...(has(1) ? [0.25, 0.5, 0.75, 1] : [])] : colour.name === "log_prob" ? [1, 0.75, 0.5, 0.25, 0] : [0, 0.25, 0.5, 0.75, 1];
  return h("p", { class: "legend" }, h("span", {}, `${colour.title}: `), low, h("span", { class: "scale", "aria-hidden": "true" }, parts.map((amount) => {
    const part = h("span", {});
    part.style.background = tint(kind, amount);
    return part;
  })), high, kind !== "much" && largest > 0 && h("span", { class: "soft" }, " (the largest in this episode)"));
}

// The tokens that have the most of a colour, as a table.
function most(episode, colour, order) {
  if (!colour.values) return null;
  const turnOf = (at) => episode.replies.findIndex((reply) => reply.start <= at && at < reply.stop) + 1;
  const log = episode.colours.find((one) => one.name === "log_prob").values;
  const places = order.map((place, at) => [at, place]).filter(([, place]) => place >= 0 && known(colour.values[place]));
  places.sort(([, one], [, other]) => Math.abs(colour.values[other]) - Math.abs(colour.values[one]));
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", {}, "token"), h("th", { class: "number" }, "turn"), h("th", { class: "number" }, short(colour)), log && h("th", { class: "number", title: "When it was sampled" }, "probability"))),
    h("tbody", {}, places.slice(0, 8).map(([at, place]) => h("tr", { title: describe(episode, at, place) },
      h("td", {}, h("code", {}, JSON.stringify(episode.pieces ? episode.pieces[at] : episode.tokens[at]))), h("td", { class: "number" }, shown(turnOf(at))),
      h("td", { class: "number" }, signed(colour.values[place])), log && h("td", { class: "number" }, known(log[place]) ? shown(Math.exp(log[place])) : "–")))));
}

// The assistant's messages that were sampled are the last ones; returns the reply of each message, or null.
function repliesOf(episode) {
  const own = episode.messages.map((one, at) => at).filter((at) => episode.messages[at].role === "assistant").slice(-episode.replies.length || Infinity);
  const found = episode.messages.map(() => null);
  own.forEach((at, turn) => { found[at] = episode.replies[turn]; });
  return found;
}
