"""Write the public address and branch of `_config.yml` into the set-up cell of every chapter, and into the pages' links.

    python tools/set_repository.py
"""

import re

import notebooks


def written_address() -> str | None:
    """The address that the chapters hold now."""
    for path in notebooks.chapter_files():
        found = re.search(r'address, branch = \\"(.+?)\\"', path.read_text(encoding="utf-8"))
        if found:
            return found[1]
    return None


def main() -> None:
    old, new = written_address(), notebooks.repository()
    wanted = notebooks.setup_cell().source
    for path in notebooks.CHAPTERS.glob("*.ipynb"):
        notebook = notebooks.read(path)
        for cell in notebook.cells:
            if notebooks.is_setup_cell(cell):
                cell.source = wanted
        path.write_text(notebooks.dumps(notebooks.tidy(notebook, path.stem)), encoding="utf-8")
    for path in [*notebooks.ROOT.glob("*.md"), *notebooks.CHAPTERS.glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        if old and old in text:
            path.write_text(text.replace(old, new["url"]), encoding="utf-8")
    print("The chapters fetch", new["url"], "branch", new["branch"])


if __name__ == "__main__":
    main()
