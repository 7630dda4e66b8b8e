"""Slides of the chapters, for lectures: pictures, formulas, small tables, explorers to open, questions and their answers.

    .venv/bin/python tools/slides.py [chapters/07_resnet.ipynb ...]

Made from the committed first pages, one file a chapter in `_build/slides`, which needs no other file and no network: formulas are
drawings, typeset by the book's own copy of MathJax. Arrow keys or a swipe turn the page, `t` changes between light and
dark, and printing gives one slide a page. Needs a browser, as the page tests do.
"""

import argparse
import base64
import functools
import html
import importlib
import re
import struct
from collections.abc import Callable
from pathlib import Path

import notebooks
from docutils.nodes import make_id
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode

FOLDER = notebooks.ROOT / "_build" / "slides"
FRAME = (Path(__file__).parent / "slides.html").read_text(encoding="utf-8")
TALL = 2.5  # times as high as it is wide: such a drawing scrolls
BESIDE = 1.45  # times as wide as it is high: a picture that is narrower stands beside its text, where it can be higher; below 1 also on 4:3
LEAD = 400  # letters of text with a picture
ROWS, COLUMNS = 12, 6  # of a table that can be read from the last row of a lecture hall
DISPLAY = re.compile(r"\$\$.+?\$\$", re.S)
SENTENCE = re.compile(r"(?<=[.?!:])\s+(?=[A-Z*$`\[])")
POINTS = re.compile(r"^- (?=(?:an? |the )?\*\*)(.+(?:\n  .+)*)", re.M)  # the items of a list that begin in bold, or with an article before that
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


def _last(text: str, said: set[str]) -> str:
    """What leads over to what comes after it: the last paragraph of a text, or the last sentences of a long one, without those that were said."""
    paragraph = text.strip().rpartition("\n\n")[2].strip()
    if paragraph.startswith(("#", "|", "- ", "<", "```", "$$")):
        return ""
    sentences = [sentence for sentence in SENTENCE.split(paragraph) if sentence not in said]
    while len(" ".join(sentences)) > LEAD and len(sentences) > 1:
        del sentences[0]
    return " ".join(sentences)


def _lead(texts: list[str], said: set[str]) -> str:
    """The same for several texts, between which the chapter computes and shows nothing: of each what leads over, as far as there is room."""
    lead = ""
    for text in reversed(texts):
        part = _last(text, said)
        if not part or len(part) + len(lead) > LEAD + 1:
            return lead or part
        lead = f"{part}\n\n{lead}"
    return lead


def _points(text: str) -> str:
    """The items of a list that begin in bold, each with its first sentences, of fewer items more; nothing where there are fewer than two."""
    items, found = [], POINTS.findall(text)
    for item in found:
        first, *more = SENTENCE.split(" ".join(item.split()))
        while more and len(first) + len(more[0]) < 2 * LEAD / max(len(found), 3):
            first += " " + more.pop(0)
        items.append(f"- {first}\n")
    return "".join(items) if len(items) > 1 else ""


def _anchor(heading: str) -> str:
    """The address of a section on the page."""
    return make_id(re.sub(r"[*`$]", "", heading))


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


def _picture(width: float, height: float) -> str:
    """The kind of a slide with a picture of this size."""
    kinds = {"tall": height > TALL * width, "narrow": width < height, "beside": width < BESIDE * height}
    return " ".join(["picture", *[kind for kind, holds in kinds.items() if holds][:1]])


def _shown(output: NotebookNode, cell: NotebookNode, states: dict, render: Callable[[str], str], heading: str, lead: str, task: str) -> list[tuple[str, str]]:
    """The slides (kind, HTML) that an output gives; none for text, and for tables that are large.

    `lead` is what leads over to it, `task` the text that stands before a question.
    """
    data, figure = output.get("data", {}), cell.metadata.get("mystnb", {})
    caption = figure.get("figure", {}).get("caption", "")
    caption = f"<figcaption>{render(caption)}</figcaption>" if caption else ""
    lead = f"<div class=lead>{render(lead)}</div>" if lead else ""
    if notebooks.WIDGET_VIEW in data:
        state = states[data[notebooks.WIDGET_VIEW]["model_id"]]["state"]
        if state["_anywidget_id"].endswith(".Question"):
            return list(zip(("question", "answer"), _question(state["data"], task, render), strict=True))
        return [("explorer", f'{lead}<p class=open><a href="PAGE#{_anchor(heading)}">Open the explorer on the page</a></p>')]
    if "image/png" in data:
        alt = html.escape(figure.get("image", {}).get("alt", ""), quote=True)
        content = "".join(data["image/png"].split())
        image = f'<img alt="{alt}" src="data:image/png;base64,{content}">'
        kind = _picture(*struct.unpack(">II", base64.b64decode(content)[16:24]))
        return [(kind, f"{lead}<figure>{image}{caption}</figure>")]
    if "<svg" in data.get("text/html", ""):
        sizes = re.findall(r'viewBox="\S+ \S+ (\S+) (\S+)"', data["text/html"])
        several = len(sizes) > 1 and "</svg><svg" not in data["text/html"]  # in a row; otherwise one, in one or two forms
        kind = "picture" if several else _picture(*map(float, sizes[0]))
        return [(kind, f"{lead}<figure>{data['text/html']}{caption}</figure>")]
    rows = [line for line in data.get("text/markdown", "").splitlines() if line.startswith("|")]
    if rows and len(rows) <= ROWS + 2 and rows[0].count("|") <= COLUMNS + 1:
        return [("table", f"{lead}{render(data['text/markdown'])}")]
    return []


def slides(notebook: NotebookNode, math: Math) -> list[tuple[str, str, str]]:
    """The slides of a chapter as (kind, heading, HTML), in the chapter's order; kinds are title, formula, points, picture, table, explorer,
    question, answer and summary."""
    render = markdown(math).render
    states = notebook.metadata.get("widgets", {}).get(notebooks.WIDGET_STATE, {}).get("state", {})
    title, _, opening = notebook.cells[0].source.partition("\n")
    title = heading = title.strip("# ")
    asked = re.search(r"\*\*(.+?)\*\*", opening, re.S)
    found = [("title", title, render(asked[1]) if asked else "")]
    texts: list[str] = []  # since something was shown
    said: set[str] = set()  # sentences beside formulas, which are not said again
    task = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for output in cell.outputs:
                shown = _shown(output, cell, states, render, heading, _lead(texts, said), task)
                if shown and not (shown[0][0] == found[-1][0] == "explorer" and not texts):  # two below one text
                    found += [(kind, heading, body) for kind, body in shown]
                texts = [] if shown else texts
            continue
        task = cell.source
        for part in re.split(r"^(?=##+ )", cell.source, flags=re.M):
            if line := re.match(r"##+ (.+)\n?", part):
                heading, part, texts = line[1].strip(), part[line.end():], []
            around, formulas = DISPLAY.split(part), DISPLAY.findall(part)
            for text, formula, after in zip(around, formulas, around[1:]):
                meaning = SENTENCE.split(after.strip().partition("\n\n")[0])[0]
                meaning = "" if meaning.startswith(("#", "- ")) else meaning
                found.append(("formula", heading, render(f"{_last(text, said)}\n\n{formula}\n\n{meaning}")))
                said.add(meaning)
            if points := _points(part):
                found.append(("points", heading, render(points)))
            if heading == "Summary" and part.strip():
                found.append(("summary", heading, render(part)))
            if cell is not notebook.cells[0]:  # which ends with what a reader needs
                texts.append(around[-1])
    return found


def deck(name: str, notebook: NotebookNode, math: Math) -> str:
    """The file of a chapter's slides."""
    found = slides(notebook, math)
    page = f"../html/chapters/{name}.html"
    inline, level = markdown(math).renderInline, {"title": "h1"}
    sections = "\n".join(f'<section class="{kind}"><{level.get(kind, "h2")}>{inline(heading)}</{level.get(kind, "h2")}>'
                         f"<div>{body.replace('PAGE', page)}</div></section>" for kind, heading, body in found)
    return FRAME.replace("TITLE", html.escape(found[0][1])).replace("LINK", f'"{page}"').replace("SLIDES", sections)


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
