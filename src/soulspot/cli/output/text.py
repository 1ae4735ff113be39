"""Prints text that is safe for a terminal, tables for people and JSON for programs."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

Row = Mapping[str, Any]


def printable(text: str) -> str:
    r"""Escape everything that controls a terminal: a newline becomes `\n`, a bidi mark its code."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def print_json(value: object) -> None:
    """Print one JSON object on one line."""
    print(json.dumps(value, ensure_ascii=False, default=_as_text))


def print_rows(rows: Iterable[Row], columns: Mapping[str, str | Callable[[Row], object]], *, as_json: bool) -> None:
    """Print rows: each as a JSON object, or all as a table whose columns are a field or made by a function."""
    if as_json:
        for row in rows:
            print_json(row)
    else:
        cells = ([row[each] if isinstance(each, str) else each(row) for each in columns.values()] for row in rows)
        print_table(tuple(columns), cells)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table: aligned on a terminal, tab-separated otherwise."""
    cells = ([printable("" if value is None else str(value)) for value in row] for row in rows)
    if not sys.stdout.isatty():
        for row in cells:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, header_style="bold", pad_edge=False)
    for row in cells:
        table.add_row(*(Text(cell, overflow="fold") for cell in row))
    Console().print(table)


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def local_time(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")
