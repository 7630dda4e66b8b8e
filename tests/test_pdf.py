"""The PDF of the book: contents, page numbers, outlines, links within it, solutions at its end."""

import pdf
import pytest
import yaml
from pypdf import PdfReader

PAGE = """<!doctype html><html data-theme="light"><head><title>{title}</title><link rel="icon" href="data:,"></head><body>
<div id="sidebar">A side bar</div><article class="bd-article"><h1>{title}<a class="headerlink" href="#t">#</a></h1>
<p>Text of {title}, which reads <a href="{other}.html">{other}</a> and <a href="https://example.org/paper">a paper</a>.</p>
<section id="use"><h2>Use of {title}</h2><div class="explorer">An explorer</div></section>
<section id="one"><h3>1. Count<a class="headerlink" href="#one">#</a></h3><p>How many?</p>
<details class="admonition hide"><summary>Show code</summary><p>Hidden lines</p></details>
<details><summary>Solution</summary><p id="s">The secret of {title}</p></details></section>
</article></body></html>"""


@pytest.fixture(scope="module")
def book(browser, serve, tmp_path_factory):
    """A book of two pages, printed."""
    folder = tmp_path_factory.mktemp("html")
    (folder / "first.html").write_text(PAGE.format(title="Alpha", other="second"))
    (folder / "second.html").write_text(PAGE.format(title="Beta & Co", other="first").replace("<h1>Beta", "<h1><code>Beta</code>"))
    parts = [pdf.Part("", 0, "Both"), pdf.Part("first", 1, ""), pdf.Part("second", 2, "")]
    page, here = browser.new_page(), serve(folder)
    pdf.print_parts(page, here, parts, "https://example.org/book")
    path = folder / "book.pdf"
    pdf.bound(page, here, parts).write(path)
    page.close()
    reader = PdfReader(path)
    return reader, [sheet.extract_text() for sheet in reader.pages]


def links(reader, number):
    """The links of a page, as an address or the number of a page."""
    found = []
    for reference in reader.pages[number].get("/Annots", ()):
        link = reference.get_object()
        found.append(link["/A"]["/URI"] if "/A" in link else reader.get_page_number(link["/Dest"][0].get_object()))
    return found


def test_pages_come_in_order_with_contents_and_numbers(book):
    reader, texts = book
    texts = [" ".join(text.split()) for text in texts]
    cover, contents, first, second, solutions = texts
    assert "Convolutional Network Architectures" in cover
    assert reader.metadata.title == "Convolutional Network Architectures"
    assert all(words in contents for words in ("Both", "Alpha 3", "Beta & Co 4", "Solutions 5"))
    assert "Text of Alpha" in first and "Text of Beta & Co" in second
    for number, text in enumerate(texts[1:], 2):
        assert text.rstrip().endswith(str(number)), text


def test_solutions_leave_the_chapters_for_the_end(book):
    _, (*_, first, second, solutions) = book
    assert "secret" not in first + second and first.count("Solution") == 1 and "Solution: at the end of the book" in first
    alpha, beta = solutions.index("The secret of Alpha"), solutions.index("The secret of Beta & Co")
    assert solutions.index("Alpha") < solutions.index("1. Count") < alpha < solutions.index("Beta & Co") < beta
    assert "#" not in solutions and "Show code" not in solutions and "Hidden lines" not in solutions


def test_links_lead_within_the_book_and_explorers_to_their_page(book):
    reader, _ = book
    assert 3 in links(reader, 2) and 2 in links(reader, 3), "to the other page"
    assert "https://example.org/book/first.html" in links(reader, 2) and "https://example.org/paper" in links(reader, 2)
    assert 4 in links(reader, 2) and 4 in links(reader, 3), "to the solutions"
    assert not [link for number in range(5) for link in links(reader, number) if "127.0.0.1" in str(link)]


def elements(element, kind):
    """The elements of this kind below one of a PDF's structure, in the order in which they are read."""
    kids = element.get("/K", [])
    for kid in kids if isinstance(kids, list) else [kids]:
        kid = kid.get_object()
        if isinstance(kid, dict):
            if kid.get("/S") == kind:
                yield kid
            yield from elements(kid, kind)


def test_screen_readers_find_headings_and_links(book):
    """Each page's marks and each link lead to the elements of that page, in one structure for all."""
    reader, _ = book
    root = reader.trailer["/Root"]
    tree = root["/StructTreeRoot"]
    assert root["/MarkInfo"]["/Marked"] and root["/Lang"] == "en"
    numbers = dict(zip(tree["/ParentTree"]["/Nums"][::2], tree["/ParentTree"]["/Nums"][1::2], strict=True))
    assert len(numbers) == len(tree["/ParentTree"]["/Nums"]) // 2 and tree["/ParentTreeNextKey"] > max(numbers)
    for sheet in list(reader.pages)[1:]:
        for element in numbers[sheet["/StructParents"]].get_object():
            assert element.get_object().get("/Pg", sheet).get_object() == sheet
        marks = sheet.get_contents().get_data().count(b"/MCID")
        assert marks == len(numbers[sheet["/StructParents"]].get_object()) > 0 and b"/Artifact BMC" in sheet.get_contents().get_data()
        for link in (one.get_object() for one in sheet.get("/Annots", ())):
            found = numbers[link["/StructParent"]].get_object()
            assert found["/S"] == "/Link"
            kids = [kid.get_object() for kid in found["/K"]]
            assert [kid["/Obj"].get_object() for kid in kids if isinstance(kid, dict) and kid.get("/Type") == "/OBJR"] == [link]
    heads = list(elements(tree, "/H1"))
    assert [reader.get_page_number(next(iter(elements_with_page(head)))) for head in heads] == [0, 2, 3, 4]
    assert sum(1 for _ in elements(tree, "/P")) >= 8


def elements_with_page(element):
    """The pages that an element or those below it stand on."""
    if "/Pg" in element:
        yield element["/Pg"].get_object()
    kids = element.get("/K", [])
    for kid in kids if isinstance(kids, list) else [kids]:
        if isinstance(kid.get_object(), dict):
            yield from elements_with_page(kid.get_object())


def test_outlines_lead_to_chapters_and_sections(book):
    reader, _ = book

    def flat(items, depth=0):
        for item in items:
            if isinstance(item, list):
                yield from flat(item, depth + 1)
            else:
                yield depth, item.title, reader.get_destination_page_number(item)

    assert [one for one in flat(reader.outline) if not one[1].startswith("1.")] == [
        (0, "Contents", 1), (0, "Both", 2), (1, "Alpha", 2), (2, "Use of Alpha", 2), (1, "Beta & Co", 3), (2, "Use of Beta & Co", 3),
        (0, "Solutions", 4), (1, "Alpha", 4), (1, "Beta & Co", 4)]


def test_a_page_is_dark_on_light_on_paper_whatever_its_theme(browser, tmp_path):
    """And shows the text alone, its code in lines that wrap, even what is printed in columns."""
    style = (pdf.notebooks.ROOT / "_static" / "book.css").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(f"""<!doctype html><html data-theme="dark"><style>
      html[data-theme=dark] {{ --pst-color-text-base: #eee }} body {{ color: var(--pst-color-text-base) }} pre span {{ color: #ffd700 }}
      html[data-theme=dark] .cx {{ color-scheme: dark }}</style><style>{style}</style>
      <body><div class="bd-sidebar-primary">Side</div><div class="bd-main"><div class="bd-content"><div class="bd-article-container"><article class="bd-article">
      <p>Text</p><div class="columns"><div class="highlight"><pre><span>code</span></pre></div></div><div class="cx">Explorer</div></article></div></div></div></body></html>""")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    look = """() => [...["p", "pre span", "pre", ".cx"].map((name) => getComputedStyle(document.querySelector(name))).flatMap(
      (style, i) => [style.color, style.whiteSpace, style.colorScheme][[0, 0, 1, 2][i]]), document.querySelector(".bd-sidebar-primary").offsetHeight]"""
    assert page.evaluate(look)[:4] == ["rgb(238, 238, 238)", "rgb(255, 215, 0)", "pre", "dark"]
    page.emulate_media(media="print")
    assert page.evaluate(look) == ["rgb(28, 31, 36)", "rgb(28, 31, 36)", "pre-wrap", "light", 0]
    page.close()


def test_solutions_are_open_where_a_chapter_is_printed_from_the_browser(browser, tmp_path):
    style = (pdf.notebooks.ROOT / "_static" / "book.css").read_text(encoding="utf-8")
    page = browser.new_page()
    page.set_content(f"<style>{style}</style><article><details><summary>Solution</summary><p>The secret</p></details>"
                     '<details class="admonition hide"><summary>Show code</summary><p>Hidden lines</p></details></article>')
    [sheet] = pdf._printed(page).pages
    page.close()
    assert "The secret" in sheet.extract_text() and "Hidden lines" not in sheet.extract_text()


def test_contents_are_those_of_the_table_of_contents():
    toc = (pdf.notebooks.ROOT / "_toc.yml").read_text(encoding="utf-8")
    names = [part.name for part in pdf.contents() if part.name]
    assert names[0] == yaml.safe_load(toc)["root"] and len(names) == toc.count("file:") + 1
    assert [part.title for part in pdf.contents() if not part.name] == [part["caption"] for part in yaml.safe_load(toc)["parts"]]
    assert pdf.site().startswith("https://") and pdf.site().endswith(pdf.notebooks.repository()["url"].rpartition("/")[2])


def test_no_heading_and_no_line_stands_alone_on_paper(browser, tmp_path):
    """Wherever a page ends: both lines of a heading stay together, and at least two of a paragraph's four."""
    words = "".join(f'<section style="break-before: page"><div style="height: {height}px"></div>'
                    f"<h2>Head{i}a<br>Head{i}b</h2><p>Text{i}a<br>Text{i}b<br>Text{i}c<br>Text{i}d</p></section>"
                    for i, height in enumerate(range(780, 1010, 10)))
    style = (pdf.notebooks.ROOT / "_static" / "book.css").read_text(encoding="utf-8")
    (tmp_path / "page.html").write_text(f"<!doctype html><style>{style}</style><article>{words}</article>")
    page = browser.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    page.close()
    texts = [sheet.extract_text() for sheet in PdfReader(tmp_path / "page.pdf").pages]
    counts = {(name, sum(f"{name}{i}{letter}" in text for letter in letters)) for i in range(23) for text in texts
              for name, letters in (("Head", "ab"), ("Text", "abcd"))}
    assert counts == {("Head", 0), ("Head", 2), ("Text", 0), ("Text", 2), ("Text", 4)}
