"""Modules of the library ``evaluate`` as metrics: ``evaluate:cer``, ``evaluate:rouge.rougeL``.

A module is code. It is loaded from the cache of the library; a missing module is downloaded from
the hub only under ``--trust-remote-code``. Unlike ``evaluate.load``, this never looks in the
working directory, where a folder of the same name would be run as code.

A module that compares texts gets the generated text (or the chosen option, if options were scored)
and the correct option. Any other module gets the indices of the options. There, a sample without an
answer is incorrect: its prediction is the option after the correct one.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from vlm_harness.errors import InputError
from vlm_harness.metrics.metric import Compute, Record
from vlm_harness.metrics.stats import Statistic
from vlm_harness.specs.schemas import GroupRules, TaskSpec

EVALUATE = "evaluate:"
"""Prefix of the name of a module."""
KINDS = ("metric", "comparison", "measurement")


class Module(NamedTuple):
    compute: Any
    """``EvaluationModule.compute``"""
    key: str
    """The value to use, of those that it computes."""
    texts: bool
    """True if it compares texts; otherwise it compares option indices."""
    several: bool
    """True if it expects a list of references per prediction."""
    sha256: str
    """Checksum of its code."""


def load(metric: str, *, fetch: bool = False, where: object = None) -> Module:
    """Load the module of a metric ``evaluate:[owner/]name[.key]``.

    Args:
        fetch: download the module if it is not in the cache.

    Raises:
        InputError: the module is not on this machine and ``fetch`` is false, it cannot be
            imported, or it does not take predictions and references.
    """
    try:
        return _load(metric)
    except FileNotFoundError:
        if not fetch:
            name = _parts(metric)[0]
            raise InputError(
                f"evaluate module {name!r} not found on this machine",
                where=where,
                hint="It is code from the hub. Use --trust-remote-code to download and run it.",
            ) from None
    except Exception as error:
        raise _unusable(metric, error, where) from error
    try:
        _fetch(_parts(metric)[0])
        return _load(metric)
    except Exception as error:
        raise _unusable(metric, error, where) from error


def modules(task: TaskSpec, *, fetch: bool = False) -> dict[str, Module]:
    """The modules among the metrics of a task, by metric name. Raises as ``load``."""
    return {
        name: load(name, fetch=fetch, where=task.at("metrics"))
        for name in task.metrics
        if name.startswith(EVALUATE)
    }


def metric(name: str) -> Compute:
    """The function of a metric whose module is in the cache."""
    module = load(name)

    def units(records: Sequence[Record], rules: GroupRules) -> Statistic:
        predictions, references = _inputs(module, records)
        clusters: dict[str, list[int]] = {}
        for position, record in enumerate(records):
            clusters.setdefault(record.cluster, []).append(position)
        members = list(clusters.values())

        def value(sampled: Sequence[int]) -> float | None:
            chosen = [position for cluster in sampled for position in members[cluster]]
            return _value(module, [predictions[i] for i in chosen], [references[i] for i in chosen])

        return Statistic(value, len(members), len(records))

    return units


# --- loading --------------------------------------------------------------------------------------


def _parts(metric: str) -> tuple[str, str]:
    """Name and key of a module. The default key is the name."""
    name, _, key = metric.removeprefix(EVALUATE).partition(".")
    return name, key or name.split("/")[-1]


@cache
def _load(metric: str) -> Module:
    """Raises FileNotFoundError if the module is not in the cache."""
    from evaluate.loading import CachedEvaluationModuleFactory, import_main_class

    name, key = _parts(metric)
    found = None
    with _quiet():
        for place in _cached_names(name):
            with contextlib.suppress(FileNotFoundError):
                found = CachedEvaluationModuleFactory(place).get_module()
                break
        if found is None:
            raise FileNotFoundError(name)
        module = import_main_class(found.module_path)(keep_in_memory=True, hash=found.hash)
        module.download_and_prepare()
    texts, several = _takes(module)
    made = Module(module.compute, key, texts, several, found.hash)
    trial: list[Any] = ["left", "right", "left"] if texts else [0, 1, 0]
    computed = _compute(made, trial, [[each] for each in trial] if several else trial)
    if key not in computed:
        raise ValueError(
            f"it computes {', '.join(sorted(computed))}; choose one, as in "
            f"{metric.partition('.')[0]}.{min(computed)}"
        )
    return made


def _cached_names(name: str) -> list[str]:
    """Names of the module in the cache. A module loaded from a folder has its plain name."""
    if "/" in name:
        return [name.replace("/", "--")]
    return [*(f"evaluate-{kind}--{name}" for kind in KINDS), name]


def _fetch(name: str) -> None:
    from evaluate.loading import HubEvaluationModuleFactory

    problems = []
    for path in [name] if "/" in name else [f"evaluate-{kind}/{name}" for kind in KINDS]:
        try:
            HubEvaluationModuleFactory(path).get_module()
            return
        except (OSError, ConnectionError) as error:
            problems.append(error)
    raise problems[0]


def _takes(module: Any) -> tuple[bool, bool]:
    """Whether a module compares texts, and whether it expects several references."""
    choices = module.features if isinstance(module.features, list) else [module.features]
    for features in choices:
        if set(features) == {"predictions", "references"}:
            prediction, reference = features["predictions"], features["references"]
            inner = getattr(reference, "feature", reference)
            if hasattr(prediction, "dtype") and hasattr(inner, "dtype"):
                return prediction.dtype == "string", inner is not reference
    raise ValueError("it does not take one prediction and one reference per sample")


def _unusable(metric: str, error: Exception, where: object) -> InputError:
    first = re.split(r"[\r\n]", str(error).strip())[0]
    return InputError(
        f"cannot use evaluate module {_parts(metric)[0]!r}: {first}",
        where=where,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the warning of the library that it uses its cache."""
    from evaluate.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


# --- computing ------------------------------------------------------------------------------------


def _inputs(module: Module, records: Sequence[Record]) -> tuple[list[Any], list[Any]]:
    if not module.texts:
        return [_number(record) for record in records], [record.target for record in records]
    texts = [_text(record) for record in records]
    correct = [record.options[record.target] for record in records]
    return texts, [[each] for each in correct] if module.several else correct


def _number(record: Record) -> int:
    if record.prediction is None:
        return (record.target + 1) % record.n_options
    return record.prediction


def _text(record: Record) -> str:
    if record.text is not None:
        return record.text
    return "" if record.prediction is None else record.options[record.prediction]


def _value(module: Module, predictions: list[Any], references: list[Any]) -> float | None:
    """The value, or None if it is undefined (no samples, or too few for this module)."""
    if not predictions:
        return None
    try:
        value = float(_compute(module, predictions, references)[module.key])
    except Exception:  # third-party code must not make a finished run fail
        return None
    return value if math.isfinite(value) else None


def _compute(module: Module, predictions: list[Any], references: list[Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        computed = module.compute(predictions=predictions, references=references)
    return dict(computed or {})
