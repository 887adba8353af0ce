"""Results in the formats of other tools (``vlm-harness export``), and a W&B logger."""

from vlm_harness.export.formats import FORMATS, format_named

__all__ = ["FORMATS", "format_named"]
