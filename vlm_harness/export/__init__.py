"""Results in the formats that other tools read (``vlm-harness export``), and a W&B logger."""

from vlm_harness.export.formats import FORMATS, format_named

__all__ = ["FORMATS", "format_named"]
