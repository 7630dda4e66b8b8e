"""Write the public address and branch of `_config.yml` into the set-up cell of every chapter.

    python tools/set_repository.py
"""

import notebooks


def main() -> None:
    wanted = notebooks.setup_cell().source
    for path in [*notebooks.chapter_files(), *notebooks.CHAPTERS.glob("_*.ipynb")]:
        notebook = notebooks.read(path)
        for cell in notebook.cells:
            if notebooks.is_setup_cell(cell):
                cell.source = wanted
        path.write_text(notebooks.dumps(notebooks.tidy(notebook)), encoding="utf-8")
    print("The chapters fetch", notebooks.repository()["url"], "branch", notebooks.repository()["branch"])


if __name__ == "__main__":
    main()
