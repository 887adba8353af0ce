"""Groups of tasks with scores of their own: their members, and the weight of each task in a score.

Every score of a group is a weighted sum of metrics of its tasks, however groups are nested.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vlm_harness.errors import InputError, listing, not_found
from vlm_harness.specs.schemas import Aggregate, GroupSpec


@dataclass(frozen=True)
class Group:
    """A group with its member groups looked up."""

    spec: GroupSpec
    members: "tuple[str | Group, ...]"
    """Tasks by name, and groups."""

    @property
    def tasks(self) -> list[str]:
        """All tasks, including those of member groups, each once."""
        return list(dict.fromkeys(self._every_task()))

    def _every_task(self) -> Iterator[str]:
        for member in self.members:
            yield from [member] if isinstance(member, str) else member._every_task()

    def weights(self, aggregate: Aggregate, sizes: Mapping[str, float]) -> dict[str, float]:
        """The weight of each task in a score.

        Args:
            sizes: number of samples, pairs or sets by task, for weighted means.
        """
        parts: list[dict[str, float]] = []
        for member in self.members if aggregate.over == "members" else self.tasks:
            if isinstance(member, str):
                parts.append({member: 1.0})
            else:
                parts.append(member.weights(member.aggregate(aggregate.name), sizes))
        found = dict.fromkeys(self.tasks, 0.0)
        for part, factor in zip(parts, _factors(aggregate, parts, sizes), strict=True):
            for task, weight in part.items():
                found[task] += factor * weight
        return found

    def aggregate(self, name: str) -> Aggregate:
        """The score with this name, which ``tree`` has checked to exist."""
        return next(each for each in self.spec.aggregates if each.name == name)


def _factors(
    aggregate: Aggregate, parts: Sequence[Mapping[str, float]], sizes: Mapping[str, float]
) -> list[float]:
    if aggregate.how == "sum":
        return [1.0] * len(parts)
    if aggregate.how == "mean":
        return [1 / len(parts)] * len(parts)
    counts = [sum(sizes[task] for task in part) for part in parts]
    total = sum(counts)
    return [count / total if total else 0.0 for count in counts]


def with_members(
    spec: GroupSpec,
    tasks: Collection[str],
    tagged: Mapping[str, Sequence[str]],
    declared: Collection[str],
) -> GroupSpec:
    """A group whose ``members`` are tasks and declared groups only.

    Args:
        tagged: tasks by the groups that they list.
        declared: names of the groups that have a file.

    Raises:
        InputError: no members, an unknown member, or a task that lists the group but is no member.
    """
    own = tagged.get(spec.group, ())
    members: list[str] = []
    for number, name in enumerate(spec.members or own):
        if name in tasks or name in declared:
            members.append(name)
        elif name in tagged:
            members.extend(tagged[name])
        else:
            raise not_found(
                f"group {spec.group}: unknown task or group {name!r}",
                name,
                [*tasks, *declared, *tagged],
                where=spec.at("members", number),
                hint="`vlm-harness list tasks` and `vlm-harness list groups` list the known names.",
            )
    for name in own:
        if spec.members and name not in members:
            raise InputError(
                f"task {name} lists the group {spec.group}, but is not among its members",
                where=spec.at("members"),
                hint="Add the task to `members:`, or remove the group from its `groups:`. Without "
                "`members:`, the members are the tasks that list the group.",
            )
    if not members:
        raise InputError(
            f"group {spec.group} has no members",
            where=spec.at("group"),
            hint=f"Name tasks or groups under `members:`, or add `groups: [{spec.group}]` to the "
            "files of its tasks.",
        )
    return spec.model_copy(update={"members": list(dict.fromkeys(members))})


def tree(name: str, specs: Mapping[str, GroupSpec], above: tuple[str, ...] = ()) -> Group:
    """The group with this name; members that are not in ``specs`` are tasks.

    Raises:
        InputError: a group contains itself, or a member group lacks a score that another needs.
    """
    spec = specs[name]
    if name in above:
        circle = " -> ".join((*above[above.index(name) :], name))
        raise InputError(f"a group contains itself: {circle}", where=spec.at("members"))
    members = tuple(
        tree(each, specs, (*above, name)) if each in specs else each for each in spec.members
    )
    for number, aggregate in enumerate(spec.aggregates):
        for member in members if aggregate.over == "members" else ():
            if isinstance(member, Group):
                _check_same(aggregate, member, spec.at("aggregates", number))
    return Group(spec, members)


def _check_same(aggregate: Aggregate, member: Group, where: str) -> None:
    """Refuse ``over: members`` if a member group has no such score, or one of other metrics."""
    known = {each.name: each for each in member.spec.aggregates}
    found = known.get(aggregate.name)
    if found is None:
        raise InputError(
            f"{aggregate.name}: the member group {member.spec.group} has no score of this name",
            where=where,
            hint=f"Its scores: {listing(known)}. With `over: tasks`, its tasks count one by one.",
        )
    if found.metrics != aggregate.metrics:
        raise InputError(
            f"{aggregate.name} is of {listing(aggregate.metrics)} here, but of "
            f"{listing(found.metrics)} in the member group {member.spec.group}",
            where=where,
            hint=f"That score is defined in {member.spec.at('aggregates')}.",
        )
