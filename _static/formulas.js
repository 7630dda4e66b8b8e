// Typesets a page's formulas once its explorers answer: those in sight first, and in small steps, between which the page answers.
//
// `MathJax` holds the settings, `data-later` of this script's own element the address of MathJax (light_pages.py writes both).
(() => {
  const later = document.currentScript.dataset.later;
  const STEP = 25; // milliseconds that a step should take
  const turn = () => new Promise((done) => setTimeout(done));

  // A formula within a line that is wider than the page gets a line of its own (book.css).
  function mark() {
    const all = [...document.querySelectorAll("article :is(p, li, dd) > span.math mjx-container")];
    const wide = all.map((one) => one.firstElementChild.offsetWidth > one.closest("p, li, dd").clientWidth);
    all.forEach((one, i) => one.classList.toggle("wide", wide[i]));
  }

  async function typeset() {
    const inSight = ({ top, bottom }) => bottom > -innerHeight && top < 2 * innerHeight;
    const places = [...document.querySelectorAll(".math")].map((place) => [place, inSight(place.getBoundingClientRect())]);
    const formulas = [...places.filter(([, near]) => near), ...places.filter(([, near]) => !near)].map(([place]) => place);
    for (let begin = 0, count = 4; begin < formulas.length; ) {
      const start = performance.now();
      await MathJax.typesetPromise(formulas.slice(begin, begin + count));
      for (const place of formulas.slice(begin, begin + count)) place.classList.add("typeset");
      begin += count;
      count = Math.max(2, Math.min(2 * count, Math.round((count * STEP) / (performance.now() - start + 1))));
      await turn();
    }
    mark();
    addEventListener("resize", mark);
  }

  document.documentElement.dataset.formulas = "later";
  MathJax.startup = { pageReady: typeset };
  const ready = new Promise((done) => document.addEventListener("DOMContentLoaded", done));
  ready.then(() => window.explorersReady).then(() => new Promise(requestAnimationFrame)).then(turn).then(() => {
    const unset = () => delete document.documentElement.dataset.formulas; // then their TeX is to be read
    document.head.append(Object.assign(document.createElement("script"), { src: later, onerror: unset }));
  });
})();
