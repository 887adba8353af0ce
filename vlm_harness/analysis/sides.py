"""Selects the cells to compare: one model per side, and one cell per task and protocol."""

from collections.abc import Mapping, Sequence

from vlm_harness.analysis.comparable import Side, both
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.logs.run import Run
from vlm_harness.types import ASKED, Cell

CHOOSABLE = ("model", "protocol", *ASKED)
"""Fields of a cell that ``--only`` selects by."""


def sides(
    run_a: Run, run_b: Run, only_a: Mapping[str, str], only_b: Mapping[str, str]
) -> tuple[Side, Side]:
    """The cells of both sides. For a single run of two models, each side gets one by default.

    Raises:
        InputError: no such cell, or more than one model is left.
    """
    for argument, chosen in (("only_a", only_a), ("only_b", only_b)):
        if not isinstance(chosen, Mapping):
            raise InputError(
                "expected a mapping of fields to values",
                where=argument,
                hint="Example: {'model': 'clip'}",
            )
        for name, value in chosen.items():
            if name not in CHOOSABLE:
                raise not_found(f"unknown field {name!r}", name, CHOOSABLE, where=argument)
            if not isinstance(value, str):
                raise InputError(f"{name}: expected a string, got {value!r}", where=argument)
    chosen_a, chosen_b = dict(only_a), dict(only_b)
    if same_run(run_a, run_b):
        _name_models(run_a, chosen_a, chosen_b)
    return _side("A", run_a, chosen_a), _side("B", run_b, chosen_b)


def same_run(a: Run, b: Run) -> bool:
    return a.path.resolve() == b.path.resolve()


def matched(a: Side, b: Side, tasks: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """One cell per side for each task, and for each protocol that both sides have.

    Raises:
        InputError: the sides have no such task in common, a side has several cells for a task, or
            both sides are the same cell.
    """
    found = _matched(a, b, tasks)
    # compare() takes side B from the same object if RUN_B is not given.
    alone = a.run is b.run and len({cell.model for cell in a.run.cells}) == 1
    for cell_a, cell_b in found:
        if same_run(a.run, b.run) and cell_a == cell_b:
            raise InputError(
                "RUN_A has only one model and RUN_B was not given: nothing to compare"
                if alone
                else f"both sides are the same cell: {cell_a.model} on {cell_a.task}",
                where=both(a, b),
                hint="Give a second run, or select cells with --model-a and --model-b, or --only-a "
                "and --only-b.",
            )
    return found


def _name_models(run: Run, chosen_a: dict[str, str], chosen_b: dict[str, str]) -> None:
    """For a run of two models, fill in the models that were not named."""
    names = list(dict.fromkeys(cell.model for cell in run.cells))
    if len(names) != 2:
        return
    for mine, other, default in ((chosen_a, chosen_b, 0), (chosen_b, chosen_a, 1)):
        taken = names.index(other["model"]) if other.get("model") in names else 1 - default
        mine.setdefault("model", names[1 - taken])


def _side(name: str, run: Run, chosen: Mapping[str, str]) -> Side:
    """The selected cells of a run; they must have one model."""
    cells = run.cells
    for field, value in chosen.items():
        known = {cell.grid[field] for cell in cells}
        if value not in known:
            option = f"--model-{name.lower()}" if field == "model" else f"--only {field}="
            raise not_found(
                f"side {name} has no {field.replace('_', ' ')} {value!r}",
                value,
                known,
                where=run.path,
                hint=f"Available for {option}: {{}}",
            )
        cells = [cell for cell in cells if cell.grid[field] == value]
    models = {cell.model for cell in cells}
    if len(models) > 1:
        raise InputError(
            f"side {name} has {len(models)} models; expected one",
            where=run.path,
            hint=f"Choose one with --model-{name.lower()}: {listing(models)}",
        )
    return Side(name, run, cells)


def _matched(a: Side, b: Side, tasks: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """One cell per side for each task, and for each protocol that both sides have."""
    tasks_a, tasks_b = (dict.fromkeys(v.task for v in side.cells) for side in (a, b))
    shared = [name for name in tasks_a if name in tasks_b]
    for name in tasks:
        if name not in shared:
            raise not_found(
                f"A and B have no common task {name!r}",
                name,
                shared,
                where="--task",
                hint=f"Tasks of A: {listing(tasks_a)}\nTasks of B: {listing(tasks_b)}",
            )
    if not shared:
        raise InputError(
            "A and B have no common task",
            where=both(a, b),
            hint=f"Tasks of A: {listing(tasks_a)}\nTasks of B: {listing(tasks_b)}",
        )
    return [
        (_one(a, name, mine), _one(b, name, theirs))
        for name in shared
        if not tasks or name in tasks
        for mine, theirs in _protocols(a, b, name)
    ]


def _protocols(a: Side, b: Side, task: str) -> list[tuple[str, str]]:
    """The common protocols; or one different protocol per side, as for a dual encoder and a VLM."""
    mine, theirs = (
        list(dict.fromkeys(v.protocol for v in side.cells if v.task == task)) for side in (a, b)
    )
    same = [(name, name) for name in mine if name in theirs]
    if same:
        return same
    if len(mine) > 1 or len(theirs) > 1:
        raise InputError(
            f"A and B have no common protocol on {task}, and more than one to choose from",
            where=both(a, b),
            hint="Choose with --only-a protocol=NAME and --only-b protocol=NAME.\n"
            f"Protocols of A: {listing(mine)}\nProtocols of B: {listing(theirs)}",
        )
    return [(mine[0], theirs[0])]


def _one(side: Side, task: str, protocol: str) -> Cell:
    """The only cell of a side for a task and protocol."""
    found = [v for v in side.cells if (v.task, v.protocol) == (task, protocol)]
    if len(found) == 1:
        return found[0]
    values = {field: {v.grid[field] for v in found} for field in CHOOSABLE}
    varying = {field: known for field, known in values.items() if len(known) > 1}
    settings = [f"{field} ({listing(known)})" for field, known in varying.items()]
    example = next(iter(varying))
    raise InputError(
        f"side {side.name} has {len(found)} results for {task} with {protocol}; they differ in "
        + " and ".join(settings),
        where=side.path,
        hint=f"Choose one: --only {example}={getattr(found[0], example)}, or --only-a and --only-b "
        "for one side.",
    )
