"""Old addresses lead to the new places: `page.html#section` of the first edition, in which a chapter was one page.

`moved.toml` lists under `[then]` the sections that each page had. One that its page has no longer is sought under its name on the page of depth, or
begins a longer heading of the page ("Problem" has become "Problem: deeper was worse"), or `[now]` says where it is. Such a page is given a
few lines of script that lead on before anything is drawn; without scripts a reader is at the top of the chapter.
"""

import json
import re
import tomllib
from pathlib import Path

from sphinx.application import Sphinx

TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
IDENTIFIER = re.compile(r'\bid="([^"]+)"')
SCRIPT = re.compile(r"<script data-moved>.*?</script>\n", re.S)
TEXT = """<script data-moved>(() => {{
  const now = {now}, go = () => {{ const to = now[location.hash.slice(1)]; if (to) location.replace(to); }};
  addEventListener("hashchange", go); go();
}})()</script>
"""


def places(name: str, here: set[str], depth: set[str]) -> dict[str, str]:
    """Where the sections of the first edition are that the page `name` has no longer, as addresses beside it.

    `here` and `depth` are the identifiers of the page and of its page of depth. Raises `LookupError` for a section that is nowhere.
    """
    found, now = {}, TABLE["now"].get(name, {})
    for anchor in dict.fromkeys([*TABLE["then"].get(name, "").split(), *now]):
        longer = [one for one in here if one.startswith(f"{anchor}-")]
        if anchor in here:
            continue
        if anchor in now:
            found[anchor] = now[anchor]
        elif anchor in depth:
            found[anchor] = f"{name}_depth.html#{anchor}"
        elif len(longer) == 1:
            found[anchor] = f"{name}.html#{longer[0]}"
        else:
            raise LookupError(f"moved.toml: the section {anchor!r} of {name} is nowhere; say under [now.{name}] where it is")
    return found


def identifiers(page: Path) -> set[str]:
    """All identifiers of a built page; none if there is no such page."""
    return set(IDENTIFIER.findall(page.read_text(encoding="utf-8"))) if page.exists() else set()


def _lead_on(app: Sphinx, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    folder = Path(app.outdir) / "chapters"
    for name in TABLE["then"]:
        page = folder / f"{name}.html"
        if page.exists() and (now := places(name, identifiers(page), identifiers(folder / f"{name}_depth.html"))):
            text = SCRIPT.sub("", page.read_text(encoding="utf-8"))
            page.write_text(text.replace("<title>", TEXT.format(now=json.dumps(now)) + "<title>", 1), encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("build-finished", _lead_on)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
