"""Reader for Hugging Face data sets: from the hub, its cache, or a saved folder."""

from pathlib import Path
from typing import Any

from vlm_harness.datasets.files import ArrowRows, how_to_get, locate
from vlm_harness.datasets.reader import Table
from vlm_harness.errors import InputError
from vlm_harness.specs.schemas import DatasetSpec


def read_hub(dataset: DatasetSpec, root: Path) -> Table:
    """Read ``dataset.path`` (written by ``save_to_disk``), or ``dataset.name`` from the hub."""
    import datasets

    if dataset.path is not None:
        folder = locate(dataset, root)
        data, name = _from_disk(dataset, folder), folder.relative_to(root).as_posix()
    elif dataset.name is not None:
        data, name = _from_hub(dataset, root), dataset.name
    else:
        raise InputError("the reader 'hub' requires dataset.name (owner/name) or dataset.path")
    if isinstance(data, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise InputError(f"dataset.split is required: one of {', '.join(data)}")
    # Images are identified by this label, so it contains everything that selects the rows.
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
            f"cannot load the data set {dataset.name!r}: {error}",
            hint="It is downloaded once; later runs read it from the cache, also offline.\n"
            + how_to_get(dataset, root),
        ) from None


def _from_disk(dataset: DatasetSpec, folder: Path) -> Any:
    import datasets

    try:
        data = datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise many classes of their own
        raise InputError(
            f"not a data set written by save_to_disk: {str(error).splitlines()[0]}", where=folder
        ) from None
    if isinstance(data, datasets.DatasetDict) and dataset.split:
        if dataset.split not in data:
            raise InputError(
                f"unknown split {dataset.split!r}; available: {', '.join(data)}", where=folder
            )
        data = data[dataset.split]
    return data


def _commit(data: Any) -> str | None:
    """The commit that the hub resolved, taken from the download URLs."""
    for url in getattr(data.info, "download_checksums", None) or {}:
        if "@" in url:
            return str(url.split("@", 1)[1].split("/", 1)[0])
    return None
