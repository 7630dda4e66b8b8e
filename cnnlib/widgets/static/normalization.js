// Which values of a batch share a mean and a deviation.

const KINDS = [["batch", "batch norm"], ["layer", "layer norm"], ["instance", "instance norm"], ["group", "group norm"]];
const EPS = 1e-5;

// Whether two values [sample, channel] are normalized together.
export function together(kind, groups, channels, [sample, channel], [n, c]) {
  const group = (one) => Math.floor((one * groups) / channels);
  return { batch: channel === c, layer: sample === n, instance: sample === n && channel === c,
    group: sample === n && group(channel) === group(c) }[kind];
}

// Mean and deviation of what is normalized with a value, how many that are, and what becomes of the value.
export function normalize(values, kind, groups, sample, channel, place) {
  const shared = values.flatMap((image, n) => image.flatMap((map, c) =>
    (together(kind, groups, image.length, [sample, channel], [n, c]) ? map : [])));
  const mean = shared.reduce((a, b) => a + b) / shared.length;
  const deviation = Math.sqrt(shared.reduce((sum, value) => sum + (value - mean) ** 2, 0) / shared.length + EPS);
  return { count: shared.length, mean, deviation, result: (values[sample][channel][place] - mean) / deviation };
}

function render({ model, el }) {
  const { values } = model.get("data");
  const read = () => ["kind", "groups", "sample", "channel", "place"].map((name) => model.get(name));
  const groups = radioControl({ get: () => String(model.get("groups")), set: (_, value) => model.set("groups", Number(value)),
    save_changes: () => model.save_changes() }, "groups", "Groups", [["1", "1"], ["2", "2"], ["4", "4"]]);
  const controls = [radioControl(model, "kind", "Normalization", KINDS), groups];
  const cells = [];
  const board = html("div", { class: "cx-batch" }, values.map((image, n) => html("table", { class: "cx-grid-table" },
    html("caption", {}, `image ${n}`), html("tbody", {}, image.map((map, c) => html("tr", {}, html("th", { scope: "row" }, `ch. ${c}`),
      map.map((value, p) => {
        const choose = button(String(value), () => put(model, { sample: n, channel: c, place: p }));
        cells.push([choose, n, c, p]);
        return html("td", {}, choose);
      })))))));
  const status = html("p", { role: "status", class: "cx-status" });

  function update() {
    const [kind, count, sample, channel, place] = read();
    groups.hidden = kind !== "group";
    const { count: shared, mean, deviation, result } = normalize(values, ...read());
    for (const [cell, n, c, p] of cells) {
      const own = n === sample && c === channel && p === place;
      cell.classList.toggle("cx-shared", together(kind, count, values[0].length, [sample, channel], [n, c]));
      cell.classList.toggle("cx-chosen", own);
      cell.setAttribute("aria-pressed", String(own));
      cell.setAttribute("aria-label", `${values[n][c][p]}: image ${n}, channel ${c}, place ${p}`);
    }
    const whose = { batch: "its channel in all images of the batch", layer: "all channels of its image", instance: "its channel of its image",
      group: "its group of channels in its image" }[kind];
    status.textContent = `The mean ${mean.toFixed(3)} and the deviation ${deviation.toFixed(3)} come from ${shared} values: ${whose}. `
      + `(${values[sample][channel][place]} \u2212 ${mean.toFixed(3)}) / ${deviation.toFixed(3)} = ${result.toFixed(3).replace("-", "\u2212")}. `
      + (kind === "batch" ? "At test time batch norm takes running means of training instead; the others do the same as in training."
        : "No other image of the batch matters.");
  }

  return mount({ model, el }, { name: "norm", title: "Which values are normalized together", controls, update, body: [board, status] });
}

export default { render };
