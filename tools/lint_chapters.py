"""The rules of a chapter, checked on its file as committed: `python tools/lint_chapters.py chapters/*.ipynb`.

    python tools/lint_chapters.py --measures chapters/*.ipynb      how long the chapters of ten minutes are

A rule is a function of a chapter that yields one sentence for each breach. A chapter of two pages has a page of ten minutes,
`NN_topic.ipynb`, within a budget, and a page of depth, `NN_topic_depth.ipynb`, which may be as dense as it likes. Of the chapters
that still have one page, a family's has all sections, another has fewer. An appendix, whose name starts with a letter, has none of
its own.
"""

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import yaml
from nbformat import NotebookNode

import notebooks

FAMILY_SECTIONS = ("Problem", "Idea", "Smallest code", "Library code", "Agreement", "Network", "Evidence",
                   "Explorer", "Summary", "Exercises", "References")
SECTIONS = ("Summary", "Exercises", "References")
SHORT_SECTIONS = ("Problem", "Idea", "Smallest code", "It works", "Costs", "Use it", "Summary", "Check yourself")
DEPTH_SECTIONS = ("References",)
NOT_FAMILIES = ("01", "02", "13", "14", "15")  # foundations, history, comparison, transfer, training
LONG, LONGEST, LONG_SHARE = 8, 20, 0.25  # lines of a cell: long, never longer, share of long cells
EXERCISES = 5
# What a page of ten minutes may have at most, and the pictures that it must have.
BUDGET = {"words": 2000, "words until the picture": 150, "words until the formula": 400, "code cells": 20, "numbers per 1,000 words": 20}
PICTURES = 3

LINK = re.compile(r"\]\((?:<([^>]+)>|([^)\s]+))|<(https?://[^>\s]+)>|(?:href|src)=\"([^\"]+)\"")
DOI = re.compile(r"https://doi\.org/(10\.\d{4,9}/\S+)")
ARXIV = re.compile(r"https://arxiv\.org/abs/(\d{4}\.\d{4,5})")
NOT_PLAIN = {
    "a MyST directive": re.compile(r"^\s*(`{3,}|:{3,})\{", re.M),
    "a MyST role": re.compile(r"\{[a-z:+-]+\}`"),
    "a MyST target": re.compile(r"^\([\w-]+\)=", re.M),
}
UNSTABLE = {
    "a memory address": re.compile(r"\b0x[0-9a-fA-F]{6,}"),
    "a path of this machine": re.compile(r"(?<![\w.:/])/(home|Users|root|tmp|work|usr|opt|content|mnt|private)/\w|\b[A-Z]:\\"),
    "a time": re.compile(r"\b\d{1,2}:\d{2}:\d{2}\b|\bit/s\b|\bs/it\b|Wall time|CPU times"),
}


class Chapter:
    """A notebook file and the views of it that the rules need."""

    def __init__(self, path: Path, notebook: NotebookNode | None = None):
        self.path = path
        self.notebook = notebook or notebooks.read(path)
        self.cells = self.notebook.cells

    @property
    def is_depth(self) -> bool:
        return self.path.stem.endswith(notebooks.DEPTH)

    @property
    def is_short(self) -> bool:
        """Whether it is a page of ten minutes, beside which a page of depth stands."""
        return self.path.with_stem(self.path.stem + notebooks.DEPTH).exists()

    @property
    def sections(self) -> tuple[str, ...]:
        """The headings that it must have, in order."""
        if self.path.name[0].isalpha():
            return ()
        if self.is_depth or self.is_short:
            return DEPTH_SECTIONS if self.is_depth else SHORT_SECTIONS
        return SECTIONS if self.path.name[:2] in NOT_FAMILIES else FAMILY_SECTIONS

    @property
    def exercises(self) -> str:
        """The section of the exercises."""
        return self.section("Check yourself" if self.is_short else "Exercises")

    @cached_property
    def code(self) -> list[tuple[int, NotebookNode]]:
        return [(i, cell) for i, cell in enumerate(self.cells) if cell.cell_type == "code"]

    @cached_property
    def text(self) -> list[tuple[int, str]]:
        """Markdown cells without the code in them."""
        return [(i, without_code(cell.source)) for i, cell in enumerate(self.cells) if cell.cell_type == "markdown"]

    def headings(self, level: int) -> list[str]:
        pattern = re.compile(rf"^{'#' * level} +(.+?)\s*$", re.M)
        return [title for _, text in self.text for title in pattern.findall(text)]

    def section(self, name: str) -> str:
        """The Markdown from a second-level heading to the next, code and all."""
        whole = "\n\n".join(cell.source for cell in self.cells if cell.cell_type == "markdown")
        found = re.search(rf"^## +{name}\b.*?(?=^## |\Z)", whole, re.M | re.S)
        return found[0] if found else ""

    def solutions(self) -> list[str]:
        """The Python of each exercise's hidden solution, in order; empty where a solution is words alone."""
        return ["\n\n".join(re.findall(r"^```python\n(.*?)^```", hidden, re.M | re.S))
                for hidden in re.findall(r"<details>(.*?)</details>", self.exercises, re.S)]

    def measures(self) -> dict[str, float]:
        """What the budget of a page of ten minutes speaks of; hidden solutions are left out, and a formula is no number."""
        words, measured, numbers = 0, {}, 0
        for cell in self.cells:
            if cell.cell_type == "code":
                if "words until the picture" not in measured and is_picture(cell):
                    measured["words until the picture"] = words
                continue
            text = re.sub(r"<details>.*?</details>", "", without_code(cell.source), flags=re.S)
            if "words until the formula" not in measured and (formula := re.search(r"\$\$", text)):
                measured["words until the formula"] = words + len(prose(text[: formula.start()]).split())
            words += len(prose(text).split())
            numbers += len(re.findall(r"(?<![\w.-])\d[\d.,:x]*", prose(text)))
        return {
            "words": words,
            "words until the picture": measured.get("words until the picture", words),
            "words until the formula": measured.get("words until the formula", words),
            "code cells": len(self.code),
            "numbers per 1,000 words": round(1000 * numbers / max(1, words), 1),
            "pictures": sum(is_picture(cell) for _, cell in self.code),
        }


def without_code(markdown: str) -> str:
    return re.sub(r"`[^`\n]+`", "``", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S))


def prose(markdown: str) -> str:
    """Words as a reader counts them: without formulas, addresses, and the marks of Markdown."""
    plain = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", markdown, flags=re.S)
    return re.sub(r"[#*|>`_]+|:?-{2,}:?", " ", re.sub(r"\]\([^)]*\)|<[^>]+>", " ", plain))


def is_picture(cell: NotebookNode) -> bool:
    """Whether a code cell shows a picture: a figure, a drawing or an explorer."""
    return any(kind.startswith("image/") or kind.endswith("widget-view+json") or "<svg" in str(output.get("data", {}).get(kind))
               for output in cell.get("outputs", []) for kind in output.get("data", {}))


def links(markdown: str) -> list[str]:
    """The targets of all links and pictures."""
    return ["".join(groups) for groups in LINK.findall(markdown)]


def slug(heading: str) -> str:
    """The anchor that the book and code hosts give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def text_of(output: NotebookNode) -> str:
    """All text that an output carries, pictures and widgets aside."""
    data = output.get("data", {})
    parts = [data[kind] for kind in data if kind.startswith("text/")] + [output.get("text", "")]
    return "\n".join(part if isinstance(part, str) else "".join(part) for part in parts)


# Rules


def one_title(chapter: Chapter) -> Iterator[str]:
    titles = chapter.headings(1)
    if len(titles) != 1 or not chapter.cells[0].source.startswith("# "):
        yield f"must start with one '# Title'; found {titles}"
    if chapter.is_short or chapter.is_depth:
        partner = chapter.path.stem + notebooks.DEPTH if chapter.is_short else chapter.path.stem.removesuffix(notebooks.DEPTH)
        if f"({partner}.ipynb" not in chapter.cells[0].source:
            yield f"must link its other page, {partner}.ipynb, in its first cell"
    elif chapter.sections:
        opening = "\n".join(
            cell.source for cell in chapter.cells[: chapter.code[0][0]] if cell.cell_type == "markdown").lower()
        for word in ("objectives", "prerequisites"):
            if word not in opening:
                yield f"must name its {word} before the first code cell"


def sections_in_order(chapter: Chapter) -> Iterator[str]:
    found = chapter.headings(2)
    position = 0
    for name in chapter.sections:
        places = [i for i, title in enumerate(found) if re.match(rf"{name}\b", title)]
        if not places:
            yield f"must have a section '## {name}'"
        elif places[0] < position:
            yield f"must have '## {name}' further down: the order is {', '.join(chapter.sections)}"
        else:
            position = places[0]


def setup_and_imports(chapter: Chapter) -> Iterator[str]:
    if len(chapter.code) < 2:
        yield "must have a set-up cell and an import cell"
        return
    (first, setup), (second, imports) = chapter.code[:2]
    if setup.source != notebooks.setup_cell().source or setup.metadata.get("tags") != ["hide-input"]:
        yield "must start its code with the set-up cell of tools/setup_cell.py (tools/set_repository.py renews it)"
    if second != first + 1 or not re.match(r"(import|from) ", imports.source):
        yield "must have its import cell right after the set-up cell"
    for i, cell in chapter.code[2:]:
        if re.search(r"^(import|from) \w", cell.source, re.M):
            yield f"cell {i}: imports belong in the import cell"


def cells_are_short(chapter: Chapter) -> Iterator[str]:
    cells = chapter.code[2:]
    lengths = [sum(1 for line in cell.source.splitlines() if line.strip()) for _, cell in cells]
    for (i, _), length in zip(cells, lengths):
        if length > LONGEST:
            yield f"cell {i}: {length} lines; {LONGEST} at most, a longer one belongs in cnnlib"
    long = sum(length > LONG for length in lengths)
    if long > LONG_SHARE * len(cells):
        yield f"{long} of {len(cells)} code cells have more than {LONG} lines; at most {LONG_SHARE:.0%} may"


def text_before_code(chapter: Chapter) -> Iterator[str]:
    for i, _ in chapter.code[2:]:
        if chapter.cells[i - 1].cell_type != "markdown":
            yield f"cell {i}: text before a code cell says what to look for"


def plain_markdown(chapter: Chapter) -> Iterator[str]:
    for i, cell in enumerate(chapter.cells):
        for what, pattern in NOT_PLAIN.items():
            if cell.cell_type == "markdown" and pattern.search(cell.source):
                yield f"cell {i}: {what}; chapters are plain Markdown"


def links_resolve(chapter: Chapter) -> Iterator[str]:
    for i, text in chapter.text:
        for target in links(text):
            problem = broken(target, chapter.path)
            if problem:
                yield f"cell {i}: link {target}: {problem}"


def broken(target: str, page: Path) -> str | None:
    """What is wrong with a link on a page, if anything; other hosts are not asked."""
    if target.startswith("http://"):
        return "https, please"
    if "doi.org" in target:
        return None if DOI.fullmatch(target) else "not of the form https://doi.org/10.xxxx/..."
    if "arxiv.org" in target:
        return None if ARXIV.fullmatch(target) else "not of the form https://arxiv.org/abs/NNNN.NNNNN"
    if target.startswith(("https://", "mailto:")):
        return None
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    if not path.exists():
        return "no such file"
    if anchor and path.suffix == ".ipynb":
        chapter = Chapter(path)
        anchors = [slug(title) for level in (1, 2, 3) for title in chapter.headings(level)]
        return None if anchor in anchors else "no such heading there"
    if anchor and path.suffix == ".md":
        anchors = [slug(title) for title in re.findall(r"^#+ +(.+?)\s*$", path.read_text(encoding="utf-8"), re.M)]
        return None if anchor in anchors else "no such heading there"
    return None


def papers_are_in_the_bibliography(chapter: Chapter) -> Iterator[str]:
    bibliography = (notebooks.ROOT / "references.bib").read_text(encoding="utf-8").lower()
    for i, text in chapter.text:
        for number in DOI.findall("\n".join(links(text))) + ARXIV.findall(text):
            if number.lower() not in bibliography:
                yield f"cell {i}: {number} is not in references.bib"


def keeps_the_budget(chapter: Chapter) -> Iterator[str]:
    if not chapter.is_short:
        return
    measured = chapter.measures()
    for what, limit in BUDGET.items():
        if measured[what] > limit:
            yield f"{measured[what]:g} {what}; a page of ten minutes has {limit} at most"
    if measured["pictures"] < PICTURES:
        yield f"{measured['pictures']} pictures; a page of ten minutes has {PICTURES} or more"
    first = next((i for i, cell in chapter.code if "hide-input" not in cell.metadata.get("tags", [])), None)
    if first is not None and not any(is_picture(cell) for i, cell in chapter.code if i < first):
        yield "must show the whole network before the first code that is not folded"
    for i, text in chapter.text:
        if found := re.search(r"\b(lectures?|slides?)\b", prose(text), re.I):
            yield f"cell {i}: {found[0]!r} belongs in the errata and the preface"


def exercises_have_solutions(chapter: Chapter) -> Iterator[str]:
    if not chapter.sections or chapter.is_depth:
        return
    text = chapter.exercises
    exercises = len(re.findall(r"^### ", text, re.M))
    solutions = len(re.findall(r"<details>\s*<summary>[^<]*solution[^<]*</summary>\s*\n\s*\n", text, re.I))
    if exercises < EXERCISES:
        yield f"must have {EXERCISES} or more exercises, each under a '### ' heading; found {exercises}"
    if solutions != exercises:
        yield (f"must hide one solution for each exercise in <details><summary>Solution</summary>, with an empty line "
               f"after it; found {solutions} for {exercises}")
    for number, solution in enumerate(chapter.solutions(), 1):
        try:
            ast.parse(solution)
        except SyntaxError as error:
            yield f"the code of solution {number} does not parse: {error}"


def wrong_choices_have_replies(chapter: Chapter) -> Iterator[str]:
    """Whoever chooses wrongly is told why, not only that it is wrong."""
    for i, cell in chapter.code:
        for node in ast.walk(ast.parse(cell.source)) if "choices=" in cell.source else ():
            given = {word.arg: word.value for word in getattr(node, "keywords", ())}
            if isinstance(node, ast.Call) and isinstance(given.get("choices"), ast.List):
                usual = given.get("usual", ast.List([]))
                replied = [ast.unparse(pair.elts[0]) for pair in usual.elts] + [ast.unparse(node.args[1])]
                for choice in map(ast.unparse, given["choices"].elts):
                    if choice not in replied:
                        yield f"cell {i}: no reply to the wrong choice {choice}"


def figures_have_alternative_text(chapter: Chapter) -> Iterator[str]:
    for i, cell in chapter.code:
        drawn = any(kind.startswith("image/") for output in cell.outputs for kind in output.get("data", {}))
        if drawn and not cell.metadata.get("mystnb", {}).get("image", {}).get("alt"):
            yield f"cell {i}: a figure without alternative text (mystnb.image.alt in the cell's metadata)"
    for i, text in chapter.text:
        if re.search(r"!\[\s*\]\(", text) or re.search(r"<img(?![^>]*\balt=\"[^\"])", text):
            yield f"cell {i}: a picture without alternative text"


def executed_in_order(chapter: Chapter) -> Iterator[str]:
    counts = [cell.execution_count for _, cell in chapter.code]
    if counts != list(range(1, len(counts) + 1)):
        yield f"must be executed from top to bottom in one go (make chapters); execution counts are {counts}"
    elif not any(cell.outputs for _, cell in chapter.code):
        yield "must have its outputs committed (make chapters)"


def outputs_are_clean(chapter: Chapter) -> Iterator[str]:
    for i, cell in chapter.code:
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                yield f"cell {i}: an error or a warning in its output"
            for what, pattern in UNSTABLE.items():
                found = pattern.search(text_of(output))
                if found:
                    yield f"cell {i}: {what} in its output: {found[0]!r}"


def outputs_are_compared(chapter: Chapter) -> Iterator[str]:
    cells = [(i, cell) for i, cell in chapter.code if cell.outputs]
    ignored = [(i, cell) for i, cell in cells if "nbval-ignore-output" in cell.metadata.get("tags", [])]
    if 3 * len(ignored) > len(cells):
        yield f"{len(ignored)} of {len(cells)} output cells are not compared; at most a third may"
    for i, cell in ignored:
        if not re.search(r"^\s*assert ", cell.source, re.M):
            yield f"cell {i}: not compared, so it asserts the claim that it supports"
    for i, cell in chapter.code:
        if re.search(r"nbval[-_]skip", " ".join([*cell.metadata.get("tags", []), cell.source]), re.I):
            yield f"cell {i}: nbval runs every cell"


def in_the_contents(chapter: Chapter) -> Iterator[str]:
    contents = yaml.safe_load((notebooks.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [entry for part in contents.get("parts", [contents]) for entry in part.get("chapters", [])]
    listed = {page["file"].removesuffix(".ipynb") for entry in chapters for page in (entry, *entry.get("sections", []))}
    if f"chapters/{chapter.path.stem}" not in listed:
        yield "must be listed in _toc.yml"


def ids_are_its_own(chapter: Chapter) -> Iterator[str]:
    """Cell ids become labels of the whole book, where each may stand once."""
    own = {cell.id: i for i, cell in enumerate(chapter.cells)}
    if len(own) < len(chapter.cells):
        yield "two cells have one id (tools/execute.py --tidy)"
    for other in sorted(chapter.path.parent.glob("[!_]*.ipynb")):
        if other != chapter.path:
            for name in set(re.findall(r'^   "id": "([^"]+)"', other.read_text(encoding="utf-8"), re.M)) & set(own):
                yield f"cell {own[name]}: the same cell stands in {other.name}; what two chapters need belongs in cnnlib"


def metadata_is_ours(chapter: Chapter) -> Iterator[str]:
    metadata = {key: value for key, value in chapter.notebook.metadata.items() if key != "widgets"}
    if metadata != notebooks.NOTEBOOK_METADATA:
        yield "must have the notebook metadata of tools/notebooks.py (make chapters)"
    if notebooks.dumps(notebooks.tidy(notebooks.read(chapter.path), chapter.path.stem)) != chapter.path.read_text(encoding="utf-8"):
        yield "must be in tidy form, explorers with their present JavaScript (tools/execute.py --tidy)"


RULES = (one_title, sections_in_order, keeps_the_budget, setup_and_imports, cells_are_short, text_before_code, plain_markdown,
         links_resolve, papers_are_in_the_bibliography, exercises_have_solutions, wrong_choices_have_replies,
         figures_have_alternative_text, executed_in_order, outputs_are_clean, outputs_are_compared, in_the_contents,
         ids_are_its_own, metadata_is_ours)


def breaches(path: Path) -> list[str]:
    """Every breach of every rule in a chapter file, one sentence each."""
    chapter = Chapter(path)
    return [sentence for rule in RULES for sentence in rule(chapter)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="+", type=Path, metavar="CHAPTER", help="notebooks, as committed")
    parser.add_argument("--measures", action="store_true", help="print words, cells, screens and so on instead")
    options = parser.parse_args()
    if missing := [str(path) for path in options.chapters if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")
    if options.measures:
        for path in options.chapters:
            if Chapter(path).is_short:
                print(path.stem, *(f"{what} {value:g}" for what, value in Chapter(path).measures().items()), sep="; ")
        return 0
    found = [f"{path}: {sentence}" for path in options.chapters for sentence in breaches(path)]
    print("\n".join(found) or f"{len(options.chapters)} chapters, no breach of the chapter rules")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
