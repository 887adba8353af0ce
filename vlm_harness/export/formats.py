"""Registry of the export formats (``vlm-harness export``)."""

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vlm_harness.errors import not_found

if TYPE_CHECKING:
    from vlm_harness.export.rows import Result


FORMATS = {
    "lm-eval": "vlm_harness.export.lm_eval:dump",
    "model-card": "vlm_harness.export.model_card:dump",
    "csv": "vlm_harness.export.tables:csv",
    "markdown": "vlm_harness.export.tables:markdown",
    "latex": "vlm_harness.export.tables:latex",
}
"""``module:function`` by name; the function turns results into the text of a file."""


Format = Callable[[Sequence["Result"]], str]


def format_named(name: str) -> Format:
    """Look up a format by name.

    Raises:
        InputError: unknown format.
    """
    if name not in FORMATS:
        raise not_found(f"unknown format {name!r}", name, FORMATS, where="--format")
    module, function = FORMATS[name].split(":")
    found: Format = getattr(importlib.import_module(module), function)
    return found
