"""Slides of the chapters, for lectures: pictures, formulas, small tables, explorers to open, questions and their answers.

    .venv/bin/python tools/slides.py [chapters/07_resnet.ipynb ...]

Made from the committed first pages, one file a chapter in `_build/slides`, which needs no other file and no network: formulas are
drawings, typeset by the book's own copy of MathJax. Arrow keys or a swipe turn the page, `t` changes between light and
dark, and printing gives one slide a page. Needs a browser, as the page tests do.
"""

import argparse
import functools
import html
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import notebooks
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

FOLDER = notebooks.ROOT / "_build" / "slides"
FRAME = (Path(__file__).parent / "slides.html").read_text(encoding="utf-8")
TALL = 2.5  # times as high as it is wide: such a drawing scrolls
LEAD = 400  # letters of text beside a picture
ROWS, COLUMNS = 12, 6  # of a table that can be read from the last row of a lecture hall
DISPLAY = re.compile(r"\$\$.+?\$\$", re.S)
SENTENCE = re.compile(r"(?<=[.?!:])\s+(?=[A-Z*$`\[])")
Math = Callable[[str, bool], str]  # TeX, and whether it stands on lines of its own -> HTML


def mathjax(page) -> Math:
    """A function that makes drawings of formulas in a page of a browser. It raises `ValueError` for one that MathJax does not understand."""
    folder = Path(importlib.import_module("sphinx-mathjax-offline").__file__).parent
    page.set_content('<!doctype html><script>MathJax = {tex: {packages: {"[-]": ["noundefined"]}}, '
                     'svg: {fontCache: "none"}, startup: {typeset: false}}</script>')
    page.add_script_tag(path=folder / "static" / "mathjax" / "tex-svg-full.js")
    page.evaluate("() => MathJax.startup.promise")

    @functools.cache
    def typeset(tex: str, display: bool) -> str:
        drawing = page.evaluate("([tex, display]) => MathJax.tex2svgPromise(tex, {display}).then("
                                "(node) => node.querySelector('svg').outerHTML)", [tex, display])
        if "data-mjx-error" in drawing or "merror" in drawing:
            raise ValueError(f"MathJax does not understand {tex!r}")
        drawing = re.sub(r' data-[\w-]+="[^"]*"', "", drawing)
        return drawing.replace("<svg ", f'<svg class="{"formula" if display else "math"}" aria-label="{html.escape(tex)}" ', 1)

    return typeset


def markdown(math: Math) -> MarkdownIt:
    """The parser of the chapters' text; of links, which would leave the file, the text is kept."""
    parser = MarkdownIt("commonmark", {"html": True}).enable("table").use(dollarmath_plugin)
    for rule, display in (("math_inline", False), ("math_block", True)):
        parser.add_render_rule(rule, lambda _, tokens, i, options, env, display=display: math(tokens[i].content.strip(), display))
    for rule in ("link_open", "link_close"):
        parser.add_render_rule(rule, lambda *_: "")
    return parser


def _last(text: str) -> str:
    """What leads over to the picture after it: the last paragraph of a text, or the last sentences of a long one."""
    paragraph = text.strip().rpartition("\n\n")[2].strip()
    if paragraph.startswith(("#", "|", "- ", "<", "```", "$$")):
        return ""
    sentences = SENTENCE.split(paragraph)
    while len(" ".join(sentences)) > LEAD and len(sentences) > 1:
        del sentences[0]
    return " ".join(sentences)


def _answer(question: dict) -> str:
    """The answer of a question as text."""
    truth = question["truth"]
    numbers = [f"{number:,.4g}" if number % 1 else f"{number:,.0f}" for number in (truth if isinstance(truth, list) else [truth])
               if isinstance(number, (int, float))]
    return " × ".join(numbers) if numbers else ", then ".join(truth) if isinstance(truth, list) else truth


def _question(question: dict, before: str, render: Callable[[str], str]) -> list[str]:
    """Two slides: the question with its choices, and the same with the answer."""
    task = re.split(r"^### .*$", before, flags=re.M)[-1]  # what stands above it is the solution of the question before
    asked = f"{render(task)}<p class=asked>{html.escape(question['text'])}</p>"
    items, kind = question["items"], question["kind"]
    choices = "".join(f"<li>{html.escape(item)}</li>" for item in items)
    if kind == "choice":
        answer = "<ol>" + choices.replace(f"<li>{html.escape(question['truth'])}<", f"<li class=right>{html.escape(question['truth'])}<") + "</ol>"
    else:
        answer = f"<p class=answer>{html.escape(_answer(question))}</p>"
    because = f"<p>{html.escape(question['because'])}</p>" if question["because"] else ""
    return [f"{asked}<ol>{choices}</ol>" if items else asked, asked + answer + because]


def _shown(output: NotebookNode, cell: NotebookNode, states: dict, render: Callable[[str], str], before: str) -> list[tuple[str, str]]:
    """The slides (kind, HTML) that an output gives; none for text, and for tables that are large."""
    data, figure = output.get("data", {}), cell.metadata.get("mystnb", {})
    caption = figure.get("figure", {}).get("caption", "")
    caption = f"<figcaption>{render(caption)}</figcaption>" if caption else ""
    lead = render(_last(before))
    if notebooks.WIDGET_VIEW in data:
        state = states[data[notebooks.WIDGET_VIEW]["model_id"]]["state"]
        if state["_anywidget_id"].endswith(".Question"):
            return list(zip(("question", "answer"), _question(state["data"], before, render), strict=True))
        return [("explorer", f"{lead}<p class=open><a href=PAGE>Open the explorer on the page</a></p>")]
    if "image/png" in data:
        alt = html.escape(figure.get("image", {}).get("alt", ""), quote=True)
        image = f'<img alt="{alt}" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
        return [("picture", f"{lead}<figure>{image}{caption}</figure>")]
    if "<svg" in data.get("text/html", ""):
        sizes = re.findall(r'viewBox="\S+ \S+ (\S+) (\S+)"', data["text/html"])
        tall = float(sizes[0][1]) > TALL * float(sizes[0][0])
        return [("picture tall" if tall else "picture", f"{lead}<figure>{data['text/html']}{caption}</figure>")]
    rows = [line for line in data.get("text/markdown", "").splitlines() if line.startswith("|")]
    if rows and len(rows) <= ROWS + 2 and rows[0].count("|") <= COLUMNS + 1:
        return [("table", f"{lead}{render(data['text/markdown'])}")]
    return []


def slides(notebook: NotebookNode, math: Math) -> list[tuple[str, str, str]]:
    """The slides of a chapter as (kind, heading, HTML), in the chapter's order; kinds are title, formula, picture, table, explorer,
    question, answer and summary."""
    render = markdown(math).render
    states = notebook.metadata.get("widgets", {}).get(notebooks.WIDGET_STATE, {}).get("state", {})
    title, _, opening = notebook.cells[0].source.partition("\n")
    title = heading = title.strip("# ")
    asked = re.search(r"\*\*(.+?)\*\*", opening, re.S)
    found, before = [("title", title, render(asked[1]) if asked else "")], ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                found += [(kind, heading, body) for kind, body in _shown(output, cell, states, render, before)]
            continue
        before = cell.source
        for part in re.split(r"^(?=##+ )", cell.source, flags=re.M):
            if line := re.match(r"##+ (.+)\n?", part):
                heading, part = line[1].strip(), part[line.end():]
            texts, formulas = DISPLAY.split(part), DISPLAY.findall(part)
            for text, formula, after in zip(texts, formulas, texts[1:]):
                meaning = SENTENCE.split(after.strip().partition("\n\n")[0])[0]
                found.append(("formula", heading, render(f"{_last(text)}\n\n{formula}\n\n{'' if meaning.startswith('#') else meaning}")))
            if heading == "Summary" and part.strip():
                found.append(("summary", heading, render(part)))
    return found


def deck(name: str, notebook: NotebookNode, math: Math) -> str:
    """The file of a chapter's slides."""
    found = slides(notebook, math)
    page = f'"../html/chapters/{name}.html"'
    inline, level = markdown(math).renderInline, {"title": "h1"}
    sections = "\n".join(f'<section class="{kind}"><{level.get(kind, "h2")}>{inline(heading)}</{level.get(kind, "h2")}>'
                         f"<div>{body.replace('PAGE', page)}</div></section>" for kind, heading, body in found)
    return FRAME.replace("TITLE", html.escape(found[0][1])).replace("LINK", page).replace("SLIDES", sections)


def main() -> None:
    from chromium import chromium

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("chapters", nargs="*", type=Path, help="first pages of chapters; by default all")
    chapters = parser.parse_args().chapters or notebooks.first_pages()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with chromium() as page:
        math = mathjax(page)
        for path in chapters:
            (FOLDER / f"{path.stem}.html").write_text(deck(path.stem, notebooks.read(path), math), encoding="utf-8")
    print(f"{len(chapters)} chapters as slides in {FOLDER}")


if __name__ == "__main__":
    main()
