// Convolution arithmetic: a window on a grid, the formula for the output's size, and pixels times weights.

const SETTINGS = [
  ["input_size", "Input W"], ["kernel_size", "Kernel F"], ["stride", "Stride S"], ["padding", "Padding P"],
  ["dilation", "Dilation D"],
];

const MODES = [["sizes", "sizes"], ["convolution", "convolution"], ["transposed", "transposed"], ["max", "max pooling"],
  ["average", "average pooling"]];
const COLOURS = ["red", "green", "blue"];
const FILTERS = { // weight of tap (i, j) of a kernel of size F, for colour c
  "vertical edges": (i, j, F) => Math.sign(j - (F - 1) / 2),
  "horizontal edges": (i, j, F) => Math.sign(i - (F - 1) / 2),
  "mean": (i, j, F) => 1 / (3 * F * F),
  "sharper": (i, j, F) => (i === F >> 1 && j === F >> 1 ? 1 : 0) * (2 / 3) - 1 / (3 * F * F),
  "red, not blue": (i, j, F, c) => [1, 0, -1][c] / (F * F),
};
const rounded = (number) => Number(number.toFixed(3));
export function filterWeights(name, F) {
  return COLOURS.flatMap((_, c) => Array.from({ length: F * F }, (_, k) => rounded(FILTERS[name](Math.floor(k / F), k % F, F, c))));
}

// Length of the output along one axis, in any mode.
export function lengthIn(mode, { input_size: W, kernel_size: F, stride: S, padding: P, dilation: D }) {
  return mode === "transposed" ? (W - 1) * S - 2 * P + D * (F - 1) + 1 : outputSize(W, F, S, P, D);
}

// Where each tap (i, j) of the kernel meets the input for output unit (row, column): [i, j, y, x], y = -1 outside of it; a
// transposed convolution has only those taps that come from a pixel.
export function tapsOf(mode, { input_size: W, kernel_size: F, stride: S, padding: P, dilation: D }, row, column) {
  const along = (place, k) => (mode === "transposed" ? (place + P - k * D) / S : place * S - P + k * D);
  const taps = [];
  for (let i = 0; i < F; i++) for (let j = 0; j < F; j++) {
    const [y, x] = [along(row, i), along(column, j)];
    const inside = Number.isInteger(y) && Number.isInteger(x) && y >= 0 && y < W && x >= 0 && x < W;
    if (inside) taps.push([i, j, y, x]);
    else if (mode !== "transposed") taps.push([i, j, -1, -1]);
  }
  return taps;
}

// What each colour gives output unit (row, column): a sum of pixels times weights, a maximum, or a mean.
export function unitValues(mode, pixels, weights, setting, row, column) {
  const { input_size: W, kernel_size: F } = setting;
  const taps = tapsOf(mode, setting, row, column);
  return pixels.map((channel, c) => {
    if (mode === "max") return Math.max(...taps.filter(([, , y]) => y >= 0).map(([, , y, x]) => channel[y * W + x]));
    const weight = (i, j) => (mode === "average" ? 1 / (F * F) : weights[(c * F + i) * F + j]);
    return taps.reduce((sum, [i, j, y, x]) => sum + (y < 0 ? 0 : channel[y * W + x] * weight(i, j)), 0);
  });
}

// Columns that two neighbouring windows both read.
export const sharedColumns = (F, S, D) => (S % D ? 0 : Math.max(0, F - S / D));

// Path of a grid of `count` x `count` unit squares, or of its frame alone.
function gridPath(x, y, count, inside) {
  const lines = [`M${x} ${y}h${count}v${count}h${-count}z`];
  for (let i = 1; i < count && inside; i++) lines.push(`M${x + i} ${y}v${count}M${x} ${y + i}h${count}`);
  return lines.join("");
}

function render({ model, el }) {
  const read = () => Object.fromEntries(SETTINGS.map(([name]) => [name, model.get(name)]));
  const mode = () => model.get("mode");
  const pooling = () => ["max", "average"].includes(mode());
  const refused = () => { // what PyTorch has no such layer for
    const { kernel_size, padding, dilation } = read();
    if (pooling() && 2 * padding > kernel_size) return `Pooling over ${kernel_size} allows a padding of at most ${kernel_size >> 1}, not ${padding}.`;
    return mode() === "average" && dilation > 1 && "Average pooling has no dilation.";
  };
  const result = () => (refused() ? 0 : Math.max(0, lengthIn(mode(), read())));
  const place = (axis) => Math.min(model.get("unit")[axis], Math.max(0, result() - 1));

  const limits = model.get("data").limits;
  const controls = SETTINGS.map(([name, label]) => numberControl(model, name, label, () => limits[name]));
  const within = () => [0, Math.max(0, result() - 1)];
  const axis = (i) => ({ get: () => place(i), save_changes: () => model.save_changes(),
    set: (_, value) => model.set("unit", i ? [place(0), value] : [value, place(1)]) });
  const filterId = freshId();
  const filter = html("select", { id: filterId, change: () => filter.value && put(model, { weights: filterWeights(filter.value, model.get("kernel_size")) }) },
    ["", ...Object.keys(FILTERS)].map((name) => html("option", { value: name }, name || "your own")));
  const filterBox = html("div", { class: "cx-select" }, html("label", { for: filterId }, "Weights"), filter);
  const weights = () => {
    const [own, F] = [model.get("weights"), model.get("kernel_size")];
    return own.length === 3 * F * F ? own : filterWeights("vertical edges", F);
  };
  filterBox.sync = () => {
    filterBox.hidden = !["convolution", "transposed"].includes(mode());
    filter.value = Object.keys(FILTERS).find((name) => filterWeights(name, model.get("kernel_size")).join() === weights().join()) ?? "";
  };
  const { pixels: stored } = model.get("data");
  controls.push(numberControl(axis(0), "row", "Window row", within), numberControl(axis(1), "column", "Window column", within));
  if (stored) controls.unshift(selectControl(model, "mode", "Show", MODES));
  controls.push(filterBox);

  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Slide the window";
    status.removeAttribute("aria-live");
  };
  const step = () => {
    const size = result();
    if (size < 1) return stop();
    const next = place(0) * size + place(1) + 1;
    if (next >= size * size) stop();
    put(model, { unit: [Math.floor((next % (size * size)) / size), next % size] });
  };
  const play = button("Slide the window", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    status.setAttribute("aria-live", "off"); // a screen reader would hear every step
    timer = setInterval(step, 350);
    step();
  });

  const drawing = svg("svg", { class: "cx-drawing", role: "img", pointerdown: point, pointermove: point });
  const formula = html("div", { class: "cx-formula" });
  const status = html("p", { role: "status", class: "cx-status" });
  let geometry = null;

  function point(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const { cells, padded, size, left, top, kernelSpan } = geometry;
    if (size < 1) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const { stride } = read();
    let [row, column] = [at.y - top, at.x - left];
    if (at.x < cells + 0.05 * cells) {
      const offset = (cells - padded) / 2 + (mode() === "transposed" ? 0 : kernelSpan / 2);
      [row, column] = [at.y - offset, at.x - offset].map((along) => (mode() === "transposed" ? along * stride : along / stride + 0.5));
    }
    const clamp = (number) => Math.min(size - 1, Math.max(0, Math.floor(number)));
    put(model, { unit: [clamp(row), clamp(column)] });
  }

  // --- values ---

  const bytes = stored && Uint8Array.from(atob(stored), (letter) => letter.charCodeAt(0));
  const side = stored && Math.sqrt(bytes.length / 3);
  const edgeOf = () => (mode() === "transposed" ? 0 : model.get("padding"));
  // The photograph at W x W pixels, 0 to 1, one array for each colour.
  const pixelsAt = (W) => COLOURS.map((_, c) => Array.from({ length: W * W }, (_, i) =>
    bytes[3 * (Math.floor((Math.floor(i / W) * side) / W) * side + Math.floor(((i % W) * side) / W)) + c] / 255));
  // All output values: three maps of pooling, one of convolution, from 0 to 1 for the eye.
  function outputOf(pixels, size) {
    const setting = read();
    const kernel = weights();
    const all = Array.from({ length: size * size }, (_, i) => unitValues(mode(), pixels, kernel, setting, Math.floor(i / size), i % size));
    if (pooling()) return COLOURS.map((_, c) => all.map((values) => values[c]));
    const sums = all.map((values) => values.reduce((a, b) => a + b));
    const [low, high] = [Math.min(...sums), Math.max(...sums)];
    return Array(3).fill(sums.map((sum) => (high > low ? (sum - low) / (high - low) : 0.5)));
  }
  function bitmap(maps, length, x, y) {
    const canvas = html("canvas", { width: length, height: length });
    const image = new ImageData(length, length);
    for (let i = 0; i < length * length; i++) image.data.set([...maps.map((map) => 255 * map[i]), 255], 4 * i);
    canvas.getContext("2d").putImageData(image, 0, 0);
    return svg("image", { href: canvas.toDataURL(), x, y, width: length, height: length, preserveAspectRatio: "none", class: "cx-pixels" });
  }
  const terms = html("div", { class: "cx-values" });
  const signedText = (number) => rounded(number).toFixed(3).replace("-", "\u2212");

  // Pixel times weight for every tap, a table for each colour, and their sum. Fields stay while one types in them.
  let shape = "";
  function drawTerms(pixels, size, row, column) {
    const setting = read();
    const { input_size: W, kernel_size: F } = setting;
    terms.hidden = !size || !pixels;
    if (terms.hidden) return;
    const kernel = weights();
    const taps = Object.fromEntries(tapsOf(mode(), setting, row, column).map((tap) => [tap[0] * F + tap[1], tap]));
    const values = unitValues(mode(), pixels, kernel, setting, row, column);
    const large = F > 5;
    const now = `${mode()} ${F}`;
    if (now !== shape) {
      shape = now;
      const cell = (c, k) => html("td", {}, html("div", { class: "cx-cell" }, html("span", { "data-pixel": `${c}-${k}` }),
        !pooling() && html("input", { type: "number", step: 0.1, "aria-label": `Weight of ${COLOURS[c]}, row ${Math.floor(k / F)}, column ${k % F}`,
          "data-weight": c * F * F + k, input: (event) => {
            const value = event.target.valueAsNumber;
            if (Number.isFinite(value)) put(model, { weights: weights().map((old, i) => (i === c * F * F + k ? value : old)) });
          } })));
      terms.replaceChildren(
        large ? html("p", { class: "cx-soft" }, `A kernel of ${F}\u00d7${F} has too many terms to show; choose 5 or less to see them.`)
          : html("div", { class: "cx-channels" }, COLOURS.map((name, c) => html("table", { class: "cx-grid-table" },
            html("caption", {}, `${name}${pooling() ? "" : ": pixel and weight"}`),
            html("tbody", {}, Array.from({ length: F }, (_, i) => html("tr", {}, Array.from({ length: F }, (_, j) => cell(c, i * F + j)))))))),
        html("p", { class: "cx-total" }));
    }
    for (const span of terms.querySelectorAll("[data-pixel]")) {
      const [c, k] = span.dataset.pixel.split("-").map(Number);
      const [, , y, x] = taps[k] ?? [0, 0, -1];
      const value = pixels[c][y * W + x];
      span.textContent = y >= 0 ? value.toFixed(2) : !taps[k] ? "\u2013" : mode() === "max" ? "none" : "0";
      span.parentNode.classList.toggle("cx-outside", y < 0);
      span.parentNode.classList.toggle("cx-winner", mode() === "max" && value === values[c]);
    }
    for (const field of terms.querySelectorAll("[data-weight]")) {
      if (field.valueAsNumber !== kernel[field.dataset.weight]) field.value = kernel[field.dataset.weight];
    }
    const parts = values.map((value, c) => `${COLOURS[c]} ${signedText(value)}`);
    terms.lastChild.textContent = pooling() ? `${mode() === "max" ? "Largest values" : `Means of ${F * F} values, padding counted as zeros`}: ${parts.join(", ")}. Channels stay apart.`
      : `Sum of pixel times weight: ${parts.join(" + ")} = ${signedText(values.reduce((a, b) => a + b))}: one number from all three channels.`;
  }

  function update() {
    const { input_size: W, kernel_size: F, stride: S, padding: P, dilation: D } = read();
    const size = result();
    const kernelSpan = D * (F - 1) + 1;
    const padded = mode() === "transposed" ? W : W + 2 * P;
    const [row, column] = [place(0), place(1)];

    // The two grids to one scale, each in the middle of its half of the picture.
    const cells = Math.max(padded, size, kernelSpan);
    const corner = (cells - padded) / 2;
    const left = 1.1 * cells + (cells - size) / 2;
    const top = (cells - size) / 2;
    geometry = { cells, padded, size, left, top, kernelSpan };
    const edge = 0.02 * cells;
    drawing.setAttribute("viewBox", `${-edge} ${-edge} ${2.1 * cells + 2 * edge} ${cells + 2 * edge}`);
    const parts = [
      svg("path", { class: "cx-padding", d: gridPath(corner, corner, padded, cells <= 64) }),
      svg("path", { class: "cx-grid", d: gridPath(corner + edgeOf(), corner + edgeOf(), W, cells <= 64) }),
    ];
    const showValues = mode() !== "sizes";
    const pixels = showValues && pixelsAt(W);
    if (showValues) parts.push(bitmap(pixels, W, corner + edgeOf(), corner + edgeOf()));
    let [y, x] = size ? [corner + row * S, corner + column * S] : [corner, corner];
    const taps = [];
    let [high, wide] = [kernelSpan, kernelSpan];
    if (mode() === "transposed") { // the pixels whose stamps cover the unit
      const used = size ? tapsOf("transposed", read(), row, column) : [];
      [y, x] = [2, 3].map((i) => corner + Math.min(...used.map((tap) => tap[i]), W - 1));
      [high, wide] = [y, x].map((first, i) => Math.max(1, ...used.map((tap) => tap[2 + i] + corner - first + 1)));
      for (const [, , i, j] of used) taps.push(`M${corner + j} ${corner + i}h1v1h-1z`);
    } else for (let i = 0; i < F; i++) for (let j = 0; j < F; j++) taps.push(`M${x + j * D} ${y + i * D}h1v1h-1z`);
    const halo = (place) => showValues && svg("rect", { class: "cx-halo", ...place }); // an orange line over a brown cat is hard to see
    const windowAt = { x, y, width: wide, height: high };
    parts.push(taps.length && halo(windowAt), taps.length && svg("path", { class: showValues ? "cx-taps cx-clear" : "cx-taps", d: taps.join("") }),
      taps.length && svg("rect", { class: size ? "cx-window" : "cx-window cx-wrong", ...windowAt }));
    if (size && showValues) parts.push(bitmap(outputOf(pixels, size), size, left, top));
    const unitAt = { x: left + column, y: top + row, width: 1, height: 1 };
    if (size) parts.push(
      !showValues && svg("path", { class: "cx-grid", d: gridPath(left, top, size, cells <= 64) }),
      halo(unitAt), svg("rect", { class: showValues ? "cx-unit cx-clear" : "cx-unit", ...unitAt }),
      taps.length && svg("path", { class: "cx-beam", d: [[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) =>
        `M${x + j * wide} ${y + i * high}L${left + column + j} ${top + row + i}`).join("") }));
    drawing.replaceChildren(...parts.filter(Boolean));
    drawTerms(pixels, size, row, column);

    const kernel = D === 1 ? "F" : "(D(F \u2212 1) + 1)";
    const numbers = `(${W} \u2212 ${kernelSpan} + 2\u00b7${P}) / ${S}`;
    const quotient = (padded - kernelSpan) / S;
    const transposed = mode() === "transposed";
    if (transposed) formula.replaceChildren(html("div", {}, `W\u2032 = (W \u2212 1)S \u2212 2P + ${kernel.replace(/^\((.*)\)$/, "$1")}`),
      html("div", {}, `= ${W - 1}\u00b7${S} \u2212 2\u00b7${P} + ${kernelSpan} = `, html("strong", {}, size ? `${size}` : "no output")));
    else formula.replaceChildren(
      html("div", {}, `W\u2032 = \u230a(W \u2212 ${kernel} + 2P) / S\u230b + 1`),
      html("div", {}, size
        ? `= \u230a${numbers}\u230b + 1 = \u230a${Number(quotient.toFixed(2))}\u230b + 1 = `
        : `= \u230a${numbers}\u230b + 1: `,
      html("strong", {}, size ? `${size}` : "no output")));

    const say = [];
    if (refused()) say.push(refused());
    else if (!size && transposed) say.push(`The padding of ${P} cuts away all of the output.`);
    else if (transposed) {
      say.push(`Input ${W}\u00d7${W}, output ${size}\u00d7${size}: every pixel stamps the kernel, times itself, ${plural(S, "step")} further on; `
        + `stamps that overlap are added. Unit (${row}, ${column}) ${taps.length ? `gets ${plural(taps.length, "pixel")}` : "lies between the stamps and gets no pixel"}.`);
    } else if (!size) {
      const fitting = Math.floor((padded - 1) / D) + 1;
      say.push(`The kernel spans ${plural(kernelSpan, "value")}, but the padded input has only ${padded}.`,
        `Make the kernel at most ${fitting}, or the padding at least ${Math.ceil((kernelSpan - W) / 2)}.`);
    } else {
      const unused = (padded - kernelSpan) % S;
      const shared = sharedColumns(F, S, D);
      say.push(`Input ${W}\u00d7${W}, output ${size}\u00d7${size}.`);
      say.push(`The window of unit (${row}, ${column}) starts at input row ${signed(row * S - P)}, `
        + `column ${signed(column * S - P)}.`);
      say.push(shared > 0 ? `Neighbouring windows share ${shared} of ${plural(F, "column")}.`
        : D > 1 ? `Neighbouring windows share none of the ${plural(F, "column")} that each reads.`
        : S === F ? "Neighbouring windows touch without overlap."
        : `Between neighbouring windows ${plural(S - F, "column")} ${S - F === 1 ? "goes" : "go"} unread.`);
      if (unused) say.push(`The last ${unused === 1 ? "row and column" : `${unused} rows and columns`} of the padded input `
        + "are never reached: the division leaves a remainder.");
      else if (size === W) say.push("The output is as large as the input.");
    }
    status.classList.toggle("cx-wrong", !size);
    status.textContent = say.join(" ");
    drawing.setAttribute("aria-label", `Input grid of ${W} by ${W} with padding ${P}, kernel window, `
      + (size ? `and output grid of ${size} by ${size}` : "larger than the grid"));
    play.disabled = size < 1;
  }

  return mount({ model, el }, {
    name: "convolution", title: "Convolution arithmetic", controls, update, stop,
    body: [drawing, html("div", { class: "cx-row" }, formula, play), status, terms],
  });
}

export default { render };
