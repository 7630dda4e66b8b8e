// Shared by all explorers; cnnlib/widgets/base.py puts this text in front of each one's own module.

// --- formulas: the same as in cnnlib.analysis, tested equal to PyTorch's ---

// Length of the output along one axis; below 1 where the kernel does not fit.
export function outputSize(input, kernel, stride = 1, padding = 0, dilation = 1) {
  return Math.floor((input + 2 * padding - dilation * (kernel - 1) - 1) / stride) + 1;
}

// Receptive field {size, stride, start} of a layer's units, from that of its input.
export function receptiveField(field, kernel, stride = 1, padding = 0, dilation = 1) {
  return {
    size: field.size + dilation * (kernel - 1) * field.stride,
    stride: field.stride * stride,
    start: field.start - padding * field.stride,
  };
}

// Parameters of a convolution, and its multiply-adds for an output of height x width.
export function convParams(inChannels, outChannels, kernel, bias = true, groups = 1) {
  return outChannels * ((inChannels / groups) * kernel * kernel + (bias ? 1 : 0));
}
export function convMacs(inChannels, outChannels, kernel, height, width = height, groups = 1) {
  return outChannels * (inChannels / groups) * kernel * kernel * height * width;
}

// --- text ---

const { format: whole } = new Intl.NumberFormat("en-US");
const signed = (number) => (number < 0 ? "\u2212" : "") + whole(Math.abs(number));
function short(number, digits = 3) {
  if (number < 1000) return whole(number);
  const step = Math.min(4, Math.floor(Math.log10(number) / 3));
  return Number((number / 1000 ** step).toPrecision(digits)).toString() + " " + ["", "K", "M", "G", "T"][step];
}
const plural = (count, one, many = one + "s") => `${whole(count)} ${count === 1 ? one : many}`;

// --- elements ---

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null && child !== false));
  return node;
}
const TAKES_KEYS = new Set(["input", "select", "button"]);
function html(tag, attributes, ...children) {
  const node = fill(document.createElement(tag), attributes, children);
  // JupyterLab would take the arrow keys from sliders and lists for its own shortcuts; this tells it not to.
  if (TAKES_KEYS.has(tag) || attributes?.tabindex === 0) node.setAttribute("data-lm-suppress-shortcuts", "true");
  return node;
}
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

let serial = 0;
const freshId = () => `cx-${Date.now().toString(36)}-${serial++}`;

function put(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

// --- controls: each is an element whose `sync` shows the model's value ---

// A slider that a swipe does not turn: as soon as the browser takes the finger for scrolling, the value from before is back.
function sliderInput(attributes, choose) {
  let before = null;
  const slider = html("input", { type: "range", step: 1, ...attributes, input: choose,
    pointerdown: () => { before = slider.value; },
    pointercancel: (event) => {
      if (before === null || slider.value === before) return;
      slider.value = before;
      choose(event);
    } });
  return slider;
}

// A whole number: a field to type it in and a slider. `limits()` gives [least, most].
function numberControl(model, name, label, limits) {
  const id = freshId();
  const choose = (event) => {
    const value = event.target.valueAsNumber;
    const [least, most] = limits();
    if (Number.isInteger(value) && value >= least && value <= most) put(model, { [name]: value });
  };
  const field = html("input", { type: "number", id, step: 1, input: choose, change: () => node.sync() });
  const slider = sliderInput({ "aria-label": label }, choose);
  const node = html("div", { class: "cx-number" }, html("label", { for: id }, label), field, slider);
  node.sync = () => {
    const [least, most] = limits();
    for (const input of [field, slider]) Object.assign(input, { min: least, max: most });
    slider.value = model.get(name);
    if (field.valueAsNumber !== model.get(name)) field.value = model.get(name);
  };
  return node;
}

// One of a few: radio buttons in a row. `options` is [[value, text], ...].
function radioControl(model, name, label, options) {
  const group = freshId();
  const inputs = options.map(([value]) =>
    html("input", { type: "radio", name: group, value, change: () => put(model, { [name]: value }) }));
  const node = html("fieldset", { class: "cx-radio" }, html("legend", {}, label),
    inputs.map((input, i) => html("label", {}, input, html("span", {}, options[i][1]))));
  node.sync = () => inputs.forEach((input) => (input.checked = input.value === model.get(name)));
  return node;
}

// One of many.
function selectControl(model, name, label, options) {
  const id = freshId();
  const select = html("select", { id, change: () => put(model, { [name]: select.value }) },
    options.map(([value, text]) => html("option", { value }, text)));
  const node = html("div", { class: "cx-select" }, html("label", { for: id }, label), select);
  node.sync = () => (select.value = model.get(name));
  return node;
}

function checkControl(model, name, label) {
  const input = html("input", { type: "checkbox", change: () => put(model, { [name]: input.checked }) });
  const node = html("label", { class: "cx-check" }, input, html("span", {}, label));
  node.sync = () => (input.checked = model.get(name));
  return node;
}

const button = (text, click, attributes) => html("button", { type: "button", ...attributes, click }, text);

// Rows of cells as comma-separated text; null is empty.
export function csvText(head, rows) {
  const quoted = (cell) => (/[",\n]/.test(cell ?? "") ? `"${String(cell).replaceAll('"', '""')}"` : cell ?? "");
  return [head, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
}

// Offers `text` as a file.
function download(name, text, type) {
  const link = html("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --- the frame of an explorer ---

// Title, way back to the example, controls, body; `update` runs now and after changes of the model; `stop` ends what goes on by
// itself, before the way back and at the end. Returns the clean-up that `render` must return.
function mount({ model, el }, { name, title, controls, body, update, stop, end }) {
  const back = button("Back to the example", () => {
    stop?.();
    put(model, model.get("data").example);
  }, { class: "cx-link" });
  const root = html("section", { class: `cx cx-${name}`, "aria-label": title },
    html("div", { class: "cx-head" }, html("span", { class: "cx-title" }, title), back),
    html("div", { class: "cx-body" }, html("div", { class: "cx-controls" }, controls), body));
  let queued = false;
  let alive = true;
  const show = () => {
    queued = false;
    if (!alive) return;
    update();
    for (const control of controls) control.sync?.();
  };
  const soon = () => {
    if (!queued) queueMicrotask(show);
    queued = true;
  };
  show();
  el.replaceChildren(root);
  model.on("change", soon);
  return () => {
    alive = false;
    model.off("change", soon);
    stop?.();
    end?.();
    root.remove();
  };
}
