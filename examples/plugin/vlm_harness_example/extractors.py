"""An extractor for models that reason before they answer."""

from collections.abc import Sequence

from vlm_harness.protocols import Extraction
from vlm_harness.protocols.extractors import keyword


def last_line(text: str, options: Sequence[str], *, ignore_case: bool = True) -> Extraction:
    """The option that the last line affirms; earlier lines are ignored."""
    lines = text.strip().splitlines()
    return keyword(lines[-1] if lines else "", options, ignore_case=ignore_case)
