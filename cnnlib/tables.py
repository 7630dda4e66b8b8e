"""Tables of text: the one place that writes cells as lines for a terminal, Markdown, HTML or CSV.

A table is a list of rows of texts, the heads first; `left` says for each column whether it is aligned to the left.
`total` is one more row below a rule, `note` a line below everything.
"""

import copy
import csv
import html
import io
from collections.abc import Sequence
from dataclasses import fields

Cells = Sequence[Sequence[str]]
UNITS = ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "K"))


def short(number: float) -> str:
    """A number with three digits and a letter for thousands: 25.6M, 4.09G, 512."""
    for unit, letter in UNITS:
        if abs(number) >= 0.9995 * unit:
            return f"{number / unit:.3g}{letter}" if abs(number) < 999.5 * unit else f"{number / unit:,.0f}{letter}"
    return f"{number:.3g}" if isinstance(number, float) else str(number)


def full(value: object) -> str:
    """A value as a cell shows it: shapes as 3x224x224, counts with separators."""
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def as_text(rows: Cells, left: Sequence[bool], *, total: Sequence[str] | None = None, note: str = "",
            most: int | None = None) -> str:
    """Lines of aligned columns; of more than `most` rows the first and the last."""
    every = [*rows, total] if total else list(rows)
    widths = [max(map(len, column)) for column in zip(*every)]
    head, *lines = ["  ".join(cell.ljust(width) if is_left else cell.rjust(width)
                              for cell, width, is_left in zip(row, widths, left)).rstrip() for row in every]
    rule = "-" * max(map(len, (head, *lines)))
    foot = [rule, lines.pop()] if total else []
    if most is not None and len(lines) > most:
        half = most // 2
        lines = [*lines[:half], f"... {len(lines) - 2 * half} more rows ...", *lines[-half:]]
    return "\n".join([head, rule, *lines, *foot, *([note] if note else [])])


def as_markdown(rows: Cells, left: Sequence[bool], *, total: Sequence[str] | None = None, note: str = "") -> str:
    """A table of GitHub's Markdown; bars inside of cells are escaped."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    marks = [":--" if is_left else "--:" for is_left in left]
    foot = [[f"**{cell}**" if cell else "" for cell in total]] if total else []
    lines = ["| " + " | ".join(line) + " |" for line in (head, marks, *body, *foot)]
    return "\n".join(lines) + (f"\n\n{note}" if note else "")


def as_html(rows: Cells, left: Sequence[bool], *, total: Sequence[str] | None = None, note: str = "") -> str:
    """A table element, and the note as a paragraph."""
    def line(cells, tag):
        inner = "".join(f'<{tag} style="text-align: {"left" if is_left else "right"}">{html.escape(cell)}</{tag}>'
                        for cell, is_left in zip(cells, left))
        return f"<tr>{inner}</tr>"

    head, *body = rows
    inner = "\n".join(line(cells, "td") for cells in body)
    foot = f"<tfoot>{line(total, 'th')}</tfoot>\n" if total else ""
    return (f"<table>\n<thead>{line(head, 'th')}</thead>\n<tbody>\n{inner}\n</tbody>\n{foot}</table>"
            + (f"\n<p>{html.escape(note)}</p>" if note else ""))


def as_csv(records: Sequence[dict]) -> str:
    """Comma-separated lines, the keys of the first record as heads."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]) if records else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: full(value) if isinstance(value, tuple) else value for key, value in record.items()}
                     for record in records)
    return out.getvalue()


class Printed:
    """A result that prints in every form: `_cells` gives the arguments of `as_text`, `records` all that it holds."""

    def _cells(self) -> dict:
        raise NotImplementedError

    def records(self) -> list[dict]:
        """The rows as plain dictionaries, every column included."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(**self._cells())

    __repr__ = __str__

    def to_html(self) -> str:
        return as_html(**self._cells())

    def to_markdown(self) -> str:
        return as_markdown(**self._cells())

    _repr_html_, _repr_markdown_ = to_html, to_markdown

    def to_csv(self) -> str:
        """Comma-separated lines, every column included, without the total."""
        return as_csv(self.records())

    def to_frame(self):
        """A `pandas.DataFrame`, every column included, without the total."""
        import pandas

        return pandas.DataFrame(self.records())


class Rows(Printed, Sequence):
    """Instances of one data class as the rows of a table, with their `total` and a `note` below.

    A column is an attribute of the rows, also one that their `computed` names, or such a name with "%" behind it for
    the share of the total; `title_of` has the heads that differ from the names.
    """

    columns: tuple[str, ...] = ()
    title_of: dict[str, str] = {}
    most_rows = 60  # that repr shows; str and to_csv give all
    short = False

    def __init__(self, rows: Sequence, total: object, note: str):
        self.rows = list(rows)
        self.total = total
        self.note = note

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def with_columns(self, *columns: str, short: bool = False) -> "Rows":
        """The same table with these columns in this order; `short` writes numbers as 25.6M.

        Raises `ValueError` for a column that its rows do not have."""
        for column in columns:
            if self.rows and not hasattr(self.rows[0], column.removesuffix("%")):
                names = ", ".join(self.names())
                raise ValueError(f"no column {column!r}; there are {names}, and these with % behind them")
        table = copy.copy(self)
        table.columns, table.short = columns or self.columns, short
        return table

    def _cell(self, row, column: str) -> str:
        if column.endswith("%"):
            part, whole = (getattr(one, column[:-1], 0) for one in (row, self.total))
            return f"{100 * part / whole:.1f}%" if whole else "0.0%"
        value = getattr(row, column, "")
        return short(value) if self.short and isinstance(value, (int, float)) else full(value)

    def _cells(self) -> dict:
        head = [self.title_of.get(column, column) for column in self.columns]
        *rows, total = [[self._cell(row, column) for column in self.columns] for row in (*self.rows, self.total)]
        one = (self.rows or [self.total])[0]
        left = [isinstance(getattr(one, column.removesuffix("%"), 0), (str, tuple)) for column in self.columns]
        return {"rows": [head, *rows], "left": left, "total": self.total and ["total", *total[1:]], "note": self.note}

    def __repr__(self):
        return as_text(**self._cells(), most=self.most_rows)

    def names(self) -> list[str]:
        """Those of all columns."""
        names = [item.name for item in fields(self.rows[0]) if item.repr] if self.rows else []
        return names + [*getattr(self.rows[0], "computed", ())] if names else []

    def records(self) -> list[dict]:
        names = self.names()
        return [{name: getattr(row, name) for name in names} for row in self.rows]
