"""The types of setting values. The validators' messages end the sentence "... is X: it must be"."""

import json
import os
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode


def texts(value: object) -> object:
    """Parse a list of texts: JSON, or a single text. None may be blank."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.startswith("[") else [value]
        except json.JSONDecodeError as error:
            raise ValueError("a JSON list of texts, or one text") from error
    if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
        raise ValueError("a list of texts, none of them blank")
    return value


def absolute(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path without NUL characters")
    return Path(os.path.abspath(os.path.expanduser(path)))


def absolute_text(path: str) -> str:
    """Return a path as an absolute one; an empty text stays empty."""
    return str(absolute(Path(path))) if path else ""


def not_boolean(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("a number")  # noqa: TRY004 - pydantic takes a ValueError for a wrong value, a TypeError for a bug
    return value


Number = Annotated[float, BeforeValidator(not_boolean)]
Texts = Annotated[list[str], NoDecode, BeforeValidator(texts)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
