"""Programs that tests kill begin with our modules loaded, whatever else is collected beside them."""

from tests.forked import Program

ASK = "import sys; print(*(name for name in sys.argv[1:] if name not in sys.modules))"
LOADED = ("bedplate.store", "bedplate.data.tables", "bedplate.serve.replica", "dbos")


def test_a_program_begins_with_what_it_takes_loaded() -> None:
    assert Program(ASK, *LOADED).end() == (0, "\n", "")
