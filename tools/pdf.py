"""The whole built book as one PDF: contents with page numbers, outlines, figures, explorers as they begin, solutions at the end.

    .venv/bin/python tools/pdf.py [--tagged] [--output _build/cnn-architectures.pdf] [--address https://...]

Prints each page of `_build/html` in the order of `_toc.yml`. Links between pages lead to pages of the PDF. An explorer is shown in its first state,
with a link to its page at `--address`, by default the one that GitHub gives the repository of `_config.yml`. Needs a browser, as the page tests do.
"""

import argparse
import contextlib
import html
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import notebooks
import yaml
from chromium import Server, chromium
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    NumberObject,
    PdfObject,
    TextStringObject,
)

import cnnlib

BOOK = notebooks.ROOT / "_build" / "html"
PAPER = {"format": "A4", "margin": {"top": "20mm", "bottom": "22mm", "left": "19mm", "right": "19mm"}, "scale": 0.8,
         "print_background": True, "outline": True, "tagged": True}
WIDTH = 813  # pixels of a line of text on this paper, so that what is drawn by size fits
SOLUTIONS = "solutions"
SCRIPT = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


@dataclass
class Part:
    """A printed page of the book: its name, its level in the contents (0 for a caption, which has no page, and for the solutions), its title, and its PDF."""

    name: str
    level: int
    title: str
    pdf: PdfReader | None = None
    start: int = 0  # the number of its first page in the book, from 0


def contents() -> list[Part]:
    """The parts of the book in the order of `_toc.yml`, captions among them; titles of pages follow when they are printed."""
    toc = yaml.safe_load((notebooks.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    found = [Part(toc["root"], 1, "")]
    for part in toc["parts"]:
        found.append(Part("", 0, part["caption"]))
        for chapter in part["chapters"]:
            found.append(Part(chapter["file"], 1, chapter.get("title", "")))
            found += [Part(section["file"], 2, "") for section in chapter.get("sections", ())]
    return found


def site() -> str:
    """Where GitHub shows the book of the repository."""
    owner, name = notebooks.repository()["url"].rstrip("/").split("/")[-2:]
    return f"https://{owner}.github.io/{name}"


def _printed(page) -> PdfReader:
    return PdfReader(io.BytesIO(page.pdf(**PAPER)))


def print_parts(page, here: str, parts: list[Part], address: str) -> None:
    """Print every part of the book that `here` serves, and append the solutions as a part of their own."""
    solutions, styles = [], []
    page.set_viewport_size({"width": WIDTH, "height": 1100})
    for part in (part for part in parts if part.name):
        page.goto(f"{here}/{part.name}.html", wait_until="load")
        page.add_script_tag(content=SCRIPT)
        page.evaluate("ready()")
        found = page.evaluate("(where) => prepare(where)", [f"{address}/{part.name}.html", f"{here}/{SOLUTIONS}.html#{part.name}"])
        part.title = part.title or found["title"]
        part.pdf = _printed(page)
        if found["solutions"]:
            solutions.append(f"<h2>{html.escape(part.title)}</h2>{re.sub(r' id=.[^ >]*', '', found['solutions'])}")
            styles.append(found["styles"])
    if solutions:  # on the last page of the chapters' folder, so that their images are found
        page.evaluate("(what) => replace(what)", ["<h1>Solutions</h1>" + "".join(solutions), "\n".join(styles)])
        page.evaluate("ready()")
        parts.append(Part(SOLUTIONS, 0, "Solutions", _printed(page)))


def _front(page, parts: list[Part]) -> PdfReader:
    """The cover and the contents, with the page numbers that the parts have now."""
    config = yaml.safe_load((notebooks.ROOT / "_config.yml").read_text(encoding="utf-8"))
    lines = "".join(f"<p class=l{part.level}><span>{html.escape(part.title)}</span><i></i><span>{part.start + 1 if part.pdf else ''}</span></p>"
                    for part in parts)
    page.set_content(f"""<!doctype html><html lang="en"><style>body {{ font: 14px/1.3 system-ui, "DejaVu Sans", sans-serif; margin: 0 }}
    header {{ height: 900px; padding-top: 300px; box-sizing: border-box; break-after: page }} header h1 {{ font-size: 44px; line-height: 1.15 }}
    p {{ margin: .15em 0; display: flex; gap: .5em }} .l0 {{ margin: .7em 0 .2em; font-weight: 600; break-after: avoid }} .l2 {{ padding-left: 1.5em }}
    i {{ flex: 1; border-bottom: 1px dotted #888; margin-bottom: .3em }} i:has(+ :empty) {{ border: 0 }}</style>
    <header><h1>{html.escape(config["title"])}</h1><p>{html.escape(config["author"])}, version {cnnlib.__version__}</p></header>
    <h2>Contents</h2>{lines}</html>""")
    return _printed(page)


def _footers(page, texts: list[str]) -> PdfReader:
    """A page for each text, empty but for the text at its foot."""
    page.set_content('<!doctype html><style>@page { size: A4; margin: 0 } body { margin: 0 } div { height: 297mm; position: relative; break-after: page }'
                     'div:last-child { break-after: auto } p { position: absolute; inset: auto 19mm 11mm; margin: 0; display: flex; color: #555;'
                     'justify-content: space-between; font: 8.5pt system-ui, "DejaVu Sans", sans-serif }</style>' + "".join(f"<div><p>{text}</p></div>" for text in texts))
    return PdfReader(io.BytesIO(page.pdf(prefer_css_page_size=True)))


def _outline(pdf: PdfReader) -> list[tuple[str, int]]:
    """The headings below the first level, as (title, page), of a part's own outline."""
    def flat(items, depth=0):
        for item in items:
            yield from flat(item, depth + 1) if isinstance(item, list) else [(depth, item)]

    def once(title):  # Chromium writes a heading twice that an anchor stands before
        return title[:len(title) // 2] if title == title[:len(title) // 2] * 2 else title

    return [(once(item.title), pdf.get_destination_page_number(item)) for depth, item in flat(pdf.outline) if depth == 1]


def _numbered(tree: DictionaryObject) -> Iterator[tuple[int, PdfObject]]:
    """The entries of a number tree."""
    for kid in tree.get("/Kids", ()):
        yield from _numbered(kid.get_object())
    numbers = tree.get("/Nums", ())
    yield from zip(numbers[::2], numbers[1::2], strict=True)


def _tag(writer: PdfWriter, parts: list[Part]) -> None:
    """Put the parts' structures, which screen readers follow, under one root: pypdf copies pages without them.

    A page's and a link's `/StructParents` are their numbers in a tree of the part, which go on counting from part to part here.
    """
    root, kids, numbers, start = DictionaryObject(), ArrayObject(), ArrayObject(), 0
    here = writer._add_object(root)
    for part in parts:
        tree = part.pdf.trailer["/Root"]["/StructTreeRoot"].get_object().clone(writer)  # its pages and links are the writer's
        for old, new in zip(part.pdf.pages, writer.pages[part.start:], strict=False):
            if "/StructParents" in old:
                new[NameObject("/StructParents")] = NumberObject(start + old["/StructParents"])
            for link in (reference.get_object() for reference in new.get("/Annots", ())):
                if "/StructParent" in link:
                    link[NameObject("/StructParent")] = NumberObject(start + link["/StructParent"])
        top = tree["/K"].get_object()
        for kid in top if isinstance(top, ArrayObject) else [tree.raw_get("/K")]:
            kid.get_object()[NameObject("/P")] = here
            kids.append(kid)
        last = start
        for number, elements in _numbered(tree["/ParentTree"].get_object()):
            numbers += [NumberObject(start + number), elements]
            last = max(last, start + number + 1)
        start = last
    root.update({NameObject("/Type"): NameObject("/StructTreeRoot"), NameObject("/K"): kids, NameObject("/ParentTreeNextKey"): NumberObject(start),
                 NameObject("/ParentTree"): writer._add_object(DictionaryObject({NameObject("/Nums"): numbers}))})
    writer.root_object.update({NameObject("/StructTreeRoot"): here, NameObject("/Lang"): TextStringObject("en"),
                               NameObject("/MarkInfo"): DictionaryObject({NameObject("/Marked"): BooleanObject(True)})})


def bound(page, here: str, parts: list[Part], tagged: bool = True) -> PdfWriter:
    """The printed parts as one book: cover, contents, page numbers, outlines, tags for screen readers, and links that lead to its own pages."""
    start = len(_front(page, parts).pages)
    for part in parts:
        part.start = start
        start += len(part.pdf.pages) if part.pdf else 0
    front, writer = Part("", 1, "Contents", _front(page, parts)), PdfWriter()
    printed = [front, *(part for part in parts if part.pdf)]
    footers = [""] + [f"<span>{html.escape(part.title)}</span><span>{part.start + i + 1}</span>" for part in printed for i in range(len(part.pdf.pages))][1:]
    for part in printed:
        writer.append(part.pdf, import_outline=False)
    if tagged:
        _tag(writer, printed)
    for sheet, footer in zip(writer.pages, _footers(page, footers).pages, strict=True):
        content = footer.get_contents()
        content.set_data(b"/Artifact BMC\n" + content.get_data() + b"\nEMC")  # not read aloud
        footer[NameObject("/Contents")] = content
        sheet.merge_page(footer)
        sheet.compress_content_streams()

    def place(number: int, top: float | None = None) -> ArrayObject:
        target = writer.pages[number].indirect_reference
        return ArrayObject([target, NameObject("/XYZ"), NullObject(), NullObject() if top is None else FloatObject(top), NullObject()])

    starts, solved = {f"{here}/{part.name}.html": part.start for part in parts if part.pdf}, {}
    caption = None
    writer.add_outline_item(title="Contents", page_number=_outline(front.pdf)[0][1])
    for part in parts:
        item = writer.add_outline_item(title=part.title, page_number=part.start, parent=caption if part.level else None)
        caption = caption if part.pdf else item
        for title, number in (headings := _outline(part.pdf) if part.pdf else []):
            writer.add_outline_item(title=title, page_number=part.start + number, parent=item)
        if part.name == SOLUTIONS:
            solved = {title: part.start + number for title, number in headings}
    titles = {part.name: part.title for part in parts}
    for part in printed:
        names = {name.lstrip("/"): (part.pdf.get_destination_page_number(to), to.top) for name, to in part.pdf.named_destinations.items()}
        for sheet in writer.pages[part.start:part.start + len(part.pdf.pages)]:
            for link in (reference.get_object() for reference in sheet.get("/Annots", ())):
                address, _, anchor = str(link.get("/A", {}).get("/URI", "")).partition("#")
                name = str(link.get("/Dest", link.get("/A", {}).get("/D", ""))).lstrip("/")
                if address in starts:
                    target = place(solved.get(titles.get(anchor), starts[address]) if address.endswith(f"/{SOLUTIONS}.html") else starts[address])
                elif name and name in names:
                    number, top = names[name]
                    target = place(part.start + number, top)
                else:
                    continue
                link.pop("/A", None)
                link[NameObject("/Dest")] = target
    writer.add_metadata({"/Title": yaml.safe_load((notebooks.ROOT / "_config.yml").read_text(encoding="utf-8"))["title"]})
    writer.page_mode = "/UseOutlines"
    return writer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=BOOK.parent / "cnn-architectures.pdf")
    parser.add_argument("--address", default=site(), help="where the book's pages are shown (default: %(default)s)")
    parser.add_argument("--tagged", action="store_true", help="keep the structure that screen readers follow: a much larger file, slowly written")
    options = parser.parse_args()
    parts = contents()
    with chromium() as page, contextlib.closing(Server(BOOK)) as server:
        print_parts(page, server.address, parts, options.address.rstrip("/"))
        writer = bound(page, server.address, parts, options.tagged)
    writer.write(options.output)
    print(f"{len(writer.pages)} pages in {options.output}")


if __name__ == "__main__":
    main()
