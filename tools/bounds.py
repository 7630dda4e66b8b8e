"""Install the package with the lowest or the newest versions that pyproject.toml allows into the environment whose Python runs this.

    python tools/bounds.py lowest                       # of every requirement of the package and of its tests the lowest version
    python tools/bounds.py lowest torch==2.13.0         # but this one of that
    python tools/bounds.py newest                       # whatever pip takes

Nothing is looked for among old versions: what pyproject.toml names is installed as it stands there, then what that needs, in
the newest versions that go with it.
"""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("test",)


def requirements(versions: str, instead: list[str] = ()) -> list[str]:
    """One line for each requirement. Raises `ValueError` for anything but "lowest" and "newest", and for a package that is none."""
    if versions not in ("lowest", "newest"):
        raise ValueError(f"{versions!r}; choose 'lowest' or 'newest'")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    lines = [line.partition(",")[0].replace(">=", "==") if versions == "lowest" else line for line in lines]
    named = {Requirement(line).name: line for line in lines}
    for line in instead:
        if Requirement(line).name not in named:
            raise ValueError(f"{line!r}: the package requires no such thing, but {', '.join(named)}")
        named[Requirement(line).name] = line
    return list(named.values())


def missing() -> list[str]:
    """What the packages of this environment require and do not have, at a version that they take."""
    wanted = set()
    for package in metadata.distributions():
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
                continue
            try:
                found = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                found = None
            if found is None or not requirement.specifier.contains(found, prereleases=True):
                wanted.add(f"{requirement.name}{requirement.specifier}")
    return sorted(wanted)


def pip(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True)


def main(versions: str, *instead: str) -> None:
    pins = requirements(versions, list(instead))
    if versions == "newest":
        pip("install", "--quiet", *pins, ROOT)
    else:
        constraints = Path(sys.prefix) / "bounds.txt"
        constraints.write_text("\n".join(pins) + "\n", encoding="utf-8")
        pip("install", "--quiet", "--no-deps", *pins, ROOT)
        while lacking := missing():
            pip("install", "--quiet", "--constraint", constraints, *lacking)
    pip("check")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
