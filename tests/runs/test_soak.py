"""A long run: counts are exact, and memory does not grow."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.bench import python
from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.types import Request

SOAK = """
import json, resource, sys, zlib
from pathlib import Path
from helpers.runs import oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.runs.evaluator import evaluate

place, n = Path(sys.argv[1]), int(sys.argv[2])
(place / "specs").mkdir(parents=True)
(place / "data").mkdir()
(place / "specs" / "task.yaml").write_text('''
task: long
version: 1
dataset: {reader: jsonl, path: rows.jsonl}
sample:
  id: "{{ n }}"
  options: [left, right]
  target: "{{ n % 2 }}"
  pair: "{{ n // 2 }}"
prompt: {question: "Where is {{ n }}?"}
protocols: {generate: {}}
metrics: [individual_accuracy, pair_accuracy]
primary_metric: pair_accuracy
''')
with (place / "data" / "rows.jsonl").open("w") as rows:
    rows.writelines(json.dumps({"n": number}) + "\\n" for number in range(n))

def fails(name):
    return zlib.crc32(name.encode()) % 100 == 0

def answer(request):
    if fails(request.sample.id):
        raise RuntimeError("at random")
    return oracle(request)

run = evaluate([FakeBackend(answer, "toy")], ["long"], include_path=[str(place / "specs")],
               data_dir=str(place / "data"), output_dir=str(place / "results"), max_errors="5%")
row = run.results[0]
pairs = {number // 2 for number in range(n) if fails(str(number))}
print(json.dumps({
    "failing": sum(fails(str(number)) for number in range(n)), "pairs": len(pairs),
    "n_samples": row["n_samples"], "n_errors": row["n_errors"], "complete": row["complete"],
    "individual": row["metrics"]["individual_accuracy"]["value"],
    "pair": row["metrics"]["pair_accuracy"]["value"],
    "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def soak(place: Path, n: int) -> Any:
    done = python("-c", SOAK, str(place), str(n))
    assert done.code == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    assert found["n_samples"] == n
    assert found["n_errors"] == found["failing"]
    assert not found["complete"]
    assert found["individual"] == pytest.approx(1 - found["failing"] / n, abs=1e-12)
    assert found["pair"] == pytest.approx(1 - found["pairs"] / (n / 2), abs=1e-12)
    log = place / "results"
    (path,) = log.glob("*/samples/*.jsonl")
    with path.open() as stream:
        status = [json.loads(line)["status"] for line in stream]
    assert len(status) == n
    assert status.count("error") == found["failing"]
    return found


def test_four_thousand_samples(tmp_path: Path) -> None:
    soak(tmp_path, 4000)


@pytest.mark.slow
def test_a_hundred_thousand_samples(tmp_path: Path) -> None:
    """At most about 4 KB per sample, for the tables of samples and of their records."""
    few, many = soak(tmp_path / "few", 1000), soak(tmp_path / "many", 100_000)
    assert many["failing"] > 900
    assert many["megabytes"] - few["megabytes"] < 400


@settings(
    deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6), size=st.integers(1, 9), share=st.floats(0.05, 0.95))
def test_out_of_memory_anywhere(bench: Path, seed: int, size: int, share: float) -> None:
    """Whichever batches run out of memory, the results are those of an undisturbed run."""
    chance = random.Random(seed)

    class Full(FakeBackend):
        def respond(self, requests: Any, loader: Any) -> Any:
            if len(requests) > 1 and chance.random() < share:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return super().respond(requests, loader)

    def half(request: Request) -> Any:
        assert request.sample is not None
        correct = oracle(request)
        return correct if request.sample.id.endswith("left") else correct[::-1]

    settings: dict[str, Any] = {
        "protocol": ["choice", "likelihood"],
        "order": "both",
        "fresh": True,
    }
    run = go(bench, Full(half, "toy"), batch_size=size, run_id="full", **settings)
    plain = go(bench, FakeBackend(half, "toy"), run_id="plain", **settings)

    def ordered(found: Any) -> list[str]:
        return sorted(map(json.dumps, lines(found)))

    assert ordered(run) == ordered(plain)
    assert run.results == plain.results
