"""Readers: from a task's ``dataset`` section to rows.

A reader is a function ``(dataset: DatasetSpec, root: Path) -> Table``; ``root`` is the data
directory. Rows are mappings from column to plain values; a column that holds an image holds an
``ImageRef``, which is read only when a model needs its pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import DatasetSpec

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows, and what is needed to know later that they were the same rows."""

    rows: Sequence[Row]
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksum by path, for files; the fingerprint of the data set, for the hub."""
    revision: str | None = None
    """The resolved commit, for the hub."""


Reader = Callable[[DatasetSpec, Path], Table]


READERS: Plugins[Reader] = Plugins(
    "reader",
    "vlm_harness.readers",
    {
        "json": "vlm_harness.datasets.files:read_json",
        "jsonl": "vlm_harness.datasets.files:read_jsonl",
        "csv": "vlm_harness.datasets.files:read_csv",
        "parquet": "vlm_harness.datasets.files:read_parquet",
        "image_folder": "vlm_harness.datasets.files:read_image_folder",
        "hub": "vlm_harness.datasets.hub:read_hub",
        "rendered": "vlm_harness.datasets.rendered:read_rendered",
    },
)


def read(dataset: DatasetSpec, root: Path, where: object = None) -> Table:
    """The rows of a task.

    Raises:
        InputError: the data are not there (with what to fetch, and where to put it), or are not in
            the format that the task declares.
    """
    reader = READERS.get(dataset.reader, where)
    try:
        return reader(dataset, root)
    except InputError as error:
        if error.where is not None:
            raise
        raise InputError(error.message, where=where, hint=error.hint) from None
