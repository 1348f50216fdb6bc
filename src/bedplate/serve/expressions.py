"""Arithmetic that features on demand are written in: the same function offline and in the path of a request.

An expression is read once and run on columns; it calls nothing but what is listed here. What is missing is not a
number, and so is whatever is made of it, except by ``coalesce``.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bedplate.errors import InputError
from bedplate.serve.state import MISSING, Floats

Values = npt.NDArray[np.float64]
_MOST_NODES = 200

_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
}
_COMPARE: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}


def _coalesce(value: Any, other: Any) -> Any:
    return np.where(np.isnan(value), other, value)


_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "log": (1, np.log),
    "exp": (1, np.exp),
    "sqrt": (1, np.sqrt),
    "floor": (1, np.floor),
    "min": (2, np.minimum),
    "max": (2, np.maximum),
    "coalesce": (2, _coalesce),
}


class Expression:
    """``text``, checked: numbers, names of columns, ``+ - * /``, comparisons (1 or 0), ``a if b else c``, and
    ``abs log exp sqrt floor min max coalesce``. ``names`` are the columns it takes.

    Raises:
        InputError: it is anything else.
    """

    def __init__(self, text: str) -> None:
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{text[:100]!r} is no expression", fix="write it as in: amount / spend_7d") from error
        nodes = list(ast.walk(self._tree))
        if len(nodes) > _MOST_NODES:
            raise InputError("the expression is too long", fix="make several features of it")
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        self.names = frozenset(n.id for n in nodes if isinstance(n, ast.Name) and id(n) not in called)
        _check(self._tree)

    def of(self, columns: Mapping[str, Any]) -> Values:
        """Its values, shape (rows,); not a number where a column that counts is missing, or the arithmetic has none.

        ``columns`` holds one-dimensional numbers by name, not a number where they are missing.
        """
        with np.errstate(all="ignore"):
            values = np.asarray(_run(self._tree, columns), np.float64)
        return np.where(np.isfinite(values), values, np.nan)


def on_demand(
    expressions: Mapping[str, Expression], columns: Mapping[str, npt.ArrayLike], defaults: Mapping[str, float]
) -> dict[str, Floats]:
    """Features made of others and of what a request gives, by name, shape (rows,); later ones may use earlier ones.

    :data:`~bedplate.serve.state.MISSING` is what is missing, in ``columns`` and, without a default, in what is made.
    """
    known = {name: np.asarray(values, np.float64).ravel() for name, values in columns.items()}
    known = {name: np.where(values == MISSING, np.nan, values) for name, values in known.items()}
    made: dict[str, Floats] = {}
    for name, expression in expressions.items():
        values = expression.of(known)
        known[name] = np.where(np.isnan(values), defaults.get(name, np.nan), values)
        made[name] = np.where(np.isnan(known[name]), MISSING, known[name]).astype(np.float32)
    return made


def _check(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return None
        case ast.Name():
            return None
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _check(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            _check(left)
            return _check(right)
        case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
            _check(left)
            return _check(right)
        case ast.IfExp(test=test, body=body, orelse=other):
            for part in (test, body, other):
                _check(part)
            return None
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            if len(arguments) != _FUNCTIONS[name][0]:
                raise InputError(f"{name} takes {_FUNCTIONS[name][0]} values", fix="give as many")
            for argument in arguments:
                _check(argument)
            return None
    raise InputError(
        f"{ast.unparse(node)[:100]!r} cannot be used in a feature on demand",
        fix=f"use numbers, names, + - * /, one comparison, if else, {', '.join(_FUNCTIONS)}",
    )


def _run(node: ast.AST, columns: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return np.float64(value)  # type: ignore[arg-type]
        case ast.Name(id=name):
            return np.asarray(columns[name], np.float64)
        case ast.UnaryOp(operand=operand):
            return -_run(operand, columns)
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](_run(left, columns), _run(right, columns))
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            a, b = _run(left, columns), _run(right, columns)
            return np.where(np.isnan(a) | np.isnan(b), np.nan, _COMPARE[type(op)](a, b))
        case ast.IfExp(test=test, body=body, orelse=other):
            condition = _run(test, columns)
            chosen = np.where(condition != 0, _run(body, columns), _run(other, columns))
            return np.where(np.isnan(condition), np.nan, chosen)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _FUNCTIONS[name][1](*(_run(argument, columns) for argument in arguments))
    raise AssertionError(ast.dump(node))
