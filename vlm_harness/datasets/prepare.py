"""Downloading the data of a task, and the checksums of what was downloaded."""

from pathlib import Path

from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError
from vlm_harness.files import read_json, write_json
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import SourceSpec


def recorded_checksums(root: Path) -> dict[str, str]:
    """Checksums by path below the data directory, from its ``checksums.json``."""
    path = root / "checksums.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError("expected a JSON object of checksums by path", where=path)
    return found


def download(source: SourceSpec, root: Path) -> list[str]:
    """Download a hub data set as files, check and record their checksums.

    Returns:
        The files, as paths below the data directory.

    Raises:
        InputError: the hub cannot be reached, or a file is not the one that the task declares.
    """
    from huggingface_hub import snapshot_download

    assert source.hub is not None
    assert source.folder is not None
    folder = inside(root, source.folder)
    try:
        snapshot_download(
            source.hub,
            repo_type="dataset",
            revision=source.revision,
            local_dir=folder,
            etag_timeout=5,
        )
    # What a hub that cannot be reached raises depends on the HTTP library underneath.
    except Exception as error:
        by_hand = (source.instructions or "").strip()
        raise InputError(
            f"{source.hub} could not be downloaded: {type(error).__name__}: "
            f"{str(error).splitlines()[0]}",
            hint=f"By hand, on a machine with network:\n{by_hand}\n"
            f"Then put it in {folder} on this machine.",
        ) from None
    checksums = {
        path.relative_to(root).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }
    for path, expected in source.sha256.items():
        if checksums.get(path, expected) != expected:
            raise InputError(f"{path} is not the file that the task declares: its checksum differs")
    write_json(root / "checksums.json", {**recorded_checksums(root), **checksums})
    return list(checksums)
