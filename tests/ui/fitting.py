"""Pages as they come on a phone and on a screen, light and dark: each fits, and nothing complains."""

from collections.abc import Callable, Iterable
from typing import Any

WIDTHS, SCHEMES = (375, 1440), ("light", "dark")
_FITS = "width => document.documentElement.scrollWidth <= width"


def all_fit(page: Any, address: str, paths: Iterable[str], drawn: Callable[[Any], None]) -> None:
    """Open each page once, unfold it, have it ``drawn``, and look at it in every width and scheme."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(address) else None)
    for path in paths:
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        assert page.goto(address + path).status == 200, path
        for details in page.locator("details").all():
            details.evaluate("element => element.open = true")
        drawn(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                page.wait_for_function(_FITS, arg=width)
    assert complaints == []
