"""A file of recorded answers: its records, and which of them answers a request."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vlm_harness.backends.replay.rows import (
    Order,
    are_scores,
    has,
    is_text,
    option_scores,
    order_in,
    read_rows,
    text_of,
    value_of,
)
from vlm_harness.datasets.records import Row
from vlm_harness.errors import InputError, SampleError, clip, listing, shown
from vlm_harness.specs.labels import without_labels
from vlm_harness.specs.schemas import ModelSpec
from vlm_harness.specs.spec import NAME, Spec
from vlm_harness.specs.templates import TemplateError, compile_template
from vlm_harness.types import Kind, Request, Response, Sample

TEXT_COLUMNS = ("text", "response.text", "response", "generation", "answer", "prediction")
SCORE_COLUMNS = ("scores", "response.scores")
ID_COLUMNS = ("sample_id", "id")
ORDER_COLUMNS = ("order", "shown", "options")


class ReplayArgs(Spec):
    keys: str | list[str] | dict[str, str] | None = Field(
        None,
        description="key column(s) of the records, mapped to Jinja over the sample's fields if the "
        "names differ; default: the column sample_id or id, matched with the sample's id",
    )
    text: str | None = Field(None, description="column with the answer text")
    scores: str | None = Field(
        None, description="column with a score per option, or a list in canonical order"
    )
    order: str | Literal[False] | None = Field(
        None,
        description="column with the order in which the options were shown: a list of option "
        "numbers (0 is the first in the task) or of the options; default: order, shown or options, "
        "if it has such lists; false: no column",
    )
    command: str | Literal[False] | None = Field(
        None,
        description="column with the name of the command; default: command; false: no column",
    )
    verify: bool = Field(
        True, description="whether recorded questions and images must be those of the samples"
    )
    compare: Literal["exact", "ignore_case"] = "exact"


@dataclass(frozen=True)
class Record:
    """One row of the file."""

    row: Row
    number: int
    key: tuple[str, ...]
    order: Order | None
    """The order in which the options were shown; None if the file does not say."""
    command: str | None


class Recording:
    """The records of a file by key.

    Raises:
        InputError: a declared column is missing, or two records with the same key, order and
            command have different answers.
    """

    def __init__(self, spec: ModelSpec, path: Path) -> None:
        self._spec, self.path = spec, path
        self.args = ReplayArgs.model_validate(spec.args)
        self.rows = read_rows(path)
        self._columns = listing(dict.fromkeys(name for row in self.rows for name in row))
        self.keys = self._join_keys()
        self.text, self.scores = self._answer_columns()
        self._order, self._command = self._order_column(), self._command_column()
        self._records: dict[tuple[str, ...], list[Record]] = {}
        for number, row in enumerate(self.rows, 1):
            self._add(row, number)

    @property
    def n_keys(self) -> int:
        return len(self._records)

    @property
    def all_keys(self) -> Iterable[tuple[str, ...]]:
        return self._records.keys()

    @property
    def sources(self) -> dict[str, str]:
        """Key columns, with what they are compared to."""
        return {key: source or f"{{{{ {key} }}}}" for key, source in self.keys.items()}

    @property
    def states_order(self) -> bool:
        return self._order is not None

    @property
    def states_command(self) -> bool:
        return self._command is not None

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of requests for which the file has an answer."""
        found: set[Kind] = set()
        if any(text_of(value_of(row, self.text)) is not None for row in self.rows):
            found.add("generate")
        if any(value_of(row, self.scores) is not None for row in self.rows):
            found |= {"score", "similarity"}
        return frozenset(found)

    def columns_besides_answers(self, names: Sequence[str]) -> list[str]:
        """Those of the columns that the file has and that are neither keys nor answers."""
        taken = {*self.keys, self.text, self.scores, self._order, self._command}
        return [name for name in names if name not in taken and self._has(name)]

    def key_of(self, sample: Sample) -> tuple[str, ...]:
        """The values by which a sample's records are found."""
        context = {**sample.fields, "id": sample.id}
        try:
            return tuple(
                self._normal(
                    compile_template(source)(context) if source else self._field(key, context)
                )
                for key, source in self.keys.items()
            )
        except TemplateError as error:
            raise InputError(f"keys: {error}", where=self._spec.at("args", "keys")) from None

    def named(self, key: Sequence[str]) -> str:
        """A key as ``column=value``, for messages."""
        return clip(
            ", ".join(f"{name}={value!r}" for name, value in zip(self.keys, key, strict=True))
        )

    def records(self, sample: Sample) -> list[Record]:
        """The records of a sample, of any order and command."""
        return self._records.get(self.key_of(sample), [])

    def record_of(self, request: Request) -> Record | None:
        """The record that answers a request: its sample's, in its order, under its command."""
        assert request.sample is not None  # the evaluator always sets it
        found = [
            (each.order is None, each.command is None, n, each)
            for n, each in enumerate(self.records(request.sample))
            if each.command in (None, request.command)
            and order_of(each, request.sample) in (None, request.order)
        ]
        return min(found)[-1] if found else None

    def has_answer(self, record: Record, kind: Kind) -> bool:
        if kind == "generate":
            return text_of(value_of(record.row, self.text)) is not None
        return value_of(record.row, self.scores) is not None

    def respond(self, request: Request) -> Response | None:
        """The recorded response; None if there is none."""
        record = self.record_of(request)
        if record is None or not self.has_answer(record, request.kind):
            return None
        if request.kind == "generate":
            return Response(text=text_of(value_of(record.row, self.text)))
        assert request.sample is not None
        try:
            scores = option_scores(value_of(record.row, self.scores), request.sample)
        except SampleError as error:
            return Response(error=str(error))
        return Response(scores=scores)

    def _add(self, row: Row, number: int) -> None:
        text = value_of(row, self.text)
        if isinstance(text, list | dict) and not is_text(text):
            raise InputError(
                f"column {self.text!r}: expected a text, found {shown(text)}",
                where=f"{self.path}: row {number}",
                hint="Name a value inside an object with a dot, e.g. text=COLUMN.NAME.",
            )
        key = tuple(self._normal(value_of(row, column)) for column in self.keys)
        record = Record(row, number, key, self._order_in(row, number), self._command_in(row))
        same = self._records.setdefault(key, [])
        for other in same:
            if (other.order, other.command) != (record.order, record.command):
                continue
            if self._answer(other.row) != self._answer(row):
                raise InputError(
                    f"two rows with the key {self.named(key)} have different answers",
                    where=f"{self.path}: row {number}",
                    hint="Add columns to keys until each row has a unique key.",
                )
            return
        same.append(record)

    def _answer(self, row: Row) -> tuple[Any, Any]:
        return value_of(row, self.text), value_of(row, self.scores)

    def _field(self, key: str, context: Mapping[str, Any]) -> Any:
        if not has(context, key):
            raise InputError(
                f"keys: the task has no field {key!r}; fields: {listing(context)}",
                where=self._spec.at("args", "keys"),
                hint="Map the column to the task's fields in a model file: "
                f'keys: {{{key}: "{{{{ ... }}}}"}}.',
            )
        return value_of(context, key)

    def _has(self, column: str) -> bool:
        return any(has(row, column) for row in self.rows)

    def _require(self, *columns: str | None) -> None:
        for column in columns:
            if column is not None and not self._has(column):
                raise InputError(f"no column {column!r}; columns: {self._columns}", where=self.path)

    def _join_keys(self) -> dict[str, str | None]:
        """The key columns; None for those that the task's fields have under the same name."""
        keys = self.args.keys
        if keys is None:
            found = [column for column in ID_COLUMNS if self._has(column)]
            if not found:
                raise InputError(
                    f"no column sample_id or id to join on; columns: {self._columns}",
                    where=self.path,
                    hint="Name the key columns in args.keys (or --model-args keys=COLUMN).",
                )
            return {found[0]: "{{ id }}"}
        names = [keys] if isinstance(keys, str) else keys
        mapped: dict[str, str | None] = {**names} if isinstance(names, dict) else {}
        mapped = mapped or dict.fromkeys(names)
        self._require(*mapped)
        return mapped

    def _answer_columns(self) -> tuple[str | None, str | None]:
        text, scores = self.args.text, self.args.scores
        self._require(text, scores)
        if text is None and scores is None:
            text = next((c for c in TEXT_COLUMNS if self._holds(c, is_text)), None)
        if scores is None:
            scores = next((c for c in SCORE_COLUMNS if self._holds(c, are_scores)), None)
        if text is None and scores is None:
            raise InputError(
                f"cannot tell which column holds the answer; columns: {self._columns}",
                where=self.path,
                hint="Name it in args.text or args.scores (or --model-args text=COLUMN).",
            )
        return text, scores

    def _holds(self, column: str, accepts: Any) -> bool:
        return any(accepts(value_of(row, column)) for row in self.rows)

    def _order_column(self) -> str | None:
        if isinstance(self.args.order, str):
            self._require(self.args.order)
            return self.args.order
        if self.args.order is False:
            return None
        for column in ORDER_COLUMNS:
            values = [value for row in self.rows if (value := value_of(row, column)) is not None]
            if values and all(order_in(value) is not None for value in values):
                return column
        return None

    def _order_in(self, row: Row, number: int) -> Order | None:
        value = value_of(row, self._order)
        order = order_in(value)
        if value is not None and order is None:  # the column was named, so it must have orders
            raise InputError(
                f"column {self._order!r}: expected a list of option numbers or of options, found "
                f"{shown(value)}",
                where=f"{self.path}: row {number}",
            )
        return order

    def _command_column(self) -> str | None:
        if isinstance(self.args.command, str):
            self._require(self.args.command)
            return self.args.command
        values = [value for row in self.rows if (value := value_of(row, "command")) is not None]
        names = all(isinstance(value, str) and re.match(NAME, value) for value in values)
        return "command" if values and names and self.args.command is None else None

    def _command_in(self, row: Row) -> str | None:
        value = value_of(row, self._command)
        return None if value is None or value == "" else str(value)

    def _normal(self, value: Any) -> str:
        text = str(value).strip()
        return text.casefold() if self.args.compare == "ignore_case" else text


def path_of(spec: ModelSpec) -> Path:
    """The file of recorded answers; raises InputError if it is missing."""
    name = Path(spec.checkpoint).expanduser()
    folder = spec.path.parent if spec.path else Path()
    for path in (name, folder / name):
        if path.is_file():
            return path
    raise InputError(f"file of recorded answers not found: {name}", where=spec.at("checkpoint"))


def read(spec: ModelSpec) -> Recording:
    """The recording of a model; the file is parsed once.

    Raises:
        InputError: the file is missing or cannot be parsed, or as ``Recording``.
    """
    path = path_of(spec)
    changed = path.stat()
    return _parsed(_Source(spec, path), changed.st_mtime_ns, changed.st_size)


def kinds(spec: ModelSpec) -> frozenset[Kind]:
    """The kinds of requests that the recording answers; all, if it cannot be read."""
    try:
        return read(spec).kinds
    except InputError:  # reported by the check of the model, together with other problems
        return frozenset({"generate", "score", "similarity"})


@dataclass(frozen=True, eq=False)
class _Source:
    spec: ModelSpec
    path: Path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Source) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Path, str]:
        return self.path.resolve(), json.dumps(self.spec.args, sort_keys=True, default=str)


@lru_cache(maxsize=4)
def _parsed(source: _Source, changed: int, size: int) -> Recording:
    return Recording(source.spec, source.path)


def order_of(record: Record, sample: Sample) -> tuple[int, ...] | None:
    """The recorded order of a sample's options, as option numbers; None if it is not known."""
    order = record.order
    if order is None:
        return None
    if all(isinstance(item, int) for item in order):
        return tuple(map(int, order))
    names = _plain_options(sample.options)
    recorded = _plain_options([str(item) for item in order])
    if sorted(names) != sorted(recorded):
        return None
    return tuple(names.index(name) for name in recorded)


def _plain_options(options: Sequence[str]) -> list[str]:
    return [" ".join(each.casefold().split()).rstrip(".") for each in without_labels(options)]
