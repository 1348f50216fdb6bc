"""Which environment a stage or an alias of the registry stands for. This table is the one place that says it.

Moving a version into ``Staging`` or ``Production``, or pointing an alias to it that stands for an environment, is a
request to release it there. ``None`` and ``Archived`` take it back, and every other alias is a label.
"""

from collections.abc import Mapping

from bedplate.errors import InputError

PRODUCTION = "production"
NONE, STAGING, PRODUCTION_STAGE, ARCHIVED = "None", "Staging", "Production", "Archived"
STAGES: Mapping[str, str | None] = {NONE: None, STAGING: "staging", PRODUCTION_STAGE: PRODUCTION, ARCHIVED: None}
"""Every stage, and the environment that it stands for."""
ALIASES: Mapping[str, str] = {"champion": PRODUCTION, "production": PRODUCTION, "prod": PRODUCTION, "live": PRODUCTION}
"""Aliases that stand for an environment, in lower case. ``BEDPLATE_ALIASES`` adds to them and takes from them."""

_CANONICAL = {stage.lower(): stage for stage in STAGES}


def stage_named(text: str) -> str:
    """The stage that ``text`` names, whatever its case.

    Raises:
        InputError: there is none.
    """
    stage = _CANONICAL.get(text.lower())
    if stage is None:
        raise InputError(f"{text!r} is no stage of a model version", fix=f"use one of {', '.join(STAGES)}")
    return stage


def of_alias(alias: str, aliases: Mapping[str, str] = ALIASES) -> str | None:
    """The environment that an alias stands for; None for a label. Its case does not matter: it is no way around."""
    return aliases.get(alias.casefold())


def parse_aliases(text: str) -> dict[str, str]:
    """The table in force where ``BEDPLATE_ALIASES`` says ``canary=staging,live=``: an empty environment makes a label.

    Raises:
        InputError: a part is not of the form ``alias=environment``.
    """
    found = dict(ALIASES)
    for part in filter(None, (part.strip() for part in text.split(","))):
        alias, equals, environment = (piece.strip() for piece in part.partition("="))
        if not alias or not equals:
            raise InputError(
                f"{part!r} does not say what an alias stands for",
                where="BEDPLATE_ALIASES",
                fix="write alias=environment, separated by commas; nothing after the = makes the alias a label",
            )
        found[alias.casefold()] = environment
    return {alias: environment for alias, environment in found.items() if environment}
