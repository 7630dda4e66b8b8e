// The cost table: rows in forward order or sorted, filtered, by layer or by stage, one network or two.

const MEASURES = ["activations", "params", "macs"];
const EVERY = ["activations", "saved", "params", "macs"]; // saved, for the backward pass, is in bytes
const AT_ONCE = 30; // rows that stand there at the first response; the others follow, a little later
const LATER = 240; // of them at a time

// Rows of one table as objects; by stage, their sums, in forward order.
export function tableRows(data, entry, by) {
  const rows = data.layers[entry.layers].map(([name, kind, stage, params], i) => ({
    name, kind, stage, params, shape: entry.shapes[i], activations: entry.activations[i], macs: entry.macs[i],
    saved: entry.saved?.[i] ?? 0,
  }));
  if (by === "layer") return rows;
  const stages = new Map();
  for (const row of rows) {
    const name = row.stage || "(model)";
    if (!stages.has(name)) stages.set(name, { name, layers: 0, activations: 0, saved: 0, params: 0, macs: 0 });
    const stage = stages.get(name);
    for (const measure of EVERY) stage[measure] += row[measure];
    stage.shape = row.shape || stage.shape;
    stage.kind = plural(++stage.layers, "layer");
  }
  return [...stages.values()];
}

export function arrange(rows, filter, sort) {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const kept = rows.filter((row) => words.every((word) => `${row.name} ${row.kind}`.toLowerCase().includes(word)));
  if (!sort) return kept;
  const sign = sort.startsWith("-") ? -1 : 1;
  const measure = sort.replace("-", "");
  return kept.sort((a, b) => sign * (a[measure] - b[measure]));
}

export function sums(rows) {
  return Object.fromEntries(EVERY.map((measure) => [measure, rows.reduce((sum, row) => sum + row[measure], 0)]));
}

function bytesText(bytes) {
  if (bytes < 1e6) return `${Number((bytes / 1e3).toPrecision(3))} KB`;
  return `${Number((bytes / 1e6).toPrecision(4))} MB`;
}

function render({ model, el }) {
  const data = model.get("data");
  const titles = data.tables.map((entry) => entry.title);
  const find = (title) => data.tables.find((entry) => entry.title === title);
  const shown = () => (model.get("training") ? EVERY : MEASURES);
  const inBytes = (measure) => ["activations", "saved"].includes(measure) && model.get("memory") === "bytes";
  const factor = { activations: (entry) => (inBytes("activations") ? entry.value_bytes : 1),
    saved: (entry) => (inBytes("saved") ? 1 : 1 / entry.value_bytes), params: () => 1,
    macs: () => (model.get("operations") === "flops" ? 2 : 1) };
  const heading = {
    activations: () => ["Activations", model.get("memory") === "bytes" ? "KB or MB" : "values"],
    saved: () => ["Kept for training", model.get("memory") === "bytes" ? "KB or MB" : "values"],
    params: () => ["Parameters", "count"],
    macs: () => (model.get("operations") === "flops" ? ["FLOPs", "2 \u00d7 multiply-adds"] : ["Multiply-adds", "count"]),
  };
  // In full, and shortened for narrow places; the style sheet shows one of them.
  const figure = (measure, entry, value) => {
    if (measure === "saved" && !entry.saved) return "\u2013";
    const scaled = Math.round(value * factor[measure](entry));
    if (inBytes(measure)) return bytesText(scaled);
    return [html("span", { class: "cx-full" }, whole(scaled)), html("span", { class: "cx-short" }, short(scaled))];
  };

  const search = html("input", { type: "search", id: freshId(), placeholder: "conv, pool, stages.1 \u2026",
    input: () => put(model, { filter: search.value }) });
  const filter = html("div", { class: "cx-select" }, html("label", { for: search.id }, "Name or kind contains"), search);
  filter.sync = () => { if (search.value !== model.get("filter")) search.value = model.get("filter"); };
  const named = titles.map((title) => [title, title.replace(" at ", ", ")]);
  const controls = [
    titles.length > 1 && selectControl(model, "table", "Network and input", named),
    titles.length > 1 && selectControl(model, "compare", "Beside it", [["", "nothing"], ...named]),
    radioControl(model, "by", "Rows", [["layer", "layers"], ["stage", "stages"]]),
    radioControl(model, "memory", "Memory in", [["values", "values"], ["bytes", "KB, MB"]]),
    radioControl(model, "operations", "Work in", [["macs", "multiply-adds"], ["flops", "FLOPs"]]),
    filter,
    checkControl(model, "training", "Show what training keeps"),
    button("Save as CSV", save),
  ].filter(Boolean);

  const tables = html("div", { class: "cx-tables" });
  const status = html("p", { role: "status", class: "cx-status" });

  function chosen() {
    const entries = [find(model.get("table")), find(model.get("compare"))].filter(Boolean);
    return entries.map((entry) => {
      const all = tableRows(data, entry, model.get("by"));
      return { entry, all, rows: arrange([...all], model.get("filter"), model.get("sort")) };
    });
  }

  function save() {
    const { entry, rows } = chosen()[0];
    const head = [model.get("by"), "kind", "output", ...shown().map((measure) => {
      if (inBytes(measure)) return `${heading[measure]()[0].toLowerCase()} (bytes)`;
      return heading[measure]()[0].toLowerCase();
    })];
    download(`${entry.file}.csv`, csvText(head, rows.map((row) =>
      [row.name, row.kind, row.shape, ...shown().map((measure) =>
        (measure === "saved" && !entry.saved ? null : row[measure] * factor[measure](entry)))])), "text/csv");
  }

  // Clicking a column sorts it largest first, then smallest first, then forward order again.
  function sortBy(measure) {
    const next = { [`-${measure}`]: measure, [measure]: "" }[model.get("sort")] ?? `-${measure}`;
    put(model, { sort: next });
  }

  function draw({ entry, all, rows }, largest, waiting) {
    const sort = model.get("sort");
    const total = sums(all);
    const head = shown().map((measure) => {
      const direction = { [`-${measure}`]: ["descending", " \u25bc"], [measure]: ["ascending", " \u25b2"] }[sort];
      const [title, unit] = heading[measure]();
      return html("th", { scope: "col", class: "cx-figure", "aria-sort": direction?.[0] ?? "none" },
        html("button", { type: "button", "data-sort": measure, click: () => sortBy(measure) }, title + (direction?.[1] ?? "")),
        html("small", {}, unit));
    });
    const cells = (row) => shown().map((measure) => html("td", { class: "cx-figure" }, figure(measure, entry, row[measure]),
      html("small", { class: "cx-share" }, `${(100 * row[measure] / (total[measure] || 1)).toFixed(1)}%`),
      html("span", { class: `cx-bar cx-bar-${measure}`, style: `width: ${(100 * row[measure] / (largest[measure] || 1)).toFixed(2)}%` })));
    const broken = (name) => name.split(/(?<=\.)/).flatMap((part, i) => (i ? [html("wbr"), part] : part)); // behind a dot, if at all
    const body = html("tbody");
    waiting.push({ body, rows: rows.map((row) => () => html("tr", {},
      html("th", { scope: "row" }, broken(row.name || "(model)"),
        html("small", { class: "cx-slim" }, `${row.kind}, `, html("span", { class: "cx-shape" }, row.shape))),
      html("td", { class: "cx-wide" }, row.kind), html("td", { class: "cx-wide" }, row.shape), cells(row))) });
    return html("div", { class: "cx-scroll", tabindex: 0, role: "region", "aria-label": `Cost of ${entry.title}` },
      html("table", { class: "cx-table" },
        html("caption", {}, entry.title),
        html("thead", {}, html("tr", {}, html("th", { scope: "col" }, model.get("by") === "layer" ? "Layer" : "Stage"),
          html("th", { scope: "col", class: "cx-wide" }, "Kind"), html("th", { scope: "col", class: "cx-wide" }, "Output"), head)),
        body,
        html("tfoot", {}, html("tr", {}, html("th", { scope: "row" }, "Total"),
          html("td", { class: "cx-wide" }), html("td", { class: "cx-wide" }),
          shown().map((measure) => html("td", { class: "cx-figure" }, figure(measure, entry, total[measure])))))));
  }

  // The first rows at once, the rest in turns of the page, so that it answers quickly for a thousand layers, too.
  let turn = 0;
  function fillIn(bodies, from, to, mine) {
    if (mine !== turn) return;
    for (const { body, rows } of bodies) body.append(...rows.slice(from, to).map((row) => row()));
    if (bodies.some(({ rows }) => rows.length > to)) setTimeout(fillIn, from ? 0 : 300, bodies, to, to + LATER, mine);
  }

  function update() {
    const chosenTables = chosen();
    const largest = Object.fromEntries(EVERY.map((measure) =>
      [measure, Math.max(...chosenTables.flatMap(({ all }) => all.map((row) => row[measure])))]));
    const places = [...tables.children].map((child) => [child.scrollTop, child.scrollLeft]);
    const focused = tables.contains(document.activeElement) && document.activeElement.dataset.sort;
    const index = [...tables.children].findIndex((child) => child.contains(document.activeElement));
    const waiting = [];
    turn += 1;
    tables.replaceChildren(...chosenTables.map((one) => draw(one, largest, waiting)));
    const inView = places.map(([top]) => Math.ceil((top + 500) / 18)); // no row is lower than 18 pixels
    fillIn(waiting, 0, Math.max(AT_ONCE, ...inView), turn);
    places.forEach(([top, left], i) => tables.children[i]?.scrollTo({ top, left, behavior: "instant" }));
    if (focused) tables.children[index]?.querySelector(`[data-sort="${focused}"]`)?.focus({ preventScroll: true });
    tables.classList.toggle("cx-two", chosenTables.length > 1);
    tables.classList.toggle("cx-training", model.get("training"));

    const [{ entry, all, rows }, other] = chosenTables;
    const [total, part] = [sums(all), sums(rows)];
    const say = [];
    if (rows.length < all.length) {
      say.push(`${rows.length} of ${plural(all.length, model.get("by"))} shown, with `
        + `${whole(part.params)} of ${whole(total.params)} parameters.`);
    } else {
      say.push(`${plural(all.length, model.get("by"))}.`);
    }
    if (other) {
      const theirs = sums(other.all);
      const times = (measure) => (theirs[measure] / total[measure]).toPrecision(3);
      say.push(`${other.entry.title} has ${times("params")} times the parameters of ${entry.title}, `
        + `${times("macs")} times its multiply-adds and ${times("activations")} times its activations.`);
    }
    say.push(`One image, values of ${entry.value_bytes} bytes (1 MB = 1,000,000 bytes); `
      + `without gradients at most ${bytesText(entry.peak_bytes)} of activations live at once, the input included.`);
    if (model.get("training")) {
      const kept = entry.kept;
      say.push(!kept ? "What training keeps cannot be counted: the path through this network depends on values."
        : `Training by momentum keeps ${bytesText(kept.weights + kept.gradients + kept.optimizer_state)} of weights, gradients and `
          + `momentum, and for each image of a batch about ${bytesText(kept.saved)} for the backward pass.`);
    }
    status.textContent = say.join(" ");
  }

  return mount({ model, el }, { name: "cost", title: "What every layer costs", controls, update, body: [tables, status],
    end: () => { turn += 1; } });
}

export default { render };
