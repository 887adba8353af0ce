"""Runs that are stopped: by a person, by a time limit, by samples that all fail."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import ROOT, Tool, python, write_sides
from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.deadline import TimedOut, deadline
from vlm_harness.errors import TooManyErrors
from vlm_harness.logs.rescore import rescore
from vlm_harness.runs.interrupts import Interrupts
from vlm_harness.types import OptionScore, Request, Response

# --- by a person ---------------------------------------------------------------------------------

SLOW = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from helpers.runs import oracle
from vlm_harness import cli
from vlm_harness.backends import BACKENDS, fake
def slowly(request):
    Path("begun").touch()
    time.sleep(0.2)
    return oracle(request)
fake.HANDLERS["oracle"] = lambda seed: slowly
cli.main()
"""


def started(bench: Path, *args: str) -> "subprocess.Popen[str]":
    """The command in a process of its own, in a batch of four that takes 0.8 s."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW.format(tests=str(ROOT / "tests")), "run",
         "--model", "fake:oracle", "--tasks", "sides", "--protocol", "choice", "--batch-size", "4",
         "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
         "--run-id", "stopped", *args],
        cwd=bench, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} was not there within 30 s")


def log(bench: Path) -> list[str]:
    path = bench / "results" / "stopped" / "samples" / "oracle__sides__choice.jsonl"
    return path.read_text().splitlines(keepends=True) if path.exists() else []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_once_finishes_the_batch(bench: Path, number: int) -> None:
    run = started(bench)
    wait_for(bench / "begun")
    run.send_signal(number)
    _, messages = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "stopping after this batch; Ctrl-C again stops at once" in messages
    assert "interrupted; what was finished is kept" in messages
    assert "Traceback" not in messages
    assert len(log(bench)) == 4
    results = json.loads((bench / "results" / "stopped" / "results.json").read_text())
    assert not results["results"][0]["complete"]

    (bench / "begun").unlink()
    again = started(bench)
    _, messages = again.communicate(timeout=60)
    assert again.returncode == 0, messages
    assert len(log(bench)) == 12
    assert all(json.loads(line)["correct"] for line in log(bench))


def test_twice_stops_at_once(bench: Path) -> None:
    run = started(bench, "--batch-size", "12")  # which takes 2.4 s
    wait_for(bench / "begun")
    begun = time.monotonic()
    run.send_signal(signal.SIGINT)
    time.sleep(0.1)
    run.send_signal(signal.SIGINT)
    _, messages = run.communicate(timeout=60)
    assert time.monotonic() - begun < 2.0
    assert run.returncode == 130
    assert "Traceback" not in messages
    assert log(bench) == []


def test_between_batches_it_is_at_once() -> None:
    interrupts = Interrupts()
    with interrupts.held("this batch"):
        pass
    with pytest.raises(KeyboardInterrupt):
        interrupts._handle(signal.SIGINT, None)


# --- by a time limit -----------------------------------------------------------------------------


def test_a_sample_that_takes_too_long_has_failed(bench: Path) -> None:
    def hangs(request: Request) -> Any:
        assert request.sample is not None
        if request.sample.id == "thing3-left":
            time.sleep(30)
        return oracle(request)

    begun = time.monotonic()
    run = go(bench, hangs, protocol=["choice"], timeout=0.05, batch_size=4)
    assert time.monotonic() - begun < 10
    failed = [line for line in lines(run) if line["status"] == "error"]
    assert [line["sample_id"] for line in failed] == ["thing3-left"]
    assert failed[0]["error"] == "timed out: no answer within 0.05 s"
    assert run.results[0]["n_errors"] == 1
    assert run.results[0]["metrics"]["individual_accuracy"]["value"] == pytest.approx(11 / 12)


def goes_on_whatever_happens() -> None:
    with deadline(0.02):
        for _ in range(100):
            with suppress(Exception):
                time.sleep(0.05)


def test_a_limit_that_libraries_cannot_swallow() -> None:
    with pytest.raises(TimedOut):
        goes_on_whatever_happens()
    with deadline(0.02):
        pass
    time.sleep(0.05)  # it does not ring afterwards
    with deadline(None):
        pass


# --- by samples that fail ------------------------------------------------------------------------


def fails(request: Request) -> Any:
    raise RuntimeError("the weights are broken")


def test_a_model_that_always_fails_stops_at_once(bench: Path) -> None:
    write_sides(bench / "data", pairs=200)
    with pytest.raises(TooManyErrors) as caught:
        go(bench, FakeBackend(fails, "toy"), protocol=["choice"], batch_size=8)
    message = str(caught.value)
    assert "all of the first 16 samples of toy failed" in message
    assert "RuntimeError: the weights are broken" in message
    (log,) = (bench / "results").glob("*/samples/*.jsonl")
    assert len(log.read_text().splitlines()) == 16


def test_one_success_among_the_first_goes_on(bench: Path) -> None:
    write_sides(bench / "data", pairs=200)

    def nearly(request: Request) -> Any:
        assert request.sample is not None
        return oracle(request) if request.sample.id == "thing100-left" else fails(request)

    with pytest.raises(TooManyErrors, match="more than --max-errors 10% allows"):
        go(bench, nearly, protocol=["choice"], batch_size=8)


def test_who_wants_all_failures_gets_them(bench: Path) -> None:
    write_sides(bench / "data", pairs=20)
    with pytest.raises(TooManyErrors, match="every sample failed"):
        go(bench, FakeBackend(fails, "toy"), protocol=["choice"], max_errors="100%")
    (log,) = (bench / "results").glob("*/samples/*.jsonl")
    assert len(log.read_text().splitlines()) == 40


# --- by a disk -----------------------------------------------------------------------------------

FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
sys.argv = ["vlm-harness", *sys.argv[1:]]
from vlm_harness import cli
cli.main()
"""


def test_no_space_is_one_message_and_loses_nothing(bench: Path) -> None:
    """A limit on the size of files, which fails in the middle of a line as a full disk does."""
    write_sides(bench / "data", pairs=30)
    args = [
        "--model", "fake:oracle", "--tasks", "sides", "--protocol", "choice", "--run-id", "r",
        "--include-path", str(bench / "specs"), "--data-dir", str(bench / "data"),
    ]  # fmt: skip
    done = python("-c", FULL, *args, cwd=bench)
    assert done.code == 2, done.err
    assert "oracle__sides__choice.jsonl: cannot be written: File too large" in done.err
    assert "Traceback" not in done.err
    log = bench / "results" / "r" / "samples" / "oracle__sides__choice.jsonl"
    whole = log.read_bytes().count(b"\n")
    assert 20 < whole < 60
    assert not log.read_bytes().endswith(b"\n")  # torn
    again = python("-m", "vlm_harness", *args, cwd=bench)
    assert again.code == 0, again.err
    assert f"({whole} of 60 done before)" in again.err
    assert len({json.loads(line)["sample_id"] for line in log.read_bytes().splitlines()}) == 60


@pytest.mark.parametrize("place", ["/proc/results", "/sys/results", "data/sides/rows.jsonl"])
def test_a_place_where_nothing_can_be_written(tool: Tool, place: str) -> None:
    message = tool.refused("--protocol", "choice", "--output-dir", place)
    assert len(message.splitlines()) <= 3


# --- by models that answer wrongly ---------------------------------------------------------------

NAN = float("nan")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Response(scores=(OptionScore(NAN, NAN, 1), OptionScore(0.0, 0.0, 1))), "not finite"),
        (
            Response(scores=(OptionScore(float("inf")), OptionScore(0.0)), pair_cosine=NAN),
            "not fin",
        ),
        (Response(scores=(OptionScore(0.5),)), "gave 1 scores for 2 candidates"),
        (Response(scores=()), "gave 0 scores for 2 candidates"),
    ],
    ids=str,
)
def test_scores_that_are_none(bench: Path, answer: Response, reason: str) -> None:
    """Of one sample in twelve: logged, counted, and read again."""

    def once(request: Request) -> Any:
        assert request.sample is not None
        return answer if request.sample.id == "thing2-left" else oracle(request)

    for protocol in ("choice", "similarity"):
        run = go(bench, once, protocol=[protocol], run_id=protocol)
        failed = [line for line in lines(run) if line["status"] == "error"]
        assert [line["sample_id"] for line in failed] == ["thing2-left"]
        assert reason in failed[0]["error"]
        assert rescore(run.path) == run.results


def test_a_batch_of_too_few_answers(bench: Path) -> None:
    class Short(FakeBackend):
        def respond(self, requests: Any, loader: Any) -> Any:
            return super().respond(requests, loader)[1:] if len(requests) > 1 else [None] * 2

    with pytest.raises(TooManyErrors, match="2 responses to 1 requests"):
        go(bench, Short(oracle, "toy"), protocol=["choice"])
