"""A reader for SQLite tables."""

import sqlite3
from pathlib import Path

from vlm_harness.datasets import Table
from vlm_harness.datasets.files import checksum, locate
from vlm_harness.errors import InputError
from vlm_harness.specs import DatasetSpec


def read_sqlite(dataset: DatasetSpec, root: Path) -> Table:
    """Read the rows of one table of an SQLite file: ``args: {table: NAME}``."""
    path = locate(dataset, root)
    table = str(dataset.args.get("table", ""))
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        connection.row_factory = sqlite3.Row
        names = [row["name"] for row in connection.execute("SELECT name FROM sqlite_master")]
        if table not in names:
            raise InputError(f"no table {table!r}", where=path, hint=f"Tables: {', '.join(names)}")
        rows = [dict(row) for row in connection.execute(f'SELECT * FROM "{table}"')]
    return Table(rows, {path.relative_to(root).as_posix(): checksum(path)})
