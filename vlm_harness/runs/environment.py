"""Library versions and hardware of this machine."""

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from vlm_harness import paths

PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "open_clip_torch", "timm", "datasets",
    "numpy", "scipy", "pillow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Versions of the installed libraries that answers may depend on."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Library versions and hardware, for the manifest."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "git_commit": _git_commit(),
        "packages": versions(),
    }
    torch = sys.modules.get("torch")  # present only where a backend needed it
    if torch is not None and torch.cuda.is_available():
        found["gpus"] = [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ]
        found["cuda"] = torch.version.cuda
    return found


@cache
def _git_commit() -> str | None:
    """The commit of a checkout of this package, with ``-dirty`` if files were changed."""
    root = paths.bundled()  # the top of a checkout
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5
        )
        dirty = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return (commit.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")) or None
