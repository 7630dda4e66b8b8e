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
  return {overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth, ...smallest};
}
