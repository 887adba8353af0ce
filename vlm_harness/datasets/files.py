"""Readers for files in the data directory."""

import hashlib
from glob import has_magic
from pathlib import Path
from typing import Any

from vlm_harness.datasets.embedded import with_images
from vlm_harness.datasets.reader import Table, reads
from vlm_harness.datasets.records import (
    Row,
    csv_rows,
    json_lines,
    json_value,
    read_bytes,
    read_text,
)
from vlm_harness.errors import InputError
from vlm_harness.images import SUFFIXES, file_ref
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import DatasetSpec

PREPARE = "vlm-harness data prepare TASK"
"""In a hint; ``TASK`` is replaced where the task is known."""


def locate(dataset: DatasetSpec, root: Path) -> Path:
    """The file or folder of a data set. If there are several paths, the first that exists."""
    found = locate_all(dataset, root)
    if len(found) > 1:
        raise InputError(
            f"dataset.path: {len(found)} files match {paths_of(dataset)}, but the reader "
            f"{dataset.reader!r} takes one path"
        )
    return found[0]


def locate_all(dataset: DatasetSpec, root: Path) -> list[Path]:
    """The file or folder of a data set, or all files that match its pattern, sorted.

    If there are several paths, the first that exists.
    """
    if dataset.path is None:
        raise InputError(f"the reader {dataset.reader!r} requires dataset.path")
    paths = [dataset.path] if isinstance(dataset.path, str) else dataset.path
    candidates = [inside(root, path) for path in paths]
    for path, candidate in zip(paths, candidates, strict=True):
        if candidate.is_file() or candidate.is_dir():
            return [candidate]
        if has_magic(path) and (found := _matches(root, path)):
            return found
    raise InputError(
        "data not found: " + " or ".join(str(path) for path in candidates),
        hint=how_to_get(dataset, root),
    )


def paths_of(dataset: DatasetSpec) -> str:
    """The paths or pattern of a data set, for messages."""
    return dataset.path if isinstance(dataset.path, str) else " or ".join(dataset.path or ())


def _matches(root: Path, pattern: str) -> list[Path]:
    """The files that match a pattern; hidden ones only if the pattern names them."""
    parts = Path(pattern).parts

    def hidden(path: Path) -> bool:
        return any(x.startswith(".") and x not in parts for x in path.relative_to(root).parts)

    try:
        return sorted(p for p in root.glob(pattern) if p.is_file() and not hidden(p))
    except ValueError as error:
        raise InputError(f"dataset.path: invalid pattern {pattern!r}: {error}") from None


def checksum(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def how_to_get(dataset: DatasetSpec, root: Path) -> str:
    """How to get the data, for error messages."""
    lines = []
    source = dataset.source
    if source and source.hub:
        folder = root / (source.folder or "")
        lines.append(f"Run `{PREPARE}` to download {source.hub} to {folder},")
        lines.append("or download it by hand:")
    if source and source.instructions:
        lines.extend(source.instructions.strip().splitlines())
    if source and source.urls:
        lines.extend(f"  {url}" for url in source.urls)
    lines.append(f"Data directory: {root} (change it with --data-dir or $VLM_HARNESS_DATA).")
    return "\n".join(lines)


@reads("path", "key", "columns")
def read_json(dataset: DatasetSpec, root: Path) -> Table:
    """Read a JSON list of objects, or of lists whose items ``columns`` names.

    If the list is a value of an object, ``key`` selects it. In an object of objects, each value is
    a row, and its key becomes the column ``key``.
    """

    def records(text: str, path: Path) -> list[Any]:
        content = json_value(text, path)
        if dataset.key is not None:
            if not isinstance(content, dict) or dataset.key not in content:
                raise InputError(f"key {dataset.key!r} not found", where=path)
            content = content[dataset.key]
        if isinstance(content, dict):
            if not all(isinstance(value, dict) for value in content.values()):
                raise InputError("expected a list of rows, found an object", where=path)
            content = [{"key": key, **value} for key, value in content.items()]
        if not isinstance(content, list):
            raise InputError(f"expected a list of rows, found {type(content).__name__}", where=path)
        return content

    return _read(dataset, root, records)


@reads("path", "columns")
def read_jsonl(dataset: DatasetSpec, root: Path) -> Table:
    """Read one JSON object per line."""
    return _read(dataset, root, json_lines)


@reads("path", "columns", "delimiter")
def read_csv(dataset: DatasetSpec, root: Path) -> Table:
    """Read a CSV with a header (or columns). Values stay text, including '01'.

    The values of a file named ``.tsv`` are separated by tabs, unless ``delimiter`` is given.
    """

    def records(text: str, path: Path) -> list[Row]:
        by_name = path.suffix.lower() == ".tsv" and "delimiter" not in dataset.model_fields_set
        delimiter = "\t" if by_name else dataset.delimiter
        return csv_rows(text, path, columns=dataset.columns, delimiter=delimiter)

    return _read(dataset, root, records)


def _read(dataset: DatasetSpec, root: Path, records: Any) -> Table:
    """The records of all files, one row each."""
    rows: list[Row] = []
    checksums = {}
    for path in locate_all(dataset, root):
        data = read_bytes(path)
        name = path.relative_to(root).as_posix()
        checksums[name] = hashlib.sha256(data).hexdigest()
        for index, record in enumerate(records(read_text(path, data), path)):
            rows.append(with_images(_as_row(record, dataset, path, index), f"{name}#{index}"))
    return Table(rows, checksums)


@reads("path")
def read_image_folder(dataset: DatasetSpec, root: Path) -> Table:
    """List the images in a folder and its subfolders, sorted by path.

    Columns: ``image``, ``image_path`` (below the data directory), ``folder`` (name of the parent
    folder, which is the class if folders are classes) and ``name`` (file name without extension).
    """
    folder = locate(dataset, root)
    if not folder.is_dir():
        raise InputError("the reader 'image_folder' requires a folder", where=folder)
    rows: list[Row] = []
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            relative = path.relative_to(root).as_posix()
            digest.update(f"{relative}\0{path.stat().st_size}\0".encode())
            rows.append(
                {
                    "image": file_ref(root, relative),
                    "image_path": relative,
                    "folder": path.parent.name,
                    "name": path.stem,
                }
            )
    if not rows:
        raise InputError(f"no images in this folder ({', '.join(SUFFIXES)})", where=folder)
    return Table(rows, {folder.relative_to(root).as_posix() + "/": digest.hexdigest()})


def _as_row(row: Any, dataset: DatasetSpec, path: Path, index: int) -> Row:
    if isinstance(row, dict):
        return row
    if isinstance(row, list) and dataset.columns and len(row) == len(dataset.columns):
        return dict(zip(dataset.columns, row, strict=True))
    if isinstance(row, list):
        text = f"row {index} is a list of {len(row)} items"
        if dataset.columns:
            raise InputError(f"{text}, expected {len(dataset.columns)}", where=path)
        raise InputError(f"{text}; name them in dataset.columns", where=path)
    raise InputError(f"row {index}: expected an object, found {type(row).__name__}", where=path)
