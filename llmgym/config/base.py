"""Configurations: strict, frozen, made of sections that others share, read from YAML."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from llmgym.config.plain import read_yaml, to_yaml
from llmgym.errors import ConfigError, did_you_mean
from llmgym.secrets import without_secrets


class Option(NamedTuple):
    """Where an option is.

    Attributes:
        section: The name of its section; empty if it is in none.
        name: Of the field there.
        field: The field.
    """

    section: str
    name: str
    field: FieldInfo


class Config(BaseModel):
    """The base of every configuration and of every section of one: unknown keys are refused, values do not change.

    A field that is a configuration itself is a section. Whoever gives options does not see sections: all names are
    on one level, those of a section by the alias that it gives them, or else by its own.

    The docstring under a field is its help text on the command line.

    Example:
        >>> class Sampling(Config):
        ...     temperature: float = 1.0
        >>> class Mine(Config):
        ...     sampling: Sampling = Sampling(temperature=0.7)
        ...     beta: float = 0.1
        >>> Mine.of({"beta": 0.2}).sampling.temperature, Mine.of({"temperature": 0.5}).sampling.temperature
        (0.7, 0.5)
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, populate_by_name=True
    )

    @model_validator(mode="before")
    @classmethod
    def _into_sections(cls, values: Any) -> Any:
        """Put options that stand on one level into their sections, beside what these have unless told."""
        if not isinstance(values, Mapping):
            return values
        places = {name: option.section for name, option in cls.options().items() if option.section}
        given: dict[str, dict[str, Any]] = {}
        rest = {}
        for name, value in values.items():
            if name in places and not isinstance(value, Config):
                given.setdefault(places[name], {})[name] = value
            else:
                rest[name] = value
        for section, options in given.items():
            standing = rest.get(section, cls.model_fields[section].default)
            if isinstance(standing, Config | Mapping):  # anything else is refused where sections are read
                rest[section] = {**(standing.flat() if isinstance(standing, Config) else standing), **options}
        return rest

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("Input should not be true or false")
        return value

    @classmethod
    def sections(cls) -> dict[str, "type[Config]"]:
        """Return the classes of the sections, by name."""
        kinds = {name: field.annotation for name, field in cls.model_fields.items()}
        return {name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Config)}

    @classmethod
    def options(cls) -> dict[str, Option]:
        """Return every option by the name that it is given by."""
        found: dict[str, Option] = {}
        sections = cls.sections()
        for name, field in cls.model_fields.items():
            section, inner = (name, sections[name].model_fields) if name in sections else ("", {name: field})
            found |= {field.alias or own: Option(section, own, field) for own, field in inner.items()}
        return found

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Validate `values`, all on one level.

        Raises:
            ConfigError: A key is unknown, or a value is not allowed.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise ConfigError("\n".join(_explain(problem, cls) for problem in error.errors())) from None

    def flat(self) -> dict[str, Any]:
        """Return every value by its option's name, all on one level."""
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            values |= value.flat() if isinstance(value, Config) else {field.alias or name: value}
        return values

    def with_options(self, **values: Any) -> Self:
        """Return the same with other values of some options, which are not validated."""
        changed: dict[str, dict[str, Any]] = {}  # by section
        for name, value in values.items():
            option = self.options()[name]
            changed.setdefault(option.section, {})[option.name] = value
        own = changed.pop("", {})
        sections = {section: getattr(self, section).model_copy(update=update) for section, update in changed.items()}
        return self.model_copy(update={**own, **sections})

    @classmethod
    def default_of(cls, name: str) -> Any:
        """Return what an option is unless given."""
        return cls().flat()[name]

    @classmethod
    def from_yaml(cls, path: Path) -> Self:
        """Read a configuration that holds what differs from the defaults."""
        return cls.of(read_yaml(path))

    def plain(self) -> dict[str, Any]:
        """Return every value, defaults included, as JSON has it, all on one level, without secrets."""
        values: dict[str, Any] = {}
        for name, value in self.model_dump(mode="json", by_alias=True).items():
            values |= value if name in self.sections() else {name: value}
        return without_secrets(values)

    def to_yaml(self) -> str:
        """Return every value, defaults included, as YAML that `from_yaml` reads."""
        return to_yaml(self.plain())


def _explain(problem: Any, cls: type[Config]) -> str:
    place = [str(part) for part in problem["loc"]]
    name = ".".join(place[1:] if place and place[0] in cls.sections() else place)
    message = str(problem["msg"]).removeprefix("Value error, ")
    got = _shown(problem["input"])
    if problem["type"] == "model_type":
        return f"{place[-1]}: expected options as `key: value` lines, got {got}"
    if problem["type"] == "extra_forbidden":
        return f"Unknown option {name!r}.{did_you_mean(name, cls.options())}"
    return f"{name}: {message}, got {got}" if name else message  # which names the options itself


def _shown(value: object) -> str:
    try:
        return f"{without_secrets(value) if isinstance(value, Mapping) else value!r:.80}"
    except Exception:  # noqa: BLE001  # it is anybody's object
        return f"a {type(value).__name__}"
