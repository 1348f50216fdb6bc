"""The browser that the tests of pages share."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

expect.set_options(timeout=60_000)  # ms: only what fails takes as long


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, as users have it. Not for longer than a module: its event loop would be in the way of others."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.fail("the page tests need Chromium: sudo apt-get install --yes chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()
