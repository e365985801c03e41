// Elements, numbers and addresses. Text from runs only ever becomes text nodes.

function h(tag, attributes, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "rect"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const known = (value) => value !== null && value !== undefined;

function shown(value, digits = 3) {
  if (!known(value)) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-5 || size >= 1e6)) return value.toExponential(1);
  return size !== 0 && size < 10 ** -digits ? value.toPrecision(2) : value.toFixed(size >= 100 ? 1 : digits);
}

const fixed = (value, digits = 3) => (known(value) ? value.toFixed(digits) : "–");

const signed = (value) => (value > 0 ? "+" : "") + shown(value).replace("-", "−");

function outcome(success) {
  if (!known(success)) return h("span", { class: "soft" }, "? no verdict");
  return success === 1 ? h("span", { class: "good" }, "✓ success") : h("span", { class: "bad" }, "✗ failure");
}

function link(page, query, ...children) {
  return h("a", { href: address(page, query) }, ...children);
}

function address(page, query) {
  const given = Object.entries(query || {}).filter(([, value]) => known(value) && value !== "" && value !== false);
  const text = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return `#/${page}${text ? `?${text}` : ""}`;
}

function here() {
  const [page, text] = location.hash.replace(/^#\/?/, "").split(/\?(.*)/s);
  return { page: page || "curves", query: Object.fromEntries(new URLSearchParams(text || "")) };
}

const named = (one) => ({ run: one.run, step: one.step, index: one.index });
const total = (values) => values.reduce((sum, value) => sum + value, 0);
const runClass = (label) => `run-${Math.max(0, runs.findIndex((run) => run.label === label)) % 4}`;
const swatch = (label) => h("span", { class: `swatch ${runClass(label)}`, "aria-hidden": "true" });

// What a part of a run's scores is, if its environment says so.
function partOf(label, name) {
  const { parts } = runs.find((run) => run.label === label) || { parts: {} };
  return Object.hasOwn(parts, name) ? parts[name] : null;
}

const low = (value) => known(value) && value < 0.5;

function bars(parts, label) {
  return h("div", { class: "bars" }, Object.entries(parts).filter(([, value]) => known(value)).map(([name, value]) => {
    const fill = h("div", { class: low(value) ? "fill low" : "fill" });
    fill.style.width = `${100 * Math.min(1, Math.max(0, value))}%`;
    return h("div", { class: "bar", title: partOf(label, name) || name }, h("span", { class: "name" }, name),
      h("span", { class: "track", "aria-hidden": "true" }, fill), h("span", { class: low(value) ? "number bad" : "number" }, fixed(value, 2)));
  }));
}
