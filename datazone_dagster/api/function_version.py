"""Version of a transform's function: given by the user, or a fingerprint of its code.

The fingerprint covers what the code says, not how it is written: comments, docstrings, decorators
and formatting do not count. It includes the constants and the functions of the same package that
the function refers to by name, since SQL often stands in a constant.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable, Iterator
from tokenize import TokenError
from types import CodeType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

from datazone_dagster.api.transform import Transform

_DIGITS = 12


def function_version(transform: Transform) -> str:
    """Return the version given to `transform`, else a fingerprint of the function's code."""
    if transform.version is not None:
        return transform.version
    known = _known.get(transform)
    if known is None:
        known = _known[transform] = fingerprint(transform.function)
    return known


_known: WeakKeyDictionary[Transform, str] = WeakKeyDictionary()
"""Fingerprints of this process: a list that the function appends to is no change of its code."""


def fingerprint(function: Callable[..., Any]) -> str:
    """Return a short hash of a function's code, equal in every process.

    It is equal in every version of Python, too, where the source is there.
    """
    digest = hashlib.sha256("\n".join(_parts(function, set())).encode())
    return digest.hexdigest()[:_DIGITS]


def _parts(function: Callable[..., Any], seen: set[object]) -> Iterator[str]:
    plain = inspect.unwrap(function)
    code = getattr(plain, "__code__", None)
    if not isinstance(plain, FunctionType) or not isinstance(code, CodeType) or code in seen:
        return
    seen.add(code)
    yield _source(plain) or _compiled(code)
    names = sorted({name for one in _codes(code) for name in (*one.co_names, *one.co_freevars)})
    package = (plain.__module__ or "").partition(".")[0]
    for name, value in _referred(plain, names):
        if isinstance(value, FunctionType):
            if (value.__module__ or "").partition(".")[0] == package:
                yield name
                yield from _parts(value, seen)
        elif _is_constant(value):
            yield f"{name} = {_constant(value)}"


def _source(function: FunctionType) -> str | None:
    """Return the source without what does not count; None if there is none."""
    try:
        text = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError, SyntaxError, TokenError):  # no source, or the file has changed
        return None
    try:
        tree = ast.parse(text)
    except SyntaxError:  # a lambda in the middle of a call
        return None
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.decorator_list = []
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _compiled(code: CodeType) -> str:
    constants = [
        _compiled(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts
    ]
    return repr((code.co_code.hex(), constants, code.co_names))


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _referred(function: FunctionType, names: list[str]) -> Iterator[tuple[str, object]]:
    closed = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    for name in names:
        if name in closed:
            try:
                yield name, closed[name].cell_contents
            except ValueError:  # a name that is not set yet
                continue
        elif name in function.__globals__:
            yield name, function.__globals__[name]


def _is_constant(value: object) -> bool:
    if isinstance(value, (tuple, list, set, frozenset)):
        return all(map(_is_constant, value))
    if isinstance(value, dict):
        return all(map(_is_constant, (*value, *value.values())))
    return value is None or isinstance(value, (str, bytes, bool, int, float))


def _constant(value: object) -> str:
    if isinstance(value, (set, frozenset)):
        return "{" + ", ".join(sorted(map(_constant, value))) + "}"
    if isinstance(value, dict):
        return _constant(tuple(value.items()))
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(map(_constant, value)) + ")"
    return repr(value)
