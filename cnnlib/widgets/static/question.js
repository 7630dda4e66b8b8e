// A question that answers on the page; the rules of cnnlib/judging.py, read from the same table.

const plainText = (rules, text) => rules.plain.reduce((now, [old, fresh]) => now.replaceAll(old, fresh), text);

export function sameNumber(rules, answer, truth, tolerance = null) {
  if (answer === truth) return true;
  if (!Number.isFinite(answer)) return false;
  const error = Math.abs(answer - truth);
  if (tolerance != null) return error <= tolerance * Math.abs(truth);
  if (Number.isInteger(truth)) {
    if (Math.abs(truth) < rules.exact_below) return false;
  } else if (error <= rules.relative * Math.abs(truth)) return true;
  const [digits, power] = answer.toExponential().split("e"); // the shortest text that is this number
  const count = digits.replace(/[^0-9]/g, "").length;
  return answer !== 0 && error <= 0.5 * 10 ** (Number(power) + 1 - Math.max(rules.digits, count)) * (1 + 1e-9);
}

export function readNumber(rules, text) {
  const joined = plainText(rules, text).trim().toLowerCase().replace(/^[=~ ]+/, "")
    .replace(/(?<=[\d.]) (?=(?:\d{3}|[kmgbt%x*e]|thousand|million|billion)(?!\w))/g, "").split(" ")[0];
  const found = new RegExp(`^(?:${rules.number})$`).exec(joined);
  if (!found) return null;
  const [, sign, digits, power, scale] = found;
  if (scale && !(scale in rules.scales)) return null;
  return Number(`${sign}${digits.replaceAll(",", "")}e${power ?? 0}`) * (rules.scales[scale] ?? 1);
}

export function readAnswer(rules, kind, answer) {
  if (kind === "choice") return answer.trim().toLowerCase();
  if (kind === "order") return answer.map((item) => item.trim().toLowerCase());
  if (kind === "number") return readNumber(rules, answer);
  const parts = plainText(rules, answer).trim().split(new RegExp(`(?:${rules.between}|\\s)+`)).filter(Boolean);
  const numbers = parts.map((part) => readNumber(rules, part));
  return numbers.length && !numbers.includes(null) ? numbers : null;
}

function equal(rules, kind, given, truth, tolerance) {
  if (kind === "number") return sameNumber(rules, given, truth, tolerance);
  if (kind === "choice") return given === truth.trim().toLowerCase();
  return given.length === truth.length && given.every((one, i) => one === (kind === "order" ? truth[i].trim().toLowerCase() : truth[i]));
}

// [right or null, what there is to say]
export function judge({ rules, unreadable, kind, truth, tolerance, usual }, answer) {
  const given = readAnswer(rules, kind, answer);
  if (given === null || given === "" || given.length === 0) return [null, unreadable[kind]];
  if (equal(rules, kind, given, truth, tolerance)) return [true, ""];
  for (const [wrong, meaning] of usual) if (equal(rules, kind, given, wrong, tolerance)) return [false, meaning];
  if (kind === "shape" && given.length !== truth.length) return [false, `the answer has ${truth.length} lengths, yours ${given.length}`];
  const sorted = (numbers) => [...numbers].sort((a, b) => a - b).join();
  if (kind === "shape" && sorted(given) === sorted(truth)) return [false, "these are the right lengths in another order"];
  return [false, ""];
}

const sentence = (text) => (/[.!?]$/.test(text) ? text : `${text}.`);

function render({ model, el }) {
  const data = model.get("data");
  // Under its name, or by what makes it this question: several ask for "the shape of its output".
  const key = `cnnlib question: ${data.name === data.text ? [data.text, JSON.stringify(data.truth), ...data.hints].join(" ") : data.name}`;
  const remember = (value) => { try { localStorage.setItem(key, value); } catch { /* a page that may keep nothing */ } };
  const recall = () => { try { return localStorage.getItem(key); } catch { return null; } };
  const id = freshId();
  const answer = (value) => put(model, { answer: value, tried: 0 });
  const order = () => (model.get("answer") ? JSON.parse(model.get("answer")) : data.items);
  const given = () => (data.kind === "order" ? order() : model.get("answer"));
  const submit = () => put(model, { tried: model.get("tried") + 1 });

  let field;
  if (data.kind === "choice") field = radioControl(model, "answer", "Your answer", data.items.map((item) => [item, item]));
  else if (data.kind === "order") {
    const list = html("ol", { class: "cx-order", "aria-label": "Your order" });
    field = html("div", {}, list);
    field.sync = () => {
      const held = list.contains(document.activeElement) && document.activeElement.getAttribute("aria-label");
      const move = (i, to) => {
        const items = [...order()];
        items.splice(to, 0, ...items.splice(i, 1));
        answer(JSON.stringify(items));
      };
      list.replaceChildren(...order().map((item, i, all) => html("li", {}, html("span", {}, item),
        button("\u2191", () => move(i, i - 1), { "aria-label": `Move ${item} up`, disabled: i === 0 }),
        button("\u2193", () => move(i, i + 1), { "aria-label": `Move ${item} down`, disabled: i === all.length - 1 }))));
      if (held) list.querySelector(`[aria-label="${CSS.escape(held)}"]:enabled`)?.focus();
    };
  } else {
    const input = html("input", { type: "text", id, autocomplete: "off", spellcheck: "false", input: () => answer(input.value),
      keydown: (event) => event.key === "Enter" && submit() });
    field = html("div", { class: "cx-select" }, html("label", { for: id }, data.kind === "shape" ? "Your answer: lengths, such as 64, 55, 55" : "Your answer"), input);
    field.sync = () => { if (input.value !== model.get("answer")) input.value = model.get("answer"); };
  }
  const hint = button("A hint", () => put(model, { hints: model.get("hints") + 1 }));
  const controls = [field, button("Check", submit), data.hints.length > 0 && hint].filter(Boolean);
  const hints = html("ol", { class: "cx-hints" });
  const status = html("p", { role: "status", class: "cx-status" });

  function update() {
    const shown = Math.min(model.get("hints"), data.hints.length);
    hints.replaceChildren(...data.hints.slice(0, shown).map((text) => html("li", {}, text)));
    hint.disabled = shown >= data.hints.length;
    hint.textContent = shown ? "Another hint" : "A hint";
    const [right, meaning] = model.get("tried") ? judge(data, given()) : [null, ""];
    if (right) remember("solved");
    const solved = recall() === "solved";
    status.classList.toggle("cx-right", Boolean(right));
    status.classList.toggle("cx-wrong", right === false);
    status.textContent = right ? `\u2713 Right. ${data.because}` : right === false ? sentence(`\u2717 Not yet${meaning ? `: ${meaning}` : ""}`)
      : model.get("tried") ? `Please ${meaning}.` : solved ? "\u2713 You have solved this one before." : "";
  }

  return mount({ model, el }, { name: "question", title: data.text, controls, update, body: [status, hints] });
}

export default { render };
