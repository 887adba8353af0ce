"""The output of a run, and how to read it.

Importing this package imports neither numpy nor jinja2, so reading a log stays cheap.
"""

from vlm_harness.logs.lines import read_lines, read_manifest
from vlm_harness.logs.run import Run, open_run
from vlm_harness.types import LogLine, Manifest, ResultRow

__all__ = ["LogLine", "Manifest", "ResultRow", "Run", "open_run", "read_lines", "read_manifest"]
