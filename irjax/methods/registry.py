"""The registry of methods: irjax's own and those of other packages.

Another package provides a method as an entry point of the group ``irjax.methods``; a program calls `register`; a
command takes ``--method MODULE:ATTRIBUTE`` (or a known name).
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from collections.abc import Mapping
from typing import Any

from irjax.errors import UsageError, UserError
from irjax.layers.blocks import fold_batch_norm
from irjax.methods.method import Method

GROUP = "irjax.methods"  # group of entry points
BUILT_IN = ("adsnet", "mshnet", "na_irstd", "spire")  # modules of this folder, each with its METHOD
_registered: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Registers a method under its name in this process.

    Returns:
      The method, so that a module can write ``METHOD = register(Method(...))``.

    Raises:
      UserError: if another method has the name.
    """
    if method.name in BUILT_IN or _registered.get(method.name, method) is not method:
        raise UserError(f"there is another method {method.name!r}")
    _registered[method.name] = method
    return method


def register_from(reference: str) -> Method:
    """Returns the method that a command's ``--method`` names, and registers it if it is given as ``MODULE:ATTRIBUTE``.

    Raises:
      UsageError: if the text is neither a known name nor of that form, or there is no such module, attribute or method.
    """
    if reference in method_names():
        return find_method(reference)
    module, _, attribute = reference.partition(":")
    if not module or not attribute:
        known = ", ".join(method_names())
        raise UsageError(f"--method must be MODULE:ATTRIBUTE or one of {known}, got {reference!r}")
    try:
        method = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--method {reference}: {error}") from error
    return register(_checked(method, f"--method {reference}"))


def find_method(name: str) -> Method:
    """Returns the method of a name.

    Raises:
      UserError: if it is unknown; the message lists the known ones.
    """
    if name in BUILT_IN:
        return importlib.import_module(f"irjax.methods.{name}").METHOD
    if name in _registered:
        return _registered[name]
    if name in _entry_points():
        return register(_checked(_entry_points()[name].load(), f"the entry point {name}"))
    raise UserError(f"unknown method {name!r}; known: {', '.join(method_names())}")


def method_names() -> tuple[str, ...]:
    """Returns the names of all methods, in alphabetical order, without loading any."""
    return tuple(sorted({*BUILT_IN, *_registered, *_entry_points()}))


def fold_variables(name: str, variables: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Folds the normalisations of a method's weights into its convolutions.

    Args:
      name: name of the method.
      variables: ``params`` and ``batch_stats`` of its network.

    Returns:
      The variables for prediction, and the fields of the module that change.

    Raises:
      UserError: if the weights are folded already and folding changes their names.
    """
    own = find_method(name).fold
    return own(variables) if own else (fold_batch_norm(variables), {})


@functools.cache
def _entry_points() -> Mapping[str, importlib.metadata.EntryPoint]:
    return {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}


def _checked(method: Any, what: str) -> Method:
    if not isinstance(method, Method):
        raise UsageError(f"{what} is no irjax.methods.Method, but {type(method).__name__}")
    return method
