"""Who may do what, in one table that people can read: an action on a kind of resource, and the roles that may.

Actions on a Table are asked with a purpose that its use case names, those on a Bundle or a Model for production with
every gate passed. ``Closed`` is a workspace that is not shared and names nobody of the roles. Who is disabled does not
even come in.
"""

from tests.team import ROLES

TABLE = """
                    administrator  engineer  viewer  auditor  caller  nobody  disabled
enter      Home          yes          yes      yes     yes      yes    yes       -
read       Home          yes          yes      yes      -        -      -        -
list       Home          yes          yes      yes      -        -      -        -
write      Home          yes          yes       -       -        -      -        -
plan       Home          yes          yes       -       -        -      -        -
run        Home          yes          yes       -       -        -      -        -
operate    Home          yes          yes       -       -        -      -        -
administer Home          yes           -        -       -        -      -        -
audit      Home          yes           -        -       -        -      -        -

read       UseCase       yes          yes      yes      -        -      -        -
list       UseCase       yes          yes      yes      -        -      -        -
write      UseCase       yes          yes       -       -        -      -        -
ingest     UseCase       yes          yes       -       -        -      -        -
plan       UseCase       yes          yes       -       -        -      -        -
run        UseCase       yes          yes       -       -        -      -        -
operate    UseCase       yes          yes       -       -        -      -        -
administer UseCase       yes           -        -       -        -      -        -
audit      UseCase       yes           -        -       -        -      -        -

read       Table         yes          yes       -       -        -      -        -
list       Table         yes          yes       -       -        -      -        -
write      Table         yes          yes       -       -        -      -        -
ingest     Table         yes          yes       -       -        -      -        -
unmask     Table         yes           -        -       -        -      -        -

read       Run           yes          yes      yes      -        -      -        -
list       Run           yes          yes      yes      -        -      -        -
write      Run           yes          yes       -       -        -      -        -

read       Bundle        yes          yes      yes      -        -      -        -
list       Bundle        yes          yes      yes      -        -      -        -
write      Bundle        yes          yes       -       -        -      -        -
approve    Bundle         -            -        -       -        -      -        -
waive      Bundle         -            -        -       -        -      -        -
release    Bundle        yes           -        -       -        -      -        -

read       Model         yes          yes      yes      -        -      -        -
list       Model         yes          yes      yes      -        -      -        -
write      Model         yes          yes       -       -        -      -        -
approve    Model          -            -        -       -        -      -        -

read       Endpoint      yes          yes      yes      -        -      -        -
list       Endpoint      yes          yes      yes      -        -      -        -
write      Endpoint      yes          yes       -       -        -      -        -
predict    Endpoint      yes          yes       -       -       yes     -        -
load       Endpoint      yes          yes       -       -        -      -        -
unload     Endpoint      yes          yes       -       -        -      -        -
operate    Endpoint      yes          yes       -       -        -      -        -

read       Ledger        yes          yes      yes     yes       -      -        -
list       Ledger        yes          yes      yes     yes       -      -        -
write      Ledger        yes          yes       -       -        -      -        -
audit      Ledger        yes           -        -      yes       -      -        -

read       Workspace     yes          yes      yes      -        -      -        -
list       Workspace     yes          yes      yes      -        -      -        -
write      Workspace     yes          yes       -       -        -      -        -
administer Workspace     yes           -        -       -        -      -        -

read       Closed        yes           -        -       -        -      -        -
list       Closed        yes           -        -       -        -      -        -
write      Closed        yes           -        -       -        -      -        -
administer Closed        yes           -        -       -        -      -        -
"""


def _parsed() -> dict[tuple[str, str], dict[str, bool]]:
    head, *rows = (line.split() for line in TABLE.splitlines() if line.strip())
    assert head == list(ROLES)
    assert all(word in ("yes", "-") for _, _, *words in rows for word in words)
    return {
        (action, kind): {role: word == "yes" for role, word in zip(head, words, strict=True)}
        for action, kind, *words in rows
    }


MAY = _parsed()
"""By action and kind: which roles may."""
