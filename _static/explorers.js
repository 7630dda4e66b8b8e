// Runs the book's explorers on built pages, which have no kernel.
//
// An explorer is an ipywidget made with anywidget. The notebook's file holds its state, which the book puts into the
// page as JSON: the JavaScript module (_esm), the style sheet (_css) and the traits. In Jupyter and Colab their own
// machinery reads it; here this script does: for every place of a widget it calls the module's render({model, el}).
(() => {
  const STATE = 'script[type="application/vnd.jupyter.widget-state+json"]';
  const VIEW = 'script[type="application/vnd.jupyter.widget-view+json"]';
  const models = new Map(); // model id -> Model, shared by all views of it
  const modules = new Map(); // text of a module -> promise of what it exports
  const styles = new Set();
  const files = new URL("live/", document.currentScript.src).href; // what explorers may fetch lies beside this script

  // As much of a Backbone model as anywidget promises: get, set, on, off, save_changes, send.
  class Model {
    constructor(state) {
      this.state = state;
      this.files = files;
      this.listeners = [];
    }
    get(name) {
      return this.state[name];
    }
    set(name, value) {
      const values = typeof name === "string" ? { [name]: value } : name;
      const changed = Object.keys(values).filter((key) => !same(this.state[key], values[key]));
      Object.assign(this.state, values);
      for (const key of changed) this.trigger(`change:${key}`, this, values[key]);
      if (changed.length) this.trigger("change", this);
    }
    trigger(event, ...rest) {
      for (const [name, callback] of [...this.listeners]) if (name === event) callback(...rest);
    }
    on(names, callback) {
      for (const name of names.split(" ")) this.listeners.push([name, callback]);
    }
    off(names, callback) {
      const list = names?.split(" ");
      this.listeners = this.listeners.filter(([name, other]) =>
        (list && !list.includes(name)) || (callback && other !== callback));
    }
    save_changes() {} // there is no kernel to save to
    send() {}
  }

  const same = (a, b) => a === b || (typeof a === "object" && JSON.stringify(a) === JSON.stringify(b));

  function importText(text) {
    if (!modules.has(text)) {
      const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
      modules.set(text, import(url).finally(() => URL.revokeObjectURL(url)));
    }
    return modules.get(text);
  }

  // What is done once for each model: its module, and the module's own preparation.
  function open(state) {
    const model = new Model(state);
    model.ready = importText(state._esm).then(async ({ default: found }) => {
      const widget = typeof found === "function" ? await found() : found;
      await widget.initialize?.({ model });
      return widget;
    });
    return model;
  }

  function addStyle(text) {
    if (!text || styles.has(text)) return;
    styles.add(text);
    document.head.append(Object.assign(document.createElement("style"), { textContent: text }));
  }

  // An explorer that has not begun: where it stands, with room kept for it, and what it will show.
  function keepRoom(place) {
    const id = JSON.parse(place.textContent).model_id;
    const { state, model_module } = states[id] ?? {};
    if (model_module !== "anywidget") return; // a plain ipywidget: it needs a kernel
    if (!styles.size) addStyle(state._css); // each style sheet knows how much room each kind of explorer needs
    const el = document.createElement("div");
    el.className = "explorer";
    el.dataset.explorer = state._anywidget_id; // the style sheet keeps room for it by this name
    place.after(el);
    waiting.set(el, { id, state });
    near.observe(el);
  }

  async function run(el, { id, state }) {
    addStyle(state._css);
    if (!models.has(id)) models.set(id, open(state));
    const model = models.get(id);
    const widget = await model.ready;
    await widget.render({ model, el });
    el.dataset.ready = "";
  }

  // Starts one that has not begun.
  function start(el) {
    const what = waiting.get(el);
    waiting.delete(el);
    near.unobserve(el);
    const done = run(el, what).catch((error) => console.error("An explorer could not start:", error));
    starting.push(done);
    return done;
  }

  // A page's first explorer starts at once, and so does whatever comes near the window; the others follow one by one, each in a turn of its
  // own, so that the first answers soon on a phone too. In the end all stand: for keys, for the browser's own search, for print.
  const waiting = new Map(); // element -> its model's id and state, in the order of the page
  const starting = [];
  const near = new IntersectionObserver((found) => {
    for (const { isIntersecting, target } of found) if (isIntersecting && waiting.has(target)) start(target);
  }, { rootMargin: "100% 0%" });
  let round = null; // a promise that all have started
  async function startAll() {
    while (waiting.size) {
      await start(waiting.keys().next().value);
      await new Promise((done) => setTimeout(done));
    }
    round = null;
  }

  // The state stands in the page's head. Places are found while the page is still being read, so that there is room
  // for an explorer before what follows it is drawn.
  const seen = new Set();
  let states = null;
  function findNew() {
    for (const place of document.querySelectorAll(VIEW)) {
      states ??= JSON.parse(document.querySelector(STATE)?.textContent ?? "{}").state ?? {};
      if (seen.has(place) || !place.textContent.trimEnd().endsWith("}")) continue; // of its text a part has come
      seen.add(place);
      keepRoom(place);
    }
    if (waiting.size) round ??= startAll();
  }
  const observer = new MutationObserver(findNew);
  observer.observe(document.documentElement, { childList: true, subtree: true });
  // Formulas wait for this, but never long: to typeset a page keeps a phone busy for seconds.
  window.explorersReady = new Promise((resolve) => {
    const finish = () => {
      findNew();
      observer.disconnect();
      Promise.resolve(round).then(() => Promise.all(starting)).then(resolve);
      setTimeout(resolve, 3000);
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", finish);
    else finish();
  });
})();
