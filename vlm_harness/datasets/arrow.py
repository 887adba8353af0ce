"""Rows of ``datasets`` data sets, and the reader for Parquet files."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlm_harness.datasets.embedded import Step, with_images
from vlm_harness.datasets.files import checksum, locate_all, paths_of
from vlm_harness.datasets.reader import Table, reads
from vlm_harness.datasets.records import Row
from vlm_harness.errors import InputError, clip, listing
from vlm_harness.images import file_ref
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import DatasetSpec
from vlm_harness.types import ImageRef

_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}")


class ArrowRows(Sequence[Row]):
    """Rows of a ``datasets`` data set, read on access; images become references.

    Images are columns of type ``Image``, ``{bytes, path}`` or binary, lists of these, and texts in
    base64. As in ``datasets``, EXIF orientation is applied to the first two.

    Args:
        label: identifies the data set; an image is named ``label#row/column``.
        root: the data directory, which holds the files that the rows name.
        caches: further folders whose files a row may name by their absolute path.
    """

    def __init__(self, data: Any, label: str, root: Path, caches: Sequence[Path] = ()) -> None:
        self._label, self._root, self._caches = label, root, caches
        self._images = {name: kind for name, kind in data.features.items() if _has_image(kind)}
        self._length = len(data)
        self._plain = data.remove_columns(list(self._images))
        # Reading a row must neither decode nor copy its pixels.
        self._stored = data.select_columns(list(self._images)).with_format("arrow")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        label = f"{self._label}#{index}"
        plain = dict(self._plain[index]) if self._plain.column_names else {}
        row = with_images(plain, label, lambda at: _follow(self._plain[index], at))
        if self._images:
            stored = self._stored[index]
            for name, kind in self._images.items():
                try:
                    row[name] = self._value(stored[name][0], kind, index, (name,))
                except InputError as error:
                    where = f"{label}, column {name!r}"
                    raise InputError(error.message, where=where, hint=error.hint) from None
        return row

    def __iter__(self) -> Iterator[Row]:
        return (self[i] for i in range(len(self)))

    def _value(self, scalar: Any, kind: Any, index: int, at: tuple[Step, ...]) -> Any:
        """The value of a pyarrow scalar; ``at`` is its place in the row."""
        if not scalar.is_valid:
            return None
        if _is_image(kind):
            if _size(scalar["bytes"]):
                return self._ref(index, (*at, "bytes"), upright=True)
            path = scalar["path"].as_py()
            return self._file(path, index, at) if path else None
        if _is_binary(kind):
            return self._ref(index, at, upright=False) if _size(scalar) else None
        if isinstance(kind, Mapping):
            return {
                name: self._value(scalar[name], each, index, (*at, name))
                for name, each in kind.items()
            }
        inner = _item_of(kind)
        if inner is not None:
            return [self._value(item, inner, index, (*at, n)) for n, item in enumerate(scalar)]
        return scalar.as_py()

    def _ref(self, index: int, at: tuple[Step, ...], *, upright: bool) -> ImageRef:
        def read() -> bytes:
            data: bytes = _follow(self._stored[index][at[0]][0], at[1:]).as_py()
            return data

        shown = at[:-1] if upright else at  # without the field `bytes`
        path = "/".join(map(str, (f"{self._label}#{index}", *shown)))
        return ImageRef(path=path, read=read, upright=upright)

    def _file(self, path: str, index: int, at: tuple[Step, ...]) -> ImageRef:
        """An image file that the row names."""
        given = Path(os.path.normpath(path))
        if given.is_relative_to(self._root):
            path = given.relative_to(self._root).as_posix()
        elif any(given.is_relative_to(folder) for folder in self._caches):
            label = "/".join(map(str, (f"{self._label}#{index}", *at)))
            return ImageRef(label, given.read_bytes, exists=given.is_file, upright=True)
        inside(self._root, path)
        ref = file_ref(self._root, path)
        return ImageRef(ref.path, ref.read, exists=ref.exists, size=ref.size, upright=True)


def _follow(value: Any, at: Sequence[Step]) -> Any:
    for step in at:
        value = value[step]
    return value


def _size(scalar: Any) -> int:
    return scalar.as_buffer().size if scalar.is_valid else 0


def _is_image(kind: Any) -> bool:
    """An image feature; also {bytes, path} without the metadata that makes it one."""
    from datasets import Image

    if isinstance(kind, Mapping):
        stored = {"bytes", "path"} == set(kind) and kind["bytes"]
        return _is_binary(stored) or getattr(stored, "dtype", None) == "null"
    return isinstance(kind, Image)


def _is_binary(kind: Any) -> bool:
    return "binary" in str(getattr(kind, "dtype", ""))


def _item_of(kind: Any) -> Any:
    """The type of the items of a list; None if it is no list."""
    if isinstance(kind, list):
        return kind[0]
    return getattr(kind, "feature", None)


def _has_image(kind: Any) -> bool:
    if _is_image(kind) or _is_binary(kind):
        return True
    if isinstance(kind, Mapping):
        return any(map(_has_image, kind.values()))
    inner = _item_of(kind)
    return inner is not None and _has_image(inner)


@reads("path", "split")
def read_parquet(dataset: DatasetSpec, root: Path) -> Table:
    """Read Parquet files: one, those that match a pattern, or those in a folder, sorted by path.

    ``split`` selects the files of a split in a folder, such as ``test-00000-of-00002.parquet``.
    """
    files, label = data_files(dataset, root, ".parquet")
    checksums = {file.relative_to(root).as_posix(): checksum(file) for file in files}
    from datasets import Dataset

    try:
        data = Dataset.from_parquet([str(file) for file in files], keep_in_memory=False)
    except Exception as error:  # pyarrow and datasets raise many classes of their own
        raise InputError(f"not a readable Parquet file: {clip(error)}", where=label) from None
    return Table(ArrowRows(data, label, root), checksums)


def data_files(dataset: DatasetSpec, root: Path, suffix: str) -> tuple[list[Path], str]:
    """The files that a data set is read from, and a label for it.

    Raises:
        InputError: there is none, ``split`` selects nothing, or several splits would be mixed.
    """
    found = locate_all(dataset, root)
    relative = [path.relative_to(root).as_posix() for path in found]
    label = relative[0] if len(found) == 1 else paths_of(dataset)
    if not found[0].is_dir():
        if dataset.split is not None:
            raise InputError(
                f"dataset.split has no effect: {label} is one file"
                if len(found) == 1
                else "dataset.split has no effect: dataset.path is a pattern of files",
                hint="Remove it, or let dataset.path be the folder.",
            )
        return found, label
    folder = found[0]
    files = [
        path
        for path in sorted(folder.rglob(f"*{suffix}"))
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise InputError(f"no {suffix} file in this folder", where=folder, hint=_other(folder))
    splits = _splits(folder, files)
    if dataset.split is None:
        if len(splits) > 1:
            raise InputError(
                f"the folder has several splits, which would be mixed: {listing(splits)}",
                where=folder,
                hint="Choose one with dataset.split, or name the files by a pattern in "
                f"dataset.path (*{suffix}).",
            )
        return files, label
    if dataset.split not in splits:
        raise InputError(
            f"unknown split {dataset.split!r}; available: {listing(splits) or 'none'}",
            where=folder,
            hint="A split is recognised by file names like test-00000-of-00002"
            f"{suffix} or test{suffix}, and by folder names.",
        )
    return splits[dataset.split], f"{label}/{dataset.split}"


def _splits(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each split, if their names tell."""
    from datasets.data_files import get_data_patterns, resolve_pattern

    shards: dict[str, list[Path]] = {}
    for path in files:
        match = _SHARD.fullmatch(path.stem)
        if match is None:
            break
        shards.setdefault(match["split"], []).append(path)
    else:
        return shards
    known = set(files)
    try:
        patterns = get_data_patterns(str(folder))
    except FileNotFoundError:
        return {}
    found = {
        name: sorted({Path(p) for each in several for p in _resolved(resolve_pattern, each, folder)}
                     & known)
        for name, several in patterns.items()
        if several != ["**"]  # what `datasets` takes if no name tells
    }  # fmt: skip
    return {str(name): paths for name, paths in found.items() if paths}


def _resolved(resolve: Any, pattern: str, folder: Path) -> list[str]:
    try:
        return list(resolve(pattern, str(folder)))
    except FileNotFoundError:
        return []


def _other(folder: Path) -> str | None:
    if any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return "The folder was written by save_to_disk: use the reader arrow."
    return None
