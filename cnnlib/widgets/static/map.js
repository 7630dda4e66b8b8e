// The map of architectures: one mark for each network, on two axes of the reader's choice.

const ACCURACIES = ["top1", "top5"];
const COUNTS = ["macs", "params", "activations", "milliseconds", "depth", "field"]; // may be logarithmic; less is better

// Every mark of a source as an object: those with an accuracy, then the networks of that input size without one.
export function marksOf(data, source) {
  const entry = data.sources.find(({ name }) => name === source);
  const network = (number) => Object.fromEntries(data.columns.map((name, i) => [name, data.networks[number][i]]));
  const marks = entry.marks.map(([number, label, top1, top5, low, high, from]) =>
    ({ ...network(number), label, top1, top5, low, high, from }));
  const seen = new Set(entry.marks.map(([number]) => number));
  data.networks.forEach((row, number) => {
    const mark = network(number);
    if (!seen.has(number) && entry.small === mark.side < 100) marks.push({ ...mark, label: mark.name });
  });
  return marks;
}

// The marks that no other one beats: fewer or as few of `cost` (or earlier), and more `accuracy`; cheapest first.
export function frontier(marks, cost, accuracy) {
  const best = [];
  for (const mark of [...marks].sort((a, b) => a[cost] - b[cost] || b[accuracy] - a[accuracy])) {
    if (!best.length || mark[accuracy] > best.at(-1)[accuracy]) best.push(mark);
  }
  return best;
}

// Round numbers from low to high: powers of ten and parts of them on a logarithmic scale, even steps on a linear one.
export function ticks(low, high, log, most = 7) {
  if (log) {
    const parts = [[1, 2, 5], [1, 3], [1]].map((steps) => {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
        for (const step of steps) found.push(step * 10 ** power);
      }
      return found.filter((value) => value >= low && value <= high);
    });
    return parts.find((found) => found.length <= most) ?? parts[2];
  }
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

const around = (points) => `M${points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L")}Z`;
const star = (corners, inner, turn = -0.25) => (r) => around(Array.from({ length: 2 * corners }, (_, i) => {
  const angle = 2 * Math.PI * (i / (2 * corners) + turn);
  const reach = r * (i % 2 ? inner : 1);
  return [reach * Math.cos(angle), reach * Math.sin(angle)];
}));
const polygon = (corners, turn) => star(corners, Math.cos(Math.PI / corners), turn);
const SHAPES = [ // of about equal area; the family's place in its group chooses one
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  (r) => polygon(4, 0.125)(1.25 * r),
  (r) => polygon(3)(1.5 * r),
  (r) => polygon(4)(1.25 * r),
  (r) => polygon(3, 0.25)(1.5 * r),
  (r) => star(4, 0.4)(1.55 * r),
  (r) => star(4, 0.4, 0.125)(1.55 * r),
  (r) => star(5, 0.5)(1.5 * r),
  (r) => polygon(6)(1.12 * r),
  (r) => around([[-r, -r], [r, -r], [-r, r], [r, r]]),
];
const COLOURS = 5; // of the book's groups; what is added to them has a sixth

// Family -> number of its colour and of its shape.
export function looks(groups) {
  const found = {};
  groups.forEach(([, families], group) => families.forEach((family, i) => {
    found[family] = [Math.min(group, COLOURS), i % SHAPES.length];
  }));
  return found;
}

function render({ model, el }) {
  const data = model.get("data"); // groups and quantities are pairs, in order: a notebook's file sorts the names in an object
  const titles = Object.fromEntries(data.quantities);
  const look = looks(data.groups);
  const shapeOf = (family) => SHAPES[look[family][1]];
  const groupClass = (family) => `cx-mark cx-group-${look[family][0]}`;
  const number = (mark, name) => (name === "year" ? String(mark.year) : ACCURACIES.includes(name) ? `${mark[name]}%`
    : name === "milliseconds" ? `${Number(mark[name].toPrecision(3))} ms` : short(mark[name]));
  const plain = (name) => titles[name].replace(/ \(.*/, "").toLowerCase();
  const get = (name) => model.get(name);

  // --- controls ---

  const axes = data.quantities;
  const controls = [
    selectControl(model, "source", "Accuracy from", data.sources.map(({ name, title }) => [name, title])),
    selectControl(model, "y", "Upwards", axes),
    selectControl(model, "x", "To the right", axes),
    selectControl(model, "size", "Area of a mark", data.sizes.map((name) => [name, name ? titles[name] : "all alike"])),
    radioControl(model, "scale", "Counts on a scale", [["log", "logarithmic"], ["linear", "linear"]]),
  ];
  const nameId = freshId();
  const names = html("select", { id: nameId, change: () => put(model, { network: names.value }) });
  const chooser = html("div", { class: "cx-select" }, html("label", { for: nameId }, "Network"), names);
  chooser.sync = () => {
    const labels = shown.map(({ label }) => label).sort();
    if (labels.join() !== chooser.labels) {
      names.replaceChildren(html("option", { value: "" }, "none chosen"), ...labels.map((label) => html("option", { value: label }, label)));
      chooser.labels = labels.join();
    }
    names.value = labels.includes(get("network")) ? get("network") : "";
  };
  controls.push(chooser);

  const boxes = {};
  const everyone = data.groups.flatMap(([, families]) => families);
  const choose = (families) => put(model, { families: everyone.filter((family) => families.includes(family)) });
  const legend = html("div", { class: "cx-families" }, data.groups.map(([title, families]) =>
    html("fieldset", {}, html("legend", {}, title), families.map((family) => {
      boxes[family] = html("input", { type: "checkbox",
        change: () => choose(everyone.filter((one) => boxes[one].checked)) });
      return html("label", { class: "cx-check" }, boxes[family],
        svg("svg", { class: "cx-sample", viewBox: "-9 -9 18 18", "aria-hidden": "true" },
          svg("path", { class: groupClass(family), d: shapeOf(family)(5) })), family);
    }))), html("div", {}, button("Show all families", () => choose(everyone)), " ", button("Hide all", () => choose([]))));
  legend.sync = () => everyone.forEach((family) => (boxes[family].checked = get("families").includes(family)));

  // --- the plot ---

  const drawing = svg("svg", { class: "cx-drawing", tabindex: 0, role: "listbox", "data-lm-suppress-shortcuts": "true",
    pointermove: (event) => point(event, false), pointerdown: (event) => point(event, true),
    pointerleave: () => hover(null), keydown: walk });
  const facts = html("dl", { class: "cx-figures" });
  const below = html("div", { class: "cx-below-map" }, facts);
  const note = html("p", { class: "cx-soft cx-note" });
  const status = html("p", { role: "status", class: "cx-status" });
  const saves = html("div", { class: "cx-row cx-saves" }, button("Save as CSV", saveTable),
    button("Save as SVG", () => saveFile("svg", picture())), button("Save as PNG", savePicture));
  const overlay = svg("g", { "aria-hidden": "true" });
  const idBase = freshId();
  let shown = []; // marks on the plot, with their places: left, top, radius
  let best = [];
  let hovered = null;

  function update() {
    const [x, y, size, log] = [get("x"), get("y"), get("size"), get("scale") === "log"];
    const source = data.sources.find(({ name }) => name === get("source"));
    const families = new Set(get("families"));
    const present = (mark, name) => mark[name] != null;
    shown = marksOf(data, source.name).filter((mark) => families.has(mark.family) && present(mark, x) && present(mark, y)
      && (!size || present(mark, size)));
    const width = Math.round(drawing.clientWidth) || 720;
    const height = Math.round(Math.min(460, Math.max(320, 0.6 * width)));
    drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
    drawing.style.height = `${height}px`;
    const frame = { left: 50, right: width - 14, top: 14, bottom: height - 44 };

    const scaleOf = (name, from, to, errors) => {
      const isLog = log && COUNTS.includes(name);
      const values = shown.flatMap((mark) => [mark[name], ...(errors && mark.low != null ? [mark.low, mark.high] : [])]);
      let [low, high] = [Math.min(...values), Math.max(...values)];
      if (!shown.length) [low, high] = isLog ? [1, 10] : [0, 1];
      const way = isLog ? Math.log : (value) => value;
      const room = 0.06 * (way(high) - way(low)) || (isLog ? 0.5 : 1);
      const [start, end] = [way(low) - room, way(high) + room];
      const place = (value) => from + ((way(value) - start) / (end - start)) * (to - from);
      const back = isLog ? Math.exp : way;
      return { place, ticks: ticks(back(start), back(end), isLog, Math.abs(to - from) < 400 ? 5 : 8) };
    };
    const across = scaleOf(x, frame.left + 8, frame.right - 14, x === "top1");
    const up = scaleOf(y, frame.bottom - 8, frame.top + 12, y === "top1");
    const largest = Math.max(...shown.map((mark) => mark[size] ?? 1));
    for (const mark of shown) {
      mark.left = across.place(mark[x]);
      mark.top = up.place(mark[y]);
      mark.radius = size ? Math.max(3, (width < 500 ? 13 : 17) * Math.sqrt(mark[size] / largest)) : 5;
    }
    shown.sort((a, b) => b.radius - a.radius); // small ones above large ones

    const [cost, accuracy] = ACCURACIES.includes(y) ? [x, y] : [y, x];
    best = ACCURACIES.includes(accuracy) && !ACCURACIES.includes(cost) ? frontier(shown, cost, accuracy) : [];
    const text = (content, attributes) => svg("text", attributes, content);
    const tickText = (name, value) => (COUNTS.includes(name) ? short(value) : String(value));
    const nodes = [];
    for (const value of across.ticks) {
      const at = across.place(value).toFixed(1);
      nodes.push(svg("path", { class: "cx-rule", d: `M${at} ${frame.top}V${frame.bottom}` }),
        text(tickText(x, value), { x: at, y: frame.bottom + 16, "text-anchor": "middle" }));
    }
    for (const value of up.ticks) {
      const at = up.place(value).toFixed(1);
      nodes.push(svg("path", { class: "cx-rule", d: `M${frame.left} ${at}H${frame.right}` }),
        text(tickText(y, value), { x: frame.left - 6, y: Number(at) + 4, "text-anchor": "end" }));
    }
    nodes.push(svg("path", { class: "cx-axis", d: `M${frame.left} ${frame.top}V${frame.bottom}H${frame.right}` }),
      text(titles[x], { class: "cx-name", x: frame.right, y: frame.bottom + 35, "text-anchor": "end" }),
      text(titles[y], { class: "cx-name", x: 0, y: 0, "text-anchor": "end",
        transform: `translate(12 ${frame.top}) rotate(-90)` }));
    if (best.length > 1) {
      const step = best.map(({ left, top }, i) => (i === 0 ? `M${left} ${top}` : y === accuracy ? `H${left}V${top}` : `V${top}H${left}`));
      nodes.push(svg("path", { class: "cx-frontier", d: step.join("") }));
    }
    shown.forEach((mark, i) => {
      mark.id = `${idBase}-${i}`;
      const at = (value) => (y === "top1" ? `${mark.left.toFixed(1)} ${up.place(value).toFixed(1)}` : `${across.place(value).toFixed(1)} ${mark.top.toFixed(1)}`);
      const bar = mark.low != null && (x === "top1") !== (y === "top1");
      nodes.push(svg("g", { role: "option", id: mark.id, "aria-selected": String(mark.label === get("network")),
        "aria-label": `${mark.label}: ${plain(x)} ${number(mark, x)}, ${plain(y)} ${number(mark, y)}` },
      svg("path", { class: groupClass(mark.family), d: shapeOf(mark.family)(mark.radius),
        transform: `translate(${mark.left.toFixed(1)} ${mark.top.toFixed(1)})` }),
      bar && svg("path", { class: "cx-spread", d: `M${at(mark.low)}L${at(mark.high)}` })));
    });
    nodes.push(svg("g", { "aria-hidden": "true" }, labels(frame)), overlay);
    if (!shown.length) nodes.push(text("no network to show", { class: "cx-name", x: width / 2, y: height / 2, "text-anchor": "middle" }));
    drawing.replaceChildren(...nodes);
    hover(null);

    const chosen = shown.find(({ label }) => label === get("network"));
    drawing.setAttribute("aria-label", `${titles[y]} against ${titles[x]}: ${plural(shown.length, "network")}`);
    if (chosen) drawing.setAttribute("aria-activedescendant", chosen.id);
    else drawing.removeAttribute("aria-activedescendant");
    drawing.classList.toggle("cx-chosen", Boolean(chosen));

    const needs = [x, y].filter((name) => ACCURACIES.includes(name) && !source.marks.some((mark) => mark[name === "top1" ? 2 : 3] != null));
    if (needs.length) status.textContent = `This source has no ${plain(needs[0])}: choose another axis or another source.`;
    else if (!shown.length) status.textContent = "No family is shown: choose some below.";
    else {
      const lead = x === "year" || y === "year" ? "The record at its time" : "Nothing cheaper is as good";
      status.textContent = `${plural(shown.length, "network")}.`
        + (best.length ? ` ${lead} (line): ${best.map(({ label }) => label).join(", ")}.` : "");
    }
    note.textContent = source.note + " Work, size and depth: computed from the networks, for one image of the size they were made for."
      + (data.clock ? ` ${data.clock}` : "");
    const rows = chosen ? [["Network", `${chosen.label} (${chosen.family}, ${chosen.year}), image ${chosen.side} \u00d7 ${chosen.side}`],
      ["Accuracy", chosen.top1 == null && chosen.top5 == null ? "none in this source" : ACCURACIES.filter((name) => chosen[name] != null)
        .map((name) => `${plain(name).replace(" accuracy", "")} ${number(chosen, name)}`).join(", ")
        + (chosen.low == null ? "" : ` (${chosen.low}% to ${chosen.high}%)`)],
      ["From", chosen.from ?? "\u2013"],
      ["Cost", ["macs", "params", "activations", "milliseconds"].filter((name) => chosen[name] != null)
        .map((name) => `${name === "milliseconds" ? "" : plain(name)} ${number(chosen, name)}`).join(", ")],
      ["Depth, field", `${plural(chosen.depth, "layer")}; ${plural(chosen.field, "pixel")}`],
    ] : [["Network", "choose one: with a click, with the arrow keys on the map, or from the list"]];
    facts.replaceChildren(...rows.map(([term, fact]) =>
      html("div", {}, html("dt", {}, term), html("dd", { "data-fact": term }, fact))));
  }

  // Names of the chosen network and of those on the frontier, where there is room for them.
  function labels(frame) {
    const chosen = shown.filter(({ label }) => label === get("network"));
    const taken = shown.filter(({ radius }) => radius < 11).map(({ left, top, radius }) => [left - radius, top - radius, left + radius, top + radius]);
    const placed = [];
    return [...chosen, ...best.filter((mark) => mark !== chosen[0]).reverse()].flatMap((mark) => {
      const own = mark === chosen[0];
      const [wide, high, gap] = [(own ? 7.6 : 6.2) * mark.label.length, 12, own ? 1.5 * mark.radius + 7 : mark.radius + 3];
      const spots = [[mark.left - gap - wide, mark.top - high / 2], [mark.left - wide / 2, mark.top - gap - high],
        [mark.left - gap - wide, mark.top - gap - high / 2], [mark.left + gap, mark.top - high / 2], [mark.left - wide / 2, mark.top + gap]];
      const overlaps = ([left, top], boxes) => boxes.filter((box) => left < box[2] && left + wide > box[0] && top < box[3] && top + high > box[1]).length;
      const inside = spots.filter(([left, top]) => left > frame.left && left + wide < frame.right + 10 && top > 0 && !overlaps([left, top], placed));
      const spot = inside.sort((a, b) => overlaps(a, taken) - overlaps(b, taken))[0];
      if (!spot || (!own && overlaps(spot, taken) > 2)) return [];
      placed.push([spot[0], spot[1], spot[0] + wide, spot[1] + high]);
      return [svg("text", { class: own ? "cx-label cx-name" : "cx-label", x: spot[0].toFixed(1), y: (spot[1] + 10).toFixed(1) }, mark.label)];
    });
  }

  // A ring around the mark that the pointer is near or that is chosen, and the name of the former.
  function hover(mark) {
    hovered = mark;
    const ring = (one) => svg("circle", { class: "cx-ring", cx: one.left, cy: one.top, r: one.radius * 1.5 + 3 });
    const chosen = shown.find(({ label }) => label === get("network"));
    const nodes = chosen ? [ring(chosen)] : [];
    if (mark && mark !== chosen) {
      const says = `${mark.label}: ${number(mark, get("x"))}, ${number(mark, get("y"))}`;
      const wide = 6.6 * says.length + 12;
      const [, , width, height] = drawing.getAttribute("viewBox").split(" ").map(Number);
      const left = Math.max(2, Math.min(width - wide - 2, mark.left - wide / 2));
      const top = mark.top - mark.radius - 34 < 0 ? Math.min(height - 24, mark.top + mark.radius + 10) : mark.top - mark.radius - 34;
      nodes.push(ring(mark), svg("rect", { class: "cx-tip", x: left, y: top, width: wide, height: 22, rx: 3 }),
        svg("text", { class: "cx-tip-text", x: left + wide / 2, y: top + 15, "text-anchor": "middle" }, says));
    }
    overlay.replaceChildren(...nodes);
  }

  function point(event, press) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    const far = (mark) => Math.hypot(mark.left - at.x, mark.top - at.y) - mark.radius;
    const nearest = shown.reduce((found, mark) => (!found || far(mark) <= far(found) ? mark : found), null);
    const mark = nearest && far(nearest) < 18 ? nearest : null;
    if (press) put(model, { network: mark?.label ?? "" });
    else if (mark !== hovered) hover(mark);
  }

  // Arrow keys: left and right in the order of one axis, up and down in that of the other.
  function walk(event) {
    const [key, way] = { ArrowRight: ["left", 1], ArrowLeft: ["left", -1], ArrowUp: ["top", -1], ArrowDown: ["top", 1],
      Home: ["left", -Infinity], End: ["left", Infinity], Escape: [] }[event.key] ?? [];
    if (!(key || event.key === "Escape") || !shown.length) return;
    event.preventDefault();
    if (!key) return put(model, { network: "" });
    const order = [...shown].sort((a, b) => a[key] - b[key] || (a.label < b.label ? -1 : 1));
    const now = order.findIndex(({ label }) => label === get("network"));
    const next = now < 0 && Number.isFinite(way) ? (way > 0 ? 0 : order.length - 1) : now + way;
    put(model, { network: order[Math.max(0, Math.min(order.length - 1, next))].label });
  }

  // --- files ---

  function saveTable() {
    const head = ["name", "network", "family", "year", "input", ...ACCURACIES, "top1_lowest", "top1_highest", "macs", "params",
      "activations", "milliseconds", "depth", "field", "frontier", "source"];
    const rows = [...shown].sort((a, b) => (a.label < b.label ? -1 : 1)).map((mark) => [mark.label, mark.name, mark.family, mark.year, mark.side,
      mark.top1, mark.top5, mark.low, mark.high, mark.macs, mark.params, mark.activations, mark.milliseconds, mark.depth, mark.field,
      best.includes(mark) ? "yes" : "no", mark.from]);
    saveFile("csv", csvText(head, rows));
  }

  const TYPES = { csv: "text/csv", svg: "image/svg+xml", png: "image/png" };
  const saveFile = (ending, content) => download(`networks_${get("y")}_by_${get("x")}_${get("source")}.${ending}`, content, TYPES[ending]);

  // The plot as an SVG file: styles written into it, families and source below.
  function picture() {
    hover(null);
    const copy = drawing.cloneNode(true);
    const STYLES = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-weight", "font-family", "paint-order"];
    const dress = (to, from) => {
      for (const name of STYLES) to.style.setProperty(name, getComputedStyle(from).getPropertyValue(name));
      [...from.children].forEach((child, i) => dress(to.children[i], child));
    };
    dress(copy, drawing);
    const [width, height] = drawing.getAttribute("viewBox").split(" ").slice(2).map(Number);
    const style = getComputedStyle(status);
    const written = (x, y, text) => svg("text", { x, y, style: `font: 11px sans-serif; fill: ${style.color}` }, text);
    let [left, top] = [14, height + 10];
    for (const family of everyone.filter((one) => shown.some((mark) => mark.family === one))) {
      const wide = 26 + 6.5 * family.length;
      if (left + wide > width) [left, top] = [14, top + 18];
      const mark = svg("path", { d: shapeOf(family)(5), transform: `translate(${left} ${top})` });
      dress(mark, boxes[family].parentNode.querySelector("path"));
      copy.append(mark, written(left + 10, top + 4, family));
      left += wide;
    }
    copy.append(written(8, (top += 24), `Accuracy: ${data.sources.find(({ name }) => name === get("source")).title}.`
      + (get("size") ? ` Area of a mark: ${plain(get("size"))}.` : "") + (best.length > 1 ? " Line: the efficient frontier." : "")));
    const paper = getComputedStyle(drawing.closest(".cx")).backgroundColor;
    const ground = svg("rect", { width, height: top + 12, fill: paper });
    copy.prepend(ground);
    for (const [name, value] of Object.entries({ width, height: top + 12, viewBox: `0 0 ${width} ${top + 12}`,
      style: "", xmlns: "http://www.w3.org/2000/svg" })) copy.setAttribute(name, value);
    return new XMLSerializer().serializeToString(copy);
  }

  function savePicture() {
    const image = new Image();
    image.onload = () => {
      const canvas = html("canvas", { width: 2 * image.width, height: 2 * image.height });
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => saveFile("png", blob));
    };
    image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(picture())}`;
  }

  const unmount = mount({ model, el }, { name: "map", title: "A map of architectures", controls: controls.concat(legend), update,
    body: [drawing, below, status, note, saves], end: () => observer.disconnect() });
  below.prepend(legend); // a control, but it stands below the map
  let width = 0;
  const observer = new ResizeObserver(() => {
    if (drawing.clientWidth === width) return;
    width = drawing.clientWidth;
    update();
  });
  observer.observe(drawing);
  return unmount;
}

export default { render };
