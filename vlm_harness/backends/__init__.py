"""Backends: code that runs a family of models.

A family declares in ``family`` what it can do, without importing what it needs to do it; its module
is loaded with the first model of the family. What a loaded model must provide, and what it may, is
in ``interface``.
"""

from vlm_harness.backends.family import BACKENDS, Family
from vlm_harness.backends.interface import Backend, LoadOptions

__all__ = ["BACKENDS", "Backend", "Family", "LoadOptions"]
