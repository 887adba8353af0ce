"""Results of three benchmarks' official scorers on random scores: ``official_scores.json``.

This module generates the random scores, for the tests and to recreate the file. The official code
is not part of this project. Given clones of it,

    python tests/helpers/official_scores.py WHATSUP_VLMS MMVP WINOGROUND

writes the file again. WINOGROUND is a Python file that defines ``text_correct``, ``image_correct``
and ``group_correct`` as in Winoground's data card.
"""

import ast
import contextlib
import csv
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

FILE = Path(__file__).resolve().parents[1] / "data" / "official_scores.json"
RELATIONS = {
    "A": ("left_of", "right_of", "on", "under"),
    "B": ("left_of", "right_of", "in-front_of", "behind"),
}
SETS, PAIRS = 25, 135
"""What'sUp sets and MMVP-VLM pairs per evaluation."""
CATEGORIES = 9


def whatsup(subset: str) -> Iterator[np.ndarray]:
    """50 evaluations of 100 images: scores of (set, image, relation), in the order above."""
    random = np.random.default_rng([1, ord(subset)])
    for _ in range(50):
        yield random.normal(size=(SETS, 4, 4)) + 1.5 * np.eye(4)


def mmvp_vlm() -> Iterator[np.ndarray]:
    """75 evaluations of 135 pairs: scores of (pair, image, statement)."""
    random = np.random.default_rng(2)
    for _ in range(75):
        yield random.normal(size=(PAIRS, 2, 2)) + np.eye(2)


def winoground() -> Iterator[np.ndarray]:
    """100 evaluations of 100 pairs: scores of (pair, image, caption)."""
    random = np.random.default_rng(3)
    for _ in range(100):
        yield random.normal(size=(100, 2, 2)) + np.eye(2)


# --- the official code ----------------------------------------------------------------------------


def function(path: Path, name: str, given: dict[str, Any]) -> Any:
    """A function (``Class.method`` or ``name``) of a file, without running the rest of the file."""
    node: Any = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next(each for each in node.body if getattr(each, "name", None) == part)
    exec(compile(ast.Module([node], []), str(path), "exec"), given)
    return given[node.name]


def official_whatsup(repository: Path, subset: str) -> list[list[int]]:
    """Correct samples, pairs and sets in each evaluation."""
    path = repository / "dataset_zoo" / "aro_datasets.py"
    evaluate_scores = function(path, "Controlled_Images.evaluate_scores", {"np": np})
    names = RELATIONS[subset]
    words = [name.replace("_of", "").replace("in-", "") for name in names]
    results = []
    for scores in whatsup(subset):
        dataset, correct_first = [], []
        for number in range(SETS):
            for image in range(4):
                order = [image, *(option for option in range(4) if option != image)]
                dataset.append(
                    {
                        "image_path": f"images/mug{number}_{names[image]}_table{number}.jpeg",
                        "caption_options": [f"A mug {words[option]} a table" for option in order],
                    }
                )
                correct_first.append(scores[number, image, order])
        keys = [(f"mug{number}", f"table{number}") for number in range(SETS)]
        scorer = SimpleNamespace(
            dataset=dataset,
            subset=subset,
            all_prepositions=[names[image] for _ in range(SETS) for image in range(4)],
            eval_dict={key: {} for key in keys},
            pred_dict={key: {} for key in keys},
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            evaluate_scores(scorer, np.array(correct_first)[:, None])
        shares = [float(line.split(":")[1]) / 100 for line in printed.getvalue().splitlines()]
        counts = (4 * SETS, 2 * SETS, SETS)
        results.append([round(share * n) for share, n in zip(shares, counts, strict=True)])
    return results


def official_mmvp_vlm(repository: Path) -> list[list[int]]:
    """Correct pairs of each of the nine patterns, in each evaluation."""
    import torch

    numbers: dict[str, int] = {}
    script = (repository / "scripts" / "evaluate_vlm.py").resolve()
    scores = np.zeros(())

    def model(images: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pair, statement = divmod(int(text[0]), 2)
        logits = torch.tensor(scores[pair, :, statement])[None]
        return logits.T, logits

    results = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        rows = [[number + 1, "any", f"statement {number}"] for number in range(2 * PAIRS)]
        numbers.update({f"a photo of {row[2]}": number for number, row in enumerate(rows)})
        with open("Questions.csv", "w", newline="") as file:
            csv.writer(file).writerows([["Question ID", "Type", "Statement"], *rows])
        given: dict[str, Any] = {
            "os": os,
            "csv": csv,
            "torch": torch,
            "load": lambda name, device: (model, lambda image: torch.zeros(3, 2, 2)),
            "Image": SimpleNamespace(open=lambda path: None),
            "clip": SimpleNamespace(tokenize=lambda text: torch.tensor([numbers[text[0]]])),
        }
        benchmark = function(script, "benchmark_model", given)
        for scores in mmvp_vlm():  # noqa: B007  # read by the model above
            shares = benchmark("any", folder)
            results.append([round(share / 100 * PAIRS / CATEGORIES) for share in shares.values()])
    return results


def official_winoground(path: Path) -> list[list[int]]:
    """Correct pairs by text, image and group score, in each evaluation."""
    given: dict[str, Any] = {}
    names = ("text_correct", "image_correct", "group_correct")
    scorers = [function(path, name, given) for name in names]
    results = []
    for scores in winoground():
        pairs = [{f"c{c}_i{i}": pair[i, c] for c in range(2) for i in range(2)} for pair in scores]
        results.append([int(sum(map(scorer, pairs))) for scorer in scorers])
    return results


def main(whatsup_vlms: str, mmvp: str, winoground_file: str) -> None:
    results = {
        "whatsup_a": official_whatsup(Path(whatsup_vlms), "A"),
        "whatsup_b": official_whatsup(Path(whatsup_vlms), "B"),
        "mmvp_vlm": official_mmvp_vlm(Path(mmvp)),
        "winoground": official_winoground(Path(winoground_file)),
    }
    lines = (f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in results.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
