"""Which cells of two runs are compared: one model a side, and one way of asking a task."""

from collections.abc import Mapping, Sequence

from vlm_harness.analysis.comparable import Side, both
from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.logs.run import Run
from vlm_harness.types import ASKED, Cell

CHOOSABLE = ("model", "protocol", *ASKED)
"""Fields of a cell that ``--only`` may fix."""


def sides(
    run_a: Run, run_b: Run, only_a: Mapping[str, str], only_b: Mapping[str, str]
) -> tuple[Side, Side]:
    """The cells of either side. Of one run of two models, either side has one by default.

    Raises:
        InputError: there is no such cell, or more than one model is left.
    """
    for argument, chosen in (("only_a", only_a), ("only_b", only_b)):
        if not isinstance(chosen, Mapping):
            raise InputError(
                "expected values by field", where=argument, hint="such as {'model': 'clip'}"
            )
        for name, value in chosen.items():
            if name not in CHOOSABLE:
                raise not_found(
                    f"there is no field {name!r} to choose by", name, CHOOSABLE, where=argument
                )
            if not isinstance(value, str):
                raise InputError(f"{name}: expected text, found {value!r}", where=argument)
    chosen_a, chosen_b = dict(only_a), dict(only_b)
    if same_run(run_a, run_b):
        _name_models(run_a, chosen_a, chosen_b)
    return _side("A", run_a, chosen_a), _side("B", run_b, chosen_b)


def same_run(a: Run, b: Run) -> bool:
    return a.path.resolve() == b.path.resolve()


def matched(a: Side, b: Side, asked: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """One cell of either side for each task, and for each protocol that both have.

    Raises:
        InputError: the sides share no such task, a side has several cells to choose from, or both
            sides are the same answers.
    """
    found = _matched(a, b, asked)
    for cell_a, cell_b in found:
        if same_run(a.run, b.run) and cell_a == cell_b:
            raise InputError(
                f"both sides are the same answers: {cell_a.model} on {cell_a.task}",
                where=both(a, b),
                hint="Name a second run, or choose with --model-a and --model-b, or with --only-a "
                "and --only-b.",
            )
    return found


def _name_models(run: Run, chosen_a: dict[str, str], chosen_b: dict[str, str]) -> None:
    """Of a run of two models, those that were not named are the first and the second."""
    names = list(dict.fromkeys(cell.model for cell in run.cells))
    if len(names) != 2:
        return
    for mine, other, default in ((chosen_a, chosen_b, 0), (chosen_b, chosen_a, 1)):
        taken = names.index(other["model"]) if other.get("model") in names else 1 - default
        mine.setdefault("model", names[1 - taken])


def _side(name: str, run: Run, chosen: Mapping[str, str]) -> Side:
    """The cells of a run that are as asked; one model must be left."""
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
                hint=f"For {option} there are: {{}}",
            )
        cells = [cell for cell in cells if cell.grid[field] == value]
    models = {cell.model for cell in cells}
    if len(models) > 1:
        raise InputError(
            f"side {name} has {len(models)} models, and one is to be compared",
            where=run.path,
            hint=f"Choose with --model-{name.lower()}: {listing(models)}",
        )
    return Side(name, run, cells)


def _matched(a: Side, b: Side, asked: Sequence[str]) -> list[tuple[Cell, Cell]]:
    """One cell of either side for each task, and for each protocol that both have."""
    tasks_a, tasks_b = (dict.fromkeys(v.task for v in side.cells) for side in (a, b))
    shared = [name for name in tasks_a if name in tasks_b]
    for name in asked:
        if name not in shared:
            raise not_found(
                f"the sides have no common task {name!r}",
                name,
                shared,
                where="--task",
                hint=f"Side A has: {listing(tasks_a)}\nSide B has: {listing(tasks_b)}",
            )
    if not shared:
        raise InputError(
            "the sides have no common task",
            where=both(a, b),
            hint=f"Side A has: {listing(tasks_a)}\nSide B has: {listing(tasks_b)}",
        )
    return [
        (_one(a, name, mine), _one(b, name, theirs))
        for name in shared
        if not asked or name in asked
        for mine, theirs in _protocols(a, b, name)
    ]


def _protocols(a: Side, b: Side, task: str) -> list[tuple[str, str]]:
    """Those that both sides have; a dual encoder and a VLM may have one each, and no other."""
    mine, theirs = (
        list(dict.fromkeys(v.protocol for v in side.cells if v.task == task)) for side in (a, b)
    )
    same = [(name, name) for name in mine if name in theirs]
    if same:
        return same
    if len(mine) > 1 or len(theirs) > 1:
        raise InputError(
            f"the sides have no common protocol on {task}, and more than one each to choose from",
            where=both(a, b),
            hint="Choose with --only-a protocol=NAME and --only-b protocol=NAME.\n"
            f"Side A has: {listing(mine)}\nSide B has: {listing(theirs)}",
        )
    return [(mine[0], theirs[0])]


def _one(side: Side, task: str, protocol: str) -> Cell:
    """The cell of a side; there must be no other."""
    found = [v for v in side.cells if (v.task, v.protocol) == (task, protocol)]
    if len(found) == 1:
        return found[0]
    values = {field: {v.grid[field] for v in found} for field in CHOOSABLE}
    varying = {field: known for field, known in values.items() if len(known) > 1}
    ways = [f"{field} ({listing(known)})" for field, known in varying.items()]
    example = next(iter(varying))
    raise InputError(
        f"side {side.name} was asked {task} under {protocol} in {len(found)} ways, which differ in "
        + " and ".join(ways),
        where=side.path,
        hint=f"Choose one: --only {example}={getattr(found[0], example)}, or --only-a and --only-b "
        "for one side alone.",
    )
