// Blocks of many networks: their layers and costs, and other blocks at equal width or at equal cost.

const RESIDUAL = ["basic", "bottleneck", "resnext"]; // those that can activate before their convolutions
const WITH_SE = [...RESIDUAL, "inverted"];
const FREE = { bottleneck: "Middle width", resnext: "Width of all branches", inverted: "Expansion t", fire: "Squeeze channels" };
const GROUPED = { resnext: "Branches (cardinality)", shuffle: "Groups" };

const divides = (part, count, what) => count % part && `${whole(part)} does not divide the ${whole(count)} ${what}.`;

// Why no such block exists, or "".
export function wrongBlock({ kind, channels, width, groups, reduction }) {
  const quarter = Math.floor(channels / 4);
  const excited = WITH_SE.includes(kind) && reduction > 0;
  return (kind === "resnext" && divides(groups, width, "channels in the middle; choose a multiple of it, or other groups"))
    || (kind === "shuffle" && (divides(4, channels, "channels; a shuffle unit has a quarter of them in its middle")
      || divides(groups, quarter, "channels in the middle, which are to be grouped")))
    || (kind === "shuffle_v2" && divides(2, channels, "channels, of which one half passes untouched"))
    || (excited && divides(reduction, kind === "inverted" ? width : channels, "channels that squeeze-and-excitation sees"))
    || "";
}

// The layers of a block in forward order, as in cnnlib. `before` and `after` are what stands beside a convolution,
// `at` and `out` say where its input and output lie among the channels, for the drawing.
export function blockLayers({ kind, channels, size, width, groups, reduction, order }) {
  const pre = order === "pre" && RESIDUAL.includes(kind);
  const bare = kind === "fire";
  const conv = (from, to, kernel, { activation = "ReLU", ...options } = {}) => {
    const words = [!bare && "norm", (pre || bare) ? "ReLU" : activation].filter(Boolean);
    return {
      name: `${kernel}\u00d7${kernel}${options.groups === from ? " depthwise" : options.groups > 1 ? ` in ${options.groups} groups` : ""}`,
      before: pre ? words : [], after: pre ? [] : words,
      ...convLayer(from, to, kernel, size, { ...options, bias: bare, norm: bare ? 0 : pre ? from : to }),
    };
  };
  const note = (name, count = channels) => ({ name, before: [], after: [], from: count, to: count, groups: 1, params: 0, macs: 0 });
  const excite = (count) => {
    if (!reduction) return [];
    const hidden = count / reduction;
    return [{ ...note("squeeze-and-excitation", count), hidden,
      params: 2 * count * hidden + hidden + count, macs: 2 * count * hidden }];
  };
  const last = { activation: "" };
  const sum = note(pre || kind === "inverted" ? "add the input" : "add the input, ReLU");
  const third = { activation: "ReLU6" };
  switch (kind) {
    case "basic":
      return [conv(channels, channels, 3), conv(channels, channels, 3, last), ...excite(channels), sum];
    case "bottleneck":
    case "resnext":
      return [conv(channels, width, 1), conv(width, width, 3, { groups: kind === "resnext" ? groups : 1 }),
        conv(width, channels, 1, last), ...excite(channels), sum];
    case "fire": // the two expansions lie side by side
      return [conv(channels, width, 1), { ...conv(width, 4 * width, 1), out: -2 * width },
        { ...conv(width, 4 * width, 3), out: 2 * width }, note("concatenate both", 8 * width)];
    case "separable":
      return [conv(channels, channels, 3, { groups: channels, ...third }), conv(channels, channels, 1, third)];
    case "inverted":
      return [...(width === channels ? [] : [conv(channels, width, 1, third)]),
        conv(width, width, 3, { groups: width, ...third }), ...excite(width), conv(width, channels, 1, last), sum];
    case "shuffle": {
      const quarter = channels / 4;
      return [conv(channels, quarter, 1, { groups }), note("shuffle", quarter), conv(quarter, quarter, 3, { groups: quarter, ...last }),
        conv(quarter, channels, 1, { groups, ...last }), sum];
    }
    default: { // shuffle_v2: one half passes, the other works
      const half = channels / 2;
      return [conv(half, half, 1), conv(half, half, 3, { groups: half, ...last }), conv(half, half, 1)]
        .map((layer) => ({ ...layer, at: half / 2, out: half / 2, passes: half })).concat(note("concatenate, shuffle"));
    }
  }
}

export const blockCost = (setting) => total(blockLayers(setting));

// The middle width in the proportion of the kind's paper.
export function ownWidth(kinds, kind, channels, groups) {
  return Math.max(1, Math.floor(channels * kinds[kind].ratio / groups + 0.5)) * groups;
}

// A kind with these channels, in the proportions of its paper; the groups are halved until they divide.
export function paperBlock(kinds, kind, channels, size) {
  let { groups } = kinds[kind];
  const middle = channels * kinds[kind].ratio;
  while (groups > 1 && middle % groups) groups /= 2;
  return { kind, channels, size, groups, width: ownWidth(kinds, kind, channels, groups), reduction: 0, order: "post" };
}

const nearest = (candidates, macs) => candidates.reduce((best, setting) => {
  const error = Math.abs(blockCost(setting).macs - macs);
  return !best || error < best.error ? { setting, error } : best;
}, null).setting;

// A kind whose multiply-adds come closest to `macs`, among all channels that its proportions divide; for ResNeXt, whose
// width must be a multiple of its groups, with the multiple below or above half of the channels.
export function equalCost(kinds, kind, size, macs, most) {
  const { groups, ratio } = kinds[kind];
  const candidates = [];
  const step = Math.max(1, 1 / ratio) * (kind === "shuffle" ? groups : 1);
  for (let channels = step; channels <= most; channels += step) {
    const setting = { ...paperBlock(kinds, kind, channels, size), groups };
    if (kind !== "resnext") candidates.push({ ...setting, width: ownWidth(kinds, kind, channels, groups) });
    else for (const round of [Math.floor, Math.ceil]) {
      candidates.push({ ...setting, width: Math.max(1, round(channels * ratio / groups)) * groups });
    }
    if (blockCost(candidates[candidates.length - 1]).macs > 2 * macs) break;
  }
  return nearest(candidates, macs);
}

// ResNeXt blocks with these channels and closest multiply-adds, for more and more groups.
export function equalGroups(channels, size, macs) {
  const rows = [];
  for (let groups = 1; groups <= 64; groups *= 2) {
    const block = (each) => ({ kind: "resnext", channels, size, groups, width: each * groups, reduction: 0, order: "post" });
    let each = 1;
    while (blockCost(block(each)).macs < macs) each++;
    rows.push(nearest([block(Math.max(1, each - 1)), block(each)], macs));
  }
  return rows;
}

function render({ model, el }) {
  const { limits, ...data } = model.get("data");
  const kinds = Object.fromEntries(data.kinds); // in order: a notebook's file sorts the names in an object
  const names = ["kind", "channels", "size", "width", "groups", "reduction", "order"];
  const read = () => Object.fromEntries(names.map((name) => [name, model.get(name)]));

  // A control on values made of the model's: `get` and `set` stand for one number.
  const proxy = (get, set) => ({ get, set: (name, value) => set(value), save_changes: () => model.save_changes() });
  // The width goes along while it stands in its proportion: that of the paper, or a whole expansion.
  function follow(change) {
    const { kind, channels, width, groups } = read();
    const next = { channels, groups, ...change };
    const times = width / channels;
    if (kind === "inverted" && Number.isInteger(times)) next.width = times * next.channels;
    else if (width === ownWidth(kinds, kind, channels, groups)) next.width = ownWidth(kinds, kind, next.channels, next.groups);
    for (const [name, value] of Object.entries(next)) model.set(name, value);
  }
  const shownFor = (control, has, label) => {
    const { sync } = control;
    control.sync = () => {
      const kind = model.get("kind");
      control.hidden = !has(kind);
      if (label?.[kind]) {
        control.querySelector("label").textContent = label[kind];
        control.querySelector("input[type=range]").setAttribute("aria-label", label[kind]);
      }
      sync();
    };
    return control;
  };
  const design = (kind) => {
    const { channels, size } = read();
    put(model, { ...paperBlock(kinds, kind, channels, size), reduction: model.get("reduction"), order: model.get("order") });
  };

  const kind = selectControl({ get: (name) => model.get(name), set: (name, value) => design(value), save_changes() {} },
    "kind", "Block", Object.entries(kinds).map(([name, { title, source }]) => [name, `${title} (${source})`]));
  const isInverted = () => model.get("kind") === "inverted";
  const widths = () => {
    const { kind, channels, groups } = read();
    return { bottleneck: [1, 2 * channels], resnext: [groups, 2 * Math.max(channels, groups)], inverted: [1, 12] }[kind]
      ?? [1, Math.max(1, Math.floor(channels / 2))];
  };
  const width = numberControl(proxy(() => (isInverted() ? model.get("width") / model.get("channels") : model.get("width")),
    (value) => model.set("width", isInverted() ? value * model.get("channels") : value)), "width", "Middle width", widths);
  const withSE = checkControl(proxy(() => model.get("reduction") > 0, (value) => model.set("reduction", value ? 16 : 0)),
    "reduction", "Squeeze-and-excitation");
  const controls = [
    kind,
    numberControl(proxy(() => model.get("channels"), (channels) => follow({ channels })), "channels", "Channels", () => limits.channels),
    numberControl(model, "size", "Height and width", () => limits.size),
    shownFor(width, (kind) => kind in FREE, FREE),
    shownFor(numberControl(proxy(() => model.get("groups"), (groups) => follow({ groups })), "groups", "Groups", () => [1, 64]),
      (kind) => kind in GROUPED, GROUPED),
    shownFor(withSE, (kind) => WITH_SE.includes(kind)),
    shownFor(numberControl(model, "reduction", "Reduction r", () => [1, 64]),
      (kind) => WITH_SE.includes(kind) && model.get("reduction") > 0),
    shownFor(radioControl(model, "order", "Norm and ReLU", [["post", "after"], ["pre", "before"]]),
      (kind) => RESIDUAL.includes(kind)),
  ];

  const layers = html("div");
  const status = html("p", { role: "status", class: "cx-status" });
  const compare = radioControl(model, "compare", "Other blocks at",
    [["width", "equal width"], ["cost", "equal cost"], ["groups", "more groups"]]);
  const others = html("div");

  // The channels of a layer as a shape from its input (above) to its output (below), cut into its groups.
  // `end` says whether the shortcut leaves here ("first"), ends here ("last") or only passes ("").
  function profile({ from, to, groups, at = 0, out = 0, passes = 0 }, widest, end) {
    const scale = (channels) => 56 + 84 * channels / widest;
    const pieces = Math.min(groups, 24);
    const cut = pieces > 1 ? 0.25 : 0;
    const points = Array.from({ length: pieces }, (_, i) => {
      const edges = (count, middle) => [i + cut / 2, i + 1 - cut / 2].map((part) => scale(middle + count * (part / pieces - 0.5)));
      const [top, bottom] = [edges(from, at), edges(to, out)];
      return `M${top[0]} 0L${top[1]} 0L${bottom[1]} 20L${bottom[0]} 20z`;
    });
    return html("td", { class: "cx-profile" }, svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("path", { class: "cx-shape", d: points.join("") }),
      passes && svg("path", { class: "cx-pass", d: `M${scale(-passes)} 0V20H${scale(0)}V0z` }),
      end != null && svg("path", { class: "cx-shortcut", d:
        end === "first" ? `M${scale(-from / 2)} 0H5V20` : end === "last" ? `M5 0V10H${scale(-to / 2)}` : "M5 0V20" })));
  }

  function draw(setting) {
    const rows = blockLayers(setting);
    const all = total(rows);
    const [params, macs] = ["params", "macs"].map((measure) => Math.max(...rows.map((row) => row[measure])));
    const widest = Math.max(...rows.flatMap(({ from, to, passes = 0 }) => [from + passes, to + passes]));
    const added = rows[rows.length - 1].name.startsWith("add");
    layers.replaceChildren(html("table", { class: "cx-table cx-fixed cx-block-layers" },
      html("caption", {}, `Input: ${whole(setting.channels)} channels of ${setting.size}\u00d7${setting.size}. The width of the shape shows the channels.`),
      html("thead", {}, html("tr", {}, html("td", {}), html("th", { scope: "col" }, "Layer"),
        html("th", { scope: "col", class: "cx-figure" }, "Parameters"), html("th", { scope: "col", class: "cx-figure" }, "Multiply-adds"))),
      html("tbody", {}, rows.map((row, i) => {
        const end = added ? (i === 0 ? "first" : i < rows.length - 1 ? "" : "last") : null;
        const channels = row.macs ? `${whole(row.from)} \u2192 ${row.hidden ? `${whole(row.hidden)} \u2192 ` : ""}${whole(row.to)}` : whole(row.to);
        return html("tr", {}, profile(row, widest, end),
          html("th", { scope: "row" }, [...row.before, html("strong", {}, row.name), ...row.after].flatMap((part, j) => (j ? [", ", part] : [part])),
            html("small", {}, `${channels} channels`)),
          row.macs ? [figureCell("params", row.params, params), figureCell("macs", row.macs, macs)]
            : [0, 1].map(() => html("td", { class: "cx-figure cx-soft" }, "\u2013")));
      })),
      html("tfoot", {}, html("tr", {}, html("td", {}), html("th", { scope: "row" }, "Total"),
        figureCell("params", all.params), figureCell("macs", all.macs)))));
    const heaviest = rows.reduce((a, b) => (b.macs > a.macs ? b : a));
    return `${whole(all.params)} parameters and ${whole(all.macs)} multiply-adds (${short(all.macs)}); `
      + `${percent(heaviest.macs, all.macs)} of the multiply-adds in the ${heaviest.name} layer, ${whole(heaviest.from)}\u00a0\u2192\u00a0${whole(heaviest.to)}.`;
  }

  function drawOthers(setting, wrong) {
    const mode = model.get("compare");
    const { macs } = wrong ? { macs: 0 } : blockCost(setting);
    const list = mode === "groups" ? (wrong ? [] : equalGroups(setting.channels, setting.size, macs))
      : mode === "cost" ? (wrong ? [] : Object.keys(kinds).map((name) => equalCost(kinds, name, setting.size, macs, limits.channels[1])))
        : Object.keys(kinds).map((name) => paperBlock(kinds, name, setting.channels, setting.size));
    const rows = [...(wrong ? [] : [{ setting, own: true }]), ...list.map((other) => ({ setting: other }))]
      .map((row) => ({ ...row, wrong: wrongBlock(row.setting) }))
      .map((row) => ({ ...row, cost: row.wrong ? null : blockCost(row.setting) }));
    const [most, mostMacs] = ["params", "macs"].map((measure) => Math.max(1, ...rows.map(({ cost }) => cost?.[measure] ?? 0)));
    const held = others.contains(document.activeElement) && [...others.querySelectorAll("button")].indexOf(document.activeElement);
    others.replaceChildren(html("table", { class: "cx-table cx-fixed cx-others" },
      html("caption", {}, wrong && mode !== "width" ? "Costs can be compared once your block fits together." : { width: "All blocks with the same channels, in the proportions of their papers.",
        cost: "All blocks in the proportions of their papers, with the channels at which their multiply-adds come closest to yours.",
        groups: "ResNeXt blocks with your channels: the more branches, the more width for the same multiply-adds." }[mode]),
      html("thead", {}, html("tr", {}, html("th", { scope: "col" }, "Block"), html("th", { scope: "col", class: "cx-figure" }, "Channels", html("small", {}, "and in the middle")),
        html("th", { scope: "col", class: "cx-figure" }, "Parameters"),
        html("th", { scope: "col", class: "cx-figure" }, "Multiply-adds"))),
      html("tbody", {}, rows.map(({ setting: other, own, wrong, cost }) => {
        const { title } = kinds[other.kind];
        const { width, groups } = other;
        const name = mode === "groups" && !own ? `${title}, ${plural(groups, "group")}` : title;
        const out = other.kind === "fire" && 8 * width !== other.channels && `, out ${whole(8 * width)}`;
        const middle = { basic: other.channels, separable: other.channels, shuffle: other.channels / 4, shuffle_v2: other.channels / 2 }[other.kind] ?? width;
        const grouped = other.kind in GROUPED && (own || groups > 1 || mode === "groups");
        return html("tr", { class: own && "cx-yours" }, html("th", { scope: "row" },
          own ? html("strong", {}, `yours: ${title}`) : button(name, () => put(model, other), { class: "cx-link", "aria-label": `Design ${name}` })),
        html("td", { class: "cx-figure", "data-channels": other.channels }, whole(other.channels),
          html("small", {}, html("span", { class: "cx-full" }, "middle "), wrong ? "\u2013" : grouped ? `${groups}\u00a0\u00d7\u00a0${whole(middle / groups)}` : whole(middle), out)),
        wrong ? html("td", { colspan: 2 }, html("small", {}, wrong))
          : [figureCell("params", cost.params, most), figureCell("macs", cost.macs, mostMacs, !own && macs > 0 && `${(cost.macs / macs).toPrecision(3)}\u00d7 yours`)]);
      }))));
    if (held !== false) others.querySelectorAll("button")[held]?.focus({ preventScroll: true });
  }

  function update() {
    const setting = read();
    const wrong = wrongBlock(setting);
    status.classList.toggle("cx-wrong", Boolean(wrong));
    if (wrong) layers.replaceChildren();
    status.textContent = wrong || `${kinds[setting.kind].idea} ${draw(setting)}`;
    compare.sync();
    drawOthers(setting, wrong);
  }

  return mount({ model, el }, {
    name: "block", title: "A block, layer by layer", controls, update, body: [layers, status, compare, others],
  });
}

export default { render };
