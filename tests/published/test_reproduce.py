"""Published tables: their values are those of the paper, and their cells can be rerun."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command
from vlm_harness.errors import InputError, TooManyErrors
from vlm_harness.published.reproduce import Here, Measured, measure
from vlm_harness.published.tables import TableCell, cells, load, paper_tables
from vlm_harness.specs.registry import Registry

COUNTS = {
    1: 20, 2: 50, 3: 6, 4: 40, 5: 80, 6: 8, 7: 4, 9: 24, 10: 24, 11: 20, 12: 52, 13: 60,
}  # fmt: skip
NULL = {3: 5, 6: 2}
RENDERED = """\
published: mine
columns:
  - {task: whatsup_rendered_a_left_right, metric: individual_accuracy}
  - {task: whatsup_rendered_a_left_right, metric: pair_accuracy}
  - {task: whatsup_rendered_a_on_under, metric: pair_accuracy}
rows:
  - {name: All right, model: "fake:oracle", protocol: similarity, values: [100, 99.9, null]}
  - {name: Always the first, model: "fake:first", protocol: generate, values: [50.0, 40.0, 0.0]}
  - {name: "Large [bold]", model: "hf_vlm:no/such", protocol: generate, values: [1, 2, 3]}
  - {name: Theirs, model: null, cited: true, protocol: generate, values: [1, 2, 3]}
"""


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.standard()


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Command:
    """``vlm-harness reproduce`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return partial(command, "reproduce")


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(RENDERED)
    return str(path)


# --- the paper's tables --------------------------------------------------------------------------


def test_the_paper_has_these_tables() -> None:
    assert list(paper_tables()) == list(COUNTS)


@pytest.mark.parametrize("number", COUNTS)
def test_table_loads_with_all_its_cells(number: int, registry: Registry) -> None:
    found = cells(load(str(number)), registry)
    assert len(found) == COUNTS[number]
    null = [cell for cell in found if cell.value is None]
    assert len(null) == NULL.get(number, 0)
    assert all(cell.note for cell in null)
    for cell in found:
        top = 1 if "cosine" in cell.metric else 100
        assert cell.value is None or 0 <= cell.value <= top
    places = Counter((c.name, c.task, c.metric, c.protocol, c.decoding) for c in found)
    assert set(places.values()) == {1}


@pytest.mark.parametrize(
    ("number", "model", "task", "metric", "protocol", "value"),
    [
        (1, "clip", "whatsup_a_left_right", "pair_accuracy", "similarity", 1.9),
        (1, "clip", "whatsup_b_front_behind", "mean_pair_cosine", "similarity", 0.902),
        (1, "llava", "whatsup_a_on_under", "individual_accuracy", "generate", 80.1),
        (2, "llava", "whatsup_b_four_way", "set_accuracy", "generate", 23.5),
        (2, "clip-vit-l-14-224", "gqa_spatial_one", "individual_accuracy", "similarity", 46.0),
        (3, "llava", "mmvp", "pair_accuracy", "choice", None),
        (4, "siglip", "coco_spatial_two", "individual_accuracy", "similarity", 48.6),
        (5, "clip", "gqa_spatial_one_left_right", "individual_accuracy", "similarity", 52.1),
        (7, "clip", "mmvp", "relaxed_pair_accuracy", "similarity", 64.0),
        (7, "llava", "mmvp", "relaxed_pair_accuracy", "likelihood", 73.3),
        (9, "siglip", "whatsup_b_left_right", "individual_accuracy", "similarity", 51.5),
        (12, "instructblip-vicuna-7b", "whatsup_a_on_under", "pair_accuracy", "generate", 87.4),
        (13, "llava", "gqa_spatial_two", "individual_accuracy", "generate", 90.7),
    ],
)
def test_numbers_of_the_paper(
    number: int, model: str, task: str, metric: str, protocol: str, value: float | None,
    registry: Registry,
) -> None:  # fmt: skip
    (cell,) = (
        cell
        for cell in cells(load(str(number)), registry, [model])
        if (cell.task, cell.metric, cell.protocol) == (task, metric, protocol)
    )
    assert cell.value == value


@pytest.mark.parametrize(
    ("number", "name", "values"),
    [
        (10, "SigLIP-ViT-L/16-384px + neg. cap.", [56.3, 26.2, 55.4, 25.5, 50.8, 48.4, 46.7, 53.4]),
        (11, "XVLM-16M + finetuning",
         [46.4, 28.4, 1.0, 34.6, 8.3, 1.0, 66.8, 65.2, 61.3, 51.2]),
        (5, "SigLIP-ViT-L/16-384px + finetuning", [49.0, 1.0, 51.0, 3.9, 50.8, 53.1, 49.7, 55.3]),
    ],
)  # fmt: skip
def test_rows_without_a_public_model(
    number: int, name: str, values: list[float], registry: Registry
) -> None:
    found = [cell for cell in cells(load(str(number)), registry) if cell.name == name]
    assert [cell.value for cell in found] == values
    assert not any(cell.repeatable for cell in found)


def test_decoding_and_citations_of_table_6(registry: Registry) -> None:
    found = cells(load("6"), registry)
    assert [c.value for c in found if c.decoding == "m3id"] == [64.3, 31.3]
    assert [c.value for c in found if c.cited] == [None, 27.3, None, 31.3]


def test_rows_that_tables_share_are_the_same(registry: Registry) -> None:
    seen: dict[tuple[Any, ...], float | None] = {}
    for number in COUNTS:
        for cell in cells(load(str(number)), registry):
            if cell.repeatable and cell.value is not None:
                key = (cell.model, cell.task, cell.metric, cell.protocol, cell.decoding)
                assert seen.setdefault(key, cell.value) == cell.value


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", COUNTS)
def test_dry_run_lists_every_cell(number: int, call: Command, tmp_path: Path) -> None:
    code, out, _ = call(str(number), "--dry-run", "--data-dir", str(tmp_path))
    assert code == 0
    assert out.count(" missing │\n") == COUNTS[number]  # all data is missing
    assert f"{COUNTS[number]} cells; 0 can run now. " in out


def test_dry_run_reports_what_is_available(call: Command, table: str) -> None:
    code, out, _ = call(table, "--dry-run", "--json")
    assert code == 0
    state = [(cell["model"], cell["weights"], cell["data"]) for cell in json.loads(out)]
    assert state[::3] == [
        ("fake:oracle", "here", "here"),
        ("fake:first", "here", "here"),
        ("hf_vlm:no/such", "not here", "here"),
        (None, "quoted", "here"),
    ]


def test_measured_beside_published(call: Command, table: str) -> None:
    code, out, err = call(table, "--limit", "8")
    assert code == 0, err
    rows = [
        [part.strip() for part in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line
    ]
    assert [(row[0], row[4], row[5], row[7]) for row in rows] == [
        ("fake:oracle", "100.0", "100.0", "within"),
        ("fake:oracle", "99.9", "100.0", "within"),
        ("fake:oracle", "-", "100.0", "-"),
        ("fake:first", "50.0", "50.0", "within"),
        ("fake:first", "40.0", "0.0", "within"),  # Wilson's interval of 0 of 4 pairs
        ("fake:first", "0.0", "0.0", "within"),
        ("hf_vlm:no/such", "1.0", "-", "not measured"),
        ("hf_vlm:no/such", "2.0", "-", "not measured"),
        ("hf_vlm:no/such", "3.0", "-", "not measured"),
    ]
    assert "partial run: --limit 8" in out
    assert "3 cells skipped: cited from other papers" in out
    assert "not measured: model no-such: the weights" in out


def test_one_run_per_protocol_and_decoding(call: Command, table: str, tmp_path: Path) -> None:
    code, out, _ = call(table, "--limit", "4", "--json", "--model", "fake:oracle,fake:first")
    assert code == 0
    assert len(json.loads(out)) == 6
    assert len(list((tmp_path / "results").glob("*/manifest.json"))) == 2
    # The same command reuses its runs.
    assert call(table, "--limit", "4", "--json", "--model", "fake:oracle,fake:first")[1] == out


def test_the_best_command_of_each_cell(call: Command, table: str) -> None:
    asked = (table, "--limit", "4", "--model", "fake:oracle,fake:first", "--best-command")
    found = json.loads(call(*asked, "--json")[1])
    commands = {each["cell"]["protocol"]: each["command"] for each in found}
    assert commands == {"similarity": None, "generate": "default"}
    text = call(*asked)[1]
    assert "0.0 (default)" in text
    assert "(command): the best command, chosen on the test samples" in text


def test_no_cell_that_can_be_run_is_one_message(call: Command, tmp_path: Path) -> None:
    code, out, err = call("1", "--data-dir", str(tmp_path))
    assert (code, out) == (2, "")
    assert "none of the 20 cells can be run: weights or data are missing" in err
    assert "controlled_images_dataset.json" in err


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "[50.0, 40.0, 0.0]",
            "[50.0]",
            "mine.yaml:8: row 'Always the first' has 1 values, expected 3",
        ),
        ("model: null,", "", "mine.yaml:10: rows.3.model: this key is required"),
        ("cited:", "sited:", "mine.yaml:10: unknown key 'rows.3.sited'; did you mean 'cited'?"),
        ("[1, 2, 3]}\n  - {name: T", "[1, x, 3]}\n  - {name: T", "mine.yaml:9: rows.2.values.1:"),
        ("fake:first", "first-ever", "mine.yaml:8: unknown model 'first-ever'"),
        ("individual_acc", "indvidual_acc", "mine.yaml:3: unknown metric 'indvidual_accuracy'"),
        ("metric: individual_accuracy", "metric: set_accuracy", "mine.yaml:3: task whatsup"),
        ("a_on_under", "a_on_udner", "mine.yaml:5: unknown task 'whatsup_rendered_a_on_udner'"),
        ("protocol: similarity", "protocol: similar", "mine.yaml:7: unknown protocol 'similar'"),
        ("protocol: similarity, ", "", "mine.yaml:7: row 'All right' has no protocol"),
        ("cited: true", "decoding: m3ld", "mine.yaml:10: unknown decoding 'm3ld'"),
        ("published: mine\n", "", "published: this key is required"),
    ],
)
def test_bad_tables(call: Command, table: str, old: str, new: str, message: str) -> None:
    assert old in RENDERED
    Path(table).write_text(RENDERED.replace(old, new))
    code, out, err = call(table)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["8"], "TABLE: the paper's Table 8 has no results; available: 1 to 7, 9 to 13"),
        (["none.yaml"], "none.yaml: cannot be read: No such file"),
        (["1", "--model", "lava"], "--model: the table has no model 'lava'; did you mean 'llava'?"),
    ],
)
def test_bad_arguments(call: Command, args: list[str], message: str) -> None:
    code, out, err = call(*args)
    assert (code, out) == (2, "")
    assert message in err


# --- comparison ----------------------------------------------------------------------------------


def _cell(value: float | None, metric: str = "pair_accuracy") -> TableCell:
    return TableCell("M", "m", "t", metric, "generate", "greedy", value, False, None, "x.yaml:1")


@pytest.mark.parametrize(
    ("measured", "agrees"),
    [
        (Measured(_cell(50.0), 52.0, 50.04, 54.0), True),  # 50.04 is printed as 50.0
        (Measured(_cell(50.0), 52.0, 50.06, 54.0), False),
        (Measured(_cell(54.0), 52.0, 50.0, 53.9), False),
        (Measured(_cell(0.995, "mean_pair_cosine"), 0.99, 0.98, 0.9946), True),
        (Measured(_cell(0.995, "mean_pair_cosine"), 0.99, 0.98, 0.994), False),
        (Measured(_cell(None), 52.0, 50.0, 54.0), None),
        (Measured(_cell(52.0), 52.0), None),
        (Measured(_cell(52.0), problem="not here"), None),
    ],
)
def test_agrees_within_rounding(measured: Measured, agrees: bool | None) -> None:
    assert measured.agrees is agrees


def test_a_run_that_fails_does_not_stop_the_rest(
    table: str, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlm_harness.published import reproduce

    real = reproduce.evaluate

    def evaluate(models: Any, tasks: Any, **options: Any) -> Any:
        if options["protocol"] == ["similarity"]:
            raise TooManyErrors("every sample failed")
        return real(models, tasks, **options)

    monkeypatch.setattr(reproduce, "evaluate", evaluate)
    wanted = cells(load(table), registry, ["fake:oracle", "fake:first"])
    measured, stopped = measure(
        wanted, Here(registry), limit=4, output_dir=str(tmp_path / "results")
    )
    assert isinstance(stopped, TooManyErrors)
    assert [each.problem for each in measured] == ["every sample failed"] * 3 + [None] * 3


def test_missing_images(bench: Path, tmp_path: Path) -> None:
    found = Registry.standard([str(bench / "specs")])
    path = tmp_path / "t.yaml"
    path.write_text(
        "published: t\ncolumns: [{task: sides, metric: pair_accuracy}]\n"
        "rows:\n  - {name: a, model: 'fake:oracle', protocol: choice, values: [1]}\n"
        "  - {name: b, model: 'hf_vlm:no/such', protocol: choice, values: [1]}\n"
    )
    (bench / "data" / "sides" / "thing0-left.png").unlink()
    here = Here(found, str(bench / "data"))
    blind, seeing = cells(load(str(path)), found)
    assert here.data(blind) is None  # a fake model reads no images
    problem = here.data(seeing)
    assert isinstance(problem, InputError)
    assert "1 of 12 images are missing" in problem.message
