"""The table of a manifest: where it lies, its columns and rows, as CSV or Parquet."""

from __future__ import annotations

import csv
import difflib
import importlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from endolux.datasets.decode import damaged, read_text
from endolux.errors import InputError, missing_extra
from endolux.io.paths import check_file, printable

COLUMNS = (
    "image", "depth", "kind", "mm_per_unit", "no_value", "valid", "camera", "pose", "pose_mm", "sequence", "index",
    "side",
)  # fmt: skip
"""Columns with a meaning, beside ``label:NAME``."""
SUFFIXES = (".csv", ".parquet")
FILE_NAMES = ("manifest.csv", "manifest.parquet")

LABEL = "label:"
"""Begins the names of columns with label maps."""


def find_table(root: Path) -> Path:
    """The table itself, or the one in a folder. Raises InputError."""
    if root.is_dir():
        found = [root / name for name in FILE_NAMES if (root / name).is_file()]
        if not found:
            raise InputError(
                f"No table in '{printable(root)}'",
                why=f"A folder is read by its {' or '.join(FILE_NAMES)}.",
                fix="Name the table itself, or use the reader 'folder' for files side by side.",
                error_id="input.missing",
            )
        return found[0]
    check_file(root)
    if root.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"'{printable(root)}' is not a table",
            why=f"Tables end in {' or '.join(SUFFIXES)}.",
            fix="Save it as CSV with a first line of column names.",
            error_id="manifest.file",
        )
    return root


def table_rows(table: Path) -> Iterable[tuple[int, Mapping[str, str]]]:
    """Number and cells of every row. Raises InputError, MissingExtraError."""
    if table.suffix.lower() == ".parquet":
        yield from _parquet(table)
        return
    lines = csv.reader(io.StringIO(read_text(table).removeprefix("\ufeff")), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        check_columns(header, table)
        for cells in lines:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise bad_value(table, lines.line_num, f"it has {len(cells)} cells for {len(header)} columns")
            yield lines.line_num, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    except csv.Error as error:
        raise damaged(printable(table), str(error)) from error


def _parquet(table: Path) -> Iterable[tuple[int, Mapping[str, str]]]:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise missing_extra("pyarrow", "tables") from error
    try:
        content = parquet.read_table(table)
        names, rows = list(content.column_names), content.to_pylist()
    except (OSError, ValueError, TypeError) as error:  # pyarrow's own errors derive from these
        raise damaged(printable(table), " ".join(str(error).split())) from error
    check_columns(names, table)
    for number, row in enumerate(rows, 1):
        yield number, {name: "" if value is None else str(value) for name, value in row.items()}


def check_columns(names: Sequence[str], table: Path) -> None:
    """Refuse columns without a meaning. Raises InputError ``manifest.column``."""
    unknown = [name for name in names if name not in COLUMNS and not (name.startswith(LABEL) and name != LABEL)]
    what = ""
    if unknown:
        what = f"the column '{printable(unknown[0])}' has no meaning"
    elif len(set(names)) != len(names):
        what = "a column is there twice"
    elif "image" not in names:
        what = "there is no column 'image'"
    if what:
        near = difflib.get_close_matches(unknown[0], COLUMNS, n=1) if unknown else []
        raise InputError(
            f"'{printable(table)}' is no table of frames: {what}",
            why=f"Columns are {', '.join(COLUMNS)} and {LABEL}NAME; a misspelt one would be overlooked.",
            fix=f"Did you mean '{near[0]}'?" if near else "Correct the first line.",
            error_id="manifest.column",
        )


def bad_value(table: Path, number: int, what: str) -> InputError:
    """The error for a value that cannot be understood."""
    return InputError(
        f"Line {number} of '{printable(table)}': {what}",
        why="Every value of a table must have one meaning; nothing is guessed.",
        fix="Correct that line; endolux.datasets.manifest lists the columns.",
        error_id="manifest.value",
    )
