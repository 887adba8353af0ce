"""Readers: read the rows of a task, as its ``dataset`` section describes them.

A reader is a function ``(dataset: DatasetSpec, root: Path) -> Table``, where ``root`` is the data
directory. A row maps columns to plain values. The value of an image column is an ``ImageRef``,
which is read only when a model needs the pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlm_harness.datasets.records import Row
from vlm_harness.errors import InputError, listing
from vlm_harness.plugins import Plugins
from vlm_harness.specs.schemas import DatasetSpec


@dataclass(frozen=True)
class Table:
    """Rows, with checksums to verify later that they are the same rows."""

    rows: Sequence[Row]
    sha256: Mapping[str, str] = field(default_factory=dict)
    """Checksums by path, for files; the fingerprint of the data set, for the hub."""
    revision: str | None = None
    """The resolved commit, for the hub."""


Reader = Callable[[DatasetSpec, Path], Table]

_KEYS: dict[Reader, frozenset[str]] = {}


def reads(*keys: str) -> Callable[[Reader], Reader]:
    """Declare the keys of ``dataset`` that a reader uses. All others are errors."""

    def declared(reader: Reader) -> Reader:
        _KEYS[reader] = frozenset(keys)
        return reader

    return declared


READERS: Plugins[Reader] = Plugins(
    "reader",
    "vlm_harness.readers",
    {
        "json": "vlm_harness.datasets.files:read_json",
        "jsonl": "vlm_harness.datasets.files:read_jsonl",
        "csv": "vlm_harness.datasets.files:read_csv",
        "parquet": "vlm_harness.datasets.arrow:read_parquet",
        "arrow": "vlm_harness.datasets.hub:read_arrow",
        "image_folder": "vlm_harness.datasets.files:read_image_folder",
        "hub": "vlm_harness.datasets.hub:read_hub",
        "rendered": "vlm_harness.datasets.rendered:read_rendered",
    },
)


def read(dataset: DatasetSpec, root: Path, where: object = None) -> Table:
    """The rows of a task.

    Raises:
        InputError: the data are missing (the message says how to get them), or do not have the
            format that the task declares; or ``dataset`` has a key that its reader does not use.
    """
    reader = READERS.get(dataset.reader, where)
    try:
        _check_keys(reader, dataset)
        return reader(dataset, root)
    except InputError as error:
        if error.where is not None:
            raise
        raise InputError(error.message, where=where, hint=error.hint) from None


def _check_keys(reader: Reader, dataset: DatasetSpec) -> None:
    known = _KEYS.get(reader)
    if known is None:  # a reader of another package that declares nothing
        return
    general = {"reader", "source", "verified"}
    for name, each in type(dataset).model_fields.items():
        given = getattr(dataset, name) != each.get_default(call_default_factory=True)
        if given and name not in known | general:
            raise InputError(
                f"dataset.{name} has no effect with the reader {dataset.reader!r}",
                hint=f"Keys of this reader: {listing(known)}.",
            )
