// Receptive fields: one unit of a layer, what it sees of an image, and its neighbours.

// Layers as objects, from the rows in which they are stored: kinds by number, pairs of equal numbers as one, and
// defaults at the end left out.
export function unpack({ kinds, layers }) {
  const pair = (value) => (Array.isArray(value) ? value : [value, value]);
  return layers.map(([name, kind, size, stride, start, units, global, unaligned, spans]) => ({
    name, kind: kinds[kind], size: pair(size), stride: pair(stride), start: pair(start), units: pair(units),
    global: Boolean(global), unaligned: unaligned ?? 0, spans: spans || null,
  }));
}

// First and last pixel of unit `i` along `axis`, padding included where the layer is regular.
export function unitSpan(layer, axis, i) {
  if (layer.spans) return layer.spans[axis][i];
  const first = layer.start[axis] + i * layer.stride[axis];
  return [first, first + layer.size[axis] - 1];
}

const AXES = [0, 1];
const middle = (span) => (span[0] + span[1] + 1) / 2;

// The unit along `axis` whose field has its middle nearest to `place`.
export function nearestUnit(layer, axis, place) {
  let best = 0;
  const distance = (i) => Math.abs(middle(unitSpan(layer, axis, i)) - place);
  for (let i = 1; i < layer.units[axis]; i++) if (distance(i) < distance(best)) best = i;
  return best;
}

function render({ model, el }) {
  const data = model.get("data");
  const layers = unpack(data);
  const { footprints } = data;
  const measured = Object.keys(footprints).length > 0;
  const [height, width] = data.input;
  const index = () => Math.max(0, layers.findIndex(({ name }) => name === model.get("layer")));
  const layer = () => layers[index()];
  const unit = () => ["row", "column"].map((name, axis) => Math.min(model.get(name), layer().units[axis] - 1));

  // Another layer, and its unit nearest to where the present one looks.
  function walk(number) {
    const next = layers[Math.min(layers.length - 1, Math.max(0, number))];
    const [row, column] = AXES.map((axis) => nearestUnit(next, axis, middle(unitSpan(layer(), axis, unit()[axis]))));
    put(model, { layer: next.name, row, column });
  }

  const listId = freshId();
  const list = html("select", { id: listId, size: 9, change: () => walk(list.selectedIndex) },
    layers.map(({ name, kind }) => html("option", { value: name }, `${footprints[name] ? "\u25cf " : ""}${name}: ${kind}`)));
  const listBox = html("div", { class: "cx-select" }, html("label", { for: listId }, "Layer, in forward order"), list);
  const slider = sliderInput({ min: 0, max: layers.length - 1, "aria-label": "Layer" }, () => walk(slider.valueAsNumber));
  listBox.append(slider);
  listBox.sync = () => {
    list.selectedIndex = index();
    slider.value = index();
    slider.setAttribute("aria-valuetext", layer().name);
  };
  const rowControl = numberControl(model, "row", "Unit row", () => [0, layer().units[0] - 1]);
  const columnControl = numberControl(model, "column", "Unit column", () => [0, layer().units[1] - 1]);
  const controls = [listBox, rowControl, columnControl];
  if (measured) controls.push(checkControl(model, "footprint", "Show what it listens to (measured for layers with \u25cf)"));

  const drawing = svg("svg", { class: "cx-drawing", role: "img", pointerdown: point, pointermove: point });
  const figures = html("dl", { class: "cx-figures" });
  const status = html("p", { role: "status", class: "cx-status" });

  function point(event) {
    if (event.type === "pointermove" && !event.buttons) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(drawing.getScreenCTM().inverse());
    put(model, { row: nearestUnit(layer(), 0, at.y), column: nearestUnit(layer(), 1, at.x) });
  }

  // A footprint as a picture, dark where the unit listens: what a mask lets through of the shade above the photograph.
  const pictures = {};
  function pictureOf(name) {
    if (!pictures[name]) {
      const [height, width] = footprints[name].shape;
      const canvas = html("canvas", { width, height });
      const pixels = new ImageData(width, height);
      [...atob(footprints[name].values)].forEach((value, i) => pixels.data.set([...Array(3).fill(255 - value.charCodeAt(0)), 255], 4 * i));
      canvas.getContext("2d").putImageData(pixels, 0, 0);
      pictures[name] = canvas.toDataURL();
    }
    return pictures[name];
  }
  const maskId = freshId();

  function update() {
    const now = layer();
    const [row, column] = unit();
    const spans = [unitSpan(now, 0, row), unitSpan(now, 1, column)];
    // The neighbour to the right and the one below; at the last unit the one before it.
    const beside = [row, column].map((i, axis) => (i + 1 < now.units[axis] ? i + 1 : i - 1));
    const [below, right] = AXES.map((axis) => (beside[axis] >= 0 ? unitSpan(now, axis, beside[axis]) : null));

    // Image, fields, and enough room around them; the scale changes in steps, so that walking does not shake it.
    const reach = Math.max(...[...spans, below, right].flatMap((span, i) => {
      const length = [height, width, height, width][i];
      return span ? [-span[0] / length, (span[1] + 1 - length) / length] : [];
    }));
    const margin = [0.06, 0.3, 0.6, 1, 2, 4, 8].find((room) => room > reach) ?? reach;
    const side = (1 + 2 * margin) * Math.max(height, width);
    const [left, top] = [(width - side) / 2, (height - side) / 2];
    drawing.setAttribute("viewBox", `${left} ${top} ${side} ${side}`);
    const box = ([y0, y1], [x0, x1]) => ({ x: x0, y: y0, width: x1 - x0 + 1, height: y1 - y0 + 1 });
    const own = box(...spans);
    const outline = ({ x, y, width: w, height: h }) => `M${x} ${y}h${w}v${h}h${-w}z`;
    const dots = [];
    if (Math.max(...now.units) <= 64) {
      for (let i = 0; i < now.units[0]; i++) for (let j = 0; j < now.units[1]; j++) {
        dots.push(`M${middle(unitSpan(now, 1, j))} ${middle(unitSpan(now, 0, i))}h0`);
      }
    }
    // The footprint was measured at one unit; for the others it is drawn where they look.
    const heard = model.get("footprint") ? footprints[now.name] : null;
    const moved = heard && AXES.map((axis) => middle(spans[axis]) - middle(unitSpan(now, axis, heard.unit[axis])));
    const everything = { x: left - side, y: top - side, width: 3 * side, height: 3 * side };
    drawing.replaceChildren(
      ...(heard ? [svg("mask", { id: maskId, maskUnits: "userSpaceOnUse", ...everything },
        svg("rect", { ...everything, fill: "white" }),
        svg("image", { href: pictureOf(now.name), x: heard.box[1] + moved[1], y: heard.box[0] + moved[0],
          width: heard.box[3], height: heard.box[2], preserveAspectRatio: "none" }))] : []),
      svg("rect", { class: "cx-sheet", x: 0, y: 0, width, height }),
      ...(data.image ? [svg("image", { href: data.image, x: 0, y: 0, width, height, preserveAspectRatio: "none" })] : []),
      heard ? svg("rect", { class: "cx-deaf", ...everything, mask: `url(#${maskId})` })
        : svg("path", { class: "cx-shade", "fill-rule": "evenodd", d: outline(everything) + outline(own) }),
      svg("rect", { class: "cx-frame", x: 0, y: 0, width, height }),
      svg("path", { class: now.units[0] > 24 ? "cx-dots cx-dense" : "cx-dots", d: dots.join("") }),
      ...(right ? [svg("rect", { class: "cx-right", ...box(spans[0], right) })] : []),
      ...(below ? [svg("rect", { class: "cx-below", ...box(below, spans[1]) })] : []),
      svg("rect", { class: "cx-own", ...own }),
      ...(heard ? [svg("rect", { class: "cx-most", width: heard.most, height: heard.most,
        x: heard.centre[1] + moved[1] + 0.5 - heard.most / 2, y: heard.centre[0] + moved[0] + 0.5 - heard.most / 2 })] : []),
      svg("path", { class: "cx-own-dot", d: `M${middle(spans[1])} ${middle(spans[0])}h0` }));

    const pair = (values, join = " \u00d7 ") => (values[0] === values[1] ? `${signed(values[0])}` : values.map(signed).join(join));
    const inside = AXES.map((axis) => {
      const [first, last] = spans[axis];
      return Math.max(0, Math.min(last, data.input[axis] - 1) - Math.max(first, 0) + 1);
    });
    const area = AXES.map((axis) => spans[axis][1] - spans[axis][0] + 1);
    const outside = 1 - (inside[0] * inside[1]) / (area[0] * area[1]);
    const overlap = AXES.map((axis) => {
      const other = [below, right][axis];
      return other ? Math.max(0, Math.min(spans[axis][1], other[1]) - Math.max(spans[axis][0], other[0]) + 1) : 0;
    });
    const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}%`;
    const several = right || below;
    const rows = spans.map(([first, last]) => `${signed(first)} to ${signed(last)}`);
    const facts = {
      field: ["Field", `${area[0]} \u00d7 ${area[1]} pixels`],
      stride: ["Stride", several ? `${pair(now.stride)} ${now.stride.every((step) => step === 1) ? "pixel" : "pixels"}` : "none"],
      start: ["Start of unit (0, 0)", pair(now.start, ", ")],
      units: ["Feature map", plural(now.units[0] * now.units[1], "unit")
        + (several ? `, ${now.units[0]} \u00d7 ${now.units[1]}` : " for the whole image")],
      span: ["This unit sees", `rows ${rows[0]}, columns ${rows[1]}`],
      overlap: ["Shared with the next", several ? `${overlap[1]} of ${plural(area[1], "column")} (${percent(overlap[1] / area[1])})`
        : "there is no other unit"],
      outside: ["Outside the image", `${percent(outside)} of the field`],
    };
    if (measured) {
      const found = footprints[now.name];
      facts.listens = ["Listens to", !found ? "not measured for this layer"
        : `half of it within ${found.half} \u00d7 ${found.half}, 95% within ${found.most} \u00d7 ${found.most} pixels`];
    }
    figures.replaceChildren(...Object.entries(facts).map(([key, [term, fact]]) =>
      html("div", { class: ["span", "listens"].includes(key) && "cx-tall" }, html("dt", {}, term), html("dd", { "data-fact": key }, fact))));

    const say = [`${now.name}, ${now.kind}: unit (${row}, ${column}) ` + (outside ? `has a field of ${area.join("\u00d7")} pixels; of the image's ${height}\u00d7${width} it sees ${inside.join("\u00d7")}.`
      : `sees ${area.join("\u00d7")} pixels of ${height}\u00d7${width}.`)];
    if (now.global) say.push("Some path sees the whole image (a fully connected layer, or global pooling).");
    if (now.unaligned) say.push("Paths with differently placed fields meet on the way here.");
    if (heard) {
      say.push("It listens where the picture stays clear: the gradient of its output to each pixel, "
        + (data.fresh ? `mean of ${data.fresh} fresh networks.` : "for the weights as they are."));
    }
    status.textContent = say.join(" ");
    drawing.setAttribute("aria-label", `Image of ${height} by ${width} pixels with the field of unit ${row}, ${column} of `
      + `${now.name}: rows ${spans[0].join(" to ")}, columns ${spans[1].join(" to ")}`);
  }

  const key = (name, text) => html("span", {}, html("i", { class: `cx-key cx-key-${name}` }), text);
  const legend = html("p", { class: "cx-legend" },
    key("own", "this unit"), key("right", "next in its row"), key("below", "next in its column"),
    measured && key("most", "95% of what it listens to"));
  return mount({ model, el }, {
    name: "field", title: `What a unit of ${data.network} sees`, controls, update,
    body: [html("div", { class: "cx-scene" }, drawing, legend), figures, status],
  });
}

export default { render };
