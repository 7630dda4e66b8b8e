// The network explorer: the drawing of a network, a stage or a block, and everything about one chosen layer.

const FIELDS = ["id", "suffix", "kind", "label", "code", "input", "output", "params", "macs", "activations", "details", "again", "opens"];
const LINE = { main: 15, small: 13.5, title: 16, sign: 16 }; // pixels from line to line
const LETTERS = 9; // pixels of the smallest letters, which have 10.5 in the drawing; below that its frame scrolls
const MEASURED = { params: "parameters", macs: "multiply-adds", activations: "values of the output" };

// The parts drawn in an open group, as objects: full names, the module's line, the field or null.
export function openGroup(data, name) {
  const [number, fields, title, ends = {}] = data.groups[name];
  const put = (text) => (typeof text === "string" ? text.replace(/[@#]\d+/g, (key) => ends[key]?.[0] ?? key) : text);
  const template = data.templates[number];
  const full = (suffix) => (suffix === "." ? name : suffix.startsWith(".") ? name + suffix : suffix);
  const rows = template.rows.map((row, i) => {
    const part = Object.fromEntries(FIELDS.map((field, j) => [field, row[j]]));
    const [times, last] = part.again;
    const [label, from] = ends[part.label] ?? [part.label];
    return { ...part, label, name: from ?? full(part.suffix), code: data.codes[part.code], field: fields[i] < 0 ? null : data.fields[fields[i]],
      times: times ?? 1, last: last == null ? null : full(last) };
  });
  return { name, title, rows, edges: template.edges, scenes: template.scenes.map((number) => {
    const scene = data.scenes[number];
    const items = scene.items.map(([id, colour, shapes]) => [id, colour, shapes.map((shape) => [...shape.slice(0, -1), put(shape[shape.length - 1])])]);
    return { ...scene, lines: data.lines[scene.lines], words: put(scene.words).replace("From from ", "From "), items };
  }) };
}

// Names of the groups from the whole to this one.
export function trail(data, name) {
  const above = (inner) => Object.keys(data.groups).find((group) =>
    group !== inner && openGroup(data, group).rows.some((row) => row.opens && row.name === inner));
  const names = [name];
  while (names[0] !== "") {
    const parent = above(names[0]);
    if (parent == null || names.includes(parent)) break;
    names.unshift(parent);
  }
  return names[0] === "" ? names : ["", ...names];
}

// Ids of everything on a path through the part `id`: what feeds it and what it feeds.
export function onPaths(edges, id) {
  const found = new Set([id]);
  for (const [from, to] of [[0, 1], [1, 0]]) {
    const left = [id];
    const seen = new Set(left);
    while (left.length) {
      const at = left.pop();
      for (const edge of edges) {
        if (edge[from] === at && !seen.has(edge[to])) {
          seen.add(edge[to]);
          left.push(edge[to]);
        }
      }
    }
    for (const one of seen) found.add(one);
  }
  return found;
}

// Parameters and multiply-adds of a convolution or linear layer as products, and the side of its output; null for others.
export function formulas({ kind, details, input, output, params }) {
  const times = (numbers) => numbers.map(whole).join(" \u00d7 ");
  const product = (numbers) => numbers.reduce((a, b) => a * b, 1);
  if (kind === "conv" && details.kernel) {
    const weights = [details.out, details.in / (details.groups ?? 1), ...details.kernel];
    const bias = details.bias && params ? details.out : 0;
    const places = output.slice(1);
    const axis = output.length > 1 ? 1 : null;
    const [f, s, p, d] = ["kernel", "stride", "padding", "dilation"].map((key, i) => (details[key] ?? [[1], [1], [0], [1]][i])[0]);
    return { params: product(weights) + bias, macs: product([...weights, ...places]),
      side: axis && outputSize(input[axis], f, s, p, d),
      text: [`${times(weights)}${bias ? ` + ${whole(bias)} biases` : ""} = ${whole(product(weights) + bias)} parameters`,
        `${times(weights)} weights \u00d7 ${times(places)} places = ${whole(product([...weights, ...places]))} multiply-adds`,
        axis && `rows: (${input[1]} + 2 \u00d7 ${p} \u2212 ${d > 1 ? `${d} \u00d7 (${f} \u2212 1) \u2212 1` : f}) / ${s} + 1 \u2192 ${outputSize(input[1], f, s, p, d)}`],
    };
  }
  if (kind === "fc" && details.in) {
    const bias = details.bias && params ? details.out : 0;
    const rows = product(output) / details.out;
    return { params: details.in * details.out + bias, macs: details.in * details.out * rows, side: null,
      text: [`${times([details.in, details.out])}${bias ? ` + ${whole(bias)} biases` : ""} = ${whole(details.in * details.out + bias)} parameters`,
        `${times(rows > 1 ? [details.in, details.out, rows] : [details.in, details.out])} = ${whole(details.in * details.out * rows)} multiply-adds`] };
  }
  if (kind === "pool" && details.kernel && output.length === 3) {
    const [f, s, p] = ["kernel", "stride", "padding"].map((key, i) => (details[key] ?? [[1], [1], [0]][i])[0]);
    return { params: 0, macs: 0, side: null,
      text: [`rows: (${input[1]} + 2 \u00d7 ${p} \u2212 ${f}) / ${s} + 1 \u2192 ${output[1]}`] };
  }
  return null;
}

const shape = (lengths) => lengths.map(whole).join(" \u00d7 ") || "a number";

function render({ model, el }) {
  const data = model.get("data");
  const { totals } = data;
  const group = () => openGroup(data, model.get("part"));
  const chosen = (open) => open.rows.find((row) => row.id === model.get("layer")) ?? null;
  let focusNext = false;

  const go = (part, layer = -1) => {
    focusNext = true;
    model.set("layer", -1); // no part is open for a moment in which its number means nothing
    put(model, { part, layer });
  };
  const up = () => {
    const names = trail(data, model.get("part"));
    if (names.length < 2) return;
    const parent = openGroup(data, names[names.length - 2]);
    go(parent.name, parent.rows.find((row) => row.name === names[names.length - 1])?.id ?? -1);
  };

  const path = html("nav", { class: "cx-trail", "aria-label": "Where you are" });
  const colours = radioControl(model, "colour", "Colour by", [["kind", "kind"], ["params", "parameters"], ["macs", "multiply-adds"],
    ["activations", "memory"]]);
  const follow = checkControl(model, "follow", "Follow the paths through the chosen layer");
  const link = button("Link to this view", () => {
    location.hash = `network=${encodeURIComponent(data.title)}&part=${encodeURIComponent(model.get("part"))}&layer=${model.get("layer")}`;
  }, { class: "cx-link" });
  const place = html("div", { class: "cx-place" });
  const facts = html("div", { class: "cx-facts" });
  const status = html("p", { role: "status", class: "cx-status" });

  // --- the drawing ---

  const MAKE = {
    r: ([x, y, width, height, rx]) => svg("rect", { x, y, width, height, rx }),
    c: ([cx, cy, r]) => svg("circle", { cx, cy, r }),
    p: ([points]) => svg("polygon", { points: points.join(" ") }),
    l: ([points]) => svg("polyline", { points: points.join(" ") }),
    t: ([x, y, text]) => svg("text", { x, y, "text-anchor": "middle" }, text),
    u: ([x, y, text]) => svg("text", { x, y }, text),
    v: ([x, y, text]) => svg("text", { x, y, "text-anchor": "end" }, text),
  };
  const lines = (kind, name, [x, y, text]) => text.split("\n").map((line, i) => MAKE[kind]([x, y + i * LINE[name], line]));
  const make = ([kind, name, ...rest]) => {
    if (kind === "b") { // a box with text in its middle
      const [x, y, width, height, radius, text] = rest;
      const first = y + height / 2 - (LINE[name] * text.split("\n").slice(1).length) / 2;
      return [...make(["r", "box", x, y, width, height, radius]), ...make(["t", name, x + width / 2, first, text])];
    }
    const nodes = "tuv".includes(kind) ? lines(kind, name, rest) : [MAKE[kind](rest)];
    if (name !== "main") nodes.forEach((node) => node.setAttribute("class", name));
    return nodes;
  };
  // All of a solid and its text takes a press, the room between them too.
  const ground = (shapes) => {
    const points = shapes.filter(([kind]) => kind === "p").flatMap(([, , list]) => list);
    const texts = shapes.filter(([kind]) => "tuv".includes(kind));
    const reach = { t: [-40, 40], u: [0, 80], v: [-80, 0] };
    const xs = [...points.filter((_, i) => i % 2 === 0), ...texts.flatMap(([kind, , x]) => reach[kind].map((dx) => x + dx))];
    const ys = [...points.filter((_, i) => i % 2), ...texts.flatMap(([, name, , y, text]) => [y - 8, y + 8 + LINE[name] * (text.split("\n").length - 1)])];
    const [x, y] = [Math.min(...xs), Math.min(...ys)];
    return svg("rect", { class: "cx-ground", x, y, width: Math.max(...xs) - x, height: Math.max(...ys) - y });
  };
  const described = (row) => [row.label, row.output.length && `output ${shape(row.output)}`,
    row.params && plural(row.params, "parameter"), row.times > 1 && `${row.times} times`, row.opens && "opens"].filter(Boolean).join(", ");

  let narrow = false;
  function draw(open) {
    const scene = open.scenes[narrow ? open.scenes.length - 1 : 0];
    const [width, height] = scene.size;
    const least = Math.min(width, Math.ceil((width * LETTERS) / 10.5));
    body.classList.toggle("cx-wide", (width > 640 && open.name !== "") || least > 0.6 * (el.clientWidth || 900)); // facts stand below
    const selected = chosen(open);
    const kept = model.get("follow") && selected ? onPaths(open.edges, selected.id) : null;
    const measure = MEASURED[model.get("colour")] && model.get("colour");
    const most = measure ? Math.max(1, ...open.rows.map((row) => row[measure])) : 1;
    const rows = new Map(open.rows.map((row) => [row.id, row]));
    const first = selected?.id ?? scene.items.find(([id]) => rows.has(id))?.[0];
    const node = svg("svg", { class: "nd cx-net", viewBox: `0 0 ${width} ${height}`, style: `max-width: ${1.15 * width}px; min-width: ${least}px`,
      role: "group", "aria-label": `${open.title}. ${scene.words}` },
      scene.lines[0] && svg("path", { class: "line", d: scene.lines[0] }), scene.lines[1] && svg("path", { class: "tip", d: scene.lines[1] }));
    const stops = new Set();
    for (const [id, colour, shapes] of scene.items) {
      const row = rows.get(id);
      const frame = colour === "group" && shapes[0][0] === "r" && shapes[0][1] !== "box";
      const item = svg("g", { class: `k-${colour}` }, row && shapes[0][0] === "p" && ground(shapes), shapes.flatMap(make));
      node.append(item);
      if (!row || frame) continue;
      item.classList.add("cx-part");
      item.dataset.part = id;
      if (!stops.has(id)) {
        stops.add(id);
        fill(item, { role: "button", tabindex: id === first ? 0 : -1, "aria-label": described(row),
          "aria-pressed": String(id === selected?.id), "data-lm-suppress-shortcuts": "true" }, []);
      }
      item.addEventListener("click", () => choose(row));
      item.addEventListener("dblclick", () => row.opens && go(row.name));
      item.append(svg("title", {}, described(row)));
      if (id === selected?.id) item.classList.add("on");
      if (kept && !kept.has(id)) item.classList.add("off");
      if (measure) {
        const share = Math.sqrt(row[measure] / most);
        for (const face of item.querySelectorAll(".box, .face, .side, .top")) {
          face.style.fill = `color-mix(in srgb, var(--${measure === "activations" ? "memory" : measure}) ${Math.round(75 * share)}%, var(--paper))`;
        }
      }
    }
    const had = place.contains(document.activeElement);
    place.replaceChildren(node);
    if (had || focusNext) node.querySelector("[tabindex='0']")?.focus({ preventScroll: true });
    focusNext = false;
  }

  function choose(row) {
    if (row.opens && model.get("layer") === row.id) go(row.name); // a second press opens
    else {
      focusNext = true;
      put(model, { layer: row.id });
    }
  }

  place.addEventListener("keydown", (event) => {
    const open = group();
    const order = [...place.querySelectorAll("[tabindex]")].map((node) => Number(node.dataset.part));
    const at = order.indexOf(Number(document.activeElement?.dataset?.part));
    const rows = new Map(open.rows.map((row) => [row.id, row]));
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape" || event.key === "Backspace") up();
    else if (event.key === "Enter" || event.key === " ") at >= 0 && choose(rows.get(order[at]));
    else if (event.key === "Home") put(model, { layer: order[0] });
    else if (event.key === "End") put(model, { layer: order[order.length - 1] });
    else if (step) put(model, { layer: order[Math.min(order.length - 1, Math.max(0, at + step))] });
    else return;
    focusNext = true;
    event.preventDefault();
    event.stopPropagation();
  });

  // --- everything about one layer ---

  function sees(field) {
    const [rows, columns, rowStride, columnStride, top, left, unitRows, unitColumns, whole_] = field;
    const [height, width] = data.input.slice(1);
    const row = top + rowStride * Math.floor(unitRows / 2);
    const column = left + columnStride * Math.floor(unitColumns / 2);
    const text = rows === columns ? `${rows} \u00d7 ${columns} pixels` : `${rows} rows, ${columns} columns`;
    const picture = data.photo && svg("svg", { class: "cx-seen", viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `The central unit sees ${text} of the photograph` },
      svg("image", { href: data.photo, width, height, preserveAspectRatio: "none" }),
      svg("path", { class: "cx-unseen", "fill-rule": "evenodd",
        d: `M0 0h${width}v${height}h${-width}zM${column} ${row}h${columns}v${rows}h${-columns}z` }),
      svg("rect", { class: "cx-own", x: column, y: row, width: columns, height: rows }));
    return [text + (whole_ ? "; through a global mean all of the image" : ""), picture];
  }

  function tell(open) {
    const inner = chosen(open);
    const parent = trail(data, open.name).at(-2);
    const row = inner ?? (parent === undefined ? null : openGroup(data, parent).rows.find((one) => one.name === open.name)); // or what is open
    const hint = html("p", { class: "cx-soft" }, "Choose a part by click, tap or arrow keys; a second press opens it, Escape goes back.");
    if (!row) {
      const rows = [["Input", shape(data.input)], ["Parameters", whole(totals[0])], ["Multiply-adds", whole(totals[1])]];
      facts.replaceChildren(html("h4", {}, open.name || data.title), html("dl", {}, rows.map(([name, text]) =>
        html("div", {}, html("dt", {}, name), html("dd", {}, text)))), hint);
      return;
    }
    const part = (value, total) => `${whole(value)}${total && value ? ` (${(100 * value / total).toPrecision(2)}% of the network)` : ""}`;
    const worked = formulas(row);
    const [field, picture] = row.field ? sees(row.field) : [null, null];
    const rows = [
      ["Module", row.name || "function of the network itself"],
      ["Shape", row.kind === "input" ? shape(row.output) : `${shape(row.input)} \u2192 ${shape(row.output)}`],
      row.kind !== "input" && ["Parameters", part(row.params, totals[0])],
      row.kind !== "input" && ["Multiply-adds", part(row.macs, totals[1])],
      row.kind !== "input" && ["Memory", `${whole(row.activations)} values, ${short(4 * row.activations)}B in float32`],
      field && ["Receptive field", field],
      row.times > 1 && ["Stands there", `${row.times} times, the last as ${row.last}`],
    ].filter(Boolean);
    facts.replaceChildren(
      html("h4", {}, row.label),
      inner && row.opens ? button(`Open ${row.label}`, () => go(row.name)) : "",
      html("dl", {}, rows.map(([name, text]) => html("div", { "data-fact": name.toLowerCase() }, html("dt", {}, name), html("dd", {}, text)))),
      row.code ? html("code", { class: "cx-code" }, row.code) : "",
      worked ? html("ul", { class: "cx-worked" }, worked.text.filter(Boolean).map((text) => html("li", {}, text))) : "",
      picture || "", inner ? "" : hint);
  }

  function update() {
    const open = group();
    narrow = (el.clientWidth || 900) < 620;
    path.replaceChildren(...trail(data, open.name).map((name, i, names) => {
      const text = name === "" ? data.title : `${data.groups[name][2]}`;
      return i === names.length - 1 ? html("span", { "aria-current": "page" }, text) : html("span", {}, button(text, () => go(name), { class: "cx-link" }), " \u203a ");
    }));
    draw(open);
    tell(open);
    const row = chosen(open);
    const colour = model.get("colour");
    const largest = MEASURED[colour] && [...open.rows].sort((a, b) => b[colour] - a[colour])[0];
    status.textContent = [row ? described(row) : `${open.name || data.title}: ${plural(open.rows.length, "part")} drawn`,
      largest && `the darkest, ${largest.label}, has ${whole(largest[colour])} ${MEASURED[colour]}`].filter(Boolean).join("; ") + ".";
  }

  // A link to a state: #network=resnet50&part=layer1&layer=3
  const wanted = new URLSearchParams(globalThis.location?.hash?.slice(1) ?? "");
  if (wanted.get("network") === data.title && data.groups[wanted.get("part")]) {
    const layer = Number(wanted.get("layer") ?? -1);
    const rows = openGroup(data, wanted.get("part")).rows;
    put(model, { layer: -1 });
    put(model, { part: wanted.get("part"), layer: rows.some(({ id }) => id === layer) ? layer : -1 });
  }

  const body = html("div", { class: "cx-network-body" }, html("div", { class: "cx-scene" }, path, place), facts, status);
  const watch = new ResizeObserver(() => {
    if (((el.clientWidth || 900) < 620) !== narrow) update();
  });
  watch.observe(el);
  return mount({ model, el }, { name: "network", title: `The network ${data.title}`, controls: [colours, follow, link], body, update,
    end: () => watch.disconnect() });
}

export default { render };
