"""What the official scorers of three benchmarks give for random scores: ``official_scores.json``.

The draws are made here, for the tests and for whoever wants to repeat the file. None of the
official code is part of this project; with clones of it,

    python tests/helpers/official_scores.py WHATSUP_VLMS MMVP WINOGROUND

writes the file anew. WINOGROUND is any file of Python that defines the ``text_correct``,
``image_correct`` and ``group_correct`` of Winoground's own data card.
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
"""Of What'sUp and of MMVP-VLM, in one evaluation."""
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
    """A function (``Class.method``, ``name``) of a file, without running the rest of the file."""
    node: Any = ast.parse(path.read_text(encoding="utf-8"))
    for part in name.split("."):
        node = next(each for each in node.body if getattr(each, "name", None) == part)
    exec(compile(ast.Module([node], []), str(path), "exec"), given)
    return given[node.name]


def official_whatsup(repository: Path, subset: str) -> list[list[int]]:
    """Right samples, pairs and sets of each evaluation."""
    path = repository / "dataset_zoo" / "aro_datasets.py"
    evaluate_scores = function(path, "Controlled_Images.evaluate_scores", {"np": np})
    names = RELATIONS[subset]
    words = [name.replace("_of", "").replace("in-", "") for name in names]
    found = []
    for scores in whatsup(subset):
        dataset, gold_first = [], []
        for number in range(SETS):
            for image in range(4):
                order = [image, *(option for option in range(4) if option != image)]
                dataset.append(
                    {
                        "image_path": f"images/mug{number}_{names[image]}_table{number}.jpeg",
                        "caption_options": [f"A mug {words[option]} a table" for option in order],
                    }
                )
                gold_first.append(scores[number, image, order])
        keys = [(f"mug{number}", f"table{number}") for number in range(SETS)]
        scorer = SimpleNamespace(
            dataset=dataset,
            subset=subset,
            all_prepositions=[names[image] for _ in range(SETS) for image in range(4)],
            eval_dict={key: {} for key in keys},
            pred_dict={key: {} for key in keys},
        )
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            evaluate_scores(scorer, np.array(gold_first)[:, None])
        shares = [float(line.split(":")[1]) / 100 for line in printed.getvalue().splitlines()]
        counts = (4 * SETS, 2 * SETS, SETS)
        found.append([round(share * n) for share, n in zip(shares, counts, strict=True)])
    return found


def official_mmvp_vlm(repository: Path) -> list[list[int]]:
    """Right pairs of each of the nine patterns, in each evaluation."""
    import torch

    numbers: dict[str, int] = {}
    script = (repository / "scripts" / "evaluate_vlm.py").resolve()
    scores = np.zeros(())

    def model(images: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pair, statement = divmod(int(text[0]), 2)
        logits = torch.tensor(scores[pair, :, statement])[None]
        return logits.T, logits

    found = []
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
            found.append([round(share / 100 * PAIRS / CATEGORIES) for share in shares.values()])
    return found


def official_winoground(path: Path) -> list[list[int]]:
    """Right pairs by text, by image and as a group, of each evaluation."""
    given: dict[str, Any] = {}
    names = ("text_correct", "image_correct", "group_correct")
    judges = [function(path, name, given) for name in names]
    found = []
    for scores in winoground():
        results = [
            {f"c{c}_i{i}": pair[i, c] for c in range(2) for i in range(2)} for pair in scores
        ]
        found.append([int(sum(map(judge, results))) for judge in judges])
    return found


def main(whatsup_vlms: str, mmvp: str, winoground_file: str) -> None:
    found = {
        "whatsup_a": official_whatsup(Path(whatsup_vlms), "A"),
        "whatsup_b": official_whatsup(Path(whatsup_vlms), "B"),
        "mmvp_vlm": official_mmvp_vlm(Path(mmvp)),
        "winoground": official_winoground(Path(winoground_file)),
    }
    lines = (f"  {json.dumps(name)}: {json.dumps(counts)}" for name, counts in found.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
