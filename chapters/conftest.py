"""`pytest --nbval chapters/`: the code of the hidden solutions runs after its chapter, in the same kernel."""

from collections import defaultdict

import nbformat
import pytest
from lint_chapters import Chapter
from nbval.plugin import IPyNbCell, IPyNbFile

collect_ignore_glob = ["_*.ipynb"]


class ChapterFile(IPyNbFile):
    """A notebook's cells, outputs compared, then the solutions of its exercises, outputs ignored."""

    def setup(self):
        super().setup()
        execute = self.kernel.kc.execute  # with history, as notebooks run: else IPython overlooks a closing semicolon
        self.kernel.kc.execute = lambda code, **options: execute(code, **{**options, "store_history": True})

    def collect(self):
        yield from super().collect()
        for number, code in enumerate(Chapter(self.path).solutions(), 1):
            if code:
                yield IPyNbCell.from_parent(
                    self, name=f"Solution {number}", cell_num=number, cell=nbformat.v4.new_code_cell(code),
                    options=defaultdict(bool),
                )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    collectors = yield
    return [ChapterFile.from_parent(parent, path=file_path) if isinstance(collector, IPyNbFile) else collector
            for collector in collectors]
