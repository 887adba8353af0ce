"""Modules of the library ``evaluate`` as metrics: ``evaluate:cer``, ``evaluate:rouge.rougeL``.

A module is code. One that is in the library's cache is used as it lies there; one that is not is
fetched from the hub, and only under ``--trust-remote-code``. Unlike ``evaluate.load``, nothing is
looked for in the working directory, where a folder of that name would be run as code.

A module that compares texts gets the text that was answered (of scored options, the option chosen)
and the right option; any other gets their numbers, from 0. A sample without an answer is wrong
there: it counts as the option after the right one.
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
"""Before the name of a module."""
KINDS = ("metric", "comparison", "measurement")


class Module(NamedTuple):
    compute: Any
    """``EvaluationModule.compute``"""
    key: str
    """Of what it computes, the value that is wanted."""
    texts: bool
    """Whether it compares texts; numbers of options where not."""
    several: bool
    """Whether it wants a list of right texts for each answer."""
    sha256: str
    """Of its code."""


def load(metric: str, *, fetch: bool = False, where: object = None) -> Module:
    """The module of a metric ``evaluate:[owner/]name[.key]``.

    Raises:
        InputError: it is not on this machine and may not be fetched, it cannot be imported, or it
            does not take predictions and references.
    """
    try:
        return _load(metric)
    except FileNotFoundError:
        if not fetch:
            name = _parts(metric)[0]
            raise InputError(
                f"the module {name!r} of the library evaluate is not on this machine",
                where=where,
                hint="It is code from the hub: with --trust-remote-code it is fetched and run.",
            ) from None
    except Exception as error:
        raise _unfit(metric, error, where) from error
    try:
        _fetch(_parts(metric)[0])
        return _load(metric)
    except Exception as error:
        raise _unfit(metric, error, where) from error


def modules(task: TaskSpec, *, fetch: bool = False) -> dict[str, Module]:
    """Those of a task's metrics, by the metric's name. Raises as ``load``."""
    return {
        name: load(name, fetch=fetch, where=task.at("metrics"))
        for name in task.metrics
        if name.startswith(EVALUATE)
    }


def metric(name: str) -> Compute:
    """The function of that name; its module must be there."""
    module = load(name)

    def units(records: Sequence[Record], rules: GroupRules) -> Statistic:
        predictions, references = _inputs(module, records)
        clusters: dict[str, list[int]] = {}
        for position, record in enumerate(records):
            clusters.setdefault(record.cluster, []).append(position)
        members = list(clusters.values())

        def value(drawn: Sequence[int]) -> float | None:
            chosen = [position for cluster in drawn for position in members[cluster]]
            return _value(module, [predictions[i] for i in chosen], [references[i] for i in chosen])

        return Statistic(value, len(members), len(records))

    return units


# --- finding it -----------------------------------------------------------------------------------


def _parts(metric: str) -> tuple[str, str]:
    """Name and key. The key is the name where none is given."""
    name, _, key = metric.removeprefix(EVALUATE).partition(".")
    return name, key or name.split("/")[-1]


@cache
def _load(metric: str) -> Module:
    """Raises FileNotFoundError where it is not in the cache."""
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
            f"it computes {', '.join(sorted(computed))}: choose one, as in "
            f"{metric.partition('.')[0]}.{min(computed)}"
        )
    return made


def _cached_names(name: str) -> list[str]:
    """How the library calls it in its cache; the plain name is that of a folder's."""
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
    """Whether it compares texts, and whether it wants several right ones."""
    choices = module.features if isinstance(module.features, list) else [module.features]
    for features in choices:
        if set(features) == {"predictions", "references"}:
            prediction, reference = features["predictions"], features["references"]
            inner = getattr(reference, "feature", reference)
            if hasattr(prediction, "dtype") and hasattr(inner, "dtype"):
                return prediction.dtype == "string", inner is not reference
    raise ValueError("it does not compare a prediction with a reference, sample by sample")


def _unfit(metric: str, error: Exception, where: object) -> InputError:
    first = re.split(r"[\r\n]", str(error).strip())[0]
    return InputError(
        f"the module {_parts(metric)[0]!r} of the library evaluate cannot be used: {first}",
        where=where,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The library warns that it uses its cache, which is what is wanted."""
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
    right = [record.options[record.target] for record in records]
    return [_text(record) for record in records], [[r] for r in right] if module.several else right


def _number(record: Record) -> int:
    if record.prediction is None:
        return (record.target + 1) % record.n_options
    return record.prediction


def _text(record: Record) -> str:
    if record.text is not None:
        return record.text
    return "" if record.prediction is None else record.options[record.prediction]


def _value(module: Module, predictions: list[Any], references: list[Any]) -> float | None:
    """None where it is undefined: over nothing, or over too little for this module."""
    if not predictions:
        return None
    try:
        value = float(_compute(module, predictions, references)[module.key])
    except Exception:  # foreign code; a run that is over must not be lost by it
        return None
    return value if math.isfinite(value) else None


def _compute(module: Module, predictions: list[Any], references: list[Any]) -> dict[str, Any]:
    with contextlib.redirect_stdout(io.StringIO()):
        computed = module.compute(predictions=predictions, references=references)
    return dict(computed or {})
