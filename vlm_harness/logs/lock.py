"""Locks a run folder, so that only one process uses it at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vlm_harness.errors import InputError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder against other processes.

    Raises:
        InputError: another process uses the folder, or it is not writable.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            "the run folder is in use by another process",
            where=folder,
            hint="Wait for it to finish, or choose another --run-id.",
        ) from None
    except OSError as error:
        raise InputError(f"cannot write there: {error.strerror}", where=folder) from None
    try:
        yield
    finally:
        lock.release()
