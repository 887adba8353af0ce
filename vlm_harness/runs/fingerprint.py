"""Cheap checksums of weights and images."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from vlm_harness.tasks.task import Task


def images_digest(task: Task) -> str:
    """A cheap checksum of a task's images (paths and sizes). Log lines contain the full ones."""
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    digest = hashlib.sha256()
    for path in sorted(refs):
        digest.update(f"{path}\0{refs[path].size()}\0".encode())
    return digest.hexdigest()


SMALL = 64 * 2**20


def fingerprint(paths: Sequence[Path]) -> str | None:
    """A cheap checksum of local weights; None if there are no local files (hub checkpoints).

    Files of up to 64 MB are hashed completely. For larger files it covers the size, both ends, and
    a part of every safetensors tensor, since training changes either all of a tensor or nothing.
    (Archives of ``torch.save`` end with checksums.)
    """
    if not paths:
        return None
    files = [
        file
        for path in paths
        for file in (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        )
    ]
    digest = hashlib.sha256()
    for file in files:
        if file.name.startswith("."):
            continue
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if size <= SMALL:
            digest.update(file.read_bytes())
            continue
        with file.open("rb") as stream:
            digest.update(stream.read(1 << 20))
            for middle in _tensors(file):
                stream.seek(middle)
                digest.update(stream.read(1 << 12))
            stream.seek(max(0, size - (1 << 20)))
            digest.update(stream.read(1 << 20))
    return digest.hexdigest()


def _tensors(file: Path) -> list[int]:
    """Byte offset of the middle of each tensor in a safetensors file; empty for other files."""
    if file.suffix != ".safetensors":
        return []
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(min(length, 1 << 27)))
            ends = [each["data_offsets"] for name, each in header.items() if name[:2] != "__"]
            return sorted(8 + length + (start + end) // 2 for start, end in ends)
        except (ValueError, TypeError, KeyError, AttributeError):
            return []  # loading the file reports the error
