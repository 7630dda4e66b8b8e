"""One architecture family per file. A family registers by existing: this package imports its own folder."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
