"""Schemas of the YAML files: tasks, groups, models, prompts, commands, tables, runs, and others.

The schemas are strict: an unknown key is an error that gives file and line and suggests the closest
key. The JSON Schemas for editors (``vlm-harness schema task``) are generated from these classes.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from vlm_harness.errors import listing
from vlm_harness.specs import templates, yamlfile
from vlm_harness.specs.extraction import Chain, Step, steps
from vlm_harness.specs.spec import DESCRIPTIVE, Name, NamedSpec, Spec, misfit

HUB_NAME = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
MetricName = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|evaluate:([\w-]+/)?[\w-]+(\.\w+)?)$",
        max_length=120,
    ),
]


Scalar = str | int | float | bool
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _texts(value: Any, at: yamlfile.Location = ()) -> Iterator[tuple[yamlfile.Location, str]]:
    """Every text in a value, with its location."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*at, key))


def _check_templates(value: Any) -> Any:
    """Compile every text in a value, so that an invalid template is reported with its file."""
    for at, text in _texts(value):
        try:
            templates.compile_template(text)
        except templates.TemplateError as error:
            # Location and line of the text, for the message.
            raise PydanticCustomError(
                "template", "{message}", {"message": str(error), "at": at, "line": error.line}
            ) from None
    return value


JinjaText = Annotated[str, Field(description="a Jinja template"), AfterValidator(_check_templates)]
JinjaValue = Annotated[Any, AfterValidator(_check_templates)]
"""A Jinja template, a plain value, or lists and mappings of these."""


# --- tasks --------------------------------------------------------------------------------------


class SourceSpec(Spec):
    """Where to get the data, for ``vlm-harness data prepare``."""

    hub: str | None = Field(
        None, pattern=HUB_NAME, description="Hugging Face data set to download, owner/name"
    )
    revision: str | None = Field(None, description="pinned commit of the data set")
    folder: str | None = Field(None, description="destination, below the data directory")
    urls: list[str] = Field([], description="pages for a manual download")
    instructions: str | None = Field(
        None, description="how to download the data by hand, and where to put them"
    )
    license: str | None = None
    sha256: dict[str, str] = Field({}, description="checksums by path below the data directory")


class DatasetSpec(Spec):
    """The rows of a task, and how to read them."""

    reader: Name = Field(
        description="json, jsonl, csv, parquet, arrow, image_folder, hub, rendered, or a plugin's"
    )
    path: str | list[str] | None = Field(
        None,
        description="path below the data directory, or a pattern (`test-*.parquet`); of a list, "
        "the first that exists is read",
    )
    name: str | None = Field(None, pattern=HUB_NAME, description="hub: data set, owner/name")
    config: str | None = Field(None, description="hub: configuration of the data set")
    split: str | None = Field(
        None, description="hub, arrow, rendered, a folder of parquet files: split"
    )
    revision: str | None = Field(None, description="hub: pinned commit")
    key: str | None = Field(None, description="json: the key that holds the list of rows")
    columns: list[str] | None = Field(
        None, description="column names, for rows that are lists (json) or a CSV without a header"
    )
    args: dict[str, Any] = Field({}, description="further arguments of the reader")
    delimiter: str = Field(",", description="csv: column separator", min_length=1, max_length=1)
    source: Annotated[SourceSpec | None, DESCRIPTIVE] = None
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="false: not yet tested on the original files of the benchmark"
    )


class AnyOf(Spec):
    """Several paths for one image: the first that exists is used."""

    any_of: list[JinjaText] = Field(min_length=1)


class SampleSpec(Spec):
    """How to make a sample from a row. Every value is Jinja over the columns and the fields."""

    id: JinjaText
    images: JinjaText | list[JinjaText | AnyOf] = Field(
        [],
        description="paths below the data directory, image columns, base64, or lists of these "
        "(`folder/{{ names }}`); null and empty values are no image",
    )
    options: JinjaText | list[JinjaText | int | float]
    target: JinjaText | int = Field(description="index of the correct option, from 0")
    captions: JinjaText | list[JinjaText] | None = Field(
        None, description="texts that similarity scores, in the order of the options"
    )
    pair: JinjaText | None = None
    set: JinjaText | None = None
    category: JinjaText | None = None


class GroupRule(Spec):
    """Rules for pairs or sets."""

    size: int = Field(2, ge=2)
    distinct_targets: bool = Field(
        False, description="the samples of a complete group must have different correct options"
    )


class GroupRules(Spec):
    pair: GroupRule = GroupRule()
    set: GroupRule = GroupRule(size=4)


class PromptUse(Spec):
    """The prompt of a task."""

    template: Name = Field("plain", description="name of a prompt file")
    question: JinjaText = Field("", description="may use `options` (in the order shown)")
    commands: dict[Name, JinjaText] | list[Name] = Field(
        {}, description="instructions after the question, by name; or names of shared commands"
    )


class ProtocolUse(Spec):
    """The prompt under one protocol, where it differs from the task's prompt."""

    template: Name | None = Field(
        None, description="template of this protocol; brings its own commands"
    )
    question: JinjaText | None = None
    commands: dict[Name, JinjaText] | list[Name] | None = None


class GenerateUse(ProtocolUse):
    extract: Chain = Field(
        "keyword", description="extractor that reads the answer; a list is tried in turn"
    )
    readings: Annotated[dict[Name, Chain], DESCRIPTIVE] = Field(
        {},
        description="other extractors by name, such as the rule of the official script; the "
        "metrics under them are reported too",
    )
    max_new_tokens: int = Field(32, ge=1)

    def extractors(self) -> list[Step]:
        """The steps of the chain of extractors."""
        return steps(self.extract)


class ChoiceUse(ProtocolUse):
    template: Name | None = "lettered"


class Protocols(Spec):
    """The protocols that a task can be run under."""

    similarity: ProtocolUse | None = None
    generate: GenerateUse | None = None
    choice: ChoiceUse | None = None
    likelihood: ProtocolUse | None = None

    @property
    def declared(self) -> list[str]:
        return [name for name in type(self).model_fields if getattr(self, name) is not None]

    def use(self, name: str) -> ProtocolUse:
        """The prompt of the task under a protocol that it declares."""
        found: ProtocolUse = getattr(self, name)
        return found


UPRIGHT_READERS = frozenset({"hub", "parquet", "arrow"})
"""Readers whose image columns have their EXIF orientation applied, unless a task says otherwise."""


class TaskSpec(NamedSpec):
    """A benchmark."""

    task: Name
    version: int = Field(ge=1)
    description: Annotated[str, DESCRIPTIVE] = ""
    groups: Annotated[list[Name], DESCRIPTIVE] = []
    tags: Annotated[list[str], DESCRIPTIVE] = []
    reference: Annotated[str | list[str] | None, DESCRIPTIVE] = Field(
        None, description="paper, page"
    )
    dataset: DatasetSpec
    tables: list[Name] = Field([], description="names of tables that the fields use")
    each: dict[FieldName, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="lists of values; each row yields a sample per value (or combination)"
    )
    fields: dict[FieldName, JinjaValue] = Field(
        {}, description="Jinja; each field may use the columns and the fields above it"
    )
    where: JinjaText | None = Field(None, description="rows for which this is false are skipped")
    sample: SampleSpec
    exif: Literal["by_reader", "ignore", "apply"] = Field(
        "by_reader",
        description="EXIF orientation of images. by_reader: applied to image columns of hub, "
        "parquet and arrow (as `datasets` does), ignored in files, bytes and base64",
    )
    grouping: GroupRules = GroupRules()
    prompt: PromptUse = PromptUse()
    protocols: Protocols
    order: Literal["fixed", "both", "cyclic", "random"] = "fixed"
    overlay: Name | None = Field(
        None,
        validation_alias=AliasChoices("label_corrections", "overlay"),
        description="name of a file of published label corrections",
    )
    positive: str | None = Field(
        None, description="positive class of f1, precision, recall and yes_ratio"
    )
    metrics: list[MetricName] = ["individual_accuracy"]
    primary_metric: MetricName = "individual_accuracy"
    chance: dict[MetricName, float] = Field(
        {}, description="chance by metric, if it differs from a uniform guess"
    )

    @field_serializer("exif")
    def _effective(self, exif: str) -> str:
        """The default as `ignore` where it has that effect, as it was written in 0.2."""
        by_reader = exif == "by_reader" and self.dataset.reader not in UPRIGHT_READERS
        return "ignore" if by_reader else exif

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSpec":
        if self.primary_metric not in self.metrics:
            text = f"{self.primary_metric!r} is not in metrics: {listing(self.metrics)}"
            raise misfit(text, "primary_metric")
        if not self.protocols.declared:
            text = "at least one is required: similarity, generate, choice, likelihood"
            raise misfit(text, "protocols")
        if self.protocols.similarity is not None and self.sample.captions is None:
            text = "the protocol similarity requires sample.captions"
            raise misfit(text, "protocols", "similarity")
        return self


class Aggregate(Spec):
    """One score of a group of tasks, such as the mean of their F1."""

    name: Name
    of: MetricName | Annotated[list[MetricName], Field(min_length=1)] = Field(
        description="metric of the tasks; of several, the sum for each task"
    )
    how: Literal["mean", "weighted_mean", "sum"] = Field(
        "mean",
        description="weighted_mean (micro average): each task counts by the number of samples "
        "(for group metrics: pairs or sets) that its value is computed over",
    )
    over: Literal["tasks", "members"] = Field(
        "tasks",
        description="members: a group among the members counts once, with its own score of the "
        "same name; tasks: its tasks count one by one",
    )

    @property
    def metrics(self) -> list[str]:
        return self.of if isinstance(self.of, list) else [self.of]

    @model_validator(mode="after")
    def _weights_known(self) -> "Aggregate":
        if self.how == "weighted_mean" and len(self.metrics) > 1:
            raise misfit("weighted_mean needs a single metric, by whose n it weights", "of")
        return self


class GroupSpec(NamedSpec):
    """Scores of a group of tasks, such as those by which a benchmark of several files is quoted."""

    group: Name
    version: int = Field(1, ge=1, description="raise it if the scores are computed differently")
    description: str = ""
    reference: str | list[str] | None = Field(None, description="where the scores are published")
    members: list[Name] = Field(
        [], description="tasks and groups; default: the tasks that list this group in `groups`"
    )
    aggregates: list[Aggregate] = Field(
        min_length=1, description="scores; the first is the headline"
    )

    @model_validator(mode="after")
    def _distinct(self) -> "GroupSpec":
        for key, names in (
            ("members", self.members),
            ("aggregates", [each.name for each in self.aggregates]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise misfit(f"{name!r} is given twice", key)
        return self


# --- prompts, commands, label corrections, models ----------------------------------------------


class PromptSpec(NamedSpec):
    """A shared prompt template."""

    prompt: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    option: JinjaText = Field(
        "{{ option }}",
        description="how to show an option (likelihood also scores it so); may use `option`, "
        "`letter` and `number`",
    )
    template: JinjaText = Field(
        description="may use `question`, `options` (as shown), `letters`, `command`"
    )
    commands: dict[Name, JinjaText] = Field(
        {}, description="default commands of protocols that use this template"
    )


class CommandsSpec(NamedSpec):
    """Shared commands, by name."""

    commands: dict[Name, JinjaText]


class Correction(Spec):
    """One corrected label. Options are given by their text, so that it applies to several tasks."""

    id: str | int
    was: str
    answer: str
    note: str | None = None


class OverlaySpec(NamedSpec):
    """Published label corrections."""

    overlay: Name = Field(validation_alias=AliasChoices("label_corrections", "overlay"))
    description: Annotated[str, DESCRIPTIVE] = ""
    reference: Annotated[str | list[str], DESCRIPTIVE]
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="false: the corrections were not yet checked against the images"
    )
    corrections: list[Correction] = Field(min_length=1)


class TableSpec(NamedSpec):
    """Values that the project adds to a benchmark by row key, such as captions for questions."""

    table: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    reference: Annotated[str | list[str] | None, DESCRIPTIVE] = None
    rows: dict[str | int, Any] = Field(min_length=1, description="values by key")

    @field_validator("rows")
    @classmethod
    def _keys(cls, value: dict[str | int, Any]) -> dict[str, Any]:
        return {str(key): row for key, row in value.items()}


UNVERIFIED = "this checkpoint has not been run by the project"
"""The meaning of ``verified: false``, as lists, tables and pages explain it."""


class ModelSpec(NamedSpec):
    """A model: a backend, a checkpoint, and the prompt format."""

    model: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    backend: Name
    checkpoint: str = Field(
        description="hub name, local path (./ is relative to this file), or architecture:tag"
    )
    revision: str | None = None
    prompt_format: JinjaText | None = Field(
        None, description="Jinja over `prompt` and `images`; default: the chat template"
    )
    answer_prefix: str | None = Field(
        None, description="text between prompt and scored answer (LLaVA: one space)"
    )
    args: dict[str, Any] = Field({}, description="arguments of the backend")
    vision_encoder: Annotated[str | None, DESCRIPTIVE] = Field(
        None, description="name of the image encoder; the same in all models that share it"
    )
    reference: Annotated[str | list[str] | None, DESCRIPTIVE] = None
    license: Annotated[str | None, DESCRIPTIVE] = None
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="false: the project has not run these weights"
    )


# --- a run ----------------------------------------------------------------------------------------

# In YAML, a single name needs no list.
Many = Annotated[
    list[str],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class RunConfig(Spec):
    """All settings of ``vlm-harness run``, given as options or in ``--config run.yaml``."""

    model: Many = Field([], description="model name, checkpoint folder, or backend:checkpoint")
    tasks: Many = Field([], description="tasks, groups or globs")
    protocol: Many = Field(
        [], description="default: similarity or generate, whichever the model supports"
    )
    command: Many = Field([], description="command names, or all; default: the first")
    decoding: Many = Field(["greedy"], description="NAME[:k=v,...]")
    order: Literal["fixed", "both", "cyclic", "random"] | None = Field(
        None, description="default: the task's"
    )
    images: Literal["normal", "none", "swapped"] = "normal"
    labels: Literal["corrected", "original"] = "corrected"
    limit: int | None = Field(None, ge=1)
    samples: Many = []
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers: int | None = Field(
        None, ge=0, description="image-loading threads; default: depends on the device"
    )
    device: str | None = None
    dtype: Dtype = "auto"
    seed: int = 0
    data_dir: str | None = None
    include_path: Many = []
    output_dir: str = "results"
    run_id: str | None = None
    fresh: bool = False
    cache: bool = False
    model_args: dict[str, Any] = {}
    max_errors: Annotated[str, WithJsonSchema({"type": ["string", "integer"]})] = Field(
        "10%", pattern=r"^\d+(\.\d+)?%?$", description="number (N) or percentage (P%) of samples"
    )
    timeout: float | None = Field(
        None, gt=0, le=1e6, description="time limit per sample, in seconds"
    )
    trust_remote_code: bool = False

    @field_validator(
        "model", "tasks", "protocol", "command", "decoding", "samples", "include_path",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _one_or_many(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        if info.field_name in ("decoding", "include_path"):  # their values may contain commas
            return [value]
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("max_errors", mode="before")
    @classmethod
    def _number_as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) else value


KINDS: dict[str, type[Spec]] = {
    "task": TaskSpec,
    "group": GroupSpec,
    "model": ModelSpec,
    "prompt": PromptSpec,
    "commands": CommandsSpec,
    "label_corrections": OverlaySpec,
    "overlay": OverlaySpec,  # the old name
    "table": TableSpec,
    "run": RunConfig,
}
