"""Search paths of specs and data."""

import os
import re
from pathlib import Path

from vlm_harness.errors import InputError, shown

SPEC_FOLDERS = ("tasks", "prompts", "models")


def bundled() -> Path:
    """The folder that holds the bundled tasks/, prompts/ and models/.

    In a wheel it is inside the package, in a checkout it is the top-level folder.
    """
    package = Path(__file__).resolve().parent
    data = package / "_data"
    return data if data.is_dir() else package.parent


def spec_roots(include_path: tuple[str, ...] = ()) -> list[Path]:
    """Folders to read specs from: ``--include-path``, ``$VLM_HARNESS_PATH``, bundled."""
    roots = []
    variable = os.environ.get("VLM_HARNESS_PATH", "")
    for origin, entries in (
        ("--include-path", list(include_path)),
        ("$VLM_HARNESS_PATH", [entry for entry in variable.split(os.pathsep) if entry]),
    ):
        for entry in entries:
            path = Path(entry).expanduser()
            if not path.exists():
                raise InputError(f"folder not found: '{path}'", where=origin)
            roots.append(path.resolve())
    roots.extend(bundled() / folder for folder in SPEC_FOLDERS)
    return list(dict.fromkeys(roots))


def data_dir(option: str | None) -> Path:
    """``--data-dir``, else ``$VLM_HARNESS_DATA``, else the user's cache folder."""
    chosen = option or os.environ.get("VLM_HARNESS_DATA")
    if chosen:
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("vlm-harness") / "data"


def escapes(relative: str) -> bool:
    """Whether a relative path, as written, may point outside its base folder."""
    path = Path(relative)
    return path.is_absolute() or ".." in path.parts or "\0" in relative


def inside(root: Path, relative: str) -> Path:
    """``root/relative``.

    ``..`` is rejected, even if the path would stay inside ``root``. Symbolic links are followed,
    since users link large datasets into place.

    Raises:
        InputError: the path is a URL, points outside ``root``, or is too long.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", relative):
        raise InputError(
            f"{shown(relative)} is a URL; tasks and data may only refer to local files",
            hint="Download the file, and give its path relative to the data directory.",
        )
    path = Path(relative)
    if escapes(relative):
        raise InputError(
            f"the path {shown(relative)} is outside the data directory",
            hint="Paths in tasks and data are relative to the data directory, without '..'.",
        )
    try:
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    except UnicodeEncodeError:
        raise InputError(f"{relative!a} is not a valid path: it has a lone surrogate") from None
    if longest > 255 or len(relative) > 2000:
        raise InputError(f"the path {relative[:100]!r}... is too long")
    return root / path
