"""Writing files whole or not at all."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError


def to_json(value: Any, **options: Any) -> str:
    """JSON as people read it; halves of surrogate pairs, which UTF-8 has not, are escaped."""
    text = json.dumps(value, ensure_ascii=False, **options)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, **options)
    return text


def write_json(path: Path, value: Any) -> None:
    write_text(path, to_json(value, indent=1, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by its new content in one step.

    Raises:
        InputError: nothing can be written there; the old file is as it was.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())  # else a power cut may leave the new name with no content
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise InputError(f"cannot be written: {error.strerror}", where=path) from None
