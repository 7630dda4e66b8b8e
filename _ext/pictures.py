"""Makes the pictures of the networks (`tools/gallery.py`) before the book is built, if the library has changed since.

They go to `_static/pictures`, which is not kept in the repository.
"""

import hashlib
import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]


def _make(app: Sphinx) -> None:
    folder = ROOT / "_static" / "pictures"
    sources = [*sorted((ROOT / "cnnlib").rglob("*.py")), ROOT / "tools" / "gallery.py"]
    state = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    mark = folder / "made-from"
    if not mark.exists() or mark.read_text(encoding="utf-8") != state:
        subprocess.run([sys.executable, str(ROOT / "tools" / "gallery.py"), "--pictures", str(folder)], check=True)
        mark.write_text(state, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    app.connect("builder-inited", _make)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
