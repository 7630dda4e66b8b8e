// Stacks of convolutions and poolings: what they see, what they cost, and one large kernel that sees as much.

const COLUMNS = [["channels", "Channels"], ["kernel_size", "Kernel"], ["stride", "Stride"], ["padding", "Padding"]];

// What stands behind each layer of a stack on a square input [channels, height]; stops where a window does not fit.
export function stackRows(layers, [channels, height], bias) {
  const rows = [];
  let field = { size: 1, stride: 1, start: 0 };
  for (const layer of layers) {
    const { kind, kernel_size, stride, padding } = layer;
    const output = outputSize(height, kernel_size, stride, padding);
    const tooMuch = kind === "pool" && 2 * padding > kernel_size; // PyTorch refuses such padding
    if (output < 1 || tooMuch) {
      rows.push({ wrong: tooMuch
        ? `A pooling window of ${kernel_size} allows a padding of at most ${Math.floor(kernel_size / 2)}, not ${padding}.`
        : `The window of ${kernel_size} does not fit into ${height} values with padding ${padding}.` });
      break;
    }
    field = receptiveField(field, kernel_size, stride, padding);
    const out = kind === "conv" ? layer.channels : channels;
    rows.push({
      field, channels: out, output,
      params: kind === "conv" ? convParams(channels, out, kernel_size, bias) : 0,
      macs: kind === "conv" ? convMacs(channels, out, kernel_size, output) : 0,
    });
    [channels, height] = [out, output];
  }
  return rows;
}

// The stack as a whole, and the single convolution with its field, stride, channels and output size.
export function compareWithOne(layers, input, bias) {
  const rows = stackRows(layers, input, bias);
  const last = rows[rows.length - 1];
  if (last.wrong) return null;
  const sum = (name) => rows.reduce((total, row) => total + row[name], 0);
  return {
    stack: { params: sum("params"), macs: sum("macs"), ...last.field, output: last.output, channels: last.channels },
    one: {
      params: convParams(input[0], last.channels, last.field.size, bias),
      macs: convMacs(input[0], last.channels, last.field.size, last.output),
    },
  };
}

function render({ model, el }) {
  const { limits, most, ...data } = model.get("data");
  const presets = Object.fromEntries(data.presets); // in order: a notebook's file sorts the names in an object
  const copy = () => model.get("layers").map((layer) => ({ ...layer }));
  const setLayers = (layers) => put(model, { layers });

  const plain = (value) => JSON.stringify(value, value && Object.keys(value).sort());
  const presetId = freshId();
  const preset = html("select", { id: presetId, change: () => {
    const { layers, input, bias } = presets[preset.value] ?? {};
    if (layers) put(model, { layers, input_size: input, bias });
  } }, ["your own", ...Object.keys(presets)].map((name) => html("option", { value: name }, name)));
  const presetBox = html("div", { class: "cx-select" }, html("label", { for: presetId }, "Stack"), preset);
  presetBox.sync = () => {
    const same = (found) => found.layers.map(plain).join() === model.get("layers").map(plain).join()
      && found.input.join() === model.get("input_size").join() && found.bias === model.get("bias");
    preset.value = Object.keys(presets).find((name) => same(presets[name])) ?? "your own";
  };

  function small(label, value, [least, largest], set) {
    const field = html("input", { type: "number", min: least, max: largest, step: 1, "aria-label": label, value,
      input: () => {
        const number = field.valueAsNumber;
        if (Number.isInteger(number) && number >= least && number <= largest) set(number);
      },
      change: () => update(), });
    return field;
  }
  const inputField = (place, label, range) => {
    const id = freshId();
    const field = small(label, model.get("input_size")[place], range, (number) =>
      put(model, { input_size: model.get("input_size").map((old, i) => (i === place ? number : old)) }));
    field.id = id;
    field.removeAttribute("aria-label");
    const box = html("div", { class: "cx-select" }, html("label", { for: id }, label), field);
    box.sync = () => { if (field.valueAsNumber !== model.get("input_size")[place]) field.value = model.get("input_size")[place]; };
    return box;
  };

  const add = (layer) => setLayers([...copy(), layer]);
  const addConv = button("Add convolution", () =>
    add({ kind: "conv", kernel_size: 3, stride: 1, padding: 1, channels: stackChannels() }));
  const addPool = button("Add pooling", () => add({ kind: "pool", kernel_size: 2, stride: 2, padding: 0 }));
  const stackChannels = () =>
    copy().reverse().find(({ kind }) => kind === "conv")?.channels ?? model.get("input_size")[0];
  const controls = [presetBox, inputField(0, "Input channels", [1, 2048]), inputField(1, "Input height", [1, 1024]),
    checkControl(model, "bias", "Count biases"), addConv, addPool];

  const list = html("ol", { class: "cx-layers", "aria-label": "The layers of the stack" });
  const versus = html("div", { class: "cx-versus" });
  const status = html("p", { role: "status", class: "cx-status" });

  // The row elements are kept while the kinds of the layers stay, so that typing does not lose its place.
  let kinds = null;
  function build() {
    const layers = model.get("layers");
    const held = list.contains(document.activeElement) && document.activeElement.dataset.key;
    list.replaceChildren(...layers.map(({ kind }, i) => {
      const name = `layer ${i + 1}`;
      const change = (key, value) => {
        const next = copy();
        next[i][key] = value;
        setLayers(next);
      };
      const move = (to) => {
        const next = copy();
        next.splice(to, 0, ...next.splice(i, 1));
        setLayers(next);
        focusOn = `${to}-${to > i ? "down" : "up"}`;
      };
      const fields = COLUMNS.filter(([key]) => key !== "channels" || kind === "conv").map(([key, title]) => {
        const field = small(`${title} of ${name}`, "", limits[key], (value) => change(key, value));
        Object.assign(field.dataset, { field: key, key: `${i}-${key}` });
        return html("label", {}, title, field);
      });
      const remove = () => {
        setLayers(copy().filter((_, place) => place !== i));
        focusOn = `${Math.max(0, Math.min(i, layers.length - 2))}-remove`;
      };
      const act = (sign, key, label, click, disabled) =>
        button(sign, click, { "aria-label": label, "data-key": `${i}-${key}`, disabled });
      return html("li", {},
        html("div", { class: "cx-row" }, html("strong", {}, `${i + 1} ${kind === "conv" ? "Convolution" : "Pooling"}`), fields),
        html("div", { class: "cx-result" }),
        html("span", { class: "cx-move" },
          act("\u2191", "up", `Move ${name} up`, () => move(i - 1), i === 0),
          act("\u2193", "down", `Move ${name} down`, () => move(i + 1), i === layers.length - 1),
          act("\u00d7", "remove", `Remove ${name}`, remove, layers.length === 1)));
    }));
    const target = focusOn ?? held;
    focusOn = null;
    if (target) {
      const found = list.querySelector(`[data-key="${target}"]:enabled`) ?? list.querySelector(`[data-key="${target.split("-")[0]}-kernel_size"]`);
      found?.focus({ preventScroll: true });
    }
  }
  let focusOn = null;

  function update() {
    const layers = model.get("layers");
    const input = model.get("input_size");
    if (kinds !== layers.map(({ kind }) => kind).join() || focusOn) {
      kinds = layers.map(({ kind }) => kind).join();
      build();
    }
    const rows = stackRows(layers, input, model.get("bias"));
    layers.forEach((layer, i) => {
      const element = list.children[i];
      for (const field of element.querySelectorAll("[data-field]")) {
        const value = layer[field.dataset.field];
        if (field.valueAsNumber !== value) field.value = value;
      }
      const row = rows[i];
      element.classList.toggle("cx-wrong", Boolean(row?.wrong));
      const result = element.querySelector(".cx-result");
      if (!row || row.wrong) {
        result.textContent = row ? "does not fit" : "";
        return;
      }
      const { field, channels, output, params, macs } = row;
      const facts = {
        output: `${channels}\u00d7${output}\u00d7${output}`, field: `sees ${field.size}\u00d7${field.size}, stride ${field.stride}`,
        params: `${whole(params)} parameters`, macs: `${whole(macs)} multiply-adds`,
      };
      result.replaceChildren(...Object.entries(facts).map(([key, text]) => html("span", { "data-result": key }, text)));
    });
    addConv.disabled = addPool.disabled = layers.length >= most;

    const both = compareWithOne(layers, input, model.get("bias"));
    if (!both) {
      versus.replaceChildren();
      status.textContent = `Layer ${rows.length}: ${rows[rows.length - 1].wrong} Choose a smaller window, more padding or a larger input.`;
      status.classList.add("cx-wrong");
      return;
    }
    status.classList.remove("cx-wrong");
    const { stack, one } = both;
    const line = (measure, title) => {
      const largest = Math.max(stack[measure], one[measure]) || 1;
      const bar = (who, value) => html("div", { class: "cx-versus-row" }, html("span", {}, who),
        html("span", { class: "cx-track" }, html("span", { class: `cx-bar cx-bar-${measure}`, style: `width: ${(100 * value / largest).toFixed(2)}%` })),
        html("strong", { "data-versus": `${measure}-${who === "the stack" ? "stack" : "one"}` }, whole(value)));
      return html("div", {}, html("div", { class: "cx-soft" }, title), bar("the stack", stack[measure]),
        bar(`one ${stack.size}\u00d7${stack.size}`, one[measure]));
    };
    versus.replaceChildren(line("params", model.get("bias") ? "Parameters, with biases" : "Parameters, without biases"),
      line("macs", "Multiply-adds"));
    const ratio = (measure) => (one[measure] / stack[measure]).toPrecision(3);
    const convs = layers.filter(({ kind }) => kind === "conv").length;
    status.textContent = `Output ${stack.channels}\u00d7${stack.output}\u00d7${stack.output}; every unit sees `
      + `${stack.size}\u00d7${stack.size} of the input, ${plural(stack.stride, "pixel")} from its neighbour's field. `
      + (convs ? `One convolution with this field and stride has ${ratio("params")} times the parameters and `
        + `${ratio("macs")} times the multiply-adds, and one non-linearity instead of ${convs}.`
        : "A stack of poolings alone has no parameters.");
  }

  return mount({ model, el }, {
    name: "stack", title: "A stack of layers against one large kernel", controls, update, body: [list, versus, status],
  });
}

export default { render };
