"""Numbers in words, the same in every command and on every page."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bedplate.records import Estimate


def number(value: float, digits: int = 3) -> str:
    """``1,469,307``, ``61.20``, ``0.137``: whole numbers with separators, fractions with ``digits`` places.

    A count of nothing is ``0``, a measured zero ``0.000``.
    """
    if isinstance(value, int) or (value.is_integer() and abs(value) >= 1):
        return f"{value:,.0f}"
    return f"{value:,.2f}" if abs(value) >= 10 else f"{value:.{digits}f}"


def estimate(value: "Estimate", digits: int = 3) -> str:
    """``0.158 [0.152, 0.164]``."""
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def money(amount: float, currency: str = "") -> str:
    """``61.20 USD``."""
    return f"{amount:,.2f} {currency}".rstrip()


def seconds(value: float) -> str:
    """``4.1 s``, ``3 min 12 s``, ``5.2 h`` or ``21.0 d``."""
    if value < 90:
        return f"{value:.1f} s"
    if value >= 7200:
        return f"{value / 3600:.1f} h" if value < 2 * 86400 else f"{value / 86400:.1f} d"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def span(value: float) -> str:
    """``2 d``, ``334 d 3 h``, ``40 s``: whole seconds, in the two greatest units that there are any of."""
    left, parts = max(0, round(value)), list[str]()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def one_line(text: str) -> str:
    """Lines of an error as one, ``2 problems: line 5: ...; line 7: ...``; a line in capitals begins a sentence."""
    lines = [line.strip().rstrip(".") for line in text.splitlines() if line.strip()]
    told = lines[0] if lines else ""
    for number, line in enumerate(lines[1:]):
        told += f"{'. ' if line[:1].isupper() else '; ' if number else ': '}{line}"
    return told


def size(value: float) -> str:
    """``12.4 MB``: powers of ten, as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def moment(written: str) -> str:
    """``2026-11-25 02:59 UTC``."""
    return f"{written[:10]} {written[11:16]} UTC"


def listed(names: Iterable[str], none: str = "-") -> str:
    """``growth, risk``, or ``none`` if there is none."""
    return ", ".join(names) or none


def short(digest: str) -> str:
    """The first twelve digits of a digest: enough for people to compare, never used to look one up."""
    return digest.removeprefix("sha256:")[:12]


def clip(text: str, width: int) -> str:
    """``text`` on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def cut(text: str, width: int = 100) -> str:
    """``text`` cut at ``width`` characters, its columns kept."""
    text = text.replace("\n", " ").rstrip()
    return text if len(text) <= width else f"{text[: width - 1]}…"
