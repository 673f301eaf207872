"""The base class of all settings."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

Positive = Annotated[int, Field(ge=1, strict=True)]


class Config(BaseModel):
    """Settings of a command or of a section. Unknown keys are errors, values do not change after loading.

    A section that is empty in the file (null) has its defaults, unless null is one of its values. Setting one key of a
    section keeps the other defaults of the section (see `completed`).
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By the value of the setting `preset`, the settings that it fills in where the user has not set them."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_preset(cls, data: Any) -> Any:
        return {**cls.presets.get(str(data.get("preset")), {}), **data} if isinstance(data, dict) else data

    @model_validator(mode="before")
    @classmethod
    def _complete_sections(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        fields = cls.model_fields
        return {name: _completed(fields[name], value) if name in fields else value for name, value in data.items()}

    def completed(self, given: dict[str, Any]) -> dict[str, Any]:
        """The keys of a section with this default, where the user set the keys `given`."""
        return {name: getattr(self, name) for name in self.model_fields_set} | given

    @classmethod
    def variants(cls) -> list[type[Self]]:
        """The classes that data of this kind are validated as: this one, unless a field chooses between several."""
        return [cls]


def _completed(field: FieldInfo, value: Any) -> Any:
    if value is None and isinstance(field.annotation, type) and issubclass(field.annotation, Config):
        value = {}
    return field.default.completed(value) if isinstance(field.default, Config) and isinstance(value, dict) else value


def fields_of(kind: type[Config]) -> dict[str, FieldInfo]:
    """The fields of all variants of a configuration, by name."""
    return {name: field for variant in kind.variants() for name, field in variant.model_fields.items()}


def section_of(field: FieldInfo) -> type[Config] | None:
    """The settings of a section; None if the field is not a section."""
    kinds = get_args(field.annotation) or (field.annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Config)), None)
