"""Download the data of a task, and record their checksums."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlm_harness.datasets.files import checksum
from vlm_harness.errors import InputError
from vlm_harness.files import read_json, write_json
from vlm_harness.paths import inside
from vlm_harness.specs.schemas import SourceSpec


def recorded_checksums(root: Path) -> dict[str, str]:
    """Checksums by path below the data directory, from ``checksums.json``."""
    path = root / "checksums.json"
    if not path.is_file():
        return {}
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError("expected a JSON object of checksums by path", where=path)
    return found


def download(source: SourceSpec, root: Path) -> list[str]:
    """Download the files of a hub data set, and verify and record their checksums.

    Returns:
        The files, as paths below the data directory.

    Raises:
        InputError: the hub cannot be reached, or a checksum differs from the one in the task.
    """
    from huggingface_hub import snapshot_download

    assert source.hub is not None
    assert source.folder is not None
    folder = inside(root, source.folder)
    try:
        with _quiet():
            snapshot_download(
                source.hub,
                repo_type="dataset",
                revision=source.revision,
                local_dir=folder,
                etag_timeout=5,
            )
    # Which errors an unreachable hub raises depends on the HTTP library.
    except Exception as error:
        by_hand = (source.instructions or "").strip()
        raise InputError(
            f"cannot download {source.hub}: {_reason(error)}",
            hint=f"To download it by hand, on a machine with network access:\n{by_hand}\n"
            f"On this machine, copy the folder to {folder}.",
        ) from None
    checksums = {
        path.relative_to(root).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".cache" not in path.parts
    }
    for path, expected in source.sha256.items():
        if checksums.get(path, expected) != expected:
            raise InputError(f"{path}: the checksum differs from the one in the task")
    write_json(root / "checksums.json", {**recorded_checksums(root), **checksums})
    return list(checksums)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log lines of failed requests that are retried; a final failure is raised."""
    loggers = [logging.getLogger(name) for name in ("httpx", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: Exception) -> str:
    """The first line of an error; errors of an unreachable hub are too technical to show."""
    name = type(error).__name__
    offline = ("Connect", "LocalEntryNotFound", "OfflineMode", "Timeout")
    if any(word in name for word in offline):
        cause = error.__cause__ or error.__context__
        kind = type(cause).__name__ if name.startswith("LocalEntry") and cause else name
        return f"the hub cannot be reached ({kind})"
    return f"{name}: {(str(error).splitlines() or [''])[0]}"
