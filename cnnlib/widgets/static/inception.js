// An Inception module: four branches over one map, naive and with 1x1 reductions, and the cost of every layer.

const SETTINGS = [
  ["in_channels", "Input channels"], ["size", "Height and width"], ["conv1x1", "1\u00d71"], ["reduce3x3", "1\u00d71 before 3\u00d73"],
  ["conv3x3", "3\u00d73"], ["reduce5x5", "1\u00d71 before 5\u00d75"], ["conv5x5", "5\u00d75"], ["pool_proj", "1\u00d71 after pooling"],
];
const ROWS = [...SETTINGS.slice(2, 7), ["pool", "max pooling 3\u00d73"], SETTINGS[7]];

// Both forms: the layers of every branch, in forward order, the channels that each branch puts out, and the sums.
export function inceptionForms({ in_channels, size, conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool_proj }) {
  const layer = (name, from, to, kernel) => ({ name, ...convLayer(from, to, kernel, size, { bias: true }) });
  const pool = { name: "pool", from: in_channels, to: in_channels, kernel: 3, params: 0, macs: 0 };
  const one = layer("conv1x1", in_channels, conv1x1, 1);
  const form = (branches) => {
    const outputs = branches.map((layers) => layers[layers.length - 1].to);
    return { branches, outputs, channels: outputs.reduce((a, b) => a + b), ...total(branches.flat()) };
  };
  return {
    naive: form([[one], [layer("conv3x3", in_channels, conv3x3, 3)], [layer("conv5x5", in_channels, conv5x5, 5)], [pool]]),
    reduced: form([
      [one],
      [layer("reduce3x3", in_channels, reduce3x3, 1), layer("conv3x3", reduce3x3, conv3x3, 3)],
      [layer("reduce5x5", in_channels, reduce5x5, 1), layer("conv5x5", reduce5x5, conv5x5, 5)],
      [pool, layer("pool_proj", in_channels, pool_proj, 1)],
    ]),
  };
}

function render({ model, el }) {
  const { limits, ...data } = model.get("data");
  const presets = Object.fromEntries(data.presets); // in order: a notebook's file sorts the names in an object
  const read = () => Object.fromEntries(SETTINGS.map(([name]) => [name, model.get(name)]));
  const same = (preset) => SETTINGS.every(([name]) => preset[name] === model.get(name));

  const id = freshId();
  const select = html("select", { id, change: () => presets[select.value] && put(model, presets[select.value]) },
    html("option", { value: "" }, "your own"), Object.entries(presets).map(([name, { in_channels, size }]) => html("option",
      { value: name }, `${/^\d/.test(name) ? `GoogLeNet ${name}` : "the example"}: ${in_channels} channels, ${size}\u00d7${size}`)));
  const preset = html("div", { class: "cx-select" }, html("label", { for: id }, "Module"), select);
  preset.sync = () => (select.value = Object.keys(presets).find((name) => same(presets[name])) ?? "");
  const controls = [preset, ...SETTINGS.map(([name, label]) => numberControl(model, name, label, () => limits[name]))];

  const pictures = html("div", { class: "cx-pair" });
  const table = html("div");
  const status = html("p", { role: "status", class: "cx-status" });

  // The branches side by side; below them what is put out, to one scale for both forms.
  function picture(title, { branches, outputs, channels, macs }, widest, largest) {
    const { in_channels, size } = read();
    const box = ({ name, to, kernel, macs }) => html("div", { class: "cx-box" },
      html("strong", {}, name === "pool" ? "pool 3\u00d73" : `${kernel}\u00d7${kernel}`), html("span", {}, `${whole(to)} ch.`),
      html("span", { class: "cx-soft" }, macs ? short(macs) : "free"),
      html("span", { class: "cx-bar cx-bar-macs", style: `width: ${(100 * macs / largest).toFixed(2)}%` }));
    const wire = () => html("div", { class: "cx-wire" });
    return html("div", { class: "cx-picture", role: "img", "aria-label": `${title}: ${outputs.join(" + ")} = ${channels} channels, ${whole(macs)} multiply-adds` },
      html("div", { class: "cx-row" }, html("strong", {}, title), html("span", {}, `${short(macs)} multiply-adds`)),
      html("div", { class: "cx-box" }, `input: ${whole(in_channels)} channels of ${size}\u00d7${size}`),
      html("div", { class: "cx-branches" }, branches.map((layers) =>
        html("div", {}, wire(), layers.flatMap((layer) => [box(layer), wire()])))),
      html("div", { class: "cx-concat" }, outputs.map((count) => html("span", { style: `flex-grow: ${count}` })),
        channels < widest && html("i", { style: `flex-grow: ${widest - channels}` })),
      html("div", {}, `output: ${outputs.map(whole).join(" + ")} = `, html("strong", {}, whole(channels)), " channels"));
  }

  function update() {
    const { naive, reduced } = inceptionForms(read());
    const { in_channels, size } = read();
    const forms = [naive, reduced];
    const widest = Math.max(naive.channels, reduced.channels);
    const layers = forms.map(({ branches }) => branches.flat());
    const [params, macs] = ["params", "macs"].map((measure) => Math.max(...layers.flat().map((layer) => layer[measure])));
    pictures.replaceChildren(picture("Naive", naive, widest, macs), picture("With 1\u00d71 reductions", reduced, widest, macs));

    const term = ({ from, to, kernel }) =>
      [`${size}\u00b2`, to, kernel > 1 && `${kernel}\u00b2`, from].filter(Boolean).join("\u00b7");
    const cells = (name, measure, largest) => layers.map((list) => {
      const layer = list.find((one) => one.name === name);
      if (!layer) return html("td", { class: "cx-figure cx-soft" }, "\u2013");
      return figureCell(measure, layer[measure], largest, measure === "macs" && layer.macs > 0 && term(layer));
    });
    const head = (text) => html("th", { scope: "col", class: "cx-figure" }, text);
    table.replaceChildren(html("table", { class: "cx-table cx-fixed" },
      html("thead", {},
        html("tr", {}, html("th", { scope: "col", rowspan: 2 }, "Layer"),
          html("th", { scope: "colgroup", colspan: 2, class: "cx-figure" }, "Multiply-adds"),
          html("th", { scope: "colgroup", colspan: 2, class: "cx-figure" }, "Parameters")),
        html("tr", {}, ["naive", "reduced", "naive", "reduced"].map(head))),
      html("tbody", {}, ROWS.map(([name, label]) => html("tr", { "data-row": name }, html("th", { scope: "row" }, label),
        cells(name, "macs", macs), cells(name, "params", params)))),
      html("tfoot", {}, html("tr", {}, html("th", { scope: "row" }, "Total"),
        ["macs", "params"].flatMap((measure) => forms.map((form) => figureCell(measure, form[measure])))))));

    const grown = naive.channels - in_channels;
    status.textContent = `With reductions the module needs ${versus(naive.macs, reduced.macs)} multiply-adds and `
      + `${versus(naive.params, reduced.params)} parameters, biases included. A naive module adds ${plural(grown, "channel")} `
      + `to its input every time, because the pooling keeps all of them: ${whole(in_channels)}, ${whole(naive.channels)}, `
      + `${whole(naive.channels + grown)} and so on. With reductions ${whole(reduced.channels)} channels leave, whatever enters.`;
  }

  return mount({ model, el }, {
    name: "inception", title: "An Inception module, branch by branch", controls, update, body: [pictures, table, status],
  });
}

export default { render };
