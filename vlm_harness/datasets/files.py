"""Readers for files in the data directory."""

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.datasets.reader import Row, Table
from vlm_harness.errors import InputError, listing
from vlm_harness.files import parse_json
from vlm_harness.images import SUFFIXES, file_ref
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import DatasetSpec
from vlm_harness.types import ImageRef

PREPARE = "vlm-harness data prepare TASK"
"""In a hint; ``TASK`` is replaced where the task is known."""


def locate(dataset: DatasetSpec, root: Path) -> Path:
    """The file or folder of a data set. If there are several paths, the first that exists."""
    if dataset.path is None:
        raise InputError(f"the reader {dataset.reader!r} requires dataset.path")
    paths = [dataset.path] if isinstance(dataset.path, str) else dataset.path
    candidates = [inside(root, path) for path in paths]
    for path in candidates:
        if path.is_file() or path.is_dir():
            return path
    raise InputError(
        "data not found: " + " or ".join(str(path) for path in candidates),
        hint=how_to_get(dataset, root),
    )


def read_bytes(path: Path) -> bytes:
    """Read a data file as bytes."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", where=path) from None


def read_text(path: Path, data: bytes) -> str:
    """Decode a data file as UTF-8, without the byte order mark that Windows programs write."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"not UTF-8: {error.reason}", where=f"{path}:{line}") from None


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


def read_json(dataset: DatasetSpec, root: Path) -> Table:
    """Read a JSON list of objects, or of lists whose items ``columns`` names.

    If the list is a value of an object, ``key`` selects it. In an object of objects, each value is
    a row, and its key becomes the column ``key``.
    """
    path = locate(dataset, root)
    data = read_bytes(path)
    content = parse_json(read_text(path, data), path, parser=json.loads, by_hand=True)
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
    return Table(
        [_as_row(row, dataset, path, i) for i, row in enumerate(content)],
        _checksums(path, root, data),
    )


def read_jsonl(dataset: DatasetSpec, root: Path) -> Table:
    """Read one JSON object per line."""
    import jsonlines

    path = locate(dataset, root)
    data = read_bytes(path)
    try:
        with jsonlines.Reader(io.StringIO(read_text(path, data))) as reader:
            rows = [
                _as_row(row, dataset, path, i) for i, row in enumerate(reader.iter(skip_empty=True))
            ]
    except RecursionError:
        raise InputError("not valid JSON: nested too deeply", where=path) from None
    except jsonlines.InvalidLineError as error:
        raise InputError(f"not valid JSON: {error}", where=f"{path}:{error.lineno}") from None
    return Table(rows, _checksums(path, root, data))


def read_csv(dataset: DatasetSpec, root: Path) -> Table:
    """Read a CSV with a header (or columns). Values stay text, including '01'."""
    path = locate(dataset, root)
    data = read_bytes(path)
    text = io.StringIO(read_text(path, data), newline="")
    reader = csv.DictReader(
        text, fieldnames=dataset.columns, delimiter=dataset.delimiter, strict=True
    )
    rows: list[Row] = []
    try:
        names = [name.strip() for name in reader.fieldnames or ()]
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise InputError(f"duplicate column {listing(duplicates)}", where=f"{path}:1")
        for row in reader:
            if None in row or None in row.values():
                missing = sum(value is None for value in row.values())
                count = len(names) - missing + len(row.get(None, ()))  # surplus under the key None
                raise InputError(
                    f"expected {len(names)} values ({', '.join(names)}), found {count}",
                    where=f"{path}:{reader.line_num}",
                )
            rows.append({(key or "").strip(): value for key, value in row.items()})
    except csv.Error as error:
        where = f"{path}:{reader.reader.line_num}"
        raise InputError(f"not valid CSV: {error}", where=where) from None
    return Table(rows, _checksums(path, root, data))


class ArrowRows(Sequence[Row]):
    """Rows of a ``datasets`` data set, read on access; images become references."""

    def __init__(self, data: Any, label: str) -> None:
        from datasets import Image

        self._label = label
        self._images = [name for name, kind in data.features.items() if isinstance(kind, Image)]
        for name in self._images:
            data = data.cast_column(name, Image(decode=False))
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: Any) -> Any:
        row = dict(self._without_images[index])
        for name in self._images:
            row[name] = self._ref(index, name)
        return row

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    @property
    def _without_images(self) -> Any:
        # Reading a row must not copy its pixels.
        if not hasattr(self, "_plain_columns"):
            self._plain_columns = self._data.remove_columns(self._images)
        return self._plain_columns

    def _ref(self, index: int, column: str) -> ImageRef:
        def read() -> bytes:
            value = self._data[index][column]
            if value is None:
                raise OSError("the image column is empty in this row")
            return value["bytes"] or Path(value["path"]).read_bytes()

        return ImageRef(path=f"{self._label}#{index}/{column}", read=read)


def read_parquet(dataset: DatasetSpec, root: Path) -> Table:
    """Read a Parquet file, or all Parquet files in a folder, sorted by path."""
    path = locate(dataset, root)
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise InputError("no .parquet file in this folder", where=path)
    checksums = {file.relative_to(root).as_posix(): checksum(file) for file in files}
    from datasets import Dataset

    try:
        data = Dataset.from_parquet([str(file) for file in files], keep_in_memory=False)
    except Exception as error:  # pyarrow and datasets raise many classes of their own
        raise InputError(f"not a readable Parquet file: {error}", where=path) from None
    return Table(ArrowRows(_with_images(data), str(path.relative_to(root))), checksums)


def _with_images(data: Any) -> Any:
    """Treat columns of {bytes, path} as images, even without metadata in the file."""
    from datasets import Image

    for name, kind in list(data.features.items()):
        if isinstance(kind, Mapping) and {"bytes", "path"} == set(kind):
            data = data.cast_column(name, Image())
    return data


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


def _checksums(path: Path, root: Path, data: bytes) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): hashlib.sha256(data).hexdigest()}
