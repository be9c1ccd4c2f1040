"""Dataclasses as plain objects, for JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any


def without_defaults(value: Any) -> Any:
    """Dataclasses as objects without the fields that have their default or are not to be logged, tuples as lists; other
    values as they are."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = [field for field in fields(value) if field.metadata.get("logged", True)]
        given = {field.name: (getattr(value, field.name), _default(field)) for field in kept}
        return {name: without_defaults(got) for name, (got, default) in given.items() if got != default}
    if isinstance(value, Mapping):
        return {str(key): without_defaults(one) for key, one in value.items()}
    return [without_defaults(one) for one in value] if isinstance(value, list | tuple) else value


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
