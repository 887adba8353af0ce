"""Evaluation of vision-language models on pairs of similar images.

    import vlm_harness

    run = vlm_harness.evaluate("llava", "whatsup_a", data_dir="data")
    run.results.to_pandas()

``docs/python.md`` describes the API. Importing this package imports neither torch nor transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

__all__ = [
    "Comparison",
    "FinishedRun",
    "GroupRow",
    "HarnessError",
    "InputError",
    "LogLine",
    "Manifest",
    "Model",
    "OptionScore",
    "Progress",
    "Request",
    "Response",
    "ResultRow",
    "Results",
    "Run",
    "TooManyErrors",
    "__version__",
    "compare",
    "evaluate",
    "open_run",
    "rescore",
]

if TYPE_CHECKING:
    from vlm_harness.analysis.compare import Comparison, compare
    from vlm_harness.errors import HarnessError, InputError, TooManyErrors
    from vlm_harness.logs.group_row import GroupRow
    from vlm_harness.logs.rescore import rescore
    from vlm_harness.logs.run import Run, open_run
    from vlm_harness.logs.schema import Results
    from vlm_harness.runs.evaluator import FinishedRun, evaluate
    from vlm_harness.runs.state import Progress
    from vlm_harness.types import (
        LogLine,
        Manifest,
        Model,
        OptionScore,
        Request,
        Response,
        ResultRow,
    )
else:  # imported on first use (PEP 562); type checkers see the imports above
    _EXPORTS = {
        "analysis.compare": ["Comparison", "compare"],
        "errors": ["HarnessError", "InputError", "TooManyErrors"],
        "logs.rescore": ["rescore"],
        "logs.run": ["Run", "open_run"],
        "logs.group_row": ["GroupRow"],
        "logs.schema": ["Results"],
        "runs.evaluator": ["FinishedRun", "evaluate"],
        "runs.state": ["Progress"],
        "types": [
            "LogLine",
            "Manifest",
            "Model",
            "OptionScore",
            "Request",
            "Response",
            "ResultRow",
        ],
    }
    _MODULES = {name: module for module, names in _EXPORTS.items() for name in names}

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            from vlm_harness.errors import suggest

            raise AttributeError(
                f"module 'vlm_harness' has no attribute {name!r}{suggest(name, _MODULES)}"
            )
        found = getattr(importlib.import_module(f"vlm_harness.{_MODULES[name]}"), name)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
