"""Readers: read the rows of a task, as its ``dataset`` section describes them."""

from vlm_harness.datasets.reader import READERS, Reader, Table, read
from vlm_harness.datasets.records import Row

__all__ = ["READERS", "Reader", "Row", "Table", "read"]
