"""Erroneous agreements: whether models fail on the pairs whose images an encoder finds alike.

Paper, section 3.1: two different images whose embeddings have a cosine above a threshold near 1
(0.95 in Tong et al. 2024). Section 3.2: cosine is blind to what ranks show, and a model may be
right about such a pair all the same. So cosines stand here beside outcomes, pair by pair.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from math import ceil, floor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vlm_harness import metrics, yamlfile
from vlm_harness.errors import InputError
from vlm_harness.metrics import Record
from vlm_harness.metrics.accuracy import individual_accuracy, pair_accuracy
from vlm_harness.registry import Registry
from vlm_harness.report.pairs import check_tasks, data_root, without_labels
from vlm_harness.results import record
from vlm_harness.runlog import Line, log_path, read_lines, read_manifest, variant_of
from vlm_harness.spec_check import parse
from vlm_harness.specs import GroupRules, TaskSpec
from vlm_harness.stats import Units, estimate
from vlm_harness.tasks import load_task
from vlm_harness.types import ImageRef, Variant

if TYPE_CHECKING:
    from vlm_harness.backends.dual_encoder import Embeddings
    from vlm_harness.embeddings import ImageEncoder

Report = dict[str, Any]
"""Plain data, as ``--json`` prints it: one a task and encoder."""
Floats = npt.NDArray[np.float64]
FIELDS = ("protocol", "command", "order", "decoding", "image_mode", "labels")
SAME, CHANGED, MISSING = "same image twice", "other image than was shown", "image not readable"
SEVERAL, NO_COSINE = "several images in a sample", "no cosine in the log"


@dataclass(frozen=True)
class Similarity:
    """How alike an encoder finds the two images of each pair of a task."""

    encoder: str
    cosines: Mapping[str, float]
    ranks: Mapping[str, float] | None = None
    """Rank correlation within each embedding pair; None where only cosines are known."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Pairs without a cosine, by reason."""


@dataclass
class Row:
    """What a model answered to the pairs of a task, in one cell of a run."""

    run: str
    variant: Variant
    records: list[Record] = field(default_factory=list)


@dataclass
class _Task:
    """A task as its runs have it: who answered, and which images the logs speak of."""

    folder: Path
    manifest: Mapping[str, Any]
    spec: TaskSpec
    rows: dict[tuple[Path, Variant], Row] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    """Checksum by path of an image."""
    sums: dict[str, dict[str, str]] = field(default_factory=dict)
    """Checksum of the image by pair and sample."""
    logged: dict[str, dict[str, float]] = field(default_factory=dict)
    """Cosine by model and pair."""

    @property
    def pairs(self) -> list[str]:
        """Of which some model answered both samples."""
        whole = (_whole(row.records, self.spec.grouping) for row in self.rows.values())
        return list(dict.fromkeys(str(group[0].pair) for groups in whole for group in groups))


class Embedder:
    """Measures pairs with an encoder; embeds each image once, whatever tasks it is in."""

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
        root = data_root(task.manifest, self._data_dir)
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
        from vlm_harness.embeddings import embed

        new = {ref.path: ref for ref in refs if (root, ref.path) not in self._known}
        if not new:
            return
        self._say(f"{task}: embedding {len(new)} images with {self.name}")
        found = embed(list(new.values()), [self._encoder], self._batch_size)
        self._known.update({(root, path): None for path in found.failures})
        for ref, digest, vector in zip(found.refs, found.sha256, *found.by_encoder, strict=True):
            self._known[root, ref.path] = digest, vector


def from_log(task: _Task) -> list[Similarity]:
    """What the dual encoders of the runs found when they answered the task themselves."""
    pairs = task.pairs
    same = {pair for pair in pairs if len(by := task.sums.get(pair, {})) == 2 and _alone(by)}
    similarities = []
    for model, logged in task.logged.items():
        cosines = {pair: logged[pair] for pair in pairs if pair in logged and pair not in same}
        left_out = {SAME: len(same), NO_COSINE: len(pairs) - len(cosines) - len(same)}
        similarities.append(
            Similarity(model, cosines, left_out={why: n for why, n in left_out.items() if n})
        )
    return similarities


def _alone(by_sample: Mapping[str, str]) -> bool:
    return len(set(by_sample.values())) == 1


def analyse(
    folders: Sequence[Path],
    measure: Callable[[_Task], list[Similarity]],
    tasks: Sequence[str] = (),
    threshold: float = 0.95,
    bins: int = 5,
) -> list[Report]:
    """One report for each task of the runs and each encoder, the models of all runs side by side.

    Raises:
        InputError: no run, no pairs, runs that do not fit together, data that are not there.
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
            hint="Logs have cosines of dual encoders under the protocol similarity; --encoder MODEL"
            " computes them. Of images that have moved, --data-dir says where they lie.",
        )
    return reports


# --- reading runs ---------------------------------------------------------------------------------


def _read(folders: Sequence[Path], asked: Sequence[str]) -> dict[str, _Task]:
    found: dict[str, _Task] = {}
    manifests = {folder: read_manifest(folder) for folder in dict.fromkeys(folders)}
    cells = {
        folder: [
            Variant(*(cell[name] for name in Variant._fields))
            for cell in manifest["expected"]
            if cell.get("n_pairs")
        ]
        for folder, manifest in manifests.items()
    }
    paired = dict.fromkeys(cell.task for each in cells.values() for cell in each)
    check_tasks(folders[0], asked, paired)
    for folder, variants in cells.items():
        wanted = [cell for cell in variants if not asked or cell.task in asked]
        for name in dict.fromkeys(cell.task for cell in wanted):
            task = _task(folder, manifests[folder], name)
            _check_same(found.setdefault(name, task), task)
        for cell in wanted:
            found[cell.task].rows[folder, cell] = Row(_run_id(folder, manifests[folder]), cell)
        # A log holds several cells.
        for path, name in {log_path(folder, cell): cell.task for cell in wanted}.items():
            for line in read_lines(path) if path.is_file() else ():
                _take(found[name], folder, line)
    return found


def _task(folder: Path, manifest: Mapping[str, Any], name: str) -> _Task:
    spec = parse(
        TaskSpec,
        yamlfile.YamlFile(folder / "manifest.json", manifest["identity"]["tasks"][name]["spec"]),
    )
    if spec.grouping.pair.size != 2:
        raise InputError(
            f"task {name}: a cosine is of two images, and its pairs are of "
            f"{spec.grouping.pair.size} samples",
            where=folder,
            hint="Choose other tasks of the run with --task.",
        )
    return _Task(folder, manifest, spec)


def _check_same(one: _Task, other: _Task) -> None:
    """Pairs of two runs are compared by name: the names must mean the same."""
    name = one.spec.task
    data = [task.manifest["identity"]["tasks"][name]["data"] for task in (one, other)]
    if one.spec.version != other.spec.version or data[0] != data[1]:
        raise InputError(
            f"the runs {one.folder} and {other.folder} have different data or versions of the "
            f"task {name}",
            hint="Look at them one by one, or at other tasks with --task.",
        )


def _take(task: _Task, folder: Path, line: Line) -> None:
    pair, row = line.get("pair"), task.rows.get((folder, variant_of(line)))
    if pair is None or row is None:
        return
    row.records.append(record(line))
    for image in line.get("images") or []:
        if image["sha256"] is not None:
            task.shown[image["path"]] = image["sha256"]
            task.sums.setdefault(pair, {})[line["sample_id"]] = image["sha256"]
    if line.get("pair_cosine") is not None:
        task.logged.setdefault(line["model"], {}).setdefault(pair, line["pair_cosine"])


def _run_id(folder: Path, manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("run_id") or folder.resolve().name)


def _images(task: _Task, root: Path) -> dict[str, list[ImageRef]]:
    """The images of each pair. From the task's data: some models read none, and log none."""
    spec = task.spec
    include = task.manifest["config"].get("include_path", ())
    registry = Registry.standard(include) if spec.tables else Registry([])
    found: dict[str, list[ImageRef]] = {}
    for sample in load_task(without_labels(spec), registry, root).samples:
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
    """Cosines against outcomes, as plain data."""
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
        "mean_cosine": asdict(estimate(Units.of(values.tolist(), by_pair, proportion=False))),
        "share_above": asdict(estimate(Units.of((values > threshold).tolist(), by_pair))),
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
                **row.variant._asdict(),
                **_outcomes(row.records, cosines, which, rules, threshold),
            }
            for label, row in zip(_labels(rows), rows, strict=True)
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
    """The bin of each value: up to ``n`` bins of equally many values, equal values in one.

    Cosines crowd near 1: of bins of equal width most would be next to empty.
    """
    if not len(values):
        return np.zeros(0, np.intp)
    starts = np.unique(np.quantile(values, np.arange(n) / n, method="higher"))
    return np.searchsorted(starts, values, side="right") - 1


def rank_correlations(a: Floats, b: Floats) -> Floats:
    """Spearman's rank correlation between the entries of two embeddings, row by row (section 3.2).

    [10, 11, 12] and [12, 11, 10] have a cosine above 0.989, and a rank correlation of -1.
    """
    from scipy.stats import rankdata

    x, y = (rankdata(each, axis=1) - (each.shape[1] + 1) / 2 for each in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        rho: Floats = (x * y).sum(axis=1) / np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return rho


def _whole(records: Sequence[Record], rules: GroupRules) -> list[list[Record]]:
    return metrics.groups(records, "pair", rules.pair.size)[0]


def _outcomes(
    records: Sequence[Record],
    cosines: Mapping[str, float],
    bins: Mapping[str, int],
    rules: GroupRules,
    threshold: float,
) -> Report:
    """Accuracies by bin, quadrants and the correlation, of one row."""
    groups = [group for group in _whole(records, rules) if group[0].pair in cosines]
    by_bin: dict[int, list[Record]] = {number: [] for number in bins.values()}
    right: dict[str, list[bool]] = {}
    sides: dict[bool, list[Record]] = {True: [], False: []}
    for group in groups:
        pair = str(group[0].pair)
        by_bin[bins[pair]] += group
        sides[cosines[pair] > threshold] += group
        right.setdefault(pair, []).append(all(each.correct for each in group))
    quadrants = {}
    for name, agree in (("agree", True), ("disagree", False)):
        units = pair_accuracy(sides[agree], rules)
        n_right = int(units.numerators.sum())
        # Pairs; asked in several orders, a pair counts once an order.
        quadrants[name] = {
            "right": n_right, "wrong": units.n - n_right, "pair_accuracy": asdict(estimate(units)),
        }  # fmt: skip
    return {
        "n_pairs": len(right),
        "bins": [
            {
                "individual_accuracy": asdict(estimate(individual_accuracy(by_bin[number], rules))),
                "pair_accuracy": asdict(estimate(pair_accuracy(by_bin[number], rules))),
            }
            for number in sorted(by_bin)
        ],
        "quadrants": quadrants,
        # Orders of a pair are not independent: it is one observation, right in a share of them.
        "spearman": spearman(
            [cosines[pair] for pair in right], [float(np.mean(each)) for each in right.values()]
        ),
    }


def spearman(cosines: Sequence[float], outcomes: Sequence[float]) -> dict[str, Any] | None:
    """Correlation of cosine and outcome over pairs; None where either does not vary."""
    if len(set(cosines)) < 2 or len(set(outcomes)) < 2 or len(cosines) < 3:
        return None
    from scipy.stats import spearmanr

    result = spearmanr(cosines, outcomes)
    return {"rho": float(result.statistic), "p": float(result.pvalue), "n": len(cosines)}


def _labels(rows: Sequence[Row]) -> list[str]:
    """The model, and what else tells its row from the others."""
    named = [{"run": row.run, **row.variant._asdict()} for row in rows]
    several = {
        each["model"] for each in named if sum(e["model"] == each["model"] for e in named) > 1
    }
    varying = [name for name in ("run", *FIELDS) if len({each[name] for each in named}) > 1]
    return [
        " / ".join([each["model"], *(each[name] for name in varying if each["model"] in several)])
        for each in named
    ]


# --- plot -----------------------------------------------------------------------------------------

COLOURS = "#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bc4c00", "#57606a"
INK, GREY, GRID = "#1f2328", "#656d76", "#d8dee4"
WIDTH, LEFT, RIGHT, PANEL, BARS = 1400, 110, 50, 340, 40  # in pixels, and bars of the histogram
Span = tuple[float, float]


def plot(reports: Sequence[Report], path: Path) -> None:
    """Draw the cosines of each report and, below them, accuracy by bin; a PNG file.

    With Pillow alone, as the contact sheet: two panels need no plotting library.
    """
    from PIL import Image

    from vlm_harness.atomic import write_bytes

    parts = [_figure(report) for report in reports if report["n_pairs"]]
    page = Image.new("RGB", (WIDTH, sum(part.height for part in parts)), "white")
    y = 0
    for part in parts:
        page.paste(part, (0, y))
        y += part.height
    buffer = io.BytesIO()
    page.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _figure(report: Report) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    rows, threshold = report["rows"], report["threshold"]
    cosines = np.array([each["cosine"] for each in report["pairs"]])
    low, high = (float(pick([*cosines, threshold])) for pick in (min, max))
    margin = max(0.03 * (high - low), 0.001)
    x_span = low - margin, high + margin
    legend = 34 * len(rows)
    top, middle = 90, 90 + PANEL + 90
    image = Image.new("RGB", (WIDTH, middle + PANEL + 90 + legend + 30), "white")
    pen = ImageDraw.Draw(image)

    def text(
        x: float, y: float, words: str, size: int = 22, fill: str = INK, anchor: str = "la"
    ) -> None:
        pen.text((x, y), words, fill, ImageFont.load_default(size), anchor)

    def across(value: float) -> float:
        share: float = (value - x_span[0]) / (x_span[1] - x_span[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def panel(y: int, span: Span, title: str, percent: bool = False) -> Callable[[float], float]:
        def up(value: float) -> float:
            return y + PANEL * (1 - (value - span[0]) / (span[1] - span[0]))

        text(LEFT, y - 14, title, 20, GREY, "ls")
        for tick in _ticks(span, whole=not percent):
            pen.line([(LEFT, up(tick)), (WIDTH - RIGHT, up(tick))], GRID, 1)
            label = f"{100 * tick:.0f}%" if percent else f"{tick:.0f}"
            text(LEFT - 12, up(tick), label, 20, GREY, "rm")
        for tick in _ticks(x_span):
            pen.line([(across(tick), y + PANEL), (across(tick), y + PANEL + 8)], INK, 2)
            text(across(tick), y + PANEL + 14, f"{tick:.4g}", 20, GREY, "ma")
        return up

    def dashed(at: Span, to: Span, fill: str) -> None:
        steps = max(1, int(np.hypot(to[0] - at[0], to[1] - at[1]) // 16))
        points = np.linspace(at, to, 2 * steps)
        for one, other in zip(points[::2], points[1::2], strict=True):
            pen.line([tuple(one), tuple(other)], fill, 2)

    text(
        LEFT,
        14,
        f"{report['task']}: {report['n_pairs']} pairs, as {report['encoder']} sees them",
        28,
    )
    # Bars end at the threshold: none holds pairs of both its sides.
    width = (x_span[1] - x_span[0]) / BARS
    edges = threshold + width * np.arange(
        np.floor((x_span[0] - threshold) / width), np.ceil((x_span[1] - threshold) / width) + 1
    )
    counts, _ = np.histogram(cosines, edges)
    up = panel(top, (0, 1.2 * counts.max()), "number of pairs by cosine of their two images")
    for count, start, end in zip(counts, edges, edges[1:], strict=False):
        if count:
            pen.rectangle((across(start) + 1, up(count), across(end) - 1, up(0)), "#8c959f")
    up = panel(middle, (0, 1.04), "pair accuracy by cosine, 95% intervals", percent=True)
    chances = {each["pair_accuracy"]["chance"] for row in rows for each in row["bins"]} - {None}
    for chance in [chances.pop()] if len(chances) == 1 else []:
        dashed((LEFT, up(chance)), (WIDTH - RIGHT, up(chance)), GREY)
        text(LEFT + 6, up(chance) - 4, "chance", 18, GREY, "ls")
    for y in (top, middle):
        pen.line([(LEFT, y), (LEFT, y + PANEL), (WIDTH - RIGHT, y + PANEL)], INK, 2)
        dashed((across(threshold), y), (across(threshold), y + PANEL), INK)
    words = f"{100 * report['share_above']['value']:.0f}% above {threshold:g}"
    near_edge = across(threshold) > WIDTH - RIGHT - 200
    text(
        across(threshold) + (-8 if near_edge else 8),
        top + 4,
        words,
        20,
        INK,
        "ra" if near_edge else "la",
    )
    for number, row in enumerate(rows):
        colour = COLOURS[number % len(COLOURS)]
        aside = 7 * (number - (len(rows) - 1) / 2)  # intervals of several models beside each other
        points = []
        for bounds, each in zip(report["bins"], row["bins"], strict=True):
            found = each["pair_accuracy"]
            if found["value"] is None:
                continue
            x = across(bounds["median"]) + aside
            points.append((x, up(found["value"])))
            if found["ci_low"] is not None:
                pen.line([(x, up(found["ci_low"])), (x, up(found["ci_high"]))], colour, 3)
        if len(points) > 1:
            pen.line(points, colour, 2)
        for x, at in points:
            pen.ellipse((x - 6, at - 6, x + 6, at + 6), colour)
        below = middle + PANEL + 70 + 34 * number
        pen.rectangle((LEFT, below + 3, LEFT + 22, below + 19), colour)
        rho = row["spearman"]
        text(
            LEFT + 34,
            below,
            row["label"][:80]
            + (f": Spearman {rho['rho']:.2f} (p = {rho['p']:.2g}, n = {rho['n']})" if rho else ""),
        )
    return image


def _ticks(span: Span, whole: bool = False) -> list[float]:
    """About five round numbers within a span."""
    raw = (span[1] - span[0]) / 7
    power = 10.0 ** float(np.floor(np.log10(raw)))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= raw * 0.99)
    step = max(1.0, step) if whole else step
    return [k * step for k in range(ceil(span[0] / step), floor(span[1] / step + 1e-9) + 1)]
