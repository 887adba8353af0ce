"""Evaluation of vision-language models on pairs of images that look alike.

    from vlm_harness import evaluate
    results = evaluate(models=["llava"], tasks=["whatsup_a"], data_dir="data")

Importing this package imports neither torch nor transformers.
"""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "evaluate"]


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        from vlm_harness.runs.evaluator import evaluate

        return evaluate
    raise AttributeError(f"module 'vlm_harness' has no attribute {name!r}")
