"""Erroneous agreements: do models fail on pairs whose images an encoder finds similar?

An erroneous agreement is a pair of different images whose embeddings have a cosine above a
threshold near 1 (paper, section 3.1; 0.95 in Tong et al. 2024). Cosine misses differences that rank
correlation shows, so a model may still be correct on such a pair (section 3.2). This module relates
the cosine of each pair to the answers on it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlm_harness import metrics
from vlm_harness.errors import InputError
from vlm_harness.logs.labels import labels
from vlm_harness.logs.results import record
from vlm_harness.logs.run import Run, check_paired, run_names
from vlm_harness.metrics.accuracy import individual_accuracy, pair_accuracy
from vlm_harness.metrics.metric import Record
from vlm_harness.metrics.stats import Statistic, Units, estimate
from vlm_harness.specs.schemas import GroupRules, TaskSpec
from vlm_harness.types import Cell, ImageRef, LogLine

if TYPE_CHECKING:
    from vlm_harness.backends.dual_encoder import Embeddings
    from vlm_harness.backends.embeddings import ImageEncoder

Report = dict[str, Any]
"""Plain data as ``--json`` prints it, one report per task and encoder."""
Floats = npt.NDArray[np.float64]
SAME, CHANGED, MISSING = "same image twice", "image changed since the run", "image not readable"
SEVERAL, NO_COSINE = "several images per sample", "no cosine in the log"


@dataclass(frozen=True)
class Similarity:
    """Image similarity of each pair of a task, by one encoder."""

    encoder: str
    cosines: Mapping[str, float]
    ranks: Mapping[str, float] | None = None
    """Rank correlation within each embedding pair; None if only cosines are known."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Number of pairs without a cosine, by reason."""


@dataclass
class Row:
    """The answers of one cell of a run."""

    run: str
    cell: Cell
    records: list[Record] = field(default_factory=list)


@dataclass
class _Task:
    """A task over all runs: the answers, and the images and cosines in the logs."""

    run: Run
    """The first run with this task."""
    spec: TaskSpec
    rows: dict[tuple[Path, Cell], Row] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """Image checksum, by path."""
    checksums: dict[str, dict[str, str]] = field(default_factory=dict)
    """Image checksum, by pair and sample."""
    logged: dict[str, dict[str, float]] = field(default_factory=dict)
    """Cosine, by model and pair."""

    @property
    def pairs(self) -> list[str]:
        """Pairs whose samples were all answered by at least one model."""
        complete = (_complete_groups(row.records, self.spec.grouping) for row in self.rows.values())
        return list(dict.fromkeys(str(group[0].pair) for groups in complete for group in groups))


class Embedder:
    """Measures pairs with an encoder. Each image is embedded once, even if several tasks use it."""

    def __init__(
        self,
        name: str,
        encoder: "ImageEncoder",
        data_dir: str | None = None,
        batch_size: int = 32,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self._encoder, self._data_dir = name, encoder, data_dir
        self._batch_size, self._say = batch_size, say
        self._known: dict[tuple[Path, str], tuple[str, Embeddings] | None] = {}

    def __call__(self, task: _Task) -> list[Similarity]:
        root = task.run.data_root(self._data_dir)
        images = _images(task, root)
        left_out: Counter[str] = Counter()
        pairs = {}
        for pair in task.pairs:
            refs = images.get(pair)
            if refs is None or len(refs) != 2:
                left_out[MISSING if refs is None else SEVERAL] += 1
            else:
                pairs[pair] = refs
        self._embed(root, chain.from_iterable(pairs.values()), task.spec.task)
        both: dict[str, tuple[Embeddings, Embeddings]] = {}
        for pair, refs in pairs.items():
            found = [self._known[root, ref.path] for ref in refs]
            (a, b) = found
            if a is None or b is None:
                left_out[MISSING] += 1
            elif any(
                task.shown.get(ref.path, each[0]) != each[0]
                for ref, each in zip(refs, (a, b), strict=True)
            ):
                left_out[CHANGED] += 1
            elif a[0] == b[0]:
                left_out[SAME] += 1
            else:
                both[pair] = a[1], b[1]
        if not both:
            return [Similarity(self.name, {}, {}, left_out)]
        first, second = (
            np.stack(each).astype(np.float64) for each in zip(*both.values(), strict=True)
        )
        cosines = (first * second).sum(axis=1)
        ranks = rank_correlations(first, second)
        return [
            Similarity(
                self.name,
                dict(zip(both, map(float, cosines), strict=True)),
                {p: float(rho) for p, rho in zip(both, ranks, strict=True) if np.isfinite(rho)},
                left_out,
            )
        ]

    def _embed(self, root: Path, refs: Iterable[ImageRef], task: str) -> None:
        from vlm_harness.backends.embeddings import embed

        new = {ref.path: ref for ref in refs if (root, ref.path) not in self._known}
        if not new:
            return
        self._say(f"{task}: embedding {len(new)} images with {self.name}")
        found = embed(list(new.values()), [self._encoder], self._batch_size)
        self._known.update({(root, path): None for path in found.failures})
        for ref, digest, vector in zip(found.refs, found.sha256, *found.by_encoder, strict=True):
            self._known[root, ref.path] = digest, vector


def from_log(task: _Task) -> list[Similarity]:
    """Cosines that the dual encoders among the models logged during the run."""
    pairs = task.pairs
    same = {
        pair for pair in pairs if len(by := task.checksums.get(pair, {})) == 2 and _all_equal(by)
    }
    similarities = []
    for model, logged in task.logged.items():
        cosines = {pair: logged[pair] for pair in pairs if pair in logged and pair not in same}
        left_out = {SAME: len(same), NO_COSINE: len(pairs) - len(cosines) - len(same)}
        similarities.append(
            Similarity(model, cosines, left_out={why: n for why, n in left_out.items() if n})
        )
    return similarities


def _all_equal(by_sample: Mapping[str, str]) -> bool:
    return len(set(by_sample.values())) == 1


def analyse(
    folders: Sequence[Path],
    measure: Callable[[_Task], list[Similarity]],
    tasks: Sequence[str] = (),
    threshold: float = 0.95,
    bins: int = 5,
) -> list[Report]:
    """One report per task and encoder, with the models of all runs.

    Raises:
        InputError: not a run folder, no paired task, runs with different data, or missing data.
    """
    found = _read(folders, tasks)
    reports = [
        compare(name, similarity, list(task.rows.values()), task.spec.grouping, threshold, bins)
        for name, task in found.items()
        for similarity in measure(task)
        if similarity.cosines or similarity.left_out
    ]
    if not any(report["n_pairs"] for report in reports):
        reasons = Counter[str]()
        for report in reports:
            reasons.update(report["left_out"])
        raise InputError(
            "no pair has a cosine"
            + "".join(f"; {n} pairs left out: {why}" for why, n in reasons.items()),
            where=", ".join(map(str, folders)),
            hint="Logs contain cosines of dual encoders run with the protocol similarity. Use "
            "--encoder MODEL to compute cosines, and --data-dir if the images have moved.",
        )
    return reports


# --- reading runs ---------------------------------------------------------------------------------


def _read(folders: Sequence[Path], tasks: Sequence[str]) -> dict[str, _Task]:
    found: dict[str, _Task] = {}
    runs = [Run(folder) for folder in dict.fromkeys(folders)]
    names = run_names(runs)
    paired = dict.fromkeys(cell.task for run in runs for cell in run.paired)
    check_paired(folders[0], tasks, paired)
    for run in runs:
        wanted = [cell for cell in run.paired if not tasks or cell.task in tasks]
        for name in dict.fromkeys(cell.task for cell in wanted):
            task = _task(run, name)
            _check_same(found.setdefault(name, task), task)
        for cell in wanted:
            found[cell.task].rows[run.path, cell] = Row(names[run.path], cell)
        for line in run.lines(wanted):
            _take(found[line.task], run.path, line)
    return found


def _task(run: Run, name: str) -> _Task:
    spec = run.spec(name)
    if spec.grouping.pair.size != 2:
        raise InputError(
            f"task {name}: expected pairs of two samples, got pairs of {spec.grouping.pair.size}",
            where=run.path,
            hint="Choose other tasks of the run with --task.",
        )
    return _Task(run, spec)


def _check_same(one: _Task, other: _Task) -> None:
    """Check that pair names mean the same in both runs.

    Raises:
        InputError: the data or the version of the task differ.
    """
    name = one.spec.task
    data = [task.run.task(name).data for task in (one, other)]
    if one.spec.version != other.spec.version or data[0] != data[1]:
        raise InputError(
            f"the runs {one.run.path} and {other.run.path} have different data or versions "
            f"of the task {name}",
            hint="Analyse the runs one by one, or choose other tasks with --task.",
        )


def _take(task: _Task, folder: Path, line: LogLine) -> None:
    pair, row = line.pair, task.rows.get((folder, line.cell))
    if pair is None or row is None:
        return
    row.records.append(record(line))
    for image in line.images or []:
        if image.sha256 is not None:
            task.shown[image.path] = image.sha256
            task.checksums.setdefault(pair, {})[line.sample_id] = image.sha256
    if line.pair_cosine is not None:
        task.logged.setdefault(line.model, {}).setdefault(pair, line.pair_cosine)


def _images(task: _Task, root: Path) -> dict[str, list[ImageRef]]:
    """The images of each pair, from the task's data: models that read no images log none."""
    found: dict[str, list[ImageRef]] = {}
    for sample in task.run.load_task(task.spec.task, root).samples:
        if sample.pair is not None:
            found.setdefault(sample.pair, []).extend(sample.images)
    return found


# --- numbers --------------------------------------------------------------------------------------


def compare(
    task: str,
    similarity: Similarity,
    rows: Sequence[Row],
    rules: GroupRules,
    threshold: float,
    n_bins: int,
) -> Report:
    """Relate cosines to answers; the report as plain data."""
    cosines = similarity.cosines
    values = np.array(list(cosines.values()))
    which = dict(zip(cosines, map(int, quantile_bins(values, n_bins)), strict=True))
    clusters = {str(r.pair): r.cluster for row in rows for r in row.records}
    by_pair = [clusters[pair] for pair in cosines]
    ranks = None if similarity.ranks is None else [*similarity.ranks.values()]
    return {
        "task": task,
        "encoder": similarity.encoder,
        "threshold": threshold,
        "n_pairs": len(cosines),
        "left_out": dict(similarity.left_out),
        "mean_cosine": _estimate(Units.of(values.tolist(), by_pair, proportion=False)),
        "share_above": _estimate(Units.of((values > threshold).tolist(), by_pair)),
        "rank_correlation": {"mean": float(np.mean(ranks)), "min": min(ranks), "n": len(ranks)}
        if ranks
        else None,
        "bins": [
            {
                "low": float(each.min()),
                "median": float(np.median(each)),
                "high": float(each.max()),
                "n": len(each),
            }
            for number in range(max(which.values(), default=-1) + 1)
            for each in [values[[index == number for index in which.values()]]]
        ],
        "rows": [
            {
                "label": label,
                "run": row.run,
                **row.cell.grid,
                **_outcomes(row.records, cosines, which, rules, threshold),
            }
            for label, row in zip(labels([(r.run, r.cell) for r in rows]), rows, strict=True)
        ],
        "pairs": [
            {
                "pair": pair,
                "cosine": cosine,
                "rank_correlation": (similarity.ranks or {}).get(pair),
            }
            for pair, cosine in cosines.items()
        ],
    }


def quantile_bins(values: Floats, n: int) -> npt.NDArray[np.intp]:
    """The bin of each value: up to ``n`` equal-count bins; equal values share a bin.

    Cosines are concentrated near 1, so most bins of equal width would be almost empty.
    """
    if not len(values):
        return np.zeros(0, np.intp)
    starts = np.unique(np.quantile(values, np.arange(n) / n, method="higher"))
    return np.searchsorted(starts, values, side="right") - 1


def rank_correlations(a: Floats, b: Floats) -> Floats:
    """Spearman's rank correlation between the entries of two embeddings, row by row (section 3.2).

    [10, 11, 12] and [12, 11, 10] have a cosine above 0.989 but a rank correlation of -1.
    """
    from scipy.stats import rankdata

    x, y = (rankdata(each, axis=1) - (each.shape[1] + 1) / 2 for each in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: Floats = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return rho


def _estimate(units: Units | Statistic) -> dict[str, Any]:
    return estimate(units).to_dict()


def _complete_groups(records: Sequence[Record], rules: GroupRules) -> list[list[Record]]:
    return metrics.groups(records, "pair", rules.pair.size)[0]


def _outcomes(
    records: Sequence[Record],
    cosines: Mapping[str, float],
    bins: Mapping[str, int],
    rules: GroupRules,
    threshold: float,
) -> Report:
    """Accuracies by bin, quadrants and the rank correlation of one row."""
    groups = [group for group in _complete_groups(records, rules) if group[0].pair in cosines]
    by_bin: dict[int, list[Record]] = {number: [] for number in bins.values()}
    correct: dict[str, list[bool]] = {}
    sides: dict[bool, list[Record]] = {True: [], False: []}
    for group in groups:
        pair = str(group[0].pair)
        by_bin[bins[pair]] += group
        sides[cosines[pair] > threshold] += group
        correct.setdefault(pair, []).append(all(each.correct for each in group))
    quadrants = {}
    for name, agree in (("agree", True), ("disagree", False)):
        units = pair_accuracy(sides[agree], rules)
        n_correct = round((units.value or 0.0) * units.n)
        # Counts of pairs; with several option orders, a pair counts once per order.
        quadrants[name] = {
            "right": n_correct, "wrong": units.n - n_correct, "pair_accuracy": _estimate(units),
        }  # fmt: skip
    return {
        "n_pairs": len(correct),
        "bins": [
            {
                "individual_accuracy": _estimate(individual_accuracy(by_bin[number], rules)),
                "pair_accuracy": _estimate(pair_accuracy(by_bin[number], rules)),
            }
            for number in sorted(by_bin)
        ],
        "quadrants": quadrants,
        # Orders of a pair are not independent: a pair is one observation, the share correct.
        "spearman": spearman(
            [cosines[pair] for pair in correct], [float(np.mean(each)) for each in correct.values()]
        ),
    }


def spearman(cosines: Sequence[float], outcomes: Sequence[float]) -> dict[str, Any] | None:
    """Rank correlation of cosine and outcome over pairs; None if either does not vary."""
    if len(set(cosines)) < 2 or len(set(outcomes)) < 2 or len(cosines) < 3:
        return None
    from scipy.stats import spearmanr

    result = spearmanr(cosines, outcomes)
    return {"rho": float(result.statistic), "p": float(result.pvalue), "n": len(cosines)}
