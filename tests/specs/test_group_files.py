"""Groups with scores: their files, their members, and the weight of each task in a score."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.bench import Command
from vlm_harness.errors import InputError
from vlm_harness.runs.groups import check_scores, reported
from vlm_harness.specs.groups import Group, tree
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import GroupSpec


def task(name: str, groups: str = "[]", metrics: str = "[individual_accuracy]") -> str:
    return (
        f"task: {name}\nversion: 1\ngroups: {groups}\ndataset: {{reader: jsonl, path: x}}\n"
        f"sample: {{id: a, options: [a, b], target: 0}}\nprotocols: {{generate: {{}}}}\n"
        f"metrics: {metrics}\n"
    )


MEAN = "aggregates: [{name: mean, of: individual_accuracy}]\n"


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    folder = tmp_path / "specs"
    folder.mkdir()
    for name, groups in (
        ("t1", "[ones, suite]"),
        ("t2", "[suite]"),
        ("t3", "[suite]"),
        ("t4", "[]"),
    ):
        (folder / f"{name}.yaml").write_text(task(name, groups))
    return folder


def add(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.group.yaml"
    path.write_text(f"group: {name}\n{text}")
    return path


def group(folder: Path, name: str) -> Group:
    return tree(name, Registry([folder]).group_specs([name]))


# --- members --------------------------------------------------------------------------------------


def test_a_short_file_is_enough(specs: Path) -> None:
    """Without members, they are the tasks that list the group."""
    add(specs, "suite", MEAN)
    registry = Registry([specs])
    assert registry.groups["suite"] == ["t1", "t2", "t3"]
    assert registry.select_tasks(["suite"]) == ["t1", "t2", "t3"]
    assert group(specs, "suite").tasks == ["t1", "t2", "t3"]
    spec = registry.group("suite")
    assert (spec.version, spec.description, spec.aggregates[0].how) == (1, "", "mean")


def test_members_are_tasks_and_groups_in_the_order_of_the_file(specs: Path) -> None:
    add(specs, "outer", f"members: [t4, ones, inner]\n{MEAN}")
    add(specs, "inner", f"members: [t3, t2]\n{MEAN}")
    registry = Registry([specs])
    assert registry.select_tasks(["outer"]) == ["t4", "t1", "t3", "t2"]
    assert registry.select_tasks(["out*"]) == ["t4", "t1", "t3", "t2"]
    assert registry.groups["outer"] == ["t4", "t1", "t3", "t2"]
    assert registry.group("outer").members == ["t4", "t1", "inner"]
    assert list(registry.group_specs(["outer"])) == ["outer", "inner"]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (f"{MEAN}members: [t1, t5]\n", "group g: unknown task or group 't5'", 3),
        (f"{MEAN}members: [none]\n", "unknown task or group 'none'; did you mean 'ones'?", 3),
        (f"{MEAN}members: [t1, g]\n", "a group contains itself: g -> g", 3),
        (MEAN, "group g has no members", 1),
        (f"{MEAN}members: []\n", "group g has no members", 1),
        (f"{MEAN}members: [t1, t1]\n", "members: 't1' is given twice", 3),
        (f"{MEAN}member: [t1]\n", "unknown key 'member'; did you mean 'members'?", 3),
        ("members: [t1]\n", "aggregates: this key is required", 1),
        ("members: [t1]\naggregates: []\n", "aggregates: List should have at least 1 item", 3),
        (
            "members: [t1]\naggregates: [{name: a, of: individual_accuracy, how: median}]\n",
            "aggregates.0.how: must be 'mean', 'weighted_mean' or 'sum' (found 'median')",
            3,
        ),
        (
            "members: [t1]\naggregates:\n- {name: a, of: f1}\n- {name: a, of: f1}\n",
            "aggregates: 'a' is given twice",
            3,
        ),
        (
            "members: [t1]\naggregates: [{name: a, of: [f1, recall], how: weighted_mean}]\n",
            "weighted_mean needs a single metric",
            3,
        ),
        ("members: [t1]\naggregates: [{name: a}]\n", "aggregates.0.of: this key is required", 3),
    ],
)
def test_a_mistake_is_reported_with_its_line(
    specs: Path, text: str, message: str, line: int
) -> None:
    path = add(specs, "g", text)
    with pytest.raises(InputError) as caught:
        group(specs, "g")
    assert message in str(caught.value)
    assert f"{path}:{line}" in str(caught.value)
    with pytest.raises(InputError):
        Registry([specs]).select_tasks(["g"])
    assert Registry([specs]).select_tasks(["suite"]) == ["t1", "t2", "t3"]  # others still work


def test_groups_that_contain_each_other(specs: Path) -> None:
    add(specs, "a", f"members: [t1, b]\n{MEAN}")
    add(specs, "b", f"members: [a]\n{MEAN}")
    with pytest.raises(InputError, match="a group contains itself: a -> b -> a"):
        Registry([specs]).select_tasks(["a"])


def test_a_task_that_lists_a_group_is_one_of_its_members(specs: Path) -> None:
    add(specs, "suite", f"members: [t1, t2]\n{MEAN}")
    with pytest.raises(
        InputError, match="task t3 lists the group suite, but is not among"
    ) as caught:
        Registry([specs]).group("suite")
    assert "remove the group from its `groups:`" in str(caught.value)


def test_a_task_and_a_group_of_one_name(specs: Path) -> None:
    path = add(specs, "t1", f"members: [t1]\n{MEAN}")
    with pytest.raises(InputError, match="'t1' is the name of both a task and a group") as caught:
        Registry([specs]).select_tasks(["t1"])
    assert str(path) in str(caught.value)


def test_a_group_without_a_file_has_no_scores(specs: Path) -> None:
    with pytest.raises(InputError, match="group 'ones' has no file") as caught:
        Registry([specs]).group("ones")
    assert "It is listed by t1" in str(caught.value)
    with pytest.raises(InputError, match="unknown group 'nes'"):
        Registry([specs]).group("nes")


# --- weights --------------------------------------------------------------------------------------

SIZES = {"t1": 10.0, "t2": 30.0, "t3": 60.0, "t4": 100.0}
NESTED = "members: [t4, inner]\naggregates: [{name: s, of: individual_accuracy, %s}]\n"
INNER = "members: [t1, t2]\naggregates: [{name: s, of: individual_accuracy, %s}]\n"
WEIGHTS = [
    # how the outer and the inner group aggregate, and the weights of t4, t1, t2
    ("how: mean", "how: mean", [1 / 3, 1 / 3, 1 / 3]),
    ("how: sum", "how: mean", [1, 1, 1]),
    ("how: weighted_mean", "how: mean", [100 / 140, 10 / 140, 30 / 140]),
    ("how: mean, over: members", "how: mean", [1 / 2, 1 / 4, 1 / 4]),
    ("how: mean, over: members", "how: sum", [1 / 2, 1 / 2, 1 / 2]),
    ("how: mean, over: members", "how: weighted_mean", [1 / 2, 1 / 8, 3 / 8]),
    ("how: sum, over: members", "how: mean", [1, 1 / 2, 1 / 2]),
    ("how: weighted_mean, over: members", "how: mean", [100 / 140, 20 / 140, 20 / 140]),
    ("how: weighted_mean, over: members", "how: weighted_mean", [100 / 140, 10 / 140, 30 / 140]),
]


@pytest.mark.parametrize(("outer", "inner", "expected"), WEIGHTS)
def test_weights_by_hand(specs: Path, outer: str, inner: str, expected: list[float]) -> None:
    add(specs, "outer", NESTED % outer)
    add(specs, "inner", INNER % inner)
    found = group(specs, "outer")
    weights = found.weights(found.spec.aggregates[0], SIZES)
    assert [weights[name] for name in ("t4", "t1", "t2")] == pytest.approx(expected)


def test_a_task_in_several_member_groups(specs: Path) -> None:
    """Over tasks it counts once, over members once for each group."""
    add(specs, "a", "members: [t1, t2]\naggregates: [{name: s, of: individual_accuracy}]\n")
    add(specs, "b", "members: [t2, t3]\naggregates: [{name: s, of: individual_accuracy}]\n")
    for over, expected in (("tasks", [1 / 3] * 3), ("members", [1 / 4, 1 / 2, 1 / 4])):
        add(
            specs,
            "c",
            f"members: [a, b]\naggregates: [{{name: s, of: individual_accuracy, over: {over}}}]\n",
        )
        found = group(specs, "c")
        assert found.tasks == ["t1", "t2", "t3"]
        weights = found.weights(found.spec.aggregates[0], SIZES)
        assert list(weights.values()) == pytest.approx(expected)


def test_a_member_group_needs_the_score(specs: Path) -> None:
    add(specs, "outer", NESTED % "over: members")
    add(specs, "inner", "members: [t1]\naggregates: [{name: other, of: individual_accuracy}]\n")
    with pytest.raises(InputError, match="member group inner has no score of this name") as caught:
        group(specs, "outer")
    assert "Its scores: other" in str(caught.value)
    add(specs, "inner", "members: [t1]\naggregates: [{name: s, of: pair_accuracy}]\n")
    with pytest.raises(InputError, match="of individual_accuracy here, but of pair_accuracy in"):
        group(specs, "outer")


# --- metrics --------------------------------------------------------------------------------------


def checked(folder: Path, name: str) -> None:
    registry = Registry([folder])
    found = registry.group_specs([name])
    check_scores(name, found, {each: registry.task(each) for each in tree(name, found).tasks})


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("pair_acuracy", "unknown metric 'pair_acuracy'; did you mean 'pair_accuracy'"),
        ("f1", "g, s: task t1 does not have the metric 'f1'"),
        ("[individual_accuracy, mean_pair_cosine]", "different units cannot be added"),
    ],
)
def test_metrics_are_checked(specs: Path, of: str, message: str) -> None:
    path = add(specs, "g", f"members: [t1]\naggregates: [{{name: s, of: {of}}}]\n")
    with pytest.raises(InputError, match=message) as caught:
        checked(specs, "g")
    assert str(caught.value.where) == f"{path}:3"


def test_which_groups_a_run_reports(specs: Path) -> None:
    """Those of which it has all tasks, or several; a broken group matters to no other run."""
    add(specs, "suite", MEAN)
    add(specs, "single", f"members: [t4]\n{MEAN}")
    add(specs, "outer", f"members: [suite, t4]\n{MEAN}")
    add(specs, "broken", "members: [t9]\naggregates: [{name: s, of: f9}]\n")
    add(specs, "empty", MEAN)
    registry = Registry([specs])

    def names(*tasks: str) -> list[str]:
        return sorted(reported(registry, {name: registry.task(name) for name in tasks}))

    assert names("t1") == []
    assert names("t4") == ["single"]
    assert names("t1", "t2") == ["outer", "suite"]
    assert names("t1", "t4") == ["outer", "single", "suite"]  # suite is a member of outer


# --- the command line -----------------------------------------------------------------------------


def test_list_show_and_schema(command: Command) -> None:
    code, out, err = command("list", "groups", "--json")
    assert code == 0, err
    rows: dict[str, Any] = {row["name"]: row for row in json.loads(out)}
    assert rows["pope"]["tasks"] == ["pope_adversarial", "pope_popular", "pope_random"]
    assert rows["pope"]["aggregates"] == [
        {"name": "mean_f1", "of": "f1", "how": "mean", "over": "tasks"}
    ]
    assert "aggregates" not in rows["vsr"]
    code, out, err = command("list", "groups")
    assert "POPE: mean F1 of its three files. (pope_adversarial, pope_popular" in out
    code, out, err = command("show", "group", "pope", "--json")
    assert code == 0, err
    assert json.loads(out)["members"] == ["pope_adversarial", "pope_popular", "pope_random"]
    code, out, err = command("show", "group", "vsr")
    assert (code, out) == (2, "")
    assert "group 'vsr' has no file" in err
    code, out, err = command("schema", "group")
    assert json.loads(out)["properties"].keys() == {*GroupSpec.model_fields, "include"}


def test_the_list_of_tasks_names_their_groups(command: Command) -> None:
    code, out, err = command("list", "tasks", "--json")
    assert code == 0, err
    groups = {row["name"]: row["groups"] for row in json.loads(out)}
    assert groups["whatsup_a_four_way"] == ["whatsup_a", "whatsup", "whatsup_four_way"]
    assert groups["pope_random"] == ["pope"]


def test_validate_checks_groups(specs: Path, command: Command) -> None:
    add(specs, "suite", MEAN)
    code, out, err = command("validate", str(specs))
    assert code == 0, err
    assert "suite  (3 tasks)" in out
    path = add(specs, "bad", "members: [t4]\naggregates: [{name: s, of: pair_accuracy}]\n")
    code, out, err = command("validate", str(specs))
    assert code == 2
    assert f"{path}:3: bad, s: task t4 does not have the metric 'pair_accuracy'" in err


def test_every_bundled_group_is_valid() -> None:
    registry = Registry.standard()
    found = registry.names("group")
    assert found == ["coco_spatial", "gqa_spatial", "pope", "sugarcrepe", "whatsup_four_way"]
    for name in found:
        specs = registry.group_specs([name])
        check_scores(name, specs, {t: registry.task(t) for t in tree(name, specs).tasks})
        assert registry.group(name).reference
