"""Model cards, with the scores that the harness gives the checkpoints as they lie on disk."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlm_harness.runs.evaluator import evaluate
from vlm_harness.specs.registry import Registry
from vlm_harness.types import Estimate, ResultRow

TASKS = ["whatsup_rendered"]
EXCHANGED = "names_exchanged"
OWN_TASKS = Path(__file__).parent / "tasks"
ABOUT = {
    "tiny-clip": """\
A dual encoder of the shape of CLIP (transformers `CLIPModel`), small enough for any laptop. Its
captions are like those of the web: they name what is to be seen and, but for 1 in 50, not how it
is arranged.""",
    "tiny-clip-control": """\
The control of tiny-clip: the same data, steps and seed, but every caption states the relation. It
asks what section 4.2 of the paper asks: is it the training data that keep a dual encoder from
telling the images of a pair apart?""",
    "tiny-llava": """\
A vision-language model of the shape of LLaVA-1.5 (transformers `LlavaForConditionalGeneration`):
the vision tower of tiny-clip, bit by bit and frozen, a two-layer MLP, and a Llama of three layers
that knows nothing but rendered rooms. It was trained on the words of the benchmark's own questions,
on captions, and on questions for colours and places, all about pairs of objects that the benchmark
does not hold.""",
}
TAGS = {
    "tiny-clip": "zero-shot-image-classification",
    "tiny-clip-control": "zero-shot-image-classification",
    "tiny-llava": "image-text-to-text",
}


@dataclass(frozen=True)
class Facts:
    seed: int
    scenes: int
    pictures_sha256: str
    clip_steps: int
    llava_steps: int
    seconds: Mapping[str, float]


def write(folder: Path, facts: Facts) -> None:
    """Evaluate the three checkpoints of a folder and write a README.md into each."""
    registry = Registry.standard()
    specs = [
        registry.model(name).model_copy(update={"checkpoint": str(folder / name)}) for name in ABOUT
    ]
    asked: dict[str, Any] = {"tasks": [*TASKS, EXCHANGED], "include_path": [str(OWN_TASKS)]}
    with tempfile.TemporaryDirectory() as runs:
        results = evaluate(specs, **asked, output_dir=runs).results
        llava = [spec for spec in specs if spec.model == "tiny-llava"]
        results += evaluate(llava, TASKS, protocol=["choice"], output_dir=runs).results
    for name in ABOUT:
        rows = [row for row in results if row.model == name]
        (folder / name / "README.md").write_text(card(name, rows, facts), encoding="utf-8")
        print(f"\n{name}\n{table(rows)}", flush=True)


def card(name: str, rows: Sequence[ResultRow], facts: Facts) -> str:
    steps = facts.llava_steps if name == "tiny-llava" else facts.clip_steps
    lettered = [row for row in rows if row.protocol == "choice"]
    exchanged = [row for row in rows if row.task.startswith(EXCHANGED)]
    plain = [row for row in rows if row not in lettered and row not in exchanged]
    minutes, drawing = facts.seconds[name] / 60, facts.seconds["data"] / 60
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: {TAGS[name]}
---
# {name}

{ABOUT[name]}

**What it is not**: evidence about real models. It is a miniature that shows an effect and proves
the pipeline: it has seen nothing but the drawings of this project, and knows no other word. In
these drawings the first of two things is moved around the second, which stays: their relation can
be told without knowing which is which.

| | |
|---|---|
| data | {facts.scenes:,} rendered scenes under four relations each, of the train split alone |
| SHA-256 of the pictures | `{facts.pictures_sha256}` |
| steps | {steps:,} |
| seed | {facts.seed} |
| time | {minutes:.0f} minutes on 2 CPU cores, after {drawing:.0f} of drawing |
| weights | float16 on disk; evaluated in float32 |

Object pairs of the train split are in neither the validation nor the test split. Repeat it with
`make train-tiny`: other machines and versions of libraries round otherwise, so weights will differ,
and scores somewhat.

## Scores

On the test split, percent with the 95% interval over pairs (four-way: over sets); protocol
`{plain[0].protocol}`: `vlm-harness --model {name} --tasks {",".join(TASKS)}`

{table(plain)}
{_section("Asked by letter (`--protocol choice`)", lettered)}{_section(NAMES, exchanged)}"""


NAMES = """\
The same pictures with the two names exchanged in question, captions and answer (toy_models/tasks).
Who tells the two things apart answers these as well as those above; who has learned where the
first-named thing is in these drawings, where the second is always in the middle, answers none"""


def _section(heading: str, rows: Sequence[ResultRow]) -> str:
    return f"\n{heading}:\n\n{table(rows)}\n" if rows else ""


def table(rows: Sequence[ResultRow]) -> str:
    lines = [
        "| task | individual | pair | set of four | mean pair cosine |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        metrics = row.metrics
        cells = [
            _percent(metrics.get(metric))
            for metric in ("individual_accuracy", "pair_accuracy", "set_accuracy")
        ]
        cosine = metrics["mean_pair_cosine"].value
        cells.append("" if cosine is None else f"{cosine:.3f}")
        lines.append(f"| {row.task} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _percent(metric: Estimate | None) -> str:
    if metric is None or metric.value is None or metric.ci_low is None or metric.ci_high is None:
        return ""
    return f"{100 * metric.value:.1f} ({100 * metric.ci_low:.0f}-{100 * metric.ci_high:.0f})"
