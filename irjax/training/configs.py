"""Configs: changing their parts, and comparing them with saved ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from irjax.reports.files import plain

Config = TypeVar("Config")


def changed(config: Config, **parts: Mapping[str, Any]) -> Config:
    """The config with fields of its parts replaced.

    Args:
      config: a dataclass of dataclasses.
      **parts: {field: value} for each part, such as ``loop={"steps": 4}``.
    """
    return dataclasses.replace(
        config, **{name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
    )


def same_config(saved: Any, config: Any) -> bool:
    """Whether a saved config is this one; fields that are younger than the file had their defaults.

    Args:
      saved: JSON values, as `plain` of the dataclass gave them.
      config: a dataclass.
    """
    return isinstance(saved, Mapping) and _completed(saved, config) == plain(dataclasses.asdict(config))


def _completed(saved: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """The saved values with the defaults of fields that are absent."""
    values = dict(saved)
    for field in dataclasses.fields(config):
        now = getattr(config, field.name)
        if field.name not in values:
            if field.default is not dataclasses.MISSING:
                values[field.name] = plain(field.default)
            elif field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
                values[field.name] = plain(
                    dataclasses.asdict(default) if dataclasses.is_dataclass(default) else default
                )
        elif dataclasses.is_dataclass(now) and isinstance(values[field.name], Mapping):
            values[field.name] = _completed(values[field.name], now)
    return values
