"""Names that no artifact may have, and names that every artifact may."""

import pathlib
import posixpath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.tracking import paths
from tests.tracking.hostile_paths import CORPUS

PLAIN = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs"), exclude_characters="/\\%#"), max_size=30
)


def test_the_corpus_is_large() -> None:
    assert len(CORPUS) > 750


@pytest.mark.parametrize("group", range(10))
def test_hostile_names_are_refused(group: int) -> None:
    accepted = []
    for path in CORPUS[group::10]:
        try:
            paths.check(path)
        except InputError:
            continue
        accepted.append(path)

    assert accepted == []


def test_a_refusal_says_what_was_refused_in_plain_letters() -> None:
    with pytest.raises(InputError, match="Invalid path") as caught:
        paths.check("a\u202eb/\x00\ud800")

    assert caught.value.where == "a\\u202eb/\\x00\\ud800"


@pytest.mark.parametrize(
    "path",
    [
        *("a", "a/b.txt", "0/4d0a/artifacts/model/MLmodel", "a b", "résumé.pdf", "日本/語", "👩‍💻.png", "a..b", "..a"),
        *("ab:c", "x=1,y={2}", ".hidden", "a/.git/config", "model.tar.gz", "~a", "$HOME", "a'b\"c", "a&b?c", "a" * 255),
    ],
)
def test_ordinary_names_are_taken(path: str) -> None:
    assert paths.check(path) == path
    assert paths.check(f"{path}/") == path


@given(st.lists(PLAIN, min_size=1, max_size=5))
def test_what_is_taken_leads_nowhere_else(segments: list[str]) -> None:
    path = "/".join(segments)
    try:
        name = paths.check(path)
    except InputError:
        return

    assert name == path.removesuffix("/")
    assert posixpath.normpath(name) == name
    assert not pathlib.PurePosixPath(name).is_absolute()
    assert not pathlib.PureWindowsPath(name).drive
    assert ".." not in pathlib.PureWindowsPath(name).parts


@given(st.text(max_size=50))
def test_any_text_is_taken_or_refused(text: str) -> None:
    try:
        assert paths.check(text) == text.removesuffix("/")
    except InputError as error:
        str(error).encode()


@pytest.mark.parametrize(
    ("given", "name"),
    [("model.pkl", "model.pkl"), ("/tmp/x/model.pkl", "model.pkl"), ("C:\\Users\\a\\m.bin", "m.bin"), ("a/b\\c", "c")],
)
def test_the_clients_own_path_gives_only_its_last_part(given: str, name: str) -> None:
    assert paths.base(given) == name
