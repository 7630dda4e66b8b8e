// One photograph through a trained network, in the page: maps, units, sums, and what happens when a part is switched off.

const MOST_MAPS = 256; // of a layer, shown at once
const CELLS = 8; // of occlusion, along each side
// Colours of a share from -1 (orange) to 0 (white) and 1 (blue), as the four bytes of a pixel: share 0 stands at 255.
const COLOURS = Uint32Array.from({ length: 511 }, (_, i) => {
  const [r, g, b] = (i < 255 ? [213, 94, 0] : [0, 114, 178]).map((colour) => Math.round(255 + ((colour - 255) * Math.abs(i - 255)) / 255));
  return (255 << 24) | (b << 16) | (g << 8) | r;
});
const SHADES = { // what the brightness over the picture means
  "Grad-CAM": (name) => `; bright where the last maps speak for \u201c${name}\u201d`,
  "occlusion": (name) => `; bright where covering a patch takes most from \u201c${name}\u201d`,
};
const TERMS = 3; // channels of a sum that are written out, those that matter most
const NAMES = { conv: "convolution", linear: "fully connected", maxpool: "max pooling", avgpool: "average pooling", adaptive: "average pooling",
  affine: "batch norm", cat: "concatenation", mean: "mean", norm: "length (root of the sum of squares)", lrn: "local response norm", layer_norm: "layer norm", permute: "reordering",
  reshape: "reshaping", pad: "padding", slice: "a part", input: "the picture" };
export const nameOf = ({ op, kind, groups, shape }) => (op === "act" ? { hardtanh: "ReLU6", relu: "ReLU", silu: "SiLU", gelu: "GELU" }[kind] ?? kind
  : op === "gather" ? kind : op === "binary" ? { add: "addition", mul: "multiplication (gate)", sub: "subtraction", div: "division" }[kind]
  : op === "conv" && groups > 1 ? (groups === shape[1] ? "depthwise convolution" : `convolution in ${groups} groups`) : NAMES[op] ?? op);

// Terms of a convolution by input channel, those with the largest sums first: [{channel, sum, terms}]; others each by itself.
export function groupedTerms({ terms, kernel, channels }) {
  if (!kernel) return terms.map((term, i) => ({ channel: i, sum: term.value * term.weight, terms: [term] }))
    .sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  const size = kernel[0] * kernel[1];
  return channels.map((channel, k) => {
    const own = terms.slice(k * size, (k + 1) * size);
    return { channel, terms: own, sum: own.reduce((sum, term) => sum + term.value * term.weight, 0) };
  }).sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
}

// The engine in a worker, or, where a page allows none, beside the page's own work: `ask(name, ...arguments)` promises the result.
function startEngine() {
  const waiting = new Map();
  let serial = 0;
  let worker = null;
  try {
    const url = URL.createObjectURL(new Blob([`const own = (${engine})(); onmessage = ({ data: [id, name, rest] }) => {
      try { postMessage([id, own[name](...rest)]); } catch (error) { postMessage([id, null, error.message]); } };`], { type: "text/javascript" }));
    worker = new Worker(url);
    worker.onmessage = ({ data: [id, result, error] }) => {
      if (id < 0) return;
      const [resolve, reject] = waiting.get(id);
      waiting.delete(id);
      if (error) reject(new Error(error));
      else resolve(result);
    };
  } catch {
    worker = null;
  }
  const own = worker ? null : engine();
  const ask = (name, ...rest) => (own ? Promise.resolve().then(() => own[name](...rest))
    : new Promise((resolve, reject) => {
      waiting.set(serial, [resolve, reject]);
      worker.postMessage([serial++, name, rest], rest.filter((one) => one instanceof ArrayBuffer)); // bytes of a file go over, and are not copied
    }));
  return { ask, warm: () => worker?.postMessage([-1, "warm", []]), end: () => worker?.terminate() };
}

// A file beside the page, or from the notebook's kernel.
async function fetchFile(model, name) {
  if (model.files) { // a built page
    if (location.protocol === "file:") {
      throw new Error("This page was opened as a file, and a browser lets no such page read the network's weights. Open the book at its address on the web, or run: make serve.");
    }
    const answer = await fetch(new URL(name, model.files));
    if (!answer.ok) throw new Error(`The file ${name} is missing beside this page.`);
    return answer.arrayBuffer();
  }
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("No kernel answers: run the cell that made this explorer.")), 20000);
    const hear = (message, buffers) => {
      if (message.file !== name) return;
      clearTimeout(timer);
      model.off("msg:custom", hear);
      if (message.error) reject(new Error(message.error));
      else resolve(buffers[0] instanceof ArrayBuffer ? buffers[0] : buffers[0].buffer.slice(buffers[0].byteOffset, buffers[0].byteOffset + buffers[0].byteLength));
    };
    model.on("msg:custom", hear);
    model.send({ ask: name });
  });
}

function render({ model, el }) {
  const data = model.get("data");
  const get = (name) => model.get(name);
  const sizes = Object.fromEntries(data.networks.map(([name, , bytes]) => [name, bytes]));
  const { ask, warm, end } = startEngine();
  const near = new IntersectionObserver((found) => {
    if (!found.some((one) => one.isIntersecting)) return;
    near.disconnect(); // the engine gets ready while the reader comes to it
    warm();
  }, { rootMargin: "100%" });
  let graph = null; // of the network that is loaded
  let picture = null; // a square canvas of the photograph
  let answer = []; // probabilities
  let scores = [];
  let whole_ = null; // those of the whole network, while something is switched off
  let overlay = null;
  let shown = {}; // what the views of a layer show

  // --- controls ---

  const start = button("", () => open());
  start.sync = () => {
    start.hidden = graph?.name === get("network");
    start.textContent = `Fetch and run this network (${(sizes[get("network")] / 1e6).toFixed(1)} MB)`;
  };
  const network = data.networks.length > 1 && selectControl(model, "network", "Network", data.networks.map(([name, title]) => [name, title]));
  const photographs = html("fieldset", { class: "cx-photographs" }, html("legend", {}, "Photograph"),
    data.photographs.map(([name, title, href]) => html("button", { type: "button", "data-photograph": name, "aria-label": title,
      click: () => put(model, { photograph: name }) }, html("img", { src: href, alt: "", width: 48, height: 48 }))));
  photographs.sync = () => photographs.querySelectorAll("button").forEach((one) => one.setAttribute("aria-pressed", String(one.dataset.photograph === get("photograph"))));
  const upload = html("input", { type: "file", accept: "image/*", class: "cx-hidden", "aria-label": "A picture of your own",
    change: () => upload.files[0] && own(upload.files[0]) });
  const camera = button("Camera", useCamera);
  const yours = html("div", { class: "cx-row" }, button("A picture of your own", () => upload.click()), upload, camera);
  const view = selectControl(model, "overlay", "Over the picture", ["nothing", "Grad-CAM", "occlusion"].map((name) => [name, name]));
  const limits = { channel: () => [0, (graph?.nodes[node()].shape[1] ?? 1) - 1], row: () => [0, side(2) - 1], column: () => [0, side(3) - 1] };
  const place = (axis) => ({ get: () => unit()[axis], save_changes: () => model.save_changes(),
    set: (_, value) => model.set("unit", axis ? [unit()[0], value] : [value, unit()[1]]) });
  const numbers = [numberControl(model, "channel", "Channel", limits.channel), numberControl(place(0), "row", "Unit row", limits.row),
    numberControl(place(1), "column", "Unit column", limits.column)];
  const costs = Object.fromEntries(data.networks.map(([name, , , text]) => [name, text]));
  const private_ = html("p", { class: "cx-soft" });
  private_.sync = () => (private_.textContent = `Everything is computed in this page: no picture leaves it. ${costs[get("network")]}`);
  const controls = [network, photographs, yours, start].filter(Boolean);

  const node = () => (graph ? Math.min(get("layer"), graph.nodes.length - 1) : 0);
  const side = (axis) => graph?.nodes[node()].shape[axis] ?? 1;
  const unit = () => [2, 3].map((axis) => Math.min(get("unit")[axis - 2], side(axis) - 1));
  const channel = () => Math.min(get("channel"), limits.channel()[1]);
  // The last layer has one channel a class.
  const channelName = () => `channel ${channel()}${node() === graph.nodes.length - 1 ? ` (${graph.classes[channel()]})` : ""}`;
  const element = () => (channel() * side(2) + unit()[0]) * side(3) + unit()[1];

  let timer = null;
  const halt = () => {
    clearInterval(timer);
    timer = null;
    slide.textContent = "Slide the window";
    status.removeAttribute("aria-live");
  };
  const slide = button("Slide the window", () => {
    if (timer) return halt();
    slide.textContent = "Stop";
    status.setAttribute("aria-live", "off"); // a screen reader would hear every step
    timer = setInterval(() => {
      const next = (unit()[0] * side(3) + unit()[1] + 1) % (side(2) * side(3));
      put(model, { unit: [Math.floor(next / side(3)), next % side(3)] });
    }, 350);
  });
  slide.sync = () => (slide.hidden = side(2) * side(3) < 2);

  // --- drawing ---

  const canvas = (label, more) => html("canvas", { role: "img", "aria-label": label, ...more });
  const dragged = { pointerdown: pick, pointermove: (event) => event.buttons && pick(event) };
  const scene = canvas("The photograph", dragged);
  const sceneCaption = html("figcaption", {});
  const map = canvas("One map", dragged);
  const mosaic = canvas("All maps of the layer", { click(event) {
    const box = mosaic.getBoundingClientRect();
    const across = Math.ceil(Math.sqrt(Math.min(MOST_MAPS, side(1))));
    const index = Math.floor(((event.clientY - box.top) / box.height) * Math.ceil(Math.min(MOST_MAPS, side(1)) / across)) * across
      + Math.floor(((event.clientX - box.left) / box.width) * across);
    put(model, { channel: Math.min(index, limits.channel()[1]) });
  } });
  function pick(event) {
    const box = event.target.getBoundingClientRect();
    put(model, { unit: [[event.clientY - box.top, box.height, 2], [event.clientX - box.left, box.width, 3]].map(([at, length, axis]) =>
      Math.max(0, Math.min(side(axis) - 1, Math.floor((at / length) * side(axis))))) });
  }

  // Values as colours, map by map: zero is white, what is farthest from it blue, or orange where it is negative.
  function paint(target, values, count, height, width, gap = 1) {
    const across = Math.ceil(Math.sqrt(count));
    const down = Math.ceil(count / across);
    target.width = across * (width + gap) - gap;
    target.height = down * (height + gap) - gap;
    const image = new ImageData(target.width, target.height);
    const pixels = new Uint32Array(image.data.buffer);
    for (let c = 0; c < count; c++) {
      let largest = 1e-9;
      for (let i = c * height * width; i < (c + 1) * height * width; i++) largest = Math.max(largest, Math.abs(values[i] || 0));
      for (let y = 0; y < height; y++) {
        const [from, to] = [(c * height + y) * width, (Math.floor(c / across) * (height + gap) + y) * target.width + (c % across) * (width + gap)];
        for (let x = 0; x < width; x++) pixels[to + x] = COLOURS[Math.round(255 * (1 + (values[from + x] || 0) / largest))];
      }
    }
    target.getContext("2d").putImageData(image, 0, 0);
  }

  // One map, enlarged, with a square around some places: first row and column, rows and columns.
  function paintMarked(target, values, height, width, wide, [row, column, rows, columns]) {
    const small = html("canvas");
    paint(small, values, 1, height, width);
    const scale = Math.ceil(wide / Math.max(height, width));
    Object.assign(target, { width: scale * width, height: scale * height });
    const pen = target.getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, 0, 0, target.width, target.height);
    Object.assign(pen, { strokeStyle: "#000", lineWidth: 3 });
    pen.strokeRect(column * scale, row * scale, columns * scale, rows * scale);
    return target;
  }

  async function drawScene() {
    const wide = 448;
    Object.assign(scene, { width: wide, height: wide });
    const pen = scene.getContext("2d");
    if (picture) pen.drawImage(picture, 0, 0, wide, wide);
    if (overlay) {
      const { height, width, map: values, kind } = overlay;
      const [low, high] = [kind === "Grad-CAM" ? 0 : Math.min(...values), Math.max(...values)];
      const shade = html("canvas", { width, height });
      const image = new ImageData(width, height);
      values.forEach((value, i) => {
        const share = high > low ? (value - low) / (high - low) : 1;
        image.data.set([0, 0, 0, 200 * (1 - share)], 4 * i); // dark where nothing speaks for the class
        if (kind === "occlusion") image.data.set([0, 0, 0, 200 * share], 4 * i); // dark where hiding changes nothing
      });
      shade.getContext("2d").putImageData(image, 0, 0);
      pen.drawImage(shade, 0, 0, wide, wide);
    }
    sceneCaption.textContent = `The picture, and what the unit sees of it${overlay && graph ? SHADES[overlay.kind](graph.classes[overlay.aim]) : ""}`;
    if (!graph || !shown.field) return;
    const [, , H, W] = graph.nodes[0].shape;
    const [[top, bottom], [left, right]] = shown.field;
    for (const [style, line] of [["white", 5], ["#d55e00", 3]]) {
      Object.assign(pen, { strokeStyle: style, lineWidth: line });
      pen.strokeRect((left / W) * wide, (top / H) * wide, ((right - left + 1) / W) * wide, ((bottom - top + 1) / H) * wide);
    }
  }

  // --- what is asked for ---

  const status = html("p", { role: "status", class: "cx-status" }, "Nothing has been fetched yet: the page fetches the network when you ask for it.");
  const fail = (error) => {
    status.classList.add("cx-wrong");
    status.textContent = error.message;
  };
  async function open() {
    const [name, before] = [get("network"), graph];
    status.classList.remove("cx-wrong");
    status.textContent = `Fetching ${name} \u2026`;
    try {
      const weights = fetchFile(model, `${name}.safetensors`);
      weights.catch(() => null); // where both files are missing, always the first is named
      const photograph = fetchBitmap(get("photograph")).catch(() => null); // what is wrong with it is said below
      const next = JSON.parse(new TextDecoder().decode(await fetchFile(model, `${name}.json`)));
      const bytes = await weights;
      await photograph;
      const loading = ask("load", next, bytes);
      graph = next;
      const answering = choosePhotograph();
      buildLayers(); // while the worker is busy
      start.sync();
      detail.sync(); // there are units now
      await loading;
      await answering;
    } catch (error) {
      if (graph !== before) {
        graph = null; // nor does the worker have one
        detail.hidden = true;
        layers.replaceChildren();
        start.sync();
      }
      fail(error);
    }
  }

  const bitmaps = {}; // of the photographs that were looked at, and of the reader's own
  let owned = 0; // pictures of the reader's own so far
  let picked = ""; // which photograph, for which network, the worker has or will have
  const wanted = () => `${graph?.name} ${get("photograph")} ${owned}`;
  const fetchBitmap = async (name) => (bitmaps[name] ??= await createImageBitmap(new Blob([await fetchFile(model, `${name}.jpg`)])));

  // The middle of the photograph goes to the worker, which does one thing after another. If another was chosen meanwhile, that one counts.
  async function choosePhotograph() {
    const mine = (picked = wanted());
    try {
      const bitmap = bitmaps[get("photograph")] ?? (await fetchBitmap(get("photograph")));
      if (mine !== picked) return;
      const { width, height } = bitmap;
      const square = Math.min(width, height);
      const wide = Math.min(square, 1024);
      picture = html("canvas", { width: wide, height: wide });
      const pen = picture.getContext("2d", { willReadFrequently: true });
      pen.drawImage(bitmap, (width - square) / 2, (height - square) / 2, square, square, 0, 0, wide, wide);
      await Promise.all([ask("see", pen.getImageData(0, 0, wide, wide).data, wide), compute()]);
    } catch (error) {
      picked = ""; // to be tried again
      fail(error);
    }
  }

  let computed = "";
  async function compute() {
    const [mine, off, begin] = [key(), get("off"), performance.now()];
    const slow = setTimeout(() => (status.textContent = "Computing \u2026"), 250);
    try {
      [whole_, answer, scores] = await Promise.all([off.length ? ask("run", null, []) : null, ask("run", null, off), ask("value", graph.nodes.length - 1)]);
      answers.dataset.milliseconds = Math.round(performance.now() - begin);
      computed = mine;
      drawAnswer();
      await painted(); // the answer first, and the maps after it
      await explainOverlay();
    } finally {
      clearTimeout(slow);
    }
    await showLayer();
    thumbnails();
  }
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  const key = () => `${wanted()} ${get("off").join()}`;
  const target = () => (get("target") >= 0 && get("target") < answer.length ? get("target") : answer.indexOf(Math.max(...answer)));

  async function explainOverlay() {
    const [kind, aim] = [get("overlay"), target()];
    const now = `${computed} ${kind} ${aim}`;
    if (overlay?.key === now) return;
    overlay = null;
    if (kind === "Grad-CAM") overlay = await ask("gradCam", aim).catch((error) => void fail(error));
    if (kind === "occlusion") overlay = await ask("occlusion", null, aim, CELLS, get("off"));
    if (overlay) Object.assign(overlay, { key: now, kind, aim });
  }

  async function showLayer() {
    const id = node();
    const [values, told, field] = await Promise.all([ask("value", id), ask("explain", id, element()), ask("field", id, element())]);
    const [others, parts] = await Promise.all([Promise.all(graph.nodes[id].from.map((from) => ask("value", from))),
      told.kernel && Promise.all(groupedTerms(told).slice(0, TERMS).map((group) => ask("part", id, channel(), group.channel)))]);
    shown = { id, values, told, field, others, parts };
    draw();
  }

  // --- the views ---

  const layers = html("div", { class: "cx-strip", role: "group", "aria-label": "Layers in forward order; arrow keys go from one to the next", keydown(event) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(Math.max(0, Math.min(graph.nodes.length - 1, node() + step)));
    cards[node()].focus();
  } });
  const detail = html("div", { class: "cx-detail", hidden: true });
  const answers = html("div", { class: "cx-answers", role: "group", "aria-label": "The answer" });
  const sum = html("div", { class: "cx-sum" });
  const inputs = html("div", { class: "cx-inputs" });
  const sources = html("div", { class: "cx-row cx-switches", role: "group", "aria-label": "What this layer reads" });
  const switches = html("div", { class: "cx-row cx-switches" });
  const title = html("h4", {});
  const range = html("span", {});
  detail.append(html("div", { class: "cx-two" },
    html("figure", {}, scene, sceneCaption, view), answers),
  html("div", { class: "cx-layer" }, title, sources, html("div", { class: "cx-maps" },
    html("figure", {}, mosaic, html("figcaption", {}, "All maps: press one. White is zero, blue above it, orange below; each map by itself")), html("figure", {}, map, html("figcaption", {}, range)), inputs)),
  html("div", { class: "cx-controls" }, numbers, slide), switches, sum);
  detail.sync = () => [...numbers, slide, view].forEach((control) => control.sync());
  controls.push(private_, detail); // its parts are controls, but it stands below

  let cards = [];
  function buildLayers() {
    cards = graph.nodes.map((one, id) => {
      const small = html("canvas", { "aria-hidden": "true", width: 1, height: 1 });
      return html("button", { type: "button", "data-node": id, click: () => choose(id) }, small,
        html("span", {}, nameOf(one)), html("small", {}, one.shape.slice(1).join("\u00d7")));
    });
    layers.replaceChildren(...cards);
    detail.hidden = false;
  }
  // Another layer, and its unit at the same place of the picture.
  function choose(id) {
    const shape = graph.nodes[id].shape;
    put(model, { layer: id, unit: unit().map((at, axis) => Math.floor(((at + 0.5) / side(axis + 2)) * (shape[axis + 2] ?? 1))) });
  }
  async function thumbnails() {
    for (const [id, { shape }] of graph.nodes.entries()) {
      const values = await ask("value", id);
      const [, C, H = 1, W = 1] = shape;
      const small = cards[id]?.querySelector("canvas");
      if (!small) return;
      if (shape.length === 4) paint(small, values, Math.min(C, 9), H, W);
      else paint(small, values, 1, Math.ceil(Math.sqrt(C)), Math.floor(Math.sqrt(C)) || 1);
    }
  }

  const text = (number) => (Math.abs(number) < 5e-4 ? "0" : number.toFixed(3)).replace("-", "\u2212");
  const percent = (share) => `${(100 * share).toFixed(1)}%`;
  const toggle = (what) => put(model, { off: get("off").includes(what) ? get("off").filter((one) => one !== what) : [...get("off"), what] });
  const describe = (what) => {
    const [, id, mark, number] = /^(\d+)([:<])(\d+)$/.exec(what);
    const one = graph.nodes[id];
    return mark === ":" ? `channel ${number} of ${nameOf(one)} ${one.layer}` : `${pathName(one, Number(number))} into ${nameOf(one)} ${one.layer}`;
  };
  // What goes into a node with several inputs: the path that begins last is the branch, the one that only passes is the shortcut.
  function pathName(one, i) {
    if (one.op === "cat") {
      const [first, end] = [i, i + 1].map((count) => one.from.slice(0, count).reduce((sum, from) => sum + graph.nodes[from].shape[1], 0));
      return `input ${i + 1} (channels ${first} to ${end - 1})`;
    }
    if (one.kind === "mul" && one.from.length === 2) {
      const small = (id) => graph.nodes[id].shape.slice(2).every((side) => side === 1);
      if (small(one.from[0]) !== small(one.from[1])) return small(one.from[i]) ? "the gates" : "the maps";
    }
    if (one.kind !== "add") return `input ${i + 1}`;
    const shortcut = one.from.indexOf(Math.min(...one.from));
    return i === shortcut ? "the shortcut x" : "the branch F(x)";
  }

  // New contents, with the focus where it was: what is pressed by keys stays under them.
  function refill(place, ...children) {
    const at = [...place.children].indexOf(place.getRootNode().activeElement);
    place.replaceChildren(...children);
    place.children[at]?.focus();
  }

  function draw() {
    const { id, values, told } = shown;
    const one = graph.nodes[id];
    const [, C, H = 1, W = 1] = one.shape;
    title.textContent = `${nameOf(one)}${one.layer ? `, ${one.layer}` : ""}: ${one.shape.slice(1).join("\u00d7")}${one.folded ? ", its batch norm folded into the weights" : ""}`;
    cards.forEach((card, i) => {
      card.setAttribute("aria-pressed", String(i === id));
      card.tabIndex = i === id ? 0 : -1; // one stop of the tabulator for all
      card.classList.toggle("cx-read", one.from.includes(i));
    });
    paint(mosaic, values, Math.min(C, MOST_MAPS), H, W);
    const own = values.subarray(channel() * H * W, (channel() + 1) * H * W);
    range.textContent = own.length === 1 ? `This map is one unit: ${text(own[0])}` : `This map, from ${text(own.reduce((a, b) => Math.min(a, b)))} to ${text(own.reduce((a, b) => Math.max(a, b)))}: press a unit`;
    paintMarked(map, own, H, W, 256, [...unit(), 1, 1]);
    map.setAttribute("aria-label", `Channel ${channel()} of ${nameOf(one)}, ${H} by ${W} units`);
    refill(sources, ...(one.from.length ? [html("span", {}, "Reads")] : []), ...one.from.map((from, i) =>
      button(`${one.from.length > 1 ? `${pathName(one, i)}: ` : ""}${nameOf(graph.nodes[from])} ${graph.nodes[from].layer}`, () => choose(from))));
    // F(x) beside x: the inputs of the same shape, for the same channel.
    inputs.replaceChildren(...(one.from.length < 2 ? [] : one.from.map((from, i) => {
      const shape = graph.nodes[from].shape;
      if (String(shape) !== String(one.shape)) return null;
      const other = html("canvas", { role: "img", "aria-label": pathName(one, i) });
      paint(other, shown.others[i].subarray(channel() * H * W, (channel() + 1) * H * W), 1, H, W);
      return html("figure", {}, other, html("figcaption", {}, pathName(one, i)));
    }).filter(Boolean)));

    const silent = get("off");
    const choices = [...(one.op === "conv" ? [`${id}:${channel()}`] : []), ...(one.from.length > 1 ? one.from.map((_, i) => `${id}<${i}`) : [])];
    refill(switches, ...[...new Set([...choices, ...silent])].map((what) =>
      button(`${silent.includes(what) ? "Switch on again" : "Switch off"}: ${describe(what)}`, () => toggle(what), { "aria-pressed": String(silent.includes(what)) })));

    drawAnswer();
    sum.replaceChildren(...drawSum(one, told));
    const [[top, bottom], [left, right]] = shown.field, [height, width] = graph.nodes[0].shape.slice(2);
    const seen = top <= 0 && left <= 0 && bottom >= height - 1 && right >= width - 1 ? "the whole picture"
      : `rows ${signed(top)} to ${signed(bottom)}, columns ${signed(left)} to ${signed(right)}`;
    status.classList.remove("cx-wrong");
    status.textContent = `${graph.classes[target()]} ${percent(answer[target()])}${whole_ ? ` instead of ${percent(whole_[target()])}, with ${plural(silent.length, "part")} switched off` : ""}. `
      + `${nameOf(one)}, ${channelName()}, unit (${unit().join(", ")}) is ${text(told.result)}; it sees ${seen}.`;
    drawScene();
  }

  function drawAnswer() {
    const order = answer.map((share, i) => [share, i]).sort((a, b) => b[0] - a[0]).slice(0, 5);
    if (!order.some(([, i]) => i === target())) order[4] = [answer[target()], target()];
    refill(answers, html("strong", {}, "The answer"), ...order.map(([share, i]) => html("button", { type: "button",
      "aria-pressed": String(i === target()), click: () => put(model, { target: i }) },
    html("span", {}, graph.classes[i]), html("span", {}, percent(share), whole_ && html("small", {}, ` was ${percent(whole_[i])}`)),
    html("span", { class: "cx-bar cx-bar-macs", style: `width: ${percent(share)}` }))), html("p", { class: "cx-softmax" }, softmaxText()), html("p", { class: "cx-soft" },
      "Press a class: the picture is explained for it. Probabilities add up to 1 whatever the picture shows; what is none of the classes gets one, too."));
  }

  // How softmax makes a share of the chosen class's score.
  function softmaxText() {
    const power = (score) => `exp(${text(score)})`;
    const order = [...scores].sort((a, b) => b - a);
    const written = order.slice(0, order.length > 12 ? 4 : 12);
    const total = order.reduce((sum, score) => sum + Math.exp(score), 0);
    const rest = order.length - written.length;
    const plain = (number) => (number < 1000 ? `${Number(number.toPrecision(4))}` : whole(Number(number.toPrecision(4))));
    return `Softmax: ${power(scores[target()])} / (${written.map(power).join(" + ")}${rest ? ` + ${plural(rest, "smaller one")}` : ""}) `
      + `= ${plain(Math.exp(scores[target()]))} / ${plain(total)} = ${percent(answer[target()])}`;
  }

  function drawSum(one, told) {
    if (one.op === "input") return [html("p", {}, `The pixel less the mean of the training images, divided by their deviation: ${text(told.result)}.`)];
    if (told.rule === "act") return [html("p", {}, `${nameOf(one)}(${text(told.terms[0].value)}) = ${text(told.result)}`)];
    if (told.rule === "softmax") return [html("p", {}, "The exponential of this score, divided by the sum of those of all.")];
    if (told.rule === "max") return [html("p", {}, `The largest of ${told.terms.map((term) => text(term.value)).join(", ")} is ${text(told.result)}.`)];
    if (!told.terms.length) return [html("p", {}, `Padding: ${text(told.result)}.`)];
    const fromName = (term) => `${nameOf(graph.nodes[term.from])} ${graph.nodes[term.from].layer}`;
    const instead = (total) => Math.abs(total - told.result) > 1e-3 && `; a part is switched off, and it is ${text(told.result)} instead`;
    const [only] = told.terms;
    if (told.terms.length < 2 && only.weight === 1 && !told.bias && !told.kernel) {
      const [, , ...sides] = graph.nodes[only.from].shape;
      return [html("p", {}, `${text(only.value)}, unchanged, from channel ${Math.floor(only.at / sides.reduce((a, b) => a * b, 1))} of ${fromName(only)}`, instead(only.value), ".")];
    }
    const groups = groupedTerms(told);
    const written = groups.slice(0, told.kernel ? TERMS : 8);
    const rest = groups.slice(written.length);
    const restSum = rest.reduce((total, group) => total + group.sum, 0);
    const parts = [...written.map((group) => group.sum), ...(rest.length ? [restSum] : []), ...(told.bias ? [told.bias] : [])];
    const total = parts.reduce((a, b) => a + b, 0);
    const line = html("p", { class: "cx-total" }, `${parts.length > 1 ? parts.map(text).join(" + ").replaceAll("+ \u2212", "\u2212 ") : ""} = `.trimStart(),
      html("strong", {}, text(total)), instead(total),
      rest.length ? ` (${plural(rest.length, told.kernel ? "further channel" : "further term")}: ${text(restSum)}${told.bias ? `; the last is the bias ${text(told.bias)}` : ""})`
        : told.bias ? ` (the last is the bias ${text(told.bias)})` : "");
    const tables = told.kernel && told.kernel[0] * told.kernel[1] <= 49 && written.map((group, i) => html("div", {}, html("table", {},
      html("caption", {}, `channel ${group.channel}: ${text(group.sum)}`),
      html("tbody", {}, Array.from({ length: told.kernel[0] }, (_, i) => html("tr", {}, group.terms.slice(i * told.kernel[1], (i + 1) * told.kernel[1])
        .map((term) => html("td", { class: term.at < 0 && "cx-outside" }, html("span", {}, text(term.value)), html("small", {}, `\u00d7 ${text(term.weight)}`))))))),
    drawPart(one, group, shown.parts[i])));
    return [html("p", {}, told.kernel ? `What made it: values of ${fromName(only)} times weights, ${plural(told.terms.length, "term")}, the ${written.length > 1 ? `${written.length} channels that matter most` : "channel"} written out:`
      : written.map(({ terms: [term] }) => (one.kind === "add" && one.from.length > 1 ? `${text(term.value)} (${pathName(one, one.from.indexOf(term.from))})`
        : `${text(term.value)} \u00d7 ${text(term.weight)}`)).join(" + ") + (rest.length ? " + \u2026" : "")),
    tables && html("div", { class: "cx-kernels", tabindex: 0, role: "region", "aria-label": "Values times weights" }, tables), line].filter(Boolean);
  }

  // An input channel with the window on it, and what it adds to the map at every place.
  function drawPart(one, group, added) {
    const [, , H, W] = graph.nodes[one.from[0]].shape;
    const [, , OH, OW] = one.shape;
    if (OH * OW < 2) return null;
    const [first, span] = [[0, 1].map((axis) => unit()[axis] * one.stride[axis] - one.padding[axis]), [0, 1].map((axis) => (one.kernel[axis] - 1) * one.dilation[axis] + 1)];
    const picture = (label, values, height, width, mark) => html("figure", {}, paintMarked(canvas(label), values, height, width, 96, mark), html("figcaption", {}, label));
    return html("div", { class: "cx-inputs" },
      picture(`Channel ${group.channel} and the window`, shown.others[0].subarray(group.channel * H * W, (group.channel + 1) * H * W), H, W, [...first, ...span]),
      picture("What it adds, everywhere", added, OH, OW, [...unit(), 1, 1]));
  }

  // --- one's own picture ---

  async function own(blob) {
    try {
      bitmaps.own = await createImageBitmap(blob);
      owned++;
      if (!graph) status.textContent = "Your picture is ready; it stays in this page. Now fetch the network.";
      if (get("photograph") === "own") update();
      else put(model, { photograph: "own" });
    } catch {
      fail(new Error("That file is no picture that this browser can read."));
    }
  }
  let stream = null;
  const video = html("video", { autoplay: true, playsinline: true, muted: true, hidden: true, "aria-label": "What the camera sees" });
  const stopCamera = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = null;
    video.hidden = true;
    camera.textContent = "Camera";
  };
  async function useCamera() {
    if (stream) {
      const frame = await createImageBitmap(video);
      stopCamera();
      return own(frame);
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      Object.assign(video, { srcObject: stream, hidden: false });
      camera.textContent = "Take the picture";
    } catch {
      fail(new Error("There is no camera here, or this page may not use it."));
    }
  }

  function update() {
    if (!graph) return;
    if (graph.name !== get("network")) {
      detail.hidden = true;
      return;
    }
    detail.hidden = false;
    if (picked !== wanted()) choosePhotograph();
    else if (computed && computed !== key()) compute().catch(fail);
    else if (computed) explainOverlay().then(showLayer).catch(fail);
  }

  const unmount = mount({ model, el }, { name: "follow", title: "Follow one photograph", controls, update,
    end() {
      near.disconnect();
      end();
    },
    stop() {
      stopCamera();
      halt();
    },
    body: [video, private_, status, layers, detail] });
  const root = el.querySelector(".cx");
  near.observe(root);
  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) own(event.dataTransfer.files[0]);
  });
  return unmount;
}

export default { render };
