"""Artifacts: named, found, read, deleted, each change an entry of the ledger."""

import pytest

from bedplate import ids
from bedplate.blobs.port import key
from bedplate.errors import ConflictError, InputError, IntegrityError, NotFoundError
from bedplate.tracking.artifacts import folder_of, subject
from tests.tracking.conftest import WORKSPACE, Kept
from tests.tracking.hostile_paths import CORPUS

RUN = "4d0a5ad6fc4b4a0cb7f3d9ae6b4d2f10"


def test_what_was_put_is_found_and_read(kept: Kept) -> None:
    kept.put(f"0/{RUN}/artifacts/model/MLmodel", b"flavors: {}")

    row = kept.artifacts.find(WORKSPACE, f"0/{RUN}/artifacts/model/MLmodel")
    (folder,) = kept.artifacts.list(WORKSPACE, f"0/{RUN}/artifacts")

    assert (row.size, row.by, row.digest) == (11, "ana", ids.digest_bytes(b"flavors: {}"))
    assert (folder.name, folder.digest) == ("model", None)
    assert kept.get(f"0/{RUN}/artifacts/model/MLmodel") == b"flavors: {}"
    assert b"".join(kept.artifacts.read(row, 0, 7)) == b"flavors"


def test_each_change_is_one_entry_and_names_stand_in_payloads(kept: Kept) -> None:
    path = f"0/{RUN}/artifacts/a.txt"
    kept.put(path, b"one")
    kept.put(path, b"two")
    kept.delete(path)
    kept.delete(path)
    kept.put("0/models/m-4d0a5ad6fc4b4a0cb7f3d9ae6b4d2f10/artifacts/w", b"w")
    kept.put("loose", b"x")

    assert kept.entries() == [
        ("artifact.put", f"run/{RUN}"),
        ("artifact.put", f"run/{RUN}"),
        ("artifact.delete", f"run/{RUN}"),
        ("artifact.put", "logged_model/m-4d0a5ad6fc4b4a0cb7f3d9ae6b4d2f10"),
        ("artifact.put", "workspace/default"),
    ]
    with kept.store.read() as tx:
        payloads = [kept.ledger.entry(tx, index)[1] for index in range(3)]
    one, two = ids.digest_bytes(b"one"), ids.digest_bytes(b"two")
    assert payloads == [
        {"workspace": WORKSPACE, "path": path, "digest": one, "size": 3},
        {"workspace": WORKSPACE, "path": path, "digest": two, "size": 3, "replaces": one},
        {"workspace": WORKSPACE, "path": path, "files": 1, "bytes": 3},
    ]


def test_the_same_content_is_kept_once(kept: Kept) -> None:
    for number in range(5):
        kept.put(f"copies/{number}", b"the same")

    assert list(kept.place.digests()) == [ids.digest_bytes(b"the same")]


def test_a_folder_goes_with_all_that_is_in_it(kept: Kept) -> None:
    for name in ("a/x", "a/b/y", "a/b/z", "c"):
        kept.put(f"r/{name}", name.encode())

    assert kept.delete("r/a") == 3
    assert [row.name for row in kept.artifacts.list(WORKSPACE, "r")] == ["c"]
    with pytest.raises(NotFoundError):
        kept.get("r/a/x")


def test_nothing_is_received_for_a_name_that_cannot_be(kept: Kept) -> None:
    kept.put("a/b", b"x")

    for path, error in (("a", ConflictError), ("a/b/c", ConflictError), ("../x", InputError)):
        with pytest.raises(error):
            kept.artifacts.expect(WORKSPACE, path)
    with pytest.raises(NotFoundError):
        kept.artifacts.expect("nowhere", "x")


def test_no_verb_takes_a_hostile_name(kept: Kept) -> None:
    verbs = {
        "expect": lambda path: kept.artifacts.expect(WORKSPACE, path),
        "put": lambda path: kept.put(path, b"x"),
        "list": lambda path: kept.artifacts.list(WORKSPACE, path),
        "find": lambda path: kept.artifacts.find(WORKSPACE, path),
        "delete": kept.delete,
        "begin": lambda path: kept.uploads.begin(WORKSPACE, path, 1, by=kept.ana),
        "complete": lambda path: kept.uploads.complete(WORKSPACE, path, "upl_x", [], by=kept.ana),
        "abort": lambda path: kept.uploads.abort(WORKSPACE, path, "upl_x"),
    }
    taken = []
    for name, verb in verbs.items():
        for path in CORPUS if name != "put" else CORPUS[::20]:
            try:
                verb(path)
            except InputError as error:
                if isinstance(error, NotFoundError):
                    taken.append((name, path))
            else:
                taken.append((name, path))

    assert taken == []
    assert kept.entries() == []


def test_a_folder_has_no_content(kept: Kept) -> None:
    kept.put("a/b", b"x")
    with pytest.raises(InputError, match="is a folder"):
        kept.artifacts.find(WORKSPACE, "a")


@pytest.mark.parametrize("found", [b"forged!", b"genu", b"genuine and more", None])
def test_content_that_is_not_what_was_named_is_never_handed_over(kept: Kept, tmp_path, found: bytes | None) -> None:
    kept.put("a", b"genuine")
    file = tmp_path / "blobs" / key(ids.digest_bytes(b"genuine"))
    file.unlink() if found is None else file.write_bytes(found)

    with pytest.raises(IntegrityError):
        kept.get("a")


@pytest.mark.parametrize(
    ("location", "folder"),
    [
        ("mlflow-artifacts:/0/abc/artifacts", "0/abc/artifacts"),
        ("mlflow-artifacts://host:5000/0/abc", "0/abc"),
        ("mlflow-artifacts:/workspaces/team-a/3", "workspaces/team-a/3"),
        ("mlflow-artifacts:/", None),
        ("s3://bucket/0/abc", None),
        ("/tmp/x", None),
        ("file:///tmp/x", None),
        ("", None),
    ],
)
def test_where_artifacts_lie_is_read_from_their_location(location: str, folder: str | None) -> None:
    assert folder_of(location) == folder


def test_the_ledger_names_what_an_artifact_belongs_to() -> None:
    assert subject("team", f"workspaces/team/3/{RUN}/artifacts/x") == f"run/{RUN}"
    assert subject("team", f"x/{RUN}/x") == "workspace/team"
