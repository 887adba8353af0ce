"""Readers: from a task's ``dataset`` section to rows."""

from vlm_harness.datasets.reader import READERS, Reader, Row, Table, read

__all__ = ["READERS", "Reader", "Row", "Table", "read"]
