"""What a policy text must be before Cedar may parse it.

Cedar's parser recurses: about 1,000 nested parentheses end the process with a segmentation fault, which no ``except``
catches. So size and depth are bounded here first, on the text alone.
"""

from bedplate.errors import InputError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
_OPEN, _CLOSE = "([{", ")]}"
# Operators that nest without brackets: "!!!!x", "----1", "if a then if b then ...", "a.b.c.d", "a has b.c".
_MAX_RUN = 64


def check_text(text: str, where: str | None = None) -> None:
    """Refuse a policy text that could overwhelm the parser.

    Raises:
        InputError: it is too long, nested too deeply, or not text.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InputError(f"the policy text is longer than {MAX_BYTES // 1024} KiB", where=where, fix="split it")
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError("the policy text holds characters that are no text", where=where, fix="remove them")
    depth = unary = line = 0
    for mark in _tokens(text):
        line += mark == "\n"
        depth += (mark in _OPEN) - (mark in _CLOSE)
        unary = unary + 1 if mark in "!-" else 0 if not mark.isspace() else unary
        if depth > MAX_DEPTH or unary > _MAX_RUN:
            raise InputError(
                f"line {line + 1} nests deeper than {MAX_DEPTH}", where=where, fix="write the condition flatter"
            )
    statements = text.replace("}", ";").split(";")
    for statement in statements:
        if statement.count(".") + statement.count("then") > 4 * _MAX_RUN or len(statement) > 32 * 1024:
            raise InputError("one condition is too long", where=where, fix="split the policy into several")


def _tokens(text: str) -> list[str]:
    """The characters of the text outside string literals and comments."""
    found: list[str] = []
    index, end = 0, len(text)
    while index < end:
        character = text[index]
        if character == '"':
            index += 1
            while index < end and text[index] != '"':
                index += 2 if text[index] == "\\" else 1
            found.append('"')
        elif text.startswith("//", index):
            index = text.find("\n", index)
            if index < 0:
                break
            found.append("\n")
        else:
            found.append(character)
        index += 1
    return found
