"""Prove that an ONNX model is only what its bytes say: no file beside it, no code, no operator of unknown origin.

The format's own checker would cost a serving replica the whole library; here is a walk over the protobuf messages of
``onnx.proto`` that refuses every part it does not know.
"""

import re

from bedplate.bundle.protobuf import field_at, fields

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""Operator sets that ONNX Runtime implements itself and that neither read files nor load libraries. ``com.microsoft``
is not among them: its ``EPContext`` names a file."""

_DEPTH = 16
# Field numbers of onnx.proto. What is not listed is refused: training_info (20) and configuration (26) of a model, and
# whatever a later version adds.
_MODEL_PLAIN = {1, 2, 3, 4, 5, 6, 14}
_GRAPH_PLAIN = {2, 10, 11, 12, 13, 14, 16}
_NODE_PLAIN = {1, 2, 3, 4, 6, 8, 9}
_ATTRIBUTE_PLAIN = {1, 2, 3, 4, 7, 8, 9, 13, 14, 15, 20, 21}
_TENSOR_PLAIN = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 16}
_FUNCTION_PLAIN = {1, 2, 4, 5, 6, 8, 10, 12, 13, 14}

# A tree ensemble holds its nodes as hundreds of thousands of unpacked floats (field 7) and integers (field 8). They are
# data; runs of them are stepped over by the regular expression engine instead of one at a time here.
_NUMBERS = re.compile(rb"(?:\x3d[\s\S]{4})+|(?:\x40[\x80-\xff]{0,9}[\x00-\x7f])+")


def check(data: bytes | memoryview) -> None:
    """Check a serialised ``ModelProto``.

    Raises:
        ValueError: it is not one, or holds external data, a foreign operator set, training code or an unknown part.
    """
    model = memoryview(data)
    graph: memoryview | None = None
    functions: list[memoryview] = []
    operator_sets: list[str] = []
    seen: set[int] = set()
    for number, _, value in fields(model):
        seen.add(number)
        if number == 7:
            if graph is not None:
                raise ValueError("it has two graphs")
            graph = value
        elif number == 8:
            operator_sets.append(_domain_of_set(value))
        elif number == 25:
            functions.append(value)
        elif number not in _MODEL_PLAIN:
            raise ValueError(f"it has a part that is not known here (field {number} of the model)")
    if graph is None or not operator_sets or 1 not in seen:
        raise ValueError("it is not an ONNX model: graph, operator sets or version are missing")
    own = {_function_domain(function) for function in functions}
    allowed = DOMAINS | own
    for domain in operator_sets:
        _check_domain(domain, allowed)
    for function in functions:
        _check_function(function, allowed)
    _check_graph(graph, allowed, 0)


def _domain_of_set(message: memoryview) -> str:
    domain = ""
    for number, _, value in fields(message):
        if number == 1:
            domain = bytes(value).decode()
        elif number != 2:
            raise ValueError("an operator set has a part that is not known here")
    return domain


def _function_domain(message: memoryview) -> str:
    for number, _, value in fields(message):
        if number == 10:
            return bytes(value).decode()
    return ""


def _check_domain(domain: str, allowed: frozenset[str]) -> None:
    if domain not in allowed:
        raise ValueError(f"it uses operators of {domain!r}; allowed are {', '.join(sorted(DOMAINS - {''}))}")


def _check_function(message: memoryview, allowed: frozenset[str]) -> None:
    for number, _, value in fields(message):
        if number == 7:
            _check_node(value, allowed, 0)
        elif number == 9:
            _check_domain(_domain_of_set(value), allowed)
        elif number == 11:
            _check_attribute(value, allowed, 0)
        elif number not in _FUNCTION_PLAIN:
            raise ValueError(f"a function has a part that is not known here (field {number})")


def _check_graph(message: memoryview, allowed: frozenset[str], depth: int) -> None:
    if depth > _DEPTH:
        raise ValueError(f"its graphs are nested more than {_DEPTH} deep")
    for number, _, value in fields(message):
        if number == 1:
            _check_node(value, allowed, depth)
        elif number == 5:
            _check_tensor(value)
        elif number == 15:
            _check_sparse_tensor(value)
        elif number not in _GRAPH_PLAIN:
            raise ValueError(f"a graph has a part that is not known here (field {number})")


def _check_node(message: memoryview, allowed: frozenset[str], depth: int) -> None:
    for number, _, value in fields(message):
        if number == 5:
            _check_attribute(value, allowed, depth)
        elif number == 7:
            _check_domain(bytes(value).decode(), allowed)
        elif number not in _NODE_PLAIN:
            raise ValueError(f"a node has a part that is not known here (field {number})")


def _check_attribute(message: memoryview, allowed: frozenset[str], depth: int) -> None:
    position = 0
    while position < len(message):
        if run := _NUMBERS.match(message, position):
            position = run.end()
            continue
        (number, _, value), position = field_at(message, position)
        if number in (5, 10):
            _check_tensor(value)
        elif number in (6, 11):
            _check_graph(value, allowed, depth + 1)
        elif number in (22, 23):
            _check_sparse_tensor(value)
        elif number not in _ATTRIBUTE_PLAIN:
            raise ValueError(f"an attribute has a part that is not known here (field {number})")


def _check_sparse_tensor(message: memoryview) -> None:
    for number, _, value in fields(message):
        if number in (1, 2):
            _check_tensor(value)
        elif number != 3:
            raise ValueError(f"a sparse tensor has a part that is not known here (field {number})")


def _check_tensor(message: memoryview) -> None:
    for number, integer, _ in fields(message):
        # A location other than the default 0: compared with 0, since a reader may cut a larger number down to 1.
        if number == 13 or (number == 14 and integer != 0):
            raise ValueError("it keeps tensors in files beside it (external data)")
        if number not in _TENSOR_PLAIN and number != 14:
            raise ValueError(f"a tensor has a part that is not known here (field {number})")
