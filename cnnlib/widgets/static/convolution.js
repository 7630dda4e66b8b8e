// Convolution arithmetic: a window on a grid, and the formula for the output's size.

const SETTINGS = [
  ["input_size", "Input W"], ["kernel_size", "Kernel F"], ["stride", "Stride S"], ["padding", "Padding P"],
  ["dilation", "Dilation D"],
];

// Path of a grid of `count` x `count` unit squares, or of its frame alone.
function gridPath(x, y, count, inside) {
  const lines = [`M${x} ${y}h${count}v${count}h${-count}z`];
  for (let i = 1; i < count && inside; i++) lines.push(`M${x + i} ${y}v${count}M${x} ${y + i}h${count}`);
  return lines.join("");
}

function render({ model, el }) {
  const read = () => Object.fromEntries(SETTINGS.map(([name]) => [name, model.get(name)]));
  const result = () => {
    const { input_size, kernel_size, stride, padding, dilation } = read();
    return Math.max(0, outputSize(input_size, kernel_size, stride, padding, dilation));
  };
  const place = (name) => Math.min(model.get(name), Math.max(0, result() - 1));

  const limits = model.get("data").limits;
  const controls = SETTINGS.map(([name, label]) => numberControl(model, name, label, () => limits[name]));
  const within = () => [0, Math.max(0, result() - 1)];
  controls.push(numberControl(model, "row", "Window row", within), numberControl(model, "column", "Window column", within));

  let timer = null;
  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Slide the window";
  };
  const step = () => {
    const size = result();
    if (size < 1) return stop();
    const next = place("row") * size + place("column") + 1;
    if (next >= size * size) stop();
    put(model, { row: Math.floor((next % (size * size)) / size), column: next % size });
  };
  const play = button("Slide the window", () => {
    if (timer) return stop();
    play.textContent = "Stop";
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
      const offset = (cells - padded) / 2 + kernelSpan / 2;
      [row, column] = [(at.y - offset) / stride + 0.5, (at.x - offset) / stride + 0.5];
    }
    const clamp = (number) => Math.min(size - 1, Math.max(0, Math.floor(number)));
    put(model, { row: clamp(row), column: clamp(column) });
  }

  function update() {
    const { input_size: W, kernel_size: F, stride: S, padding: P, dilation: D } = read();
    const size = result();
    const kernelSpan = D * (F - 1) + 1;
    const padded = W + 2 * P;
    const [row, column] = [place("row"), place("column")];

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
      svg("path", { class: "cx-grid", d: gridPath(corner + P, corner + P, W, cells <= 64) }),
    ];
    const [y, x] = size ? [corner + row * S, corner + column * S] : [corner, corner];
    const taps = [];
    for (let i = 0; i < F; i++) for (let j = 0; j < F; j++) taps.push(`M${x + j * D} ${y + i * D}h1v1h-1z`);
    parts.push(
      svg("path", { class: "cx-taps", d: taps.join("") }),
      svg("rect", { class: size ? "cx-window" : "cx-window cx-wrong", x, y, width: kernelSpan, height: kernelSpan }));
    if (size) parts.push(
      svg("path", { class: "cx-grid", d: gridPath(left, top, size, cells <= 64) }),
      svg("rect", { class: "cx-unit", x: left + column, y: top + row, width: 1, height: 1 }),
      svg("path", { class: "cx-beam", d: [[0, 0], [0, 1], [1, 0], [1, 1]].map(([i, j]) =>
        `M${x + j * kernelSpan} ${y + i * kernelSpan}L${left + column + j} ${top + row + i}`).join("") }));
    drawing.replaceChildren(...parts);

    const kernel = D === 1 ? "F" : "(D(F \u2212 1) + 1)";
    const numbers = `(${W} \u2212 ${kernelSpan} + 2\u00b7${P}) / ${S}`;
    const quotient = (padded - kernelSpan) / S;
    formula.replaceChildren(
      html("div", {}, `W\u2032 = \u230a(W \u2212 ${kernel} + 2P) / S\u230b + 1`),
      html("div", {}, size
        ? `= \u230a${numbers}\u230b + 1 = \u230a${Number(quotient.toFixed(2))}\u230b + 1 = `
        : `= \u230a${numbers}\u230b + 1: `,
      html("strong", {}, size ? `${size}` : "no output")));

    const say = [];
    if (!size) {
      const fitting = Math.floor((padded - 1) / D) + 1;
      say.push(`The kernel spans ${plural(kernelSpan, "value")}, but the padded input has only ${padded}.`,
        `Make the kernel at most ${fitting}, or the padding at least ${Math.ceil((kernelSpan - W) / 2)}.`);
    } else {
      const unused = (padded - kernelSpan) % S;
      const overlap = kernelSpan - S;
      say.push(`Input ${W}\u00d7${W}, output ${size}\u00d7${size}.`);
      say.push(`The window of unit (${row}, ${column}) starts at input row ${signed(row * S - P)}, `
        + `column ${signed(column * S - P)}.`);
      say.push(overlap > 0 ? `Neighbouring windows share ${overlap} of ${plural(kernelSpan, "column")}.`
        : overlap === 0 ? "Neighbouring windows touch without overlap."
        : `Between neighbouring windows ${plural(-overlap, "column")} go unread.`);
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
    name: "convolution", title: "Convolution arithmetic", controls, update, end: stop,
    body: [drawing, html("div", { class: "cx-row" }, formula, play), status],
  });
}

export default { render };
