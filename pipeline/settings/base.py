"""The base of all settings: immutable, named, limited, and each with its meaning."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from pipeline.errors import BadInput


def field(default: Any, section: str, description: str, **limits: Any) -> Any:
    """Define a setting: its default, the section of lists and forms that shows it, its meaning, and its limits."""
    return Field(default, description=description, json_schema_extra={"section": section}, **limits)


class Base(BaseModel):
    """The base of each kind of settings: immutable, and unknown names are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    NULLABLE: ClassVar[frozenset[str]]
    """The settings that may be none."""

    @field_validator("*", mode="before")
    @classmethod
    def _none_by_name(cls, value: Any, info: ValidationInfo) -> Any:
        """Read "none", "null" and empty text as no value, since variables and command lines hold only text."""
        is_none = isinstance(value, str) and value.strip().lower() in {"", "none", "null"}
        return None if is_none and info.field_name in cls.NULLABLE else value

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Make settings from names and values; BadInput lists each that is unknown or out of range."""
        refuse_unknown(values, cls)
        try:
            return cls(**values)
        except ValidationError as error:
            faults = [f"{e['loc'][0]}={e['input']!r}: {e['msg'][:1].lower()}{e['msg'][1:]}" for e in error.errors()]
            raise BadInput(f"{'; '.join(faults)}; correct the setting and start again") from None


def refuse_unknown(names: Iterable[str], *kinds: type[Base]) -> None:
    """Raise BadInput for a name that no setting of these kinds has."""
    known = [name for kind in kinds for name in kind.model_fields]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            cure = f"did you mean {near[0]}?" if near else "`tagger settings` lists them all"
            raise BadInput(f"no setting is named {name!r}: {cure}")
