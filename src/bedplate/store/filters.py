"""The language in which clients of MLflow say what they search for and in which order.

A filter is comparisons joined by AND: ``metrics.loss < 0.1 AND params."batch size" = '32'``. What may be compared, and
how, differs from one kind of thing to the next, so a :class:`Grammar` says it: one for runs, one for experiments, one
for each kind that another module adds. Text becomes :class:`Clause` and :class:`Order` values here and nowhere else;
:mod:`bedplate.store.search` makes statements of those, with every word and number of a user's bound as a value.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn

import msgspec

from bedplate.errors import InputError

Kind = Literal["attribute", "metric", "param", "tag", "dataset"]
Comparator = Literal["=", "!=", "<", "<=", ">", ">=", "LIKE", "ILIKE", "IN", "NOT IN", "IS NULL", "IS NOT NULL"]
AttributeType = Literal["text", "number", "integer", "identifier"]
Value = str | int | float | tuple[str, ...] | None

NUMBERS: frozenset[Comparator] = frozenset({"=", "!=", "<", "<=", ">", ">="})
SAME: frozenset[Comparator] = frozenset({"=", "!="})
TEXTS: frozenset[Comparator] = frozenset({"=", "!=", "LIKE", "ILIKE"})
LISTS: frozenset[Comparator] = frozenset({"IN", "NOT IN"})
PRESENCE: frozenset[Comparator] = frozenset({"IS NULL", "IS NOT NULL"})

LONGEST = 100_000
"""A filter of more characters than this is refused."""
MOST_COMPARISONS, MOST_KEYS = 100, 20
"""More comparisons in a filter, or keys to order by, are refused: databases have limits of their own, not far above."""
LONGEST_PATTERN = 10_000
"""A LIKE pattern of more characters than this is refused: SQLite has a limit of its own, a little higher."""

KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("parameter", "parameters", "param", "params"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
"""Every word that may stand before the dot, and what it means."""


class FilterError(InputError):
    """A text is not of the grammar: ``problem`` says what is wrong, ``at`` where in it, counted from 0."""

    def __init__(self, problem: str, at: int, text: str, *, where: str, fix: str) -> None:
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        super().__init__(f"{problem}, at character {at + 1} of {shown!r}", where=where, fix=fix)
        self.problem, self.at, self.text = problem, at, text


class Clause(msgspec.Struct, frozen=True):
    """One comparison. ``value`` is a tuple after IN and NOT IN, and None after IS NULL and IS NOT NULL."""

    kind: Kind
    key: str
    comparator: Comparator
    value: Value


class Order(msgspec.Struct, frozen=True):
    """One key to order by."""

    kind: Kind
    key: str
    ascending: bool


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """What can be compared and ordered by in one kind of search.

    ``kinds`` are the words before the dot. ``attributes`` are those that a filter may name: ``text`` and ``identifier``
    are compared with quoted text, ``number`` with any number, ``integer`` with a whole one. ``aliases`` are other names
    of attributes. ``comparators`` are those of every kind but attributes. ``listed`` names what IN and NOT IN may
    follow: attributes, and ``dataset`` keys. ``nullable`` are the kinds that IS NULL and IS NOT NULL may follow.
    """

    kinds: Mapping[str, Kind]
    attributes: Mapping[str, AttributeType]
    aliases: Mapping[str, str] = {}
    comparators: Mapping[Kind, frozenset[Comparator]] = {}
    listed: frozenset[str] = frozenset()
    nullable: frozenset[Kind] = frozenset()
    order_attributes: frozenset[str] = frozenset()
    order_kinds: frozenset[Kind] = frozenset({"attribute"})
    dataset_keys: frozenset[str] = frozenset()


def parse(text: str, grammar: Grammar) -> tuple[Clause, ...]:
    """The comparisons of a filter; none for an empty one.

    Raises:
        FilterError: it is not of the grammar.
    """
    return _Parser(text, grammar, "filter").clauses() if text else ()


def parse_order(items: Sequence[str], grammar: Grammar) -> tuple[Order, ...]:
    """The keys to order by, each written as in ``metrics.loss DESC``.

    Raises:
        FilterError: one is not of the grammar.
        InputError: a key comes twice.
    """
    if len(items) > MOST_KEYS:
        raise InputError(f"order_by has at most {MOST_KEYS} keys", fix="name those that matter")
    orders: list[Order] = []
    for item in items:
        order = _Parser(item, grammar, "order_by").order()
        if any((order.kind, order.key) == (seen.kind, seen.key) for seen in orders):
            raise InputError(f"order_by names {order.key!r} twice", fix="name each key once")
        orders.append(order)
    return tuple(orders)


class _Token(NamedTuple):
    kind: Literal["word", "quoted", "text", "number", "symbol", "end"]
    text: str
    start: int


_SYMBOLS = ("<=", ">=", "!=", "=", "<", ">", "(", ")", ",", ".")
_DIGITS = frozenset("0123456789")


class _Parser:
    """One text, read from left to right once."""

    def __init__(self, text: str, grammar: Grammar, where: str) -> None:
        self._text, self._grammar, self._where = text, grammar, where
        if len(text) > LONGEST:
            self._fail(LONGEST, f"it is longer than {LONGEST} characters")
        self._tokens = list(self._scan())
        self._next = 0

    @property
    def _logs(self) -> bool:
        """Whether what is searched has metrics and params."""
        return "metric" in self._grammar.kinds

    # ------------------------------------------------------------------------------------------------------- tokens

    def _scan(self) -> Iterator[_Token]:
        text, at = self._text, 0
        while at < len(text):
            character = text[at]
            if character.isspace():
                at += 1
                continue
            if character in "'\"`":
                content, end = self._quoted(at)
                yield _Token("text" if character == "'" else "quoted", content, at)
            elif self._begins_number(at):
                end = self._number_end(at)
                yield _Token("number", text[at:end], at)
            elif _is_word(character):
                end = at
                while end < len(text) and _is_word(text[end]):
                    end += 1
                yield _Token("word", text[at:end], at)
            else:
                symbol = next((each for each in _SYMBOLS if text.startswith(each, at)), None)
                if symbol is None:
                    self._fail(at, f"{character!r} does not belong here")
                end = at + len(symbol)
                yield _Token("symbol", symbol, at)
            at = end
        yield _Token("end", "", len(text))

    def _quoted(self, start: int) -> tuple[str, int]:
        """What stands between quotes, and where it ends. The quote itself is written twice within them."""
        quote, parts, at = self._text[start], [], start + 1
        while True:
            end = self._text.find(quote, at)
            if end < 0:
                self._fail(start, f"this {quote} is never closed")
            parts.append(self._text[at:end])
            if not self._text.startswith(quote, end + 1):
                content = quote.join(parts)
                if not is_storable(content):
                    self._fail(start, "what is quoted cannot be stored, so nothing can equal it")
                return content, end + 1
            at = end + 2

    def _begins_number(self, at: int) -> bool:
        text = self._text
        before = text[at - 1] if at else " "
        if before == "." or (text[at] == "." and (_is_word(before) or before in "`\"'")):  # `metrics.1` names a metric
            return False
        if text[at] == "-":
            at += 1
        if at < len(text) and text[at] == ".":
            at += 1
        return at < len(text) and text[at] in _DIGITS

    def _number_end(self, start: int) -> int:
        text, at = self._text, start + 1
        while at < len(text) and (
            text[at] in _DIGITS or text[at] in ".eE" or (text[at] in "+-" and text[at - 1] in "eE")
        ):
            at += 1
        if at < len(text) and _is_word(text[at]):
            self._fail(start, "this is neither a number nor a name")
        return at

    # ------------------------------------------------------------------------------------------------------ grammar

    def clauses(self) -> tuple[Clause, ...]:
        """All comparisons."""
        found: list[Clause] = []
        while self._peek().kind != "end":
            if found:
                token = self._take()
                if token.kind != "word" or token.text.upper() != "AND":
                    self._fail(token.start, f"{token.text!r} follows a comparison; only AND may")
                if len(found) == MOST_COMPARISONS:
                    self._fail(token.start, f"a filter has at most {MOST_COMPARISONS} comparisons")
            found.append(self._clause())
        return tuple(found)

    def order(self) -> Order:
        """One key, and its direction."""
        start = self._peek().start
        kind, key = self._identifier(ordering=True)
        ascending = True
        token = self._take()
        if token.kind == "word" and token.text.upper() in ("ASC", "DESC"):
            ascending = token.text.upper() == "ASC"
            token = self._take()
        if token.kind != "end":
            self._fail(token.start, f"{token.text!r} does not belong here; ASC or DESC may end it")
        if kind not in self._grammar.order_kinds:
            self._fail(start, f"{kind}s cannot be ordered by")
        return Order(kind, key, ascending)

    def _clause(self) -> Clause:
        kind, key = self._identifier(ordering=False)
        token = self._peek()
        comparator = self._comparator()
        if comparator in PRESENCE:
            if kind not in self._grammar.nullable:
                self._fail(token.start, f"{comparator} does not go with {kind} {key!r}")
            return Clause(kind, key, comparator, None)
        if comparator not in self._comparators(kind, key):
            allowed = ", ".join(sorted(self._comparators(kind, key)))
            self._fail(token.start, f"{comparator} does not go with {kind} {key!r}; these do: {allowed}")
        return Clause(kind, key, comparator, self._value(kind, key, comparator))

    def _identifier(self, *, ordering: bool) -> tuple[Kind, str]:
        first = self._take()
        if first.kind not in ("word", "quoted"):
            self._fail(first.start, "the name of what is searched is expected here, such as metrics.loss")
        kind: Kind = "attribute"
        key = first.text
        if self._peek().text == "." and self._peek().kind == "symbol":
            self._take()
            named = self._grammar.kinds.get(first.text)
            if named is None:
                words = ", ".join(self._grammar.kinds)
                self._fail(first.start, f"{first.text!r} is nothing to search; before the dot stands one of {words}")
            kind, key = named, self._key()
        if kind == "attribute":
            key = self._grammar.aliases.get(key, key)
            known = self._grammar.order_attributes if ordering else self._grammar.attributes
            if key not in known:
                self._fail(
                    first.start,
                    f"there is no attribute {key!r}; there are {', '.join(sorted(known))}",
                    fix=f"if runs logged it, write metrics.{key}, params.{key} or tags.{key}" if self._logs else "",
                )
        if kind == "dataset" and key not in self._grammar.dataset_keys:
            self._fail(first.start, f"a dataset has no {key!r}")
        return kind, key

    def _key(self) -> str:
        """What stands after the first dot: words with dots between them, or one quoted name."""
        token = self._take()
        if token.kind in ("quoted", "text"):
            return token.text
        if token.kind != "word":
            self._fail(token.start, "a name is expected after the dot; one with other signs stands in backticks")
        parts = [token.text]
        while self._peek().kind == "symbol" and self._peek().text == ".":
            self._take()
            token = self._take()
            if token.kind != "word":
                self._fail(token.start, "a name is expected after the dot; one with other signs stands in backticks")
            parts.append(token.text)
        return ".".join(parts)

    def _comparator(self) -> Comparator:
        token = self._take()
        word = token.text.upper()
        if token.kind == "symbol" and word in NUMBERS:
            return word
        if token.kind == "word":
            if word in ("LIKE", "ILIKE", "IN"):
                return word  # type: ignore[return-value]
            if word == "NOT" and self._word("IN"):
                return "NOT IN"
            if word == "IS":
                absent = not self._word("NOT")
                if self._word("NULL"):
                    return "IS NULL" if absent else "IS NOT NULL"
        return self._fail(token.start, "a comparator is expected here, such as = or LIKE")

    def _comparators(self, kind: Kind, key: str) -> frozenset[Comparator]:
        grammar = self._grammar
        listed: frozenset[Comparator] = frozenset()
        if key in grammar.listed and kind in ("attribute", "dataset"):
            listed = LISTS
        if kind != "attribute":
            return grammar.comparators[kind].union(listed)
        match grammar.attributes[key]:
            case "text":
                return TEXTS.union(listed)
            case "identifier":
                return SAME.union(listed)
            case _:
                return NUMBERS

    def _value(self, kind: Kind, key: str, comparator: Comparator) -> Value:
        token = self._take()
        if comparator in LISTS:
            return self._list(token)
        of = self._grammar.attributes[key] if kind == "attribute" else "number" if kind == "metric" else "text"
        if of in ("number", "integer"):
            if token.kind != "number":
                self._fail(token.start, f"{key!r} is compared with a number")
            number = self._number(token)
            if of == "integer" and isinstance(number, float):
                self._fail(token.start, f"{key!r} is compared with a whole number")
            return number
        if token.kind not in ("text", "quoted") or self._text[token.start] == "`":
            self._fail(token.start, f"{key!r} is compared with text in single or double quotes")
        if comparator in ("LIKE", "ILIKE") and len(token.text) > LONGEST_PATTERN:
            self._fail(token.start, f"a pattern has at most {LONGEST_PATTERN} characters")
        return token.text

    def _number(self, token: _Token) -> int | float:
        try:
            if len(token.text) <= 19 and all(character in "-0123456789" for character in token.text):
                return int(token.text)
            number = float(token.text)
        except ValueError:
            self._fail(token.start, f"{token.text!r} is no number")
        return number

    def _list(self, token: _Token) -> tuple[str, ...]:
        if token.kind != "symbol" or token.text != "(":
            self._fail(token.start, "a list of quoted texts in parentheses is expected here")
        found: list[str] = []
        while True:
            token = self._take()
            if found and token.text == ")" and token.kind == "symbol":
                return tuple(found)
            if token.kind not in ("text", "quoted") or self._text[token.start] == "`":
                self._fail(token.start, "a quoted text is expected here")
            found.append(token.text)
            token = self._take()
            if token.kind == "symbol" and token.text == ")":
                return tuple(found)
            if token.kind != "symbol" or token.text != ",":
                self._fail(token.start, "a comma or a closing parenthesis is expected here")

    # ------------------------------------------------------------------------------------------------------ helpers

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        if token.kind != "end":
            self._next += 1
        return token

    def _word(self, word: str) -> bool:
        """Take the next token if it is this word."""
        token = self._peek()
        if token.kind == "word" and token.text.upper() == word:
            self._next += 1
            return True
        return False

    def _fail(self, at: int, message: str, fix: str = "") -> NoReturn:
        raise FilterError(message, at, self._text, where=self._where, fix=fix or self._example())

    def _example(self) -> str:
        if self._where != "filter":
            return "write a name and then ASC or DESC"
        if self._logs:
            return "write comparisons joined by AND: metrics.loss < 0.1 AND params.`batch size` = '32'"
        return "write comparisons joined by AND: name LIKE 'churn%' AND tags.team = 'growth'"


def _is_word(character: str) -> bool:
    return character == "_" or character.isalnum()


def is_storable(text: str) -> bool:
    """Whether a database can hold it: PostgreSQL takes no NUL, and half of a surrogate pair is no text."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
