"""Before a run: whether a recording answers what the run asks.

A recorded answer is the answer to one prompt, with the options in one order and one command. It is
not used for another, and a recording of other questions with the same ids is refused.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from vlm_harness.backends.interface import Asked
from vlm_harness.backends.replay.recording import Record, Recording, order_of, read
from vlm_harness.backends.replay.same_sample import Join, check_same
from vlm_harness.errors import InputError, listing
from vlm_harness.specs.schemas import ModelSpec

_COLUMN_HINT = "If the file says {what}, name its column: --model-args {name}=COLUMN ({content})."


def verify(spec: ModelSpec, asked: Iterable[Asked]) -> None:
    """Raise an InputError if the recording does not answer what a run asks."""
    recording = read(spec)
    cells: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    for each in filter(lambda each: each.questions, asked):
        cells[each.cell.task, each.cell.protocol].append(each)
    _check_protocols(recording, cells)
    for (task, _), several in cells.items():
        _check_sweeps(recording, task, several)
        for each in several:
            joins = _joined(recording, each)
            _check_orders(recording, each, joins)
            _check_answers(recording, each, joins)
        if recording.args.verify:
            check_same(recording, task, _joined(recording, several[0]))


def _joined(recording: Recording, asked: Asked) -> list[Join]:
    """What is asked about samples that have a record, with one of their records.

    Raises:
        InputError: no sample has a record.
    """
    joins = []
    for question in asked.questions:
        sample = question.request.sample
        assert sample is not None
        records = recording.records(sample)
        if records:
            joins.append(Join(question, recording.record_of(question.request) or records[0]))
    if not joins:
        raise InputError(
            f"no recorded answer belongs to a sample of task {asked.cell.task}: "
            f"{_both_keys(recording, asked)}",
            where=recording.path,
            hint="Give the columns that both sides have: --model-args keys=COLUMN, or args.keys in "
            "a model file if their names or values differ.",
        )
    return joins


def _both_keys(recording: Recording, asked: Asked) -> str:
    """One key of each side."""
    one = next(iter(recording.all_keys))
    sample = asked.questions[0].request.sample
    assert sample is not None
    return (
        f"the file has for instance {recording.named(one)}, the task "
        f"{recording.named(recording.key_of(sample))}"
    )


def _check_protocols(recording: Recording, cells: Iterable[tuple[str, str]]) -> None:
    """Scores of one protocol are not those of another."""
    protocols: dict[str, list[str]] = defaultdict(list)
    for task, protocol in cells:
        if protocol != "generate":
            protocols[task].append(protocol)
    for task, names in protocols.items():
        if len(names) > 1:
            raise InputError(
                f"recorded scores are those of one protocol, but this run uses them for "
                f"{listing(names)} (task {task})",
                where="--protocol",
                hint="Choose the protocol under which they were recorded.",
            )


def _check_sweeps(recording: Recording, task: str, asked: Sequence[Asked]) -> None:
    commands = dict.fromkeys(each.cell.command for each in asked)
    if len(commands) > 1 and not recording.states_command:
        raise InputError(
            f"recorded answers were given to one command, but this run uses several for task "
            f"{task}: {listing(commands)}",
            where="--command",
            hint="Choose the one under which they were recorded, e.g. --command "
            f"{next(iter(commands))}. "
            + _COLUMN_HINT.format(
                what="which command each answer was given to", name="command", content="its name"
            ),
        )
    decodings = dict.fromkeys(each.cell.decoding for each in asked)
    if len(decodings) > 1:
        raise InputError(
            f"recorded answers were decoded in one way, but this run asks for {listing(decodings)}",
            where="--decoding",
            hint="Choose one.",
        )


def _check_orders(recording: Recording, asked: Asked, joins: Sequence[Join]) -> None:
    """An answer is only used for the order in which its options were shown."""
    moved = [join for join in joins if join.question.reordered]
    answered = [join for join in moved if _recorded_order(join) == join.question.request.order]
    unknown = [join for join in moved if _recorded_order(join) is None]
    if not moved or (answered and not unknown):
        return
    raise InputError(
        f"recorded answers were given to the options in one order, but this run shows them in "
        f"another (task {asked.cell.task}, order: {asked.cell.order_mode})"
        if unknown
        else f"no answer was recorded with the options in another order than in the task, as this "
        f"run shows them (task {asked.cell.task}, order: {asked.cell.order_mode})",
        where="--order",
        hint="Pass --order fixed if the options were shown as in the task. "
        + _COLUMN_HINT.format(
            what="in which order they were shown",
            name="order",
            content="a list of option numbers, 0 for the first in the task, or of the options",
        ),
    )


def _recorded_order(join: Join) -> tuple[int, ...] | None:
    assert join.question.request.sample is not None
    return order_of(join.record, join.question.request.sample)


def _check_answers(recording: Recording, asked: Asked, joins: Sequence[Join]) -> None:
    """At least one sample has an answer in this order, to this command, for this protocol."""
    cell, kind = asked.cell, asked.questions[0].request.kind
    found: Record | None = None
    for join in joins:
        found = recording.record_of(join.question.request)
        if found is not None and recording.has_answer(found, kind):
            return
    one = joins[0]
    assert one.question.request.sample is not None
    keys = (
        f"e.g. {recording.named(one.record.key)} of the file and sample "
        f"{one.question.request.sample.id!r} of task {cell.task}"
    )
    if found is None:
        raise InputError(
            "no answer was recorded for the order of options and the command of this run: "
            f"{_settings(one)} ({keys})",
            where=recording.path,
            hint="Choose the recorded ones with --command and --order (--order both also shows the "
            "options in reversed order). If the columns mean something else, pass --model-args "
            "order=false or command=false.",
        )
    needed = "a text" if kind == "generate" else "a score per option"
    raise InputError(
        f"the protocol {cell.protocol} finds no answers: it needs {needed} per record ({keys})",
        where=recording.path,
        hint="Choose another --protocol, or name the column: --model-args text=COLUMN or "
        "scores=COLUMN.",
    )


def _settings(join: Join) -> str:
    question, record = join.question, join.record
    recorded, asked = [], []
    if record.order is not None:
        recorded.append(f"order {list(_recorded_order(join) or record.order)}")
        asked.append(f"order {list(question.request.order)}")
    if record.command is not None:
        recorded.append(f"command {record.command!r}")
        asked.append(f"command {question.request.command!r}")
    return f"recorded {', '.join(recorded)}; asked {', '.join(asked)}"
