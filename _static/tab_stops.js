// What scrolls in its frame is reached by keys.
//
// The theme does this too, but looks into every closed cell, so that the browser lays each of them out, and writes after each look: a sixth of a
// second on a phone while the first explorer is waited for. light_pages.py takes it out; here closed cells wait until they are opened, and all
// frames are looked at before any is written.
(() => {
  const FRAMES = "pre, .cell_output > .output, .pst-scrollable-table-container";
  function mark(within) {
    const frames = [...within.querySelectorAll(FRAMES)].filter((one) => !one.closest("details:not([open]) > :not(summary)"));
    const scroll = frames.map((one) => one.scrollWidth > one.clientWidth || one.scrollHeight > one.clientHeight);
    frames.forEach((one, i) => (one.tabIndex = scroll[i] ? 0 : -1));
  }

  let timer = null;
  function markLater() {
    clearTimeout(timer);
    timer = setTimeout(() => mark(document), 300);
  }
  addEventListener("load", () => {
    mark(document);
    document.addEventListener("toggle", (event) => event.target.open && mark(event.target), { capture: true });
    addEventListener("resize", markLater);
    new MutationObserver(markLater).observe(document.getElementById("main-content"), { subtree: true, childList: true });
  });
})();
