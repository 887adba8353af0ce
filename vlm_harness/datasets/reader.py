"""Readers: read the rows of a task, as its ``dataset`` section describes them.

A reader is a function ``(dataset: DatasetSpec, root: Path) -> Table``, where ``root`` is the data
directory. A row maps columns to plain values. The value of an image column is an ``ImageRef``,
which is read only when a model needs the pixels.
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
    """Rows, with checksums to verify later that they are the same rows."""

    rows: Sequence[Row]
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksums by path, for files; the fingerprint of the data set, for the hub."""
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
        InputError: the data are missing (the message says how to get them), or do not have the
            format that the task declares.
    """
    reader = READERS.get(dataset.reader, where)
    try:
        return reader(dataset, root)
    except InputError as error:
        if error.where is not None:
            raise
        raise InputError(error.message, where=where, hint=error.hint) from None
