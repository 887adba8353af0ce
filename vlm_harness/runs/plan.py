"""The first stage of a run: plans the grid, and checks it before any weights are loaded."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from vlm_harness.backends import decoding, hub
from vlm_harness.backends.interface import Asked, Question, check_device
from vlm_harness.backends.resolve import family
from vlm_harness.datasets.files import PREPARE, how_to_get
from vlm_harness.errors import InputError, clip, listing, not_found, shown
from vlm_harness.metrics import METRICS, hf_evaluate
from vlm_harness.paths import data_dir
from vlm_harness.protocols.extractors import EXTRACTORS, DoesNotApply, confused, extract
from vlm_harness.protocols.protocol import PROTOCOLS, EvaluationProtocol
from vlm_harness.runs.groups import reported
from vlm_harness.specs.extraction import Step, steps
from vlm_harness.specs.registry import Registry
from vlm_harness.specs.schemas import (
    GenerateUse,
    GroupSpec,
    ModelSpec,
    ProtocolUse,
    RunConfig,
    TaskSpec,
)
from vlm_harness.tasks.orders import Order, OrderMode, orders
from vlm_harness.tasks.prompts import NO_COMMAND, PromptBuilder, prompt_builder
from vlm_harness.tasks.task import Task, load_task
from vlm_harness.types import (
    Cell,
    ExpectedCell,
    ImageMode,
    ImageRef,
    Prompt,
    Request,
    Sample,
    line_key,
)

DEFAULT_PROTOCOLS = ("generate", "similarity", "choice", "likelihood")


@dataclass(frozen=True)
class Item:
    """One log line to be written: a sample in one cell and option order."""

    planned: "PlannedCell"
    sample: Sample
    order_index: int
    prompt: Prompt
    request: Request

    @property
    def key(self) -> tuple[Any, ...]:
        """Unique key of the log line within the run."""
        return line_key(self.planned.cell, self.sample.id, self.prompt.order)


@dataclass(frozen=True, eq=False)
class PlannedCell:
    """One cell of the grid, with everything needed to evaluate it."""

    cell: Cell
    model: ModelSpec
    task: Task
    protocol: EvaluationProtocol
    use: ProtocolUse
    builder: PromptBuilder
    order: OrderMode
    image_mode: ImageMode
    seed: int

    @cached_property
    def _partners(self) -> Mapping[str, Sample]:
        return self.task.partners()

    def samples_in_orders(self) -> Iterator[tuple[Sample, int, Order]]:
        """Every sample in each of its option orders, with the index of the order."""
        for sample in self.task.samples:
            for index, order in enumerate(orders(self.order, sample, self.seed)):
                yield sample, index, order

    @cached_property
    def expected(self) -> ExpectedCell:
        """Number of lines and groups of the complete cell."""
        lines, groups = 0, {"pair": set[Any](), "set": set[Any]()}
        for sample, index, _ in self.samples_in_orders():
            lines += 1
            for kind, keys in groups.items():
                if getattr(sample, kind) is not None:
                    keys.add((getattr(sample, kind), index))
        return ExpectedCell(
            **self.cell.grid,
            n_lines=lines,
            n_available=len(self.task.ids),
            n_pairs=len(groups["pair"]),
            n_sets=len(groups["set"]),
        )

    def items(self) -> Iterator[Item]:
        """All items of the cell, in the order of the task."""
        for sample, index, order in self.samples_in_orders():
            if self.image_mode == "swapped" and sample.id not in self._partners:
                continue  # its pair is incomplete, and counted as incomplete
            prompt = self.builder.prompt(sample, order, self.cell.command)
            request = self.protocol.request(sample, prompt, self.use)
            partner = self._partners.get(sample.id)
            request = replace(
                request,
                images=self._images(sample, partner),
                partner=self._partner_image(sample, partner),
                decoding=self.cell.decoding,
                order=order,
                command=self.cell.command,
            )
            yield Item(self, sample, index, prompt, request)

    def asked(self) -> Asked:
        """What is asked, for models whose answers are recorded."""
        questions = []
        for item in self.items():
            in_task_order = tuple(range(len(item.prompt.order)))
            reordered = item.prompt.order != in_task_order and (
                self.builder.prompt(item.sample, in_task_order, self.cell.command).text
                != item.prompt.text
            )
            questions.append(Question(item.request, item.prompt.question, reordered))
        return Asked(self.cell, questions)

    def _partner_image(self, sample: Sample, partner: Sample | None) -> ImageRef | None:
        """The image of the pair that is not shown."""
        if partner is None:
            return None
        other = sample if self.image_mode == "swapped" else partner
        return other.images[0] if other.images else None

    def _images(self, sample: Sample, partner: Sample | None) -> tuple[ImageRef, ...]:
        if self.image_mode == "none":
            return ()
        if self.image_mode == "swapped" and partner is not None:
            return partner.images
        return sample.images


@dataclass(frozen=True)
class Plan:
    """All cells of a run, with their models, tasks and options."""

    config: RunConfig
    models: Sequence[ModelSpec]
    tasks: Mapping[str, Task]
    cells: Sequence[PlannedCell]
    data_dir: Path
    commits: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By model: the commit of each repository of the hub for which no commit is given."""
    groups: Mapping[str, GroupSpec] = field(default_factory=dict)
    """The groups with scores that the run reports, and such groups among their members."""


def plan(
    config: RunConfig,
    registry: Registry,
    models: Sequence[ModelSpec],
    loaded: Container[str] = (),
) -> Plan:
    """Resolve names, load data, and check that the run is possible.

    Missing data and missing weights are reported together, in one error.

    Args:
        loaded: names of models that are already loaded, so that their checkpoints are not checked.

    Raises:
        InputError: invalid options, or missing data or weights; raised before weights are loaded.
    """
    if config.device is not None:
        check_device(config.device)
    _check_models(models)
    specs = _task_specs(config, registry)
    groups = reported(registry, specs)
    for text in config.decoding:
        decoding.parse(text)
    chosen = _chosen_protocols(config, models, specs)
    root = data_dir(config.data_dir)
    needs_images = config.images != "none" and any(family(m).reads_images for m in models)
    problems = _Problems()
    tasks = _load_tasks(config, registry, specs, root, needs_images, problems)
    for model in models:
        if model.model not in loaded:
            with problems.collected():
                family(model).check(model)
    problems.raise_all()
    _check_samples(config.samples, tasks)
    tasks = {name: task for name, task in tasks.items() if task.samples}
    cells = [
        cell
        for model in models
        for name, task in tasks.items()
        for protocol in chosen[model.model, name]
        for cell in _cells(config, registry, model, task, protocol)
    ]
    _check_effect(config, cells)
    for cell in cells:  # fail early if a template fails
        next(cell.items(), None)
    commits = {
        model.model: found
        for model in models
        if model.model not in loaded and (found := hub.commits(family(model).repositories(model)))
    }
    return Plan(config, models, tasks, cells, root, commits, groups)


def verify_recorded(planned: Plan) -> None:
    """Raise an InputError if recorded answers do not belong to what a new run asks."""
    for model in planned.models:
        cells = (cell.asked() for cell in planned.cells if cell.model.model == model.model)
        family(model).verify(model, cells)


def _check_models(models: Sequence[ModelSpec]) -> None:
    if not models:
        raise InputError(
            "no model given",
            where="--model",
            hint="`vlm-harness list models` lists the available models.",
        )
    names = [model.model for model in models]
    for model in models:
        if names.count(model.model) > 1:
            raise InputError(
                f"two models have the same name, {model.model!r}",
                where="--model",
                hint="A checkpoint folder is named after its last path component: rename one, or "
                "write a model file.",
            )


def _task_specs(config: RunConfig, registry: Registry) -> dict[str, TaskSpec]:
    """The specs of the requested tasks. Their metrics are checked."""
    names = registry.select_tasks(config.tasks)
    if not names:
        raise InputError(
            "no task given",
            where="--tasks",
            hint="`vlm-harness list tasks` lists the available tasks.",
        )
    specs = {name: registry.task(name) for name in names}
    for spec in specs.values():
        check_metrics(spec)
        hf_evaluate.modules(spec, fetch=config.trust_remote_code)
    return specs


def _chosen_protocols(
    config: RunConfig, models: Sequence[ModelSpec], specs: Mapping[str, TaskSpec]
) -> dict[tuple[str, str], list[str]]:
    """The protocols to run by model and task. Every requested protocol runs at least once."""
    chosen = {
        (model.model, name): _protocols(model, spec, config.protocol)
        for model in models
        for name, spec in specs.items()
    }
    for protocol in config.protocol:
        if not any(protocol in names for names in chosen.values()):
            _refuse(protocol, models[0], next(iter(specs.values())))
    return chosen


def _load_tasks(
    config: RunConfig,
    registry: Registry,
    specs: Mapping[str, TaskSpec],
    root: Path,
    needs_images: bool,
    problems: "_Problems",
) -> dict[str, Task]:
    """Load the tasks with their samples; check that images exist if they are needed."""
    tasks: dict[str, Task] = {}
    for name, spec in specs.items():
        with problems.collected(name):
            tasks[name] = load_task(
                spec,
                registry,
                root,
                labels=config.labels,
                limit=config.limit,
                samples=config.samples,
            )
            if needs_images:
                check_images(tasks[name], root)
    return tasks


def _check_effect(config: RunConfig, cells: Sequence[PlannedCell]) -> None:
    """Reject options that have no effect on any cell of the grid."""
    prompts = any(cell.protocol.uses_prompt for cell in cells)
    generates = any(cell.protocol.kind == "generate" for cell in cells)
    decodes = any(text != "greedy" for text in config.decoding)
    for option, given, used, positive, negative in (
        ("--command", bool(config.command), prompts, "uses a prompt", "uses no prompt"),
        (
            "--order",
            config.order not in (None, "fixed"),
            prompts,
            "shows options in a prompt",
            "shows no options in a prompt",
        ),
        ("--decoding", decodes, generates, "generates text", "generates no text"),
    ):
        if given and not used and cells:
            names = {each.cell.protocol for each in cells}
            if len(names) == 1:
                reason = f"the only protocol, {listing(names)}, {negative}"
            else:
                reason = f"no protocol of this run ({listing(names)}) {positive}"
            raise InputError(
                f"the option has no effect: {reason}",
                where=option,
                hint="Omit the option, or choose another --protocol.",
            )


def _protocols(model: ModelSpec, task: TaskSpec, requested: Sequence[str]) -> list[str]:
    """The protocols to run, out of those that the task declares and the backend supports."""
    provides = family(model).provides
    declared = task.protocols.declared
    supported = [name for name in declared if PROTOCOLS.get(name).kind in provides]
    available = family(model).available(model)
    answered = [name for name in supported if PROTOCOLS.get(name).kind in available] or supported
    if not requested:
        default = next((name for name in DEFAULT_PROTOCOLS if name in answered), None)
        if default is None:
            raise InputError(
                f"model {model.model} (backend {model.backend}) supports none of the protocols of "
                f"task {task.task}: {listing(declared)}",
                hint=f"The backend {model.backend} provides {listing(provides)}.",
            )
        return [default]
    for name in requested:
        PROTOCOLS.check(name, "--protocol")
        if name not in declared:
            raise not_found(
                f"task {task.task} does not declare the protocol {name!r}",
                name,
                declared,
                where="--protocol",
                hint=f"Declared protocols: {{}} ({task.at('protocols')}).",
            )
    # In a grid of dual encoders and generative VLMs, each model runs the protocols it supports.
    found = [name for name in dict.fromkeys(requested) if name in supported]
    if not found:
        _refuse(requested[0], model, task)
    return [name for name in found if name in answered] or found


def _refuse(protocol: str, model: ModelSpec, task: TaskSpec) -> NoReturn:
    provides = family(model).provides
    found = [name for name in PROTOCOLS.names() if PROTOCOLS.get(name).kind in provides]
    declared = [name for name in found if name in task.protocols.declared]
    raise InputError(
        f"model {model.model} ({model.backend}) supports only {listing(found)}, not {protocol}",
        where="--protocol",
        hint=f"Protocols of task {task.task} for this model: {listing(declared) or 'none'}.",
    )


def _cells(
    config: RunConfig, registry: Registry, model: ModelSpec, task: Task, name: str
) -> Iterator[PlannedCell]:
    protocol = PROTOCOLS.get(name)
    use = task.spec.protocols.use(name)
    option_lists = dict.fromkeys(sample.options for sample in task.samples)
    check_extractors(task.spec, name, use, list(option_lists))
    if config.images == "none" and not (protocol.uses_prompt and family(model).without_image):
        raise InputError(
            f"model {model.model} cannot be evaluated without images under protocol {name!r}",
            where="--images none",
        )
    if config.images == "swapped" and not task.partners():
        raise InputError(
            f"task {task.spec.task} has no complete pair whose images could be swapped",
            where="--images swapped",
        )
    builder = prompt_builder(task.spec, name, use, registry)
    if not protocol.uses_prompt:
        commands = [NO_COMMAND]
        builder = replace(builder, commands={NO_COMMAND: ""}, question="")
    elif not config.command:
        commands = [builder.default_command]
    elif "all" in config.command:
        commands = list(builder.commands)
    else:
        commands = list(dict.fromkeys(config.command))
        for command in commands:
            builder.check_command(command, task.spec.task, name)
    order: OrderMode = (config.order or task.spec.order) if protocol.uses_prompt else "fixed"
    decodings = ["none"]
    if protocol.kind == "generate":
        decodings = list(dict.fromkeys(map(decoding.canonical, config.decoding)))
    for command in commands:
        for text in decodings:
            cell = Cell(
                model=model.model,
                task=task.spec.task,
                protocol=name,
                command=command,
                order_mode=order,
                decoding=text,
                image_mode=config.images,
                labels=config.labels,
            )
            yield PlannedCell(
                cell, model, task, protocol, use, builder, order, config.images, config.seed
            )


def check_extractors(
    task: TaskSpec,
    protocol: str,
    use: ProtocolUse,
    option_lists: Sequence[Sequence[str]] = (),
) -> None:
    """Raise an InputError for an unknown extractor, or one that does not support the options."""
    if not isinstance(use, GenerateUse):
        return
    for key, chain in {"extract": use.extract, **use.readings}.items():
        at = ("extract",) if key == "extract" else ("readings", key)
        _check_chain(steps(chain), option_lists, task.at("protocols", protocol, *at))


def _check_chain(chain: Sequence[Step], option_lists: Sequence[Sequence[str]], where: str) -> None:
    for step in chain:
        extractor = EXTRACTORS.get(step.name, where)
        try:
            for options in option_lists[:1]:
                extractor("", options, **step.args)
        except DoesNotApply:
            pass  # skipped, if another step applies
        except (TypeError, ValueError) as error:
            raise InputError(f"extractor {step.name}: {error}", where=where) from None
    for options in option_lists[:100]:
        try:
            extract(chain, "", options)
            mistaken = confused(chain, options)
        except ValueError as error:
            raise InputError(f"extractor {chain[0].name}: {error}", where=where) from None
        if mistaken is not None:
            raise InputError(
                f"the extractor cannot tell the options {shown(list(options))} apart: "
                f"it reads {shown(mistaken[0])} as {shown(mistaken[1])}",
                where=where,
                hint="Use an extractor that can, such as letter with a lettered prompt, or change "
                "the options.",
            )


def check_metrics(task: TaskSpec) -> None:
    """Raise an InputError if a task names an unknown metric, or one that cannot be computed."""
    for name in task.metrics:
        METRICS.check(name, task.at("metrics"))
        if "positive" in METRICS.declared(name).needs and task.positive is None:
            raise InputError(
                f"task {task.task}: the metric {name!r} needs a positive option, but none is set",
                where=task.at("metrics"),
                hint='Set it to the text of an option, e.g. `positive: "Yes"`.',
            )
    for name in task.chance:
        METRICS.check(name, task.at("chance", name))


def _check_samples(requested: Sequence[str], tasks: Mapping[str, Task]) -> None:
    """Raise an InputError if an id of ``--samples`` is in no task."""
    known = {name for task in tasks.values() for name in task.ids}
    for name in requested:
        if name not in known:
            raise not_found(
                f"no task has a sample {name!r}",
                name,
                known,
                where="--samples",
                hint=f"There are {len(known)} samples, e.g. {listing(sorted(known)[:5])}.",
            )


def check_images(task: Task, root: Path) -> None:
    """Raise an InputError if images of a task are missing. Does not open them."""
    refs = {ref.path: ref for sample in task.samples for ref in sample.images}
    missing = [path for path, ref in refs.items() if not ref.exists()]
    if missing:
        raise InputError(
            f"task {task.spec.task}: {len(missing)} of {len(refs)} images are missing, e.g. "
            f"{root / clip(missing[0])}",
            where=task.spec.at("sample", "images"),
            hint=how_to_get(task.spec.dataset, root),
        )


class _Problems:
    """Collects errors, to raise them as one."""

    def __init__(self) -> None:
        self._errors: list[tuple[InputError, str | None]] = []

    @contextmanager
    def collected(self, task: str | None = None) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self._errors.append((error, task))

    def raise_all(self) -> None:
        """Raise one error for all problems; a hint that they share is given once."""
        # Tasks that share missing data: one message, located at the first task.
        unique = {(e.message, e.hint): (e, task) for e, task in reversed(self._errors)}
        by_hint: dict[str | None, list[InputError]] = {}
        tasks: dict[str | None, list[str]] = {}
        for error, task in reversed(unique.values()):
            by_hint.setdefault(error.hint, []).append(error)
            if task is not None:
                tasks.setdefault(error.hint, []).append(task)
        texts = []
        for hint, errors in by_hint.items():
            lines = [f"{e.where}: {e.message}" if e.where else e.message for e in errors]
            if hint and hint in tasks:
                names = " ".join(dict.fromkeys(tasks[hint]))
                hint = hint.replace(PREPARE, PREPARE.replace("TASK", names))
            texts.append("\n".join([*lines, hint] if hint else lines))
        if len(texts) == 1:
            raise InputError(texts[0])
        if texts:
            raise InputError("\n\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1)))
