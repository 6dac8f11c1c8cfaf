"""Changes the source of one function of the product for a while: how planted bugs are written.

The function object stays the same, so that whoever imported it has the bug too. A fragment that does not occur exactly
once fails loudly: a planted bug that no longer applies must not pass for one that nothing catches.
"""

from __future__ import annotations
import __future__

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FunctionType
from typing import Any


class DoesNotApply(Exception):
    """The product's source is not what the planted bug was written for."""


@contextmanager
def patched_source(target: str, *changes: tuple[str, str]) -> Iterator[None]:
    """Replace fragments of the source of `module:function` or `module:Class.method`; each must occur exactly once.

    Raise `DoesNotApply` where one does not, or the target is no plain function.
    """
    function = function_of(target)
    original = function.__code__
    function.__code__ = _changed(target, function, changes)
    try:
        yield
    finally:
        function.__code__ = original


def function_of(target: str) -> FunctionType:
    """Find a function by its module and its path there."""
    module_name, _, path = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in path.split("."):
        found = inspect.getattr_static(found, name, None)
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if not isinstance(found, FunctionType):
        raise DoesNotApply(f"{target} is not a function")
    return found


def _changed(target: str, function: FunctionType, changes: tuple[tuple[str, str], ...]) -> CodeType:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise DoesNotApply(f"{target} has {source.count(old)} times, not once: {old!r}")
        source = source.replace(old, new)
    flags = __future__.annotations.compiler_flag
    made: dict[str, Any] = {}
    code = compile(source, function.__code__.co_filename, "exec", flags=flags, dont_inherit=True)
    exec(code, function.__globals__, made)  # the product's own source, changed by us
    changed = made[function.__name__]
    changed = changed.__func__ if isinstance(changed, staticmethod | classmethod) else changed
    if changed.__code__.co_freevars != function.__code__.co_freevars:
        raise DoesNotApply(f"{target} closes over other names than before")
    code_of: CodeType = changed.__code__
    return code_of
