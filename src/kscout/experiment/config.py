"""Typed configuration: a YAML file, checked against the signatures of what it names."""

import hashlib
import inspect
import json
import reprlib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from kscout.data import DATA
from kscout.errors import UserError
from kscout.learning.closed_form import fit_closed_form
from kscout.learning.design import optimal_design
from kscout.learning.distribute import check_share
from kscout.learning.search import search_tiles
from kscout.recon import RECONSTRUCTORS
from kscout.sampling import SAMPLERS, Budget

Model = TypeVar("Model", bound=BaseModel)
STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
RUNTIME = {"seed", "advance", "weights", "calibration"}
"""Keyword arguments that are never in a configuration."""

USES = {
    "question": "kscout bench",
    "policies": "kscout acquire",
    "grid": "kscout sweep",
    "sampler": "kscout train",
}
"""What a configuration with such a key is for."""

SEARCHES: dict[str, Callable[..., Any]] = {
    "tile_search": search_tiles,
    "optimal_design": optimal_design,
}
"""Samplers that need data to be made: they rank masks, the best first, without training scores."""


class Options(BaseModel):
    """The keyword-only arguments of one entry, as a configuration may set them."""

    model_config = STRICT

    def options(self) -> dict[str, Any]:
        """What to call the entry with."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}


def options_of(entry: Callable[..., Any], kind: str | None = None) -> type[Options]:
    """A model of an entry's keyword-only arguments, with their types, bounds and defaults.

    One declaration serves both: whatever a function or class accepts by keyword is what its
    configuration may hold, so a new entry needs no schema of its own.
    """
    function = entry.__init__ if inspect.isclass(entry) else entry  # type: ignore[misc]
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in inspect.signature(entry).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in RUNTIME
    }
    if kind is not None:
        fields = {"kind": (Literal[kind], kind), **fields}
    model: type[Options] = create_model(kind or entry.__name__, __base__=Options, **fields)
    return model


def one_of(entries: Mapping[str, Callable[..., Any]]) -> Any:
    """A type for one entry of a dict, picked by ``kind``."""
    union: Any = reduce(or_, (options_of(entry, kind) for kind, entry in entries.items()))
    return Annotated[union, Field(discriminator="kind")]


DataConfig: Any = one_of(DATA)
SamplerConfig: Any = one_of({**SAMPLERS, **SEARCHES})
ReconstructorConfig: Any = one_of(RECONSTRUCTORS)
BudgetConfig: Any = options_of(Budget.of)
ClosedFormConfig: Any = options_of(fit_closed_form)
Rate = Annotated[float, Field(gt=0, lt=10)]
Name = Annotated[str, Field(pattern=r"^[\w][\w .+-]*$", max_length=80)]
"""Of a method; also the name of its folder."""


class Training(BaseModel):
    """How sampler and reconstructor are fitted.

    ``epochs`` of gradient descent train what can be trained. ``start: closed_form`` begins them
    from the best kernels for the initial mask. ``finish: closed_form`` fits the kernels to the
    final mask, learned or fixed, in the same way: a fixed mask then needs no epochs.
    """

    model_config = STRICT

    epochs: Annotated[int, Field(ge=0)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 16
    learning_rate: Rate = 1e-3
    mask_learning_rate: Rate = 1e-2
    loss: Literal["nmse_kspace", "nmse_image"] = "nmse_kspace"
    patience: Annotated[int, Field(ge=1)] | None = None
    start: Literal["random", "closed_form"] = "random"
    finish: Literal["as_trained", "closed_form"] = "as_trained"
    closed_form: ClosedFormConfig = ClosedFormConfig()  # type: ignore[valid-type]


class Trainer(BaseModel):
    """Where gradient descent computes, which changes nothing but rounding.

    Each of ``n_devices`` processes on each of ``n_nodes`` machines takes its share of
    ``training.batch_size``, in parts of at most ``micro_batch`` slices where memory is short.
    """

    model_config = STRICT

    n_devices: Annotated[int, Field(ge=1)] = 1
    n_nodes: Annotated[int, Field(ge=1)] = 1
    micro_batch: Annotated[int, Field(ge=1)] | None = None


NOT_IDENTITY = ("name", "trainer")
"""Sections that do not decide what an experiment finds."""


class Experiment(BaseModel):
    """One sampler and one reconstructor on one data source at one budget.

    ``compare`` names further samplers, which are fitted and tested in the same way.
    """

    model_config = STRICT

    name: Name
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    data: DataConfig
    budget: BudgetConfig
    sampler: SamplerConfig
    reconstructor: ReconstructorConfig
    training: Training = Training()
    trainer: Trainer = Trainer()
    compare: dict[Name, SamplerConfig] = {}

    @field_validator("budget")
    @classmethod
    def _one_budget(cls, budget: Any) -> Any:
        units = ("acceleration", "n_samples", "n_lines")
        given = [name for name in units if getattr(budget, name) is not None]
        if len(given) != 1:
            raise ValueError(
                "exactly one of acceleration, n_samples and n_lines is needed; drop one with "
                f"=null ({', '.join(given) or 'none'} given)"
            )
        return budget

    @field_validator("compare")
    @classmethod
    def _own_names(cls, compare: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        name = info.data.get("name")
        if name in compare:
            raise ValueError(f"'{name}' is the experiment's own name; valid is another one")
        return compare

    @model_validator(mode="after")
    def _shared_alike(self) -> "Experiment":
        try:
            check_share(self.training.batch_size, self.trainer.n_devices * self.trainer.n_nodes)
        except UserError as error:
            raise ValueError(str(error)) from error
        return self

    def compared(self, name: str) -> "Experiment":
        """The experiment with one of the samplers of ``compare`` in place of its own."""
        changes = {"name": name, "sampler": self.compare[name], "compare": {}}
        return self.model_copy(update=changes)

    def digest(self) -> str:
        """Ten hexadecimal digits that are the same for, and only for, the same computation."""
        tree = self.model_dump(mode="json", exclude=set(NOT_IDENTITY))
        text = json.dumps(tree, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]


def load_experiment(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read a YAML configuration, with ``key.path=value`` changes.

    Raises
    ------
    UserError
        one line: the file, the key, what is wrong, and what is valid
    """
    tree = read_tree(path, Experiment)
    set_paths(tree, overrides)
    return check(Experiment, tree, str(path))


def read_tree(path: Path, model: type[BaseModel]) -> dict[str, Any]:
    """The sections of a YAML file, unchecked; ``UserError`` if there are none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise UserError(f"cannot read {path}: {reason}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds no configuration: valid keys are {_keys(model)}")
    for key, use in USES.items():
        if key in tree and key not in model.model_fields:
            raise UserError(f"{path} is for {use}: valid here are {_keys(model)}")
    return tree


class _UniqueKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error, where its parser would drop the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"key '{twice}' stands twice (line {node.start_mark.line + 1} on)")
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """What YAML says, safely; ``UserError`` naming ``source`` if it is none."""
    try:
        return yaml.load(text, _UniqueKeys)
    except RecursionError as error:
        raise UserError(f"{source} is not valid YAML: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, TypeError) as error:  # numbers and dates out of range too
        raise UserError(f"{source} is not valid YAML: {_yaml_problem(error)}") from error


def _yaml_problem(error: Exception) -> str:
    """What is wrong and where, without the lines that YAML's parser quotes."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and (mark := error.problem_mark):
        return _short(f"{error.problem} (line {mark.line + 1}, column {mark.column + 1})")
    return _short(error)


def set_paths(tree: dict[str, Any], overrides: Iterable[str]) -> None:
    """Apply ``key.path=value`` changes to nested dicts; values are read as YAML."""
    changes = {}
    for override in overrides:
        path, equals, value = override.partition("=")
        if not equals or not all(path.split(".")):
            raise UserError(f"'{override}' is not of the form key.path=value")
        changes[path] = parse_yaml(value, f"the value of '{_short(override)}'")
    assign(tree, changes)


def assign(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Set dotted paths in nested dicts: a section before what is in it, a ``kind`` before options.

    Another ``kind`` drops the options of the one before, which do not carry over.
    """
    for path in sorted(changes, key=lambda p: (p.count("."), p.split(".")[-1] != "kind")):
        *above, last = path.split(".")
        section = tree
        for key in above:
            below = section.setdefault(key, {})
            if not isinstance(below, dict):
                said = _short(f"{path}={changes[path]}")
                raise UserError(f"'{said}': {key} holds a value, not a section")
            section = below
        if last == "kind" and section.get("kind") not in (None, changes[path]):
            section.clear()
        section[last] = deepcopy(changes[path])


def parse_options(
    entries: Mapping[str, Callable[..., Any]], kind: str, options: Iterable[str]
) -> Options:
    """The options of one entry from ``option=value`` words, checked."""
    if kind not in entries:
        raise UserError(f"'{kind}' is unknown: valid is {', '.join(entries)}")
    tree: dict[str, Any] = {}
    set_paths(tree, options)
    return check(options_of(entries[kind]), tree, kind)


def check(model: type[Model], tree: Any, source: str) -> Model:
    """``tree`` as a ``model``, or a ``UserError`` of one line about the first thing wrong."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{source}: {_explain(model, tree, first)}") from error


def _explain(model: type[BaseModel], tree: Any, error: Any) -> str:
    value = error.get("input")
    section, shown = _section(model, error["loc"])
    where = ".".join(shown) or "top level"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {where}: valid here are {_keys(section)}"
        case "missing":
            return f"{where} is missing"
        case "union_tag_invalid":
            return (
                f"{where}.kind is '{error['ctx']['tag']}': valid is {error['ctx']['expected_tags']}"
            )
        case "union_tag_not_found":
            return f"{where} needs a kind"
        case "dict_type" | "model_type" | "model_attributes_type":
            field = section.model_fields.get(shown[-1]) if shown else None
            absent = ", or no such key" if field and not field.is_required() else ""
            return f"{where} is {_written(value)}: valid is a section of keys with values{absent}"
        case "list_type" | "tuple_type":
            return f"{where} is {_written(value)}: valid is a list"
        case "string_pattern_mismatch":
            return f"{where} is {_written(value)}: valid are letters, digits, spaces and ._+-"
    message = error["msg"].removeprefix("Value error, ")
    if not shown:
        return str(message)
    if error["type"] == "value_error" and isinstance(value, dict):  # the message names what counts
        return f"{where}: {message}"
    return f"{where} is {_written(value)}: {message[0].lower()}{message[1:]}"


_WIDTH = 200
_WRITER = reprlib.Repr()  # cuts a huge value short without writing all of it
_WRITER.maxstring = _WRITER.maxother = _WIDTH


def _written(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return _short(_WRITER.repr(value))
    except ValueError:  # Python writes out no integer of thousands of digits
        return "a huge number"


def _short(text: object) -> str:
    """A text on one line that a terminal has room for."""
    return " ".join(str(text).split())[:_WIDTH]


def _section(
    model: type[BaseModel], location: Sequence[str | int]
) -> tuple[type[BaseModel], list[str]]:
    """The model that holds the last part of a location, and the location as a user writes it.

    Pydantic puts the tag of a union into the location, which is no key of the file.
    """
    section, shown = model, list[str]()
    current: Any = model
    for part in location:
        current = _bare(current)
        kinds = {option.__name__: option for option in _options_in(current)}
        if part in kinds:
            current = section = kinds[str(part)]
        elif isinstance(part, int) and get_origin(current) in (list, tuple):
            shown[-1] += f"[entry {part + 1}]"
            current = get_args(current)[0]
        elif part != "[key]":
            shown.append(str(part))
            if inspect.isclass(current) and issubclass(current, BaseModel):
                section = current
                field = current.model_fields.get(str(part))
                current = field.annotation if field else None
            elif get_origin(current) is dict:
                current = get_args(current)[1]
    return section, shown


def _bare(annotation: Any) -> Any:
    """A type without what is annotated, and without the null that may stand in its place."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    options = _options_in(annotation)
    others = [option for option in get_args(annotation) if option is not types.NoneType]
    return _bare(others[0]) if options and len(others) == 1 else annotation


def _options_in(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [option for option in get_args(annotation) if inspect.isclass(option)]
    return []


def _keys(model: type[BaseModel]) -> str:
    return ", ".join(model.model_fields)
