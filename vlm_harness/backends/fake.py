"""A backend driven by a handler: for tests, and to try out a task without a model.

backend = FakeBackend(lambda request: "left")            # text
backend = FakeBackend(lambda request: [0.2, 0.1])        # one score per candidate
"""

from collections.abc import Callable, Sequence

from pydantic import Field

from vlm_harness.backends.family import Family
from vlm_harness.backends.interface import LoadOptions
from vlm_harness.errors import SampleError, not_found
from vlm_harness.images import ImageLoader
from vlm_harness.specs.labels import without_labels
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.spec import Spec
from vlm_harness.types import Model, OptionScore, Request, Response


class FakeArgs(Spec):
    value: float = Field(0.5, description="returned by the handler `constant`")


Answer = str | Sequence[float] | Response | None
Handler = Callable[[Request], Answer]


class FakeBackend:
    """Answers each request with the result of ``handler``.

    The handler returns a text, one score per candidate, a complete ``Response``, or None for a
    missing answer; it raises SampleError for a sample that fails.
    """

    def __init__(
        self, handler: Handler, name: str = "fake", *, revision: str | None = None
    ) -> None:
        self.handler = handler
        self.name = name
        self.revision = revision
        self.calls: list[tuple[Request, ...]] = []

    def info(self) -> Model:
        return Model(self.name, "fake", checkpoint=self.name, revision=self.revision)

    def respond(self, requests: Sequence[Request], loader: ImageLoader) -> list[Response | None]:
        self.calls.append(tuple(requests))
        return [self._respond_one(request) for request in requests]

    def _respond_one(self, request: Request) -> Response | None:
        try:
            answer = self.handler(request)
        except SampleError as error:
            return Response(error=str(error))
        if answer is None or isinstance(answer, Response):
            return answer
        if isinstance(answer, str):
            return Response(text=answer)
        return Response(scores=tuple(OptionScore(float(value)) for value in answer))


def _oracle(request: Request) -> Answer:
    sample = request.sample
    assert sample is not None  # the evaluator always sets it
    if request.kind == "generate":
        return without_labels(sample.options)[sample.target]  # without the letter it is shown with
    return [float(i == sample.target) for i in range(len(sample.options))]


def _first(request: Request) -> Answer:
    assert request.sample is not None
    options = request.sample.options
    order = request.order or tuple(range(len(options)))
    if request.kind == "generate":
        return without_labels(options)[order[0]]
    return [-float(order.index(i)) for i in range(len(options))]


def _constant(value: float) -> Handler:
    def handler(request: Request) -> Answer:
        return str(value) if request.kind == "generate" else [value] * len(request.candidates)

    return handler


HANDLERS: dict[str, Callable[[float], Handler]] = {
    "oracle": lambda value: _oracle,
    "first": lambda value: _first,
    "constant": _constant,
}


def check(spec: ModelSpec) -> None:
    if spec.checkpoint not in HANDLERS:
        raise not_found(
            f"unknown handler {spec.checkpoint!r}", spec.checkpoint, HANDLERS, hint="Available: {}"
        )


def from_spec(spec: ModelSpec, options: LoadOptions) -> FakeBackend:
    """Build ``fake:oracle``, ``fake:first`` or ``fake:constant`` (argument ``value``)."""
    check(spec)
    return FakeBackend(HANDLERS[spec.checkpoint](float(spec.args.get("value", 0.5))), spec.model)


FAMILY = Family(
    summary="answers from a handler, for tests: oracle, first, constant",
    provides=frozenset({"generate", "score", "similarity"}),
    factory="vlm_harness.backends.fake:from_spec",
    args=FakeArgs,
    reads_images=False,
    without_image=True,
    default_batch=64,
    checker="vlm_harness.backends.fake:check",
    local_files=False,
    answers="invented",
)
