// What tools/survey.py asks of a page as it stands: how far it is too wide, and its smallest letters, in pixels as shown.
() => {
  const FIGURE = 8 * 100 / 72; // the smallest letters of a figure at its own size: 8 points at 100 dots an inch
  const shown = (node) => node.checkVisibility({checkOpacity: true, checkVisibilityCSS: true});
  const smallest = {text: [null, ""], drawing: [null, ""], figure: [null, ""]};
  const note = (kind, size, what) => { if (smallest[kind][0] === null || size < smallest[kind][0]) smallest[kind] = [size, what.trim().slice(0, 60)]; };
  const words = document.createTreeWalker(document.querySelector(".bd-main") ?? document.body, NodeFilter.SHOW_TEXT);
  while (words.nextNode()) {
    const text = words.currentNode.data, node = words.currentNode.parentElement;
    if (!text.trim() || node.closest("script, style, mjx-container, .math, .visually-hidden, .sr-only, [aria-hidden=true]:not(svg *)")) continue;
    const box = node.getBoundingClientRect();
    if (box.width < 2 || box.height < 2 || !shown(node)) continue;
    const matrix = node.closest("svg") && node.getScreenCTM?.(); // null outside a drawing
    const scale = matrix ? Math.sqrt(Math.abs(matrix.a * matrix.d - matrix.b * matrix.c)) : 1;
    note(matrix ? "drawing" : "text", parseFloat(getComputedStyle(node).fontSize) * scale, text);
  }
  for (const image of document.querySelectorAll("article .cell_output img")) {
    const own = parseFloat(image.style.width) || image.naturalWidth;
    if (own && image.clientWidth && shown(image)) note("figure", FIGURE * image.clientWidth / own, image.alt);
  }
  // What reaches over the edge of the page or of a frame that cannot be scrolled; a frame of the whole article is no frame of its own. And code whose
  // lines have their ends out of sight; what it prints in columns may scroll.
  const cut = [];
  for (const node of document.querySelectorAll("article :is(mjx-container, img, svg.nd, table, pre, a, code, p, li, h1, h2, h3), .prev-next-title, .prev-next-area svg")) {
    const box = node.getBoundingClientRect();
    if (box.width < 2 || !shown(node) || node.closest("mjx-assistive-mml, .visually-hidden, .sr-only, .headerlink, .copybtn")) continue;
    if (node.matches("pre:not(.columns *)") && node.scrollWidth > node.clientWidth + 1) cut.push(node);
    let frame = node.parentElement;
    while (frame && (getComputedStyle(frame).overflowX === "visible" || getComputedStyle(frame).display === "inline")) frame = frame.parentElement;
    const whole = !frame || frame.contains(document.querySelector("article"));
    const scrolls = !whole && /auto|scroll/.test(getComputedStyle(frame).overflowX);
    const range = document.createRange();
    range.selectNodeContents(node);
    const right = Math.max(box.right, ...[...(node.matches(".prev-next-title") ? range.getClientRects() : [])].map((one) => one.right));
    if (!scrolls && right > (whole ? document.documentElement.clientWidth : frame.getBoundingClientRect().right) + 1) cut.push(node);
  }
  return {cut: [cut.length, (cut[0]?.textContent || cut[0]?.alt || cut[0]?.tagName || "").trim().slice(0, 60)], overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth, ...smallest};
}
