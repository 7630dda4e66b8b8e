// Shared by the designers of modules and blocks.

// A convolution as a layer of plain numbers; `side` is the height and width of its output. `norm` counts the channels
// that are normalized beside it.
export function convLayer(from, to, kernel, side, { groups = 1, bias = false, norm = 0 } = {}) {
  return {
    from, to, kernel, groups,
    params: convParams(from, to, kernel, bias, groups) + 2 * norm,
    macs: convMacs(from, to, kernel, side, side, groups),
  };
}

export const total = (layers) => ({
  params: layers.reduce((sum, layer) => sum + layer.params, 0),
  macs: layers.reduce((sum, layer) => sum + layer.macs, 0),
});

// A cell with a number, in full and shortened for narrow places, and its bar.
const figureCell = (measure, value, largest, note) => html("td", { class: "cx-figure", "data-measure": measure },
  html("span", { class: "cx-full" }, whole(value)), html("span", { class: "cx-short" }, short(value)),
  note && html("small", { class: "cx-wide" }, note),
  largest && html("span", { class: `cx-bar cx-bar-${measure}`, style: `width: ${(100 * value / largest).toFixed(2)}%` }));

// "3.15 times fewer" or "1.2 times as many", of b against a.
const versus = (a, b) => (b <= a ? `${(a / b).toPrecision(3)} times fewer` : `${(b / a).toPrecision(3)} times as many`);
const percent = (part, all) => `${Math.round(100 * part / all)}%`;
