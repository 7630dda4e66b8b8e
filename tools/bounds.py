"""What pip installs to try the bounds of pyproject.toml: `python tools/bounds.py lowest` or `newest` prints requirements.

"lowest" takes of every requirement of the package, and of its tests, the lowest version that is allowed; "newest" leaves it to pip.
"""

import sys
import tomllib
from pathlib import Path

EXTRAS = ("test",)


def requirements(versions: str) -> list[str]:
    """One line for each requirement. Raises `ValueError` for anything but "lowest" and "newest"."""
    if versions not in ("lowest", "newest"):
        raise ValueError(f"{versions!r}; choose 'lowest' or 'newest'")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    return [line.partition(",")[0].replace(">=", "==") if versions == "lowest" else line for line in lines]


if __name__ == "__main__":
    print("\n".join(requirements(*sys.argv[1:])))
