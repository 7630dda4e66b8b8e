// RepVGG's fusion: three branches on a photograph, moved into one kernel; the output is computed anew at every step.

const COLOURS = ["red", "green", "blue"];
const STAGES = ["as trained: each branch has its batch norm", "each batch norm folded into its kernel: a factor and a bias",
  "kernels of one size: zeros around the small ones"];

// Share of the way that the small branches have come, 0 to 1.
export const shareAt = (step, steps) => Math.max(0, (step - 2) / (steps - 2));

// The branches at a step: [{name, size, kernel[output][input][tap], bias[output], norm}]; `norm` only while it is not folded.
export function branchesAt(branches, step, steps) {
  const share = shareAt(step, steps);
  const count = branches[0].kernel.length;
  const now = branches.map(({ name, kernel, norm }) => {
    const plain = kernel ?? Array.from({ length: count }, (_, o) => Array.from({ length: count }, (_, i) => [Number(o === i)]));
    if (step === 0) return { name, size: Math.sqrt(plain[0][0].length), kernel: plain, bias: null, norm };
    const scale = norm.gamma.map((gamma, o) => gamma / Math.sqrt(norm.variance[o] + norm.eps));
    const folded = plain.map((inputs, o) => inputs.map((taps) => taps.map((tap) => tap * scale[o])));
    const wide = step < 2 ? folded : folded.map((inputs) => inputs.map((taps) => (taps.length === 1 ? [0, 0, 0, 0, taps[0], 0, 0, 0, 0] : taps)));
    return { name, size: Math.sqrt(wide[0][0].length), kernel: wide, bias: norm.beta.map((beta, o) => beta - norm.mean[o] * scale[o]), norm: null };
  });
  if (!share) return now;
  const [first, ...others] = now;
  const sum = (read, factor) => others.reduce((total, other) => total + factor * read(other), read(first));
  return [
    { ...first, kernel: first.kernel.map((inputs, o) => inputs.map((taps, i) => taps.map((_, k) => sum((one) => one.kernel[o][i][k], share)))),
      bias: first.bias.map((_, o) => sum((one) => one.bias[o], share)) },
    ...others.map((other) => ({ ...other, kernel: other.kernel.map((inputs) => inputs.map((taps) => taps.map((tap) => tap * (1 - share)))),
      bias: other.bias.map((bias) => bias * (1 - share)) })),
  ].slice(0, share === 1 ? 1 : now.length);
}

// What one branch gives at output (channel, row, column); pixels are colour by colour, side x side, with zeros around them.
export function branchValue({ kernel, size, bias, norm }, pixels, side, channel, row, column) {
  let value = 0;
  const edge = (size - 1) / 2;
  kernel[channel].forEach((taps, c) => taps.forEach((tap, k) => {
    const [y, x] = [row - edge + Math.floor(k / size), column - edge + (k % size)];
    if (y >= 0 && y < side && x >= 0 && x < side) value += tap * pixels[c][y * side + x];
  }));
  if (!norm) return value + bias[channel];
  return ((value - norm.mean[channel]) / Math.sqrt(norm.variance[channel] + norm.eps)) * norm.gamma[channel] + norm.beta[channel];
}

// The block's output at a step, channel by channel, behind the ReLU.
export function outputAt(branches, pixels, side, step, steps) {
  const now = branchesAt(branches, step, steps);
  return branches[0].kernel.map((_, channel) => Array.from({ length: side * side }, (_, i) =>
    Math.max(0, now.reduce((sum, branch) => sum + branchValue(branch, pixels, side, channel, Math.floor(i / side), i % side), 0))));
}

function render({ model, el }) {
  const { branches, pixels: stored, steps } = model.get("data");
  const bytes = Uint8Array.from(atob(stored), (letter) => letter.charCodeAt(0));
  const side = Math.sqrt(bytes.length / 3);
  const pixels = COLOURS.map((_, c) => Array.from({ length: side * side }, (_, i) => bytes[3 * i + c] / 255));
  const before = outputAt(branches, pixels, side, 0, steps);
  const largest = Math.max(...before.flat(), 1e-9);
  const number = (value) => value.toFixed(2).replace(/^-0.00$/, "0.00").replace("-", "\u2212");
  const long = (value) => value.toFixed(4).replace("-", "\u2212");

  const id = freshId();
  const slider = sliderInput({ id, min: 0, max: steps }, () => put(model, { step: slider.valueAsNumber }));
  const slide = html("div", { class: "cx-slide" }, html("label", { for: id }, "From three branches to one kernel"), slider);
  slide.sync = () => {
    slider.value = model.get("step");
    slider.setAttribute("aria-valuetext", stage());
  };
  const axis = (i) => ({ get: () => model.get("unit")[i], save_changes: () => model.save_changes(),
    set: (_, value) => model.set("unit", i ? [model.get("unit")[0], value] : [value, model.get("unit")[1]]) });
  const channels = radioControl({ get: () => String(model.get("channel")), set: (_, value) => model.set("channel", Number(value)),
    save_changes: () => model.save_changes() }, "channel", "Output channel", COLOURS.map((_, c) => [String(c), String(c)]));
  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Slide them together";
    status.removeAttribute("aria-live");
  };
  const play = button("Slide them together", () => {
    if (timer) return stop();
    if (model.get("step") === steps) put(model, { step: 0 });
    play.textContent = "Stop";
    status.setAttribute("aria-live", "off"); // a screen reader would hear every step
    timer = setInterval(() => {
      if (model.get("step") >= steps - 1) stop();
      if (model.get("step") < steps) put(model, { step: model.get("step") + 1 });
    }, 400);
  });
  const controls = [slide, play, channels, numberControl(axis(0), "row", "Unit row", () => [0, side - 1]),
    numberControl(axis(1), "column", "Unit column", () => [0, side - 1])];

  const stage = () => {
    const step = model.get("step");
    return step < 3 ? STAGES[Math.min(step, 2)] : step === steps ? "one kernel with a bias" : `${Math.round(100 * shareAt(step, steps))}% of the small kernels moved into the large one`;
  };
  const canvas = (label) => html("canvas", { role: "img", width: side, height: side, "aria-label": label, pointerdown: point, pointermove: point });
  function point(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const box = event.target.getBoundingClientRect();
    put(model, { unit: [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((at) =>
      Math.max(0, Math.min(side - 1, Math.floor(at * side)))) });
  }
  const [picture, output] = [canvas("The photograph, with the window of the unit"), canvas("The output of the block, with the unit")];
  const cards = branches.map(({ name }) => html("div", { class: "cx-card", role: "group", "aria-label": `Branch ${name}` }));
  const title = html("p", { class: "cx-stage" });
  const total = html("p", { class: "cx-total" });
  const status = html("p", { role: "status", class: "cx-status" });

  function paint(target, colour, row, column, size) {
    const pen = target.getContext("2d");
    const image = pen.createImageData(side, side);
    for (let i = 0; i < side * side; i++) image.data.set([...colour(i), 255], 4 * i);
    pen.putImageData(image, 0, 0);
    const edge = (size - 1) / 2; // the frame stands over the picture, in its own pixels
    const frame = target.nextElementSibling;
    Object.assign(frame.style, { left: `${(100 * (column - edge)) / side}%`, top: `${(100 * (row - edge)) / side}%`,
      width: `${(100 * size) / side}%`, height: `${(100 * size) / side}%` });
  }
  function fillCard(card, branch, channel) {
    card.style.visibility = branch ? "" : "hidden"; // and keeps its room
    if (!branch) return;
    const most = Math.max(...branch.kernel[channel].flat().map(Math.abs), 0.5);
    card.replaceChildren(
      html("strong", {}, branch.bias && model.get("step") === steps ? "one kernel" : branch.name),
      html("div", { class: "cx-taps-of" }, branch.kernel[channel].map((taps, c) => html("table", { class: "cx-grid-table" },
        html("caption", {}, COLOURS[c]), html("tbody", {}, Array.from({ length: branch.size }, (_, i) => html("tr", {},
          taps.slice(i * branch.size, (i + 1) * branch.size).map((tap) => html("td", {},
            html("span", { class: tap < 0 ? "cx-less" : "cx-more", style: `--share: ${Math.round((100 * Math.abs(tap)) / most)}%` }, number(tap)))))))))),
      html("p", { class: "cx-soft" }, branch.bias ? `bias ${number(branch.bias[channel])}`
        : `batch norm: (v \u2212 ${number(branch.norm.mean[channel])}) / ${number(Math.sqrt(branch.norm.variance[channel] + branch.norm.eps))} \u00b7 ${number(branch.norm.gamma[channel])} + ${number(branch.norm.beta[channel])}`
          .replace("\u2212 \u2212", "+ ").replace("+ \u2212", "\u2212 ")));
  }

  function slideCards() { // the small branches beneath the first
    const share = shareAt(model.get("step"), steps);
    for (const card of cards.slice(1)) {
      card.style.transform = share ? `translate(${share * (cards[0].offsetLeft - card.offsetLeft)}px, ${share * (cards[0].offsetTop - card.offsetTop)}px)` : "";
    }
  }
  const board = html("div", { class: "cx-cards" }, cards);
  const observer = new ResizeObserver(slideCards); // at first, too, when they have their places

  function update() {
    const [step, channel, [row, column]] = [model.get("step"), model.get("channel"), model.get("unit")];
    const now = branchesAt(branches, step, steps);
    const maps = outputAt(branches, pixels, side, step, steps);
    const moved = Math.max(...maps.flatMap((map, c) => map.map((value, i) => Math.abs(value - before[c][i]))));
    paint(picture, (i) => pixels.map((map) => 255 * map[i]), row, column, 3);
    paint(output, (i) => Array(3).fill(255 - (215 * maps[channel][i]) / largest), row, column, 1);
    cards.forEach((card, i) => fillCard(card, now[i], channel));
    slideCards();
    title.textContent = `Step ${step} of ${steps}: ${stage()}.`;
    const values = now.map((branch) => branchValue(branch, pixels, side, channel, row, column));
    const sum = values.reduce((a, b) => a + b);
    total.textContent = `Unit (${row}, ${column}) of channel ${channel}: ${values.length > 1 ? `${values.map(long).join(" + ").replaceAll("+ \u2212", "\u2212 ")} = ` : ""}${long(sum)}, and ReLU makes it ${long(Math.max(0, sum))}.`;
    const taps = (kernels) => kernels.reduce((all, { kernel }) => all + (kernel?.[channel].flat().length ?? 0), 0);
    status.textContent = (step === 0 ? "The output is computed anew at every step."
      : `No value of the output has moved by as much as ${moved < 1e-12 ? "10\u207b\u00b9\u00b2" : moved.toExponential(0)}.`)
      + (step === steps ? ` A unit costs ${taps(now)} multiply-adds instead of ${taps(branches)} and three normalizations.` : "");
  }

  const framed = (target, caption) => html("figure", {}, html("div", { class: "cx-framed" }, target, html("span", { class: "cx-frame", "aria-hidden": "true" })), html("figcaption", {}, caption));
  observer.observe(board);
  return mount({ model, el }, { name: "fusion", title: "Three branches become one kernel", controls, update, stop, end: () => observer.disconnect(),
    body: [title, total, status, html("div", { class: "cx-fusing" }, framed(picture, "x: the photograph; press a place"), board, framed(output, "y: the sum behind the ReLU; darker is larger"))] });
}

export default { render };
