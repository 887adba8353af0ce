"""Backends: the code that runs a family of models.

A ``Family`` (module ``family``) declares what its models can do without importing the library that
runs them; that import happens when the first model of the family is loaded. The required and
optional methods of a loaded model are in ``interface``.
"""

from vlm_harness.backends.family import BACKENDS, Family
from vlm_harness.backends.interface import Backend, LoadOptions

__all__ = ["BACKENDS", "Backend", "Family", "LoadOptions"]
