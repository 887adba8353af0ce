"""Evaluation of vision-language models on pairs of images that look alike.

    import vlm_harness

    run = vlm_harness.evaluate("llava", "whatsup_a", data_dir="data")
    run.results.to_pandas()

``docs/python.md`` shows all of it. Importing this package imports neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlm_harness.analysis.compare import Comparison, compare
    from vlm_harness.errors import HarnessError, InputError
    from vlm_harness.logs.rescore import rescore
    from vlm_harness.logs.run import Run, open_run
    from vlm_harness.logs.schema import Results
    from vlm_harness.runs.evaluator import FinishedRun, evaluate
    from vlm_harness.types import LogLine, Manifest, ResultRow

__version__ = "0.1.0"

_EXPORTS = {
    "analysis.compare": ["Comparison", "compare"],
    "errors": ["HarnessError", "InputError"],
    "logs.rescore": ["rescore"],
    "logs.run": ["Run", "open_run"],
    "logs.schema": ["Results"],
    "runs.evaluator": ["FinishedRun", "evaluate"],
    "types": ["LogLine", "Manifest", "ResultRow"],
}
_MODULES = {name: module for module, names in _EXPORTS.items() for name in names}
__all__ = [
    "Comparison",
    "FinishedRun",
    "HarnessError",
    "InputError",
    "LogLine",
    "Manifest",
    "ResultRow",
    "Results",
    "Run",
    "__version__",
    "compare",
    "evaluate",
    "open_run",
    "rescore",
]


def __getattr__(name: str) -> Any:
    """Import what is exported when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module 'vlm_harness' has no attribute {name!r}")
    found = getattr(importlib.import_module(f"vlm_harness.{_MODULES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
