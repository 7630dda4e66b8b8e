// What tools/pdf.py does in a page before it is printed.

// Waits until images, explorers and formulas stand.
async function ready() {
  for (const image of document.images) image.loading = "eager";
  const waiting = () => [...document.querySelectorAll('script[type$="widget-view+json"]')].some(
    (place) => place.nextElementSibling?.dataset.ready === undefined);
  while (waiting()) await new Promise((done) => setTimeout(done, 20));
  while (window.MathJax && !MathJax.startup?.promise) await new Promise((done) => setTimeout(done, 20));
  await window.MathJax?.startup.promise;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
}

// Takes the solutions out, says where they and the living explorers are, and returns what the solutions' own pages need.
function prepare([address, solutions]) {
  const article = document.querySelector("article"), found = [];
  const note = (text, href) => {
    const paragraph = document.createElement("p");
    paragraph.innerHTML = `<a href="${href}">${text}</a>`;
    paragraph.style = "font-size: 0.85em; margin: 0.2em 0; break-before: avoid";
    return paragraph;
  };
  for (const link of article.querySelectorAll("a.image-reference, a[href*='/_images/']")) link.removeAttribute("href");
  for (const explorer of article.querySelectorAll(".explorer")) explorer.after(note("It answers on the page.", address));
  for (const details of article.querySelectorAll("details:not(.admonition)")) {
    const heading = details.closest("section")?.querySelector("h2, h3, h4")?.cloneNode(true);
    heading?.querySelector(".headerlink")?.remove();
    const copy = details.cloneNode(true);
    copy.querySelector("summary").remove();
    found.push(`<h3>${heading?.innerHTML ?? ""}</h3>${copy.innerHTML}`);
    details.replaceWith(note("Solution: at the end of the book.", solutions));
  }
  const styles = document.querySelector("#MJX-CHTML-styles");
  const title = article.querySelector("h1").cloneNode(true);
  title.querySelector(".headerlink")?.remove();
  return {title: title.textContent.trim(), solutions: found.join(""),
          styles: styles ? [...styles.sheet.cssRules].map((rule) => rule.cssText).join("\n") : ""};
}

// Puts the solutions of all chapters in place of the text.
function replace([body, styles]) {
  document.querySelector("article").innerHTML = body;
  document.head.append(Object.assign(document.createElement("style"), {textContent: styles}));
}
