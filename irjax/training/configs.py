"""Configs: changing their parts, and comparing them with saved ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import flax.traverse_util

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


def differences(saved: Any, config: Any) -> list[str]:
    """In what a saved config is not this one.

    A field that the file lacks, or has beside ours, is a difference: what an earlier or later version did without it is
    not known here.

    Args:
      saved: JSON values, as `plain` of the dataclass gave them.
      config: a dataclass.

    Returns:
      A phrase for each field, such as "loop.steps 10, was 20" or "loop.minutes 5, was absent"; none if they are equal.
    """
    given = flax.traverse_util.flatten_dict(plain(dataclasses.asdict(config)), sep=".", keep_empty_nodes=True)
    kept = flax.traverse_util.flatten_dict(dict(saved or {}), sep=".", keep_empty_nodes=True)
    told = lambda values, name: json.dumps(values[name]) if name in values else "absent"  # noqa: E731
    names = [name for name in {**given, **kept} if given.get(name, ...) != kept.get(name, ...)]
    return [f"{name} {told(given, name)}, was {told(kept, name)}" for name in names]
