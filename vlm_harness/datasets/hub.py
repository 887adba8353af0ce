"""Readers for Hugging Face data sets: from the hub, its cache, a local clone, or a saved folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlm_harness.datasets.arrow import ArrowRows, data_files
from vlm_harness.datasets.files import checksum, how_to_get, locate, locate_all
from vlm_harness.datasets.reader import Table, reads
from vlm_harness.errors import InputError, clip
from vlm_harness.specs.schemas import DatasetSpec


@reads("path", "name", "config", "split", "revision")
def read_hub(dataset: DatasetSpec, root: Path) -> Table:
    """Read ``dataset.name`` from the hub, or the folder ``dataset.path``.

    The folder is a local clone of a data set, or was written by ``save_to_disk``.
    """
    if dataset.path is not None:
        return _from_folder(dataset, root, locate(dataset, root))
    if dataset.name is None:
        raise InputError("the reader 'hub' requires dataset.name (owner/name) or dataset.path")
    data = _one_split(_from_hub(dataset, root))
    label = _label(dataset, dataset.name)
    rows = ArrowRows(data, label, root, _caches())
    return Table(rows, {label: data._fingerprint}, _commit(data))


@reads("path", "split")
def read_arrow(dataset: DatasetSpec, root: Path) -> Table:
    """Read a folder written by ``save_to_disk``, or Arrow files."""
    folder, *more = locate_all(dataset, root)
    if not more and _is_saved(folder):
        return _from_folder(dataset, root, folder)
    import datasets

    files, label = data_files(dataset, root, ".arrow")
    try:
        parts = [datasets.Dataset.from_file(str(file)) for file in files]
        data = datasets.concatenate_datasets(parts)
    except Exception as error:  # pyarrow and datasets raise many classes of their own
        raise InputError(f"not a readable Arrow file: {clip(error)}", where=label) from None
    checksums = {file.relative_to(root).as_posix(): checksum(file) for file in files}
    return Table(ArrowRows(data, label, root), checksums)


def _from_folder(dataset: DatasetSpec, root: Path, folder: Path) -> Table:
    label = _label(dataset, folder.relative_to(root).as_posix())
    if _is_saved(folder):
        data = _one_split(_from_disk(dataset, folder))
        return Table(ArrowRows(data, label, root), {label: data._fingerprint})
    data, files = _from_clone(dataset, folder)
    checksums = {file.relative_to(root).as_posix(): checksum(file) for file in files}
    return Table(ArrowRows(_one_split(data), label, root), checksums)


def _label(dataset: DatasetSpec, name: str) -> str:
    """Images are identified by this label, so it contains everything that selects the rows."""
    return "/".join(filter(None, (name, dataset.revision, dataset.config, dataset.split)))


def _one_split(data: Any) -> Any:
    import datasets

    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(f"dataset.split is required: one of {', '.join(data)}")
    return data


def _from_hub(dataset: DatasetSpec, root: Path) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            dataset.name, dataset.config, split=dataset.split, revision=dataset.revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot load the data set {dataset.name!r}: {clip(error)}",
            hint="It is downloaded once; later runs read it from the cache, also offline.\n"
            + how_to_get(dataset, root),
        ) from None


def _caches() -> list[Path]:
    """The folders in which ``datasets`` keeps the files of a data set from the hub."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from datasets import config

    names = (
        config.HF_DATASETS_CACHE,
        config.DOWNLOADED_DATASETS_PATH,
        config.EXTRACTED_DATASETS_PATH,
        HF_HUB_CACHE,
    )
    return [Path(name) for name in names]


def _is_saved(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _from_disk(dataset: DatasetSpec, folder: Path) -> Any:
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise many classes of their own
        raise InputError(
            f"not a data set written by save_to_disk: {_reason(error)}", where=folder
        ) from None
    if not dataset.split:
        return data
    if isinstance(data, datasets.DatasetDict):
        if dataset.split not in data:
            raise _unknown_split(dataset, data, folder)
        return data[dataset.split]
    if str(data.split) != dataset.split:
        raise InputError(
            f"dataset.split has no effect: the folder holds one data set (split {data.split})",
            where=folder,
            hint="Remove dataset.split.",
        )
    return data


def _from_clone(dataset: DatasetSpec, folder: Path) -> tuple[Any, list[Path]]:
    """The data set of a local clone, as ``load_dataset`` reads it, and its files."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(folder), dataset.config)
        files = builder.config.data_files or {}
        name = (dataset.split or "").split("[")[0]
        if name and "+" not in name and name not in files:
            raise _unknown_split(dataset, list(map(str, files)), folder)
        builder.download_and_prepare()
        data = builder.as_dataset(split=dataset.split)
    except InputError:
        raise
    except Exception as error:  # many classes: of pyarrow, datasets and fsspec
        raise InputError(
            "not a data set written by save_to_disk, and not a clone of a data set either: "
            f"{_reason(error)}",
            where=folder,
        ) from None
    used = files[name] if name in files else [path for each in files.values() for path in each]
    return data, [Path(path) for path in used]


def _unknown_split(dataset: DatasetSpec, known: Sequence[str], folder: Path) -> InputError:
    return InputError(
        f"unknown split {dataset.split!r}; available: {', '.join(known)}", where=folder
    )


def _reason(error: Exception) -> str:
    return clip(" ".join(str(error).split()) or type(error).__name__)


def _commit(data: Any) -> str | None:
    """The commit that the hub resolved, taken from the download URLs."""
    for url in getattr(data.info, "download_checksums", None) or {}:
        if "@" in url:
            return str(url.split("@", 1)[1].split("/", 1)[0])
    return None
