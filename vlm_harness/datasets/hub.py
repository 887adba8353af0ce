"""Reader of Hugging Face data sets: from the hub, its cache, or a folder saved to disk."""

from pathlib import Path
from typing import Any

from vlm_harness.datasets.files import ArrowRows, how_to_get, locate
from vlm_harness.datasets.reader import Table
from vlm_harness.errors import InputError
from vlm_harness.specs.schemas import DatasetSpec


def read_hub(dataset: DatasetSpec, root: Path) -> Table:
    """``dataset.name`` from the hub or its cache, else ``dataset.path`` as left by save_to_disk."""
    import datasets

    if dataset.path is not None:
        folder = locate(dataset, root)
        data, name = _from_disk(dataset, folder), folder.relative_to(root).as_posix()
    elif dataset.name is not None:
        data, name = _from_hub(dataset, root), dataset.name
    else:
        raise InputError("the reader 'hub' needs dataset.name (owner/name), or dataset.path")
    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(f"dataset.split is required: one of {', '.join(data)}")
    # All that tells one row from another: the label is what images are known by.
    parts = [name, dataset.revision, dataset.config, dataset.split]
    label = "/".join(part for part in parts if part)
    return Table(ArrowRows(data, label), {label: data._fingerprint}, _commit(data))


def _from_hub(dataset: DatasetSpec, root: Path) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            dataset.name, dataset.config, split=dataset.split, revision=dataset.revision
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the data set {dataset.name!r} could not be loaded: {error}",
            hint="It is downloaded once; later runs take it from the hub's cache, also offline.\n"
            + how_to_get(dataset, root),
        ) from None


def _from_disk(dataset: DatasetSpec, folder: Path) -> Any:
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow's and datasets' own, of many classes
        raise InputError(
            f"not a data set as save_to_disk leaves it: {str(error).splitlines()[0]}", where=folder
        ) from None
    if isinstance(data, datasets.DatasetDict) and dataset.split:
        if dataset.split not in data:
            raise InputError(
                f"there is no split {dataset.split!r}: {', '.join(data)}", where=folder
            )
        data = data[dataset.split]
    return data


def _commit(data: Any) -> str | None:
    """The commit that the hub resolved, as it stands in the download's addresses."""
    for url in getattr(data.info, "download_checksums", None) or {}:
        if "@" in url:
            return str(url.split("@", 1)[1].split("/", 1)[0])
    return None
