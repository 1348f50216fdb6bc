"""On how many examples a law is tried.

In every run on few, the same ones each time: what passes once passes again. ``make long`` tries ten times as many, at
random, and with ``LAWS=many`` the same ones each time. How long an example takes says how busy the machine is: there is
no deadline, and none is too slow.
"""

from typing import Any

from hypothesis import HealthCheck, settings

FEW, MANY = 20, 200
_BUSY = (HealthCheck.too_slow,)


def register() -> None:
    """The profiles, the one of every run in force."""
    for name, count in (("suite", FEW), ("many", MANY), ("long", MANY)):
        settings.register_profile(
            name,
            max_examples=count,
            derandomize=name != "long",
            database=None,
            deadline=None,
            suppress_health_check=_BUSY,
        )
    settings.load_profile("suite")


def examples(count: int = FEW, suppress: tuple[HealthCheck, ...] = (), **more: Any) -> settings:
    """For a law whose examples cost more than those of others: ``count`` where they get :data:`FEW`, and so on."""
    most = max(1, count * settings.default.max_examples // FEW)
    return settings(max_examples=most, suppress_health_check=(*_BUSY, *suppress), **more)
