"""What a new version of a contract changes, and for whom that breaks something: its source, or whoever reads its table.

A change breaks readers where rows may hold what they could not before: a column is gone or of another type, a null
or a value is let in that a rule kept out. It breaks the source where rows that were fine are refused.
"""

from collections.abc import Iterator
from typing import Any

from bedplate.data.model import Contract, KeyRule, Model, ReferenceRule, RowRule, SetRule
from bedplate.records import Breaks, ContractChange

_RISING = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_FALLING = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def compare(old: Model, new: Model) -> tuple[ContractChange, ...]:
    """Every difference that can matter to somebody, by column and then rule. Words and descriptions do not count."""
    return (*_columns(old, new), *_rules(old, new))


def breaks_readers(changes: tuple[ContractChange, ...]) -> tuple[ContractChange, ...]:
    """Those that break whoever reads the table."""
    return tuple(change for change in changes if change.breaks in ("readers", "both"))


def announced(old: Contract, new: Contract) -> bool:
    """Whether the new version says that it breaks something: by a higher first number, or another text of no number."""
    before, after = (_major(contract.version) for contract in (old, new))
    return old.version != new.version if before is None or after is None else after > before


def _major(version: str) -> int | None:
    first = version.strip().lstrip("v").partition(".")[0]
    return int(first) if first.isascii() and first.isdigit() else None


def _columns(old: Model, new: Model) -> Iterator[ContractChange]:
    before, after = ({column.name: column for column in model.columns} for model in (old, new))
    for name in before.keys() - after.keys():
        yield ContractChange(column=name, what="the column is gone", breaks="both")
    for name in after.keys() - before.keys():
        yield ContractChange(column=name, what="the column is new", breaks="source")
    for name in [name for name in before if name in after]:
        was, now = before[name], after[name]
        if was.logical_type != now.logical_type:
            what = f"the type was {was.logical_type} and is {now.logical_type}"
            yield ContractChange(column=name, what=what, breaks="both")
        elif was.zone != now.zone:
            yield ContractChange(column=name, what=f"{_zone(was.zone)}, and {_zone(now.zone)} now", breaks="both")
        elif was.pattern != now.pattern:
            what = f"the format was {was.format or 'ISO 8601'} and is {now.format or 'ISO 8601'}"
            yield ContractChange(column=name, what=what, breaks="source")
        elif (was.format == "binary") != (now.format == "binary"):
            what = "text became bytes" if now.format == "binary" else "bytes became text"
            yield ContractChange(column=name, what=what, breaks="both")


def _zone(zone: str | None) -> str:
    if zone is None:
        return "times might name a zone or not"
    return f"times that named none were of {zone}" if zone else "times named no zone"


def _rules(old: Model, new: Model) -> Iterator[ContractChange]:
    before, after = (_by_id(model) for model in (old, new))
    gone = {column.name for column in old.columns} - {column.name for column in new.columns}
    for name in [*before, *(name for name in after if name not in before)]:
        was, now = before.get(name), after.get(name)
        column = _column(was or now)
        if was is None and now is not None and _keeps_out(now):
            yield ContractChange(column=column, what=f"the rule {name} is new", breaks="source")
        elif now is None and was is not None and _keeps_out(was) and column not in gone:
            yield ContractChange(column=column, what=f"the rule {name} is gone", breaks="readers")
        elif was is not None and now is not None:
            yield from _changed(name, was, now)


_Rule = RowRule | KeyRule | ReferenceRule | SetRule


def _by_id(model: Model) -> dict[str, _Rule]:
    rules: tuple[_Rule, ...] = (*model.rows, *model.keys, *model.references, *model.sets)
    return {rule.id: rule for rule in rules}


def _column(rule: _Rule | None) -> str:
    if isinstance(rule, RowRule):
        return rule.column
    return ", ".join(rule.columns) if rule is not None else ""


def _keeps_out(rule: _Rule) -> bool:
    """Whether it keeps rows out of the table, or the table as it was; what only counts changes nothing for anybody."""
    return rule.severity == "error" or (rule.severity == "warning" and not isinstance(rule, SetRule))


def _changed(name: str, was: _Rule, now: _Rule) -> Iterator[ContractChange]:
    if _keeps_out(was) != _keeps_out(now):
        breaks: Breaks = "readers" if _keeps_out(was) else "source"
        what = f"the severity of {name} was {was.severity} and is {now.severity}"
        yield ContractChange(column=_column(now), what=what, breaks=breaks)
    if not _keeps_out(now) or _says(was) == _says(now):
        return
    yield ContractChange(column=_column(now), what=_what(name, was, now), breaks=_direction(was, now))


def _says(rule: _Rule) -> Any:
    if isinstance(rule, RowRule):
        return (rule.column, rule.check, rule.limit)
    if isinstance(rule, KeyRule):
        return rule.columns
    if isinstance(rule, ReferenceRule):
        return (rule.columns, rule.table, rule.to)
    return (rule.metric, rule.columns, rule.operator, rule.limit, rule.percent, rule.query, rule.arguments)


def _what(name: str, was: _Rule, now: _Rule) -> str:
    if isinstance(was, RowRule) and isinstance(now, RowRule):
        return f"{name} was {_plain(was.limit)} and is {_plain(now.limit)}"
    return f"the rule {name} says something else"


def _plain(limit: Any) -> str:
    return ", ".join(map(str, limit)) if isinstance(limit, tuple) else str(limit)


def _direction(was: _Rule, now: _Rule) -> Breaks:
    if not (isinstance(was, RowRule) and isinstance(now, RowRule) and was.check == now.check):
        return "both"
    if now.check == "validValues":
        fewer, more = set(now.limit) - set(was.limit), set(was.limit) - set(now.limit)
        return "both" if fewer and more else "readers" if fewer else "source"
    if now.check in (*_RISING, *_FALLING):
        return "source" if (now.limit > was.limit) == (now.check in _RISING) else "readers"
    return "both"
