"""Takes sphinx-thebe's scripts off the pages: the book does not use it, its settings come twice, and that is an error.

Jupyter Book loads sphinx-thebe in every book. Its inline script declares a constant, and Sphinx writes it out twice.
"""

from sphinx.application import Sphinx


def _names_thebe(script) -> bool:
    return "thebe" in f"{getattr(script, 'filename', script)} {getattr(script, 'attributes', {}).get('body', '')}".lower()


def _drop(app: Sphinx, pagename: str, templatename: str, context: dict, doctree) -> None:
    context["script_files"] = [script for script in context["script_files"] if not _names_thebe(script)]


def setup(app: Sphinx) -> dict:
    app.connect("html-page-context", _drop, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
