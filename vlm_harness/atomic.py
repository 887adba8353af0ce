"""Writing files whole or not at all."""

import json
import os
from pathlib import Path
from typing import Any

from vlm_harness.errors import InputError


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file by its new content in one step.

    Raises:
        InputError: nothing can be written there; the old file is as it was.
    """
    temporary = path.with_name(path.name + ".new")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", where=path) from None
