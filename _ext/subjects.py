"""The book's index, which search asks first: the subjects of `subjects.toml`, each with the page and section that is its place.

Full text alone finds a word of the trade on thirty pages and cannot tell where it is explained.
"""

import tomllib
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def place(beginning: str, identifiers: list[str]) -> str:
    """The section's identifier that is `beginning`, or else the first that begins with it. Raises `LookupError` if there is none."""
    for found in (beginning, *(one for one in identifiers if one.startswith(beginning))):
        if found in identifiers:
            return found
    raise LookupError(f"no section begins with {beginning!r}")


class Subjects(SphinxTransform):
    """Gives a page its entries of the index, before the index is collected (850)."""

    default_priority = 800

    def apply(self, **kwargs) -> None:
        sections = [name for section in self.document.findall(nodes.section) for name in section["ids"]]
        for key, subjects in TABLE.items():
            page, _, beginning = key.partition("#")
            if self.env.docname != f"chapters/{page}":
                continue
            try:
                target = place(beginning, sections) if beginning else ""
            except LookupError as error:
                logging.getLogger(__name__).warning(f"subjects.toml: {error}", location=self.env.docname)
                continue
            entries = [("single", subject, target, "main", None) for subject in subjects]
            self.document.insert(0, addnodes.index(entries=entries, inline=False))


def setup(app: Sphinx) -> dict:
    app.add_transform(Subjects)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
