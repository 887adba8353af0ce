"""Forming batches, and prefetching their images."""

import io
from collections.abc import Hashable
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from helpers.runs import go, lines, oracle
from vlm_harness.backends.fake import FakeBackend
from vlm_harness.errors import SampleError
from vlm_harness.images import ImageLoader
from vlm_harness.runs.batches import BatchSize
from vlm_harness.runs.evaluator import evaluate
from vlm_harness.types import ImageRef, Model, Request


def test_a_batch_grows_while_memory_is_free() -> None:
    size = BatchSize("auto", 8, iter([0.2, 0.89, 0.95]).__next__)
    size.on_success(5)  # not full: no information
    assert size.size == 8
    for expected in (16, 32, 32):
        size.on_success(size.size)
        assert size.size == expected
    size.on_out_of_memory(30)
    size.on_success(15)
    assert size.size == 15
    requested = BatchSize(3, 8)
    requested.on_success(3)
    assert requested.size == 3


def test_a_batch_on_the_cpu_does_not_grow() -> None:
    size = BatchSize("auto", 8)
    size.on_success(8)
    assert size.size == 8


def test_requests_about_the_same_images_are_adjacent_across_tasks(bench: Path) -> None:
    text = (bench / "specs" / "sides.yaml").read_text()
    (bench / "specs" / "more.yaml").write_text(text.replace("task: sides", "task: more"))
    backend = FakeBackend(oracle, "toy")
    run = evaluate(
        [backend], ["sides", "more"], protocol=["choice", "likelihood"], order="both",
        data_dir=str(bench / "data"), include_path=[str(bench / "specs")],
        output_dir=str(bench / "results"),
    )  # fmt: skip
    asked = [request.images for call in backend.calls for request in call]
    assert len(asked) == len(lines(run)) == 12 * 2 * 2 * 2
    changes = sum(one != other for one, other in pairwise(asked))
    assert changes == len(set(asked)) - 1


def test_batch_size_counts_shared_rows(bench: Path) -> None:
    class Rows(FakeBackend):
        def row_of(self, request: Request) -> Hashable:
            return request.images

    backend = Rows(oracle, "toy")
    go(bench, backend, protocol=["choice", "likelihood"], order="both", batch_size=5)
    assert [len({request.images for request in call}) for call in backend.calls] == [5, 5, 2]
    assert [len(call) for call in backend.calls] == [20, 20, 8]


def test_no_image_is_read_for_a_model_that_reads_none(
    bench: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr("vlm_harness.images.load", lambda ref: read.append(ref.path))
    go(bench, protocol=["choice"], batch_size=2, workers=2)
    assert read == []


@pytest.mark.parametrize("workers", [0, 3])
def test_images_are_read_once_with_or_without_prefetching(workers: int) -> None:
    read: list[str] = []

    def ref(name: str) -> ImageRef:
        def data() -> bytes:
            read.append(name)
            if name == "broken":
                raise OSError("no such file")
            buffer = io.BytesIO()
            Image.new("RGB", (4, 4), (9, 9, len(name))).save(buffer, "PNG")
            return buffer.getvalue()

        return ImageRef(name, read=data)

    names = ["a", "bb", "broken", "ccc"]
    with ImageLoader(keep=8, workers=workers, prepare=lambda pixels: pixels.size) as loader:
        loader.prefetch(map(ref, [*names, "a"]))
        for name in ("a", "bb", "ccc", "a"):
            assert loader.get(ref(name)).prepared == (4, 4)
        with pytest.raises(SampleError, match="no such file"):
            loader.get(ref("broken"))
        loader.prefetch([ref("a")])  # read before
        assert sorted(read) == sorted(names)


def test_unused_prefetched_images_are_dropped() -> None:
    """Images of the current batch are kept, those of earlier batches are dropped."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    read: list[str] = []

    def ref(name: str) -> ImageRef:
        def data() -> bytes:
            read.append(name)
            return buffer.getvalue()

        return ImageRef(name, read=data)

    with ImageLoader(keep=3, workers=1) as loader:
        for number in range(5):
            loader.prefetch(ref(f"{number} {n}") for n in range(40))
            if number:
                loader.get(ref(f"{number - 1} 0"))
        loader.get(ref("3 1"))
        loader.get(ref("4 39"))
        assert len(loader._pending) == 40 * 2 - 3
    assert len(read) == len(set(read))


def test_pixels_of_prepared_images_are_dropped() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (400, 300)).save(buffer, "PNG")
    loader = ImageLoader(prepare=lambda pixels: pixels.size)
    image = loader.get(ImageRef("a", read=buffer.getvalue))
    assert image.prepared == (400, 300)
    assert image.pixels.size == (1, 1)


def test_prepared_batches_give_the_same_answers(bench: Path) -> None:
    """At any batch size; if preparing fails, the run continues without it."""

    class Prepares(FakeBackend):
        def __init__(self, fails_from: int) -> None:
            super().__init__(oracle, "toy")
            self.prepared: list[int] = []
            self.fails_from = fails_from

        def info(self) -> Model:
            return Model(name="toy", backend="hf_vlm", checkpoint="(loaded)")

        def prepare(self, requests: list[Request], loader: ImageLoader) -> list[Request]:
            self.prepared.append(len(requests))
            if len(self.prepared) > self.fails_from:
                raise AttributeError("no deep copy")
            return requests

        def respond_to(self, prepared: list[Request]) -> object:
            if len(prepared) > 4:
                raise RuntimeError("CUDA out of memory")
            return super().respond(prepared, ImageLoader())

        def respond(self, requests: object, loader: ImageLoader) -> object:
            if len(requests) > 4:  # type: ignore[arg-type]
                raise RuntimeError("CUDA out of memory")
            return super().respond(requests, loader)  # type: ignore[arg-type]

    expected = sorted(map(str, lines(go(bench, FakeBackend(oracle, "toy"), protocol=["choice"]))))
    for size, fails_from, prepared in ((4, 9, [4, 4]), (6, 9, [6, 3, 3, 3]), (4, 0, [4])):
        backend = Prepares(fails_from)
        run = go(bench, backend, protocol=["choice"], batch_size=size, workers=1,
                 run_id=f"{size}-{fails_from}")  # fmt: skip
        assert sorted(map(str, lines(run))) == expected
        assert backend.prepared == prepared
