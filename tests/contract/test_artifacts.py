"""What holds for names of artifacts, uploads and condemned content, on SQLite and on PostgreSQL."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate import clock, ids
from bedplate.errors import BedplateError, ConflictError, NotFoundError
from bedplate.ids import Digest
from bedplate.store import Store
from tests.laws import examples

RUN = "0/4d0a5ad6fc4b4a0cb7f3d9ae6b4d2f10/artifacts"
START = datetime(2026, 1, 1, tzinfo=UTC)


def digest(content: object) -> Digest:
    return ids.digest_bytes(str(content).encode())


def put(store: Store, path: str, content: object = "x", workspace: str = "default") -> None:
    """Give content a name in a transaction of its own."""
    with store.transaction() as tx:
        if tx.workspaces.find(workspace) is None:
            tx.workspaces.add(workspace)
        tx.artifacts.put(workspace, path, digest(content), len(str(content)), by="prn_1")


def names(store: Store, folder: str, workspace: str = "default", **page: object) -> list[str]:
    """What a folder lists; folders with a slash."""
    with store.read() as tx:
        rows = tx.artifacts.list(workspace, folder, **page)  # type: ignore[arg-type]
    return [row.name if row.digest else f"{row.name}/" for row in rows]


def condemned(store: Store, *contents: object) -> list[bool]:
    """Which of the contents are condemned."""
    with store.read() as tx:
        return [tx.condemned.since(digest(content)) is not None for content in contents]


# --------------------------------------------------------------------------------------------------------------- names


def test_a_folder_lists_one_level(store: Store) -> None:
    """Files and folders, by name; what lies deeper is not shown."""
    for name in ("b.txt", "a/deep/er.bin", "a/x", "a-b", "a0", "B"):
        put(store, f"{RUN}/{name}")

    assert names(store, RUN) == ["B", "a/", "a-b", "a0", "b.txt"]
    assert names(store, f"{RUN}/a") == ["deep/", "x"]
    assert names(store, "") == ["0/"]
    assert names(store, f"{RUN}/b.txt") == names(store, "nothing") == []


def test_a_folder_lists_in_pages(store: Store) -> None:
    """The next page begins behind the last name."""
    for number in range(7):
        put(store, f"{RUN}/{number}")

    first = names(store, RUN, limit=3)

    assert first == ["0", "1", "2"]
    assert names(store, RUN, limit=3, after="2") == ["3", "4", "5"]
    assert names(store, RUN, limit=3, after="6") == []


def test_a_name_is_looked_up_with_what_it_names(store: Store) -> None:
    """Size, digest, who and when; a folder has no digest."""
    put(store, f"{RUN}/model/MLmodel", "flavors")
    with store.read() as tx:
        file = tx.artifacts.find("default", f"{RUN}/model/MLmodel")
        folder = tx.artifacts.find("default", f"{RUN}/model")
        nothing = tx.artifacts.find("default", f"{RUN}/mode")

    assert file is not None
    assert folder is not None
    assert (file.path, file.digest, file.size, file.by) == (f"{RUN}/model/MLmodel", digest("flavors"), 7, "prn_1")
    assert file.created > 0
    assert (folder.digest, nothing) == (None, None)


def test_workspaces_do_not_see_each_other(store: Store) -> None:
    """The same name in another workspace is another artifact."""
    put(store, "a/b", "ours")
    put(store, "a/b", "theirs", workspace="other")
    with store.transaction() as tx:
        tx.artifacts.remove("other", "a")
        with pytest.raises(NotFoundError):
            tx.artifacts.remove("third", "a")

    assert names(store, "a") == ["b"]
    assert names(store, "", workspace="other") == []


def test_a_workspace_with_artifacts_stays(store: Store) -> None:
    """It goes when its last artifact, and with it the last folder, has gone."""
    put(store, "a/b/c", workspace="other")
    with store.transaction() as tx, pytest.raises(ConflictError):
        tx.workspaces.delete("other")
    with store.transaction() as tx:
        tx.artifacts.remove("other", "a/b/c")
    with store.transaction() as tx:
        tx.workspaces.delete("other")


def test_a_name_is_a_file_or_a_folder(store: Store) -> None:
    """What would make it both is refused and changes nothing."""
    put(store, "a/b/c")

    for path in ("a/b", "a", "a/b/c/d", "a/b/c/d/e"):
        with pytest.raises(ConflictError):
            put(store, path)

    assert names(store, "a/b") == ["c"]
    assert names(store, "a/b/c") == []


def test_names_are_compared_by_code_point(store: Store) -> None:
    """Neither database folds case or knows a language."""
    for name in ("é", "z", "Z", "ä", "a b", "日本", "🙂"):
        put(store, f"f/{name}")

    assert names(store, "f") == sorted(["é", "z", "Z", "ä", "a b", "日本", "🙂"])


def test_removing_a_folder_removes_what_is_below_and_nothing_beside(store: Store) -> None:
    """Neighbours whose names begin alike stay."""
    for name in ("a/x", "a/y/z", "a-b", "a0/x", "a.b/x"):
        put(store, f"r/{name}", name)
    with store.transaction() as tx:
        assert tx.artifacts.remove("default", "r/a") == (2, len("a/x") + len("a/y/z"))

    assert names(store, "r") == ["a-b", "a.b/", "a0/"]
    assert names(store, "r/a/y") == []
    with store.transaction() as tx, pytest.raises(NotFoundError):
        tx.artifacts.remove("default", "r/a")


def test_walking_gives_every_file_below(store: Store) -> None:
    """By folder and name, folders themselves left out."""
    for name in ("b", "a/x", "a/b/c"):
        put(store, f"r/{name}")
    with store.read() as tx:
        assert [row.path for row in tx.artifacts.walk("default", "r")] == ["r/b", "r/a/x", "r/a/b/c"]


@examples(10, suppress=(HealthCheck.function_scoped_fixture,))
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "remove"]),
            st.lists(st.sampled_from(["a", "b", "a0", "a-"]), min_size=1, max_size=3).map("/".join),
        ),
        max_size=25,
    )
)
def test_names_behave_like_a_tree(store: Store, steps: list[tuple[str, str]]) -> None:
    """Any sequence of puts and removals leaves what the same sequence leaves in a tree of folders."""
    here, files, folders = ids.new_id("wsp"), set[str](), set[str]()
    for step, path in steps:
        above = {path[:i] for i, letter in enumerate(path) if letter == "/"}
        try:
            if step == "put":
                expected = not (path in folders or above & files)
                put(store, path, path, workspace=here)
                files, folders = files | {path}, folders | above
            else:
                expected = path in files | folders
                with store.transaction() as tx:
                    tx.artifacts.remove(here, path)
                gone = {each for each in files | folders if each == path or each.startswith(f"{path}/")}
                files, folders = files - gone, folders - gone
        except BedplateError:
            assert not expected, (step, path)
        else:
            assert expected, (step, path)

        # A folder is there as long as something is in it.
        folders = {folder for folder in folders if any(file.startswith(f"{folder}/") for file in files)}

    for folder in ("", *folders):
        inside = {f for f in files if f.rpartition("/")[0] == folder} | {
            f"{f}/" for f in folders if f.rpartition("/")[0] == folder
        }
        assert set(names(store, folder, workspace=here)) == {name.removeprefix(f"{folder}/") for name in inside}


def test_the_ranges_use_the_key(store: Store) -> None:
    """One level and all that is below are read through the key, not by looking at every row."""
    for number in range(300):
        put(store, f"r/{number}/x")
    explain = "EXPLAIN " if store.postgresql else "EXPLAIN QUERY PLAN "
    with store.read() as tx:
        if store.postgresql:
            tx._connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for where in ("folder = 'r/7/' AND name > ''", "folder >= 'r/7/' AND folder < 'r/70'"):
            statement = sa.text(f"{explain} SELECT * FROM artifacts WHERE workspace = 'default' AND {where}")
            plan = "\n".join(str(row) for row in tx._connection.execute(statement))
            key = "Index Cond: ((workspace = 'default'" if store.postgresql else "(workspace=? AND folder"
            assert key in plan, plan
            assert "folder" in plan.partition("Filter:")[0], plan


def test_a_folder_is_not_removed_under_what_is_put_into_it(store: Store) -> None:
    """However puts and removals of one tree meet, every file has its folders, and every folder is found."""
    rounds, threads = 40, 4
    barrier = threading.Barrier(threads)

    def work(number: int) -> None:
        for turn in range(rounds):
            if turn % 10 == 0:
                barrier.wait(30)
            try:
                if number == 0:
                    with store.transaction() as tx:
                        tx.artifacts.remove("default", "t/a")
                else:
                    put(store, f"t/a/{turn % 3}/{number}", f"{number}.{turn}")
            except NotFoundError:
                pass

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))

    with store.read() as tx:
        for row in tx.artifacts.walk("default", "t"):
            above = row.folder.rstrip("/")
            while above:
                folder = tx.artifacts.find("default", above)
                assert folder is not None, row.path
                assert folder.digest is None
                above = above.rpartition("/")[0]


# ----------------------------------------------------------------------------------------------------------- condemned


def test_content_is_condemned_while_nothing_names_it(store: Store) -> None:
    """Losing the last name condemns, being named pardons; a replaced content loses its name."""
    put(store, "a", "one")
    assert condemned(store, "one") == [False]

    put(store, "a", "two")
    assert condemned(store, "one", "two") == [True, False]

    put(store, "b/c", "one")
    put(store, "a", "two")
    assert condemned(store, "one", "two") == [False, False]

    with store.transaction() as tx:
        tx.artifacts.remove("default", "b")
        tx.artifacts.remove("default", "a")
    assert condemned(store, "one", "two") == [True, True]


def test_losing_a_name_again_begins_the_time_anew(store: Store) -> None:
    """What counts is how long content was without a name, not when it first was."""
    with clock.frozen(START):
        with store.transaction() as tx:
            tx.condemned.condemn([digest("x")])
        with store.transaction() as tx:
            tx.condemned.condemn([digest("x")], again=False)
    with clock.frozen(START + timedelta(days=2)):
        with store.transaction() as tx:
            tx.condemned.condemn([digest("x")], again=False)
        before = clock.milliseconds() - 1000
        with store.read() as tx:
            assert tx.condemned.due(before) == [digest("x")]
        with store.transaction() as tx:
            tx.condemned.condemn([digest("x")])
        with store.read() as tx:
            assert tx.condemned.due(before) == []
            assert tx.condemned.since(digest("x")) == clock.milliseconds()


def test_what_is_due_comes_in_pages(store: Store) -> None:
    """All of it is seen once, in the order of digests."""
    all_ = sorted(digest(number) for number in range(20))
    with store.transaction() as tx:
        tx.condemned.condemn(all_)
    seen: list[Digest] = []
    with store.read() as tx:
        while page := tx.condemned.due(clock.milliseconds() + 1, after=seen[-1] if seen else "", limit=7):
            seen += page

    assert seen == all_


def test_names_and_mentions_are_found(store: Store) -> None:
    """Artifacts and parts name content; evidence mentions it, wherever in its body."""
    put(store, "a", "artifact")
    with store.transaction() as tx:
        upload = tx.uploads.begin("default", "b", by="prn_1")
        tx.uploads.put_part(upload.id, 1, digest("part"), 4)
        tx.facts.put(
            "training", "shop", {"artifacts": {"model.onnx": digest("model")}, "deep": [{"x": digest("deep")}]}
        )
        tx.condemned.condemn([digest("model")])
    wanted = [digest(name) for name in ("artifact", "part", "model", "deep", "nothing")]
    with store.read() as tx:
        assert tx.condemned.named(wanted) == set(wanted[:2])
        assert tx.condemned.known(wanted) == {wanted[2]}
        assert tx.condemned.mentioned() == {wanted[2], wanted[3]}


# ------------------------------------------------------------------------------------------------------------- uploads


def test_parts_are_kept_and_replaced_by_number(store: Store) -> None:
    """The last word on a number counts; what it replaced has no name any more."""
    with store.transaction() as tx:
        upload = tx.uploads.begin("default", f"{RUN}/big", by="prn_1")
        tx.uploads.put_part(upload.id, 2, digest("b"), 1)
        tx.uploads.put_part(upload.id, 1, digest("a"), 1)
        tx.uploads.put_part(upload.id, 2, digest("B"), 2)
    with store.read() as tx:
        parts = [(part.number, part.digest, part.size) for part in tx.uploads.parts(upload.id)]
        again = tx.uploads.get("default", upload.id)

    assert parts == [(1, digest("a"), 1), (2, digest("B"), 2)]
    assert condemned(store, "a", "b", "B") == [False, True, False]
    assert (again.path, again.digest, again.by) == (f"{RUN}/big", None, "prn_1")


@pytest.mark.parametrize("end", ["finish", "drop"])
def test_an_upload_that_ends_gives_its_parts_up(store: Store, end: str) -> None:
    """Their content has no name any more; a finished upload is remembered, a dropped one is not."""
    with store.transaction() as tx:
        upload = tx.uploads.begin("default", "x", by="prn_1")
        tx.uploads.put_part(upload.id, 1, digest("a"), 1)
    with store.transaction() as tx:
        if end == "finish":
            tx.uploads.finish(upload.id, digest("whole"), digest("receipt"))
        else:
            tx.uploads.drop(upload.id)

    assert condemned(store, "a") == [True]
    with store.read() as tx:
        assert tx.uploads.parts(upload.id) == []
        if end == "finish":
            ended = tx.uploads.get("default", upload.id)
            assert (ended.digest, ended.receipt) == (digest("whole"), digest("receipt"))
        else:
            with pytest.raises(NotFoundError):
                tx.uploads.get("default", upload.id)


def test_an_upload_belongs_to_its_workspace(store: Store) -> None:
    """To others it does not exist."""
    with store.transaction() as tx:
        upload = tx.uploads.begin("default", "x", by="prn_1")
        with pytest.raises(NotFoundError):
            tx.uploads.get("other", upload.id)


def test_uploads_that_nobody_carries_on_are_found(store: Store) -> None:
    """A part that comes keeps an upload alive."""
    with clock.frozen(START), store.transaction() as tx:
        old, kept = (tx.uploads.begin("default", name, by="prn_1") for name in ("old", "kept"))
    with clock.frozen(START + timedelta(hours=20)), store.transaction() as tx:
        tx.uploads.put_part(kept.id, 1, digest("a"), 1)
    with clock.frozen(START + timedelta(hours=25)), store.read() as tx:
        stale = tx.uploads.stale(clock.milliseconds() - 24 * 3600 * 1000)

    assert [upload.id for upload in stale] == [old.id]
