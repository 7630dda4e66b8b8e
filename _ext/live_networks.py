"""Puts the networks that run on pages, and their photographs, beside the book's own scripts: `_static/live`, fetched when a reader asks."""

from pathlib import Path

from sphinx.application import Sphinx


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        from cnnlib.widgets.follow import write_files

        write_files(Path(app.outdir) / "_static" / "live")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
