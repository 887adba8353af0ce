"""Schemas of the YAML files: tasks, models, prompts, commands, overlays, tables, and a run.

Strict: an unknown key is an error that names its file and line and suggests the nearest. The same
classes give the JSON Schema for editors (``vlm-harness schema task``).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
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
"""Marks a field that only describes: changing a word of it must not make another run."""


Scalar = str | int | float | bool
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _texts(value: Any, at: yamlfile.Location = ()) -> Iterator[tuple[yamlfile.Location, str]]:
    """Every text in a value, and where in it."""
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(item, (*at, key))


def _check_templates(value: Any) -> Any:
    """Compile every text in a value, so that a template that cannot run is an error of the file."""
    for at, text in _texts(value):
        try:
            templates.compile_template(text)
        except templates.TemplateError as error:
            # Which of the value's texts it is, and which line of that, for the message.
            raise PydanticCustomError(
                "template", "{message}", {"message": str(error), "at": at, "line": error.line}
            ) from None
    return value


JinjaText = Annotated[str, Field(description="a Jinja template"), AfterValidator(_check_templates)]
JinjaValue = Annotated[Any, AfterValidator(_check_templates)]
"""A text that is a Jinja template, a value without one, or lists and mappings of them."""


class Spec(BaseModel):
    """Base of all specs: strict, frozen, and aware of where each value was written."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def descriptive(cls) -> frozenset[str]:
        """Names of the fields that only describe."""
        fields = cls.model_fields.items()
        return frozenset(name for name, each in fields if DESCRIPTIVE in each.metadata)

    def essence(self) -> dict[str, Any]:
        """What a spec says as plain data, without fields that only describe it."""
        found = self.model_dump(mode="json", exclude=set(self.descriptive()))
        for name in found:
            value = getattr(self, name)
            if isinstance(value, Spec):
                found[name] = value.essence()
        return found


def _misfit(text: str, *at: str) -> PydanticCustomError:
    """An error of a whole file that is best mended at one place of it."""
    return PydanticCustomError("misfit", "{message}", {"message": text, "at": at})


class NamedSpec(Spec):
    """A spec that the registry finds by name in a file."""

    _file: yamlfile.YamlFile | None = None
    _origin: str = "(given in code)"

    def at(self, *location: str | int) -> str:
        """``file:line`` of a value of this spec."""
        return self._file.where(location) if self._file else self._origin

    def _given(self, by: "yamlfile.YamlFile | NamedSpec | str") -> None:
        """Remember what the spec came from: a file, an option, or the spec that it changes."""
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
    """Where the data come from, for ``data prepare``."""

    hub: str | None = Field(
        None, pattern=HUB_NAME, description="Hugging Face data set to download, owner/name"
    )
    revision: str | None = Field(None, description="its pinned commit")
    folder: str | None = Field(None, description="where it goes, below the data directory")
    urls: list[str] = Field([], description="pages to fetch it from by hand")
    instructions: str | None = Field(None, description="what to fetch and where to put it")
    license: str | None = None
    sha256: dict[str, str] = Field({}, description="checksum by path below the data directory")


class DatasetSpec(Spec):
    """What is read, row by row."""

    reader: Name = Field(
        description="json, jsonl, csv, parquet, image_folder, hub, rendered, or a plugin's"
    )
    path: str | list[str] | None = Field(
        None, description="below the data directory; of a list, the first that exists"
    )
    name: str | None = Field(None, pattern=HUB_NAME, description="hub: owner/name of the data set")
    config: str | None = Field(None, description="hub: its configuration")
    split: str | None = Field(None, description="hub, rendered: which split")
    revision: str | None = Field(None, description="hub: pinned commit")
    key: str | None = Field(None, description="json: the key that holds the list of rows")
    columns: list[str] | None = Field(
        None, description="names for rows that are lists (json) or for a CSV without a header"
    )
    args: dict[str, Any] = Field({}, description="further arguments of the reader")
    delimiter: str = Field(
        ",", description="csv: what separates columns", min_length=1, max_length=1
    )
    source: Annotated[SourceSpec | None, DESCRIPTIVE] = None
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="false: the format was never tried on the benchmark's own files"
    )


class AnyOf(Spec):
    """Several paths for one image: the first that exists is taken."""

    any_of: list[JinjaText] = Field(min_length=1)


class SampleSpec(Spec):
    """How a row becomes a sample. Every value is Jinja over the row and the task's fields."""

    id: JinjaText
    images: JinjaText | list[JinjaText | AnyOf] = Field(
        [], description="paths below the data directory, or columns that hold images"
    )
    options: JinjaText | list[JinjaText | int | float]
    target: JinjaText | int = Field(description="index of the right option, from 0")
    captions: JinjaText | list[JinjaText] | None = Field(
        None, description="what similarity scores, in the order of the options"
    )
    pair: JinjaText | None = None
    set: JinjaText | None = None
    category: JinjaText | None = None


class GroupRule(Spec):
    """What a pair or set must be."""

    size: int = Field(2, ge=2)
    distinct_targets: bool = Field(
        False, description="every member of a whole group must have another right option"
    )


class GroupRules(Spec):
    pair: GroupRule = GroupRule()
    set: GroupRule = GroupRule(size=4)


class PromptUse(Spec):
    """How a task asks."""

    template: Name = Field("plain", description="a name from prompts/")
    question: JinjaText = Field("", description="may use `options`, in the order shown")
    commands: dict[Name, JinjaText] | list[Name] = Field(
        {}, description="sentences after the question by name, or names of shared commands"
    )


class ExtractorUse(Spec):
    """An extractor with its arguments."""

    name: Name
    args: dict[str, Any] = {}


class ProtocolUse(Spec):
    """How a protocol asks, where it differs from the task's prompt."""

    template: Name | None = Field(None, description="its own template; its commands come with it")
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
        """How the task asks under a protocol that it declares."""
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
    tables: list[Name] = Field([], description="tables that the fields look rows up in, by name")
    each: dict[FieldName, Annotated[list[Any], Field(min_length=1)]] = Field(
        {}, description="values by name: a row gives a sample for each (of several, each with each)"
    )
    fields: dict[FieldName, JinjaValue] = Field(
        {}, description="Jinja, in order; each may use the row's columns and the fields above it"
    )
    where: JinjaText | None = Field(None, description="rows for which this is false are left out")
    sample: SampleSpec
    exif: Literal["ignore", "apply"] = Field(
        "ignore", description="apply: turn images upright as their EXIF orientation says"
    )
    grouping: GroupRules = GroupRules()
    prompt: PromptUse = PromptUse()
    protocols: Protocols
    order: Literal["fixed", "both", "cyclic", "random"] = "fixed"
    overlay: Name | None = Field(None, description="published label corrections")
    positive: str | None = Field(
        None, description="the option that f1, precision, recall and yes_ratio are about"
    )
    metrics: list[MetricName] = ["individual_accuracy"]
    primary_metric: MetricName = "individual_accuracy"
    chance: dict[MetricName, float] = Field(
        {}, description="where it is not that of a uniform guess"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TaskSpec":
        if self.primary_metric not in self.metrics:
            text = f"{self.primary_metric!r} is not one of metrics: {listing(self.metrics)}"
            raise _misfit(text, "primary_metric")
        if not self.protocols.declared:
            text = "at least one is needed: similarity, generate, choice, likelihood"
            raise _misfit(text, "protocols")
        if self.protocols.similarity is not None and self.sample.captions is None:
            text = "the protocol similarity scores sample.captions, which are not there"
            raise _misfit(text, "protocols", "similarity")
        return self


# --- prompts, commands, overlays, models -------------------------------------------------------


class PromptSpec(NamedSpec):
    """A prompt template that tasks share."""

    prompt: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    option: JinjaText = Field(
        "{{ option }}",
        description="one option as it is shown and, by likelihood, scored; may use `letter`, "
        "`number`",
    )
    template: JinjaText = Field(
        description="may use question, options (as shown), letters, command"
    )
    commands: dict[Name, JinjaText] = Field(
        {}, description="used where a protocol brings this template without commands of its own"
    )


class CommandsSpec(NamedSpec):
    """Named commands that tasks share."""

    commands: dict[Name, JinjaText]


class Correction(Spec):
    """One corrected label. Options are named by their text, so that it holds in any task."""

    id: str | int
    was: str
    answer: str
    note: str | None = None


class OverlaySpec(NamedSpec):
    """Published label corrections."""

    overlay: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    reference: Annotated[str | list[str], DESCRIPTIVE]
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="the corrections were checked by eye on the images"
    )
    corrections: list[Correction] = Field(min_length=1)


class TableSpec(NamedSpec):
    """What the project adds to a benchmark, by a key of its rows, as captions for its questions."""

    table: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    reference: Annotated[str | list[str] | None, DESCRIPTIVE] = None
    rows: dict[str | int, Any] = Field(min_length=1, description="a value by key")

    @field_validator("rows")
    @classmethod
    def _keys(cls, value: dict[str | int, Any]) -> dict[str, Any]:
        return {str(key): row for key, row in value.items()}


class ModelSpec(NamedSpec):
    """A model: which backend runs which checkpoint, and how it wants to be asked."""

    model: Name
    description: Annotated[str, DESCRIPTIVE] = ""
    backend: Name
    checkpoint: str = Field(
        description="hub name, local folder or file (./ is beside this file), or architecture:tag"
    )
    revision: str | None = None
    prompt_format: JinjaText | None = Field(
        None, description="Jinja over `prompt` and `images`; else the checkpoint's chat template"
    )
    answer_prefix: str | None = Field(
        None, description="between prompt and answer when answers are scored (LLaVA: one space)"
    )
    args: dict[str, Any] = Field({}, description="arguments of the backend")
    vision_encoder: Annotated[str | None, DESCRIPTIVE] = Field(
        None, description="what sees the image, for people: models that share one say the same"
    )
    reference: Annotated[str | list[str] | None, DESCRIPTIVE] = None
    license: Annotated[str | None, DESCRIPTIVE] = None
    verified: Annotated[bool, DESCRIPTIVE] = Field(
        True, description="false: these weights were never run by the project"
    )


# --- a run ----------------------------------------------------------------------------------------

# As it is written: one name needs no list.
Many = Annotated[
    list[str],
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class RunConfig(Spec):
    """Everything that ``vlm-harness run`` can be told, as options or as ``--config run.yaml``."""

    model: Many = Field(
        [], description="name from models/, checkpoint folder, or backend:checkpoint"
    )
    tasks: Many = Field([], description="tasks, groups or globs")
    protocol: Many = Field([], description="default: similarity, or generate, as the model can")
    command: Many = Field([], description="names of commands, or all; default: the first")
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
        None, ge=0, description="threads that read images ahead; default: as the device allows"
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
        "10%", pattern=r"^\d+(\.\d+)?%?$", description="N or P%"
    )
    timeout: float | None = Field(None, gt=0, le=1e6, description="seconds a sample may take")
    trust_remote_code: bool = False

    @field_validator(
        "model", "tasks", "protocol", "command", "decoding", "samples", "include_path",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _one_or_many(cls, value: Any, info: ValidationInfo) -> Any:
        if not isinstance(value, str):
            return value
        if info.field_name in ("decoding", "include_path"):  # whose values may hold commas
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
    "overlay": OverlaySpec,
    "table": TableSpec,
    "run": RunConfig,
}
