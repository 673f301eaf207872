"""What all configurations share."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(ge=1, strict=True)]


class Config(BaseModel):
    """What all configurations share: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def variants(cls) -> list[type[Self]]:
        """The classes that data of this kind are validated as: this one, unless a field chooses between several."""
        return [cls]
