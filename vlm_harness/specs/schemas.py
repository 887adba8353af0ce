"""Schemas of the YAML files: tasks, models, prompts, commands, label corrections, tables, runs.

The schemas are strict: an unknown key is an error that gives file and line and suggests the closest
key. The JSON Schemas for editors (``vlm-harness schema task``) are generated from these classes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from vlm_harness.errors import listing
from vlm_harness.specs import templates, yamlfile

HUB_NAME = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=120)]
FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
MetricName = Annotated[
    str,
    Field(
        pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*|evaluate:([\w-]+/)?[\w-]+(\.\w+)?)$",
        max_length=120,
    ),
]
DESCRIPTIVE = "descriptive"
"""Marks a field that only describes: changing it does not change the identity of a run."""


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


class Spec(BaseModel):
    """Base of all specs: strict and frozen."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def descriptive(cls) -> frozenset[str]:
        """Names of the descriptive fields."""
        fields = cls.model_fields.items()
        return frozenset(name for name, each in fields if DESCRIPTIVE in each.metadata)

    def essence(self) -> dict[str, Any]:
        """The spec as plain data, without descriptive fields."""
        found = self.model_dump(mode="json", exclude=set(self.descriptive()))
        for name in found:
            value = getattr(self, name)
            if isinstance(value, Spec):
                found[name] = value.essence()
        return found


def keys_of(name: str, field: FieldInfo) -> list[str]:
    """The YAML keys of a field, the preferred one first; the others are old names."""
    alias = field.validation_alias
    return list(map(str, alias.choices)) if isinstance(alias, AliasChoices) else [name]


def _misfit(text: str, *at: str) -> PydanticCustomError:
    """An error that involves several keys, reported at one of them."""
    return PydanticCustomError("misfit", "{message}", {"message": text, "at": at})


class NamedSpec(Spec):
    """A spec with a name, by which the registry finds its file."""

    _file: yamlfile.YamlFile | None = None
    _origin: str = "(given in code)"

    def at(self, *location: str | int) -> str:
        """``file:line`` of a value of this spec."""
        if self._file is None:
            return self._origin
        field = type(self).model_fields.get(str(location[0])) if location else None
        if field is not None:
            for key in keys_of(str(location[0]), field):
                if key in self._file.data:
                    return self._file.where((key, *location[1:]))
        return self._file.where(location)

    @model_validator(mode="before")
    @classmethod
    def _no_key_under_two_names(cls, data: Any) -> Any:
        for name, field in cls.model_fields.items() if isinstance(data, dict) else ():
            given = [key for key in keys_of(name, field) if key in data]
            if len(given) > 1:
                new, old = given[:2]
                raise _misfit(f"old name of {new!r}, which is also given; keep one of them", old)
        return data

    def _given(self, by: "yamlfile.YamlFile | NamedSpec | str") -> None:
        """Record the origin of the spec: a file, an option, or the spec that it derives from."""
        private = self.__pydantic_private__
        assert private is not None
        if isinstance(by, NamedSpec):
            private["_file"], private["_origin"] = by._file, by._origin
        else:
            private["_origin" if isinstance(by, str) else "_file"] = by

    @property
    def path(self) -> Path | None:
        return self._file.path if self._file else None


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
        description="json, jsonl, csv, parquet, image_folder, hub, rendered, or a plugin's"
    )
    path: str | list[str] | None = Field(
        None, description="path below the data directory; of a list, the first that exists is read"
    )
    name: str | None = Field(None, pattern=HUB_NAME, description="hub: data set, owner/name")
    config: str | None = Field(None, description="hub: configuration of the data set")
    split: str | None = Field(None, description="hub, rendered: split")
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
        [], description="paths below the data directory, or image columns"
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


class ExtractorUse(Spec):
    """An extractor with its arguments."""

    name: Name
    args: dict[str, Any] = {}


class ProtocolUse(Spec):
    """The prompt under one protocol, where it differs from the task's prompt."""

    template: Name | None = Field(
        None, description="template of this protocol; brings its own commands"
    )
    question: JinjaText | None = None
    commands: dict[Name, JinjaText] | list[Name] | None = None


class GenerateUse(ProtocolUse):
    extract: Name | ExtractorUse | Annotated[list[Name | ExtractorUse], Field(min_length=1)] = (
        "keyword"
    )
    max_new_tokens: int = Field(32, ge=1)

    def extractors(self) -> list[tuple[str, dict[str, Any]]]:
        """The chain of extractors as (name, arguments)."""
        chain = self.extract if isinstance(self.extract, list) else [self.extract]
        return [(x, {}) if isinstance(x, str) else (x.name, dict(x.args)) for x in chain]


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
    exif: Literal["ignore", "apply"] = Field(
        "ignore", description="apply: rotate images by their EXIF orientation"
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

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSpec":
        if self.primary_metric not in self.metrics:
            text = f"{self.primary_metric!r} is not in metrics: {listing(self.metrics)}"
            raise _misfit(text, "primary_metric")
        if not self.protocols.declared:
            text = "at least one is required: similarity, generate, choice, likelihood"
            raise _misfit(text, "protocols")
        if self.protocols.similarity is not None and self.sample.captions is None:
            text = "the protocol similarity requires sample.captions"
            raise _misfit(text, "protocols", "similarity")
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
    "model": ModelSpec,
    "prompt": PromptSpec,
    "commands": CommandsSpec,
    "label_corrections": OverlaySpec,
    "overlay": OverlaySpec,  # the old name
    "table": TableSpec,
    "run": RunConfig,
}
