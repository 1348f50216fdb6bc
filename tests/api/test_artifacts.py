"""Artifacts as MLflow's clients put, list, get and delete them, over a real control plane."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import httpx
import pytest

from bedplate import ids
from bedplate.app import workspaces
from bedplate.blobs.port import key
from tests import plane
from tests.serve.support import eventually
from tests.tracking.hostile_paths import CORPUS

pytestmark = pytest.mark.slow

BASE = "/api/2.0/mlflow-artifacts/artifacts"
MPU = "/api/2.0/mlflow-artifacts/mpu"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with plane.running(tmp_path_factory.mktemp("artifacts") / "home") as running:
        yield running


@pytest.fixture
def client(served):
    with httpx.Client(base_url=served.address, headers={"authorization": f"Bearer {served.key}"}) as made:
        yield made


@pytest.fixture
def run(client):
    """The id of a new run in the default experiment."""
    return new_run(client)


@pytest.fixture
def root(run):
    """Where the artifacts of that run lie."""
    return f"0/{run}/artifacts"


def new_run(client, experiment="0", **headers):
    answer = client.post("/api/2.0/mlflow/runs/create", json={"experiment_id": experiment}, headers=headers)
    return answer.json()["run"]["info"]["run_id"]


def put(client, path, data=b"x", **headers):
    answer = client.put(f"{BASE}/{quote(path)}", content=data, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def problem(answer):
    return answer.status_code, answer.json()["error_code"]


# ------------------------------------------------------------------------------------------------------------ the proxy


def test_files_go_in_and_out(client, root):
    data = bytes(range(256)) * 20_000

    assert put(client, f"{root}/model/weights.bin", data).content == b""
    answer = client.get(f"{BASE}/{root}/model/weights.bin")

    assert answer.content == data
    assert {name: answer.headers[name] for name in ("content-type", "content-disposition", "content-length")} == {
        "content-type": "application/octet-stream",
        "content-disposition": "attachment; filename=weights.bin",
        "content-length": str(len(data)),
    }


def test_a_folder_lists_one_level_under_plain_names(client, root):
    for name in ("model/MLmodel", "model/data/x.bin", "a.txt"):
        put(client, f"{root}/{name}", name.encode())

    listed = {path: client.get(BASE, params={"path": path}).json() for path in (root, f"{root}/model", f"{root}/none")}

    assert listed[root] == {
        "files": [{"path": "a.txt", "is_dir": False, "file_size": 5}, {"path": "model", "is_dir": True}]
    }
    assert listed[f"{root}/model"] == {
        "files": [{"path": "MLmodel", "is_dir": False, "file_size": 13}, {"path": "data", "is_dir": True}]
    }
    assert listed[f"{root}/none"] == {}
    assert client.get(BASE, params={"path": f"{root}/a.txt"}).json() == {}
    assert {"path": "0", "is_dir": True} in client.get(BASE).json()["files"]


def test_deleting_takes_a_file_or_a_whole_folder(client, root):
    for name in ("a", "f/b", "f/c/d"):
        put(client, f"{root}/{name}")

    for path in (f"{root}/a", f"{root}/f", f"{root}/never", f"{root}/"):
        answer = client.delete(f"{BASE}/{path}")
        assert (answer.status_code, answer.json()) == (200, {})

    assert client.get(BASE, params={"path": root}).json() == {}
    assert problem(client.get(f"{BASE}/{root}/f/b")) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_what_cannot_be_is_refused_as_mlflow_refuses_it(client, root):
    put(client, f"{root}/dir/file")

    assert problem(client.get(f"{BASE}/{root}/dir")) == (400, "INVALID_PARAMETER_VALUE")
    assert problem(client.get(f"{BASE}/{root}/dir/none")) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert problem(client.put(f"{BASE}/{root}/dir", content=b"x")) == (400, "RESOURCE_ALREADY_EXISTS")
    assert problem(client.put(f"{BASE}/{root}/dir/file/x", content=b"x")) == (400, "RESOURCE_ALREADY_EXISTS")
    assert problem(client.get(f"/api/2.0/mlflow-artifacts/presigned/{root}/dir/file")) == (501, "NOT_IMPLEMENTED")


@pytest.mark.parametrize(
    ("name", "kind", "disposition"),
    [
        ("page.html", "text/html", "attachment; filename=page.html"),
        ("pic.svg", "image/svg+xml", "attachment; filename=pic.svg"),
        ("MLmodel", "text/plain", "attachment; filename=MLmodel"),
        ("run.log", "text/plain", "attachment; filename=run.log"),
        ("data.json", "text/plain", "attachment; filename=data.json"),
        ("script.js", "text/plain", "attachment; filename=script.js"),
        ("model.pkl", "application/octet-stream", "attachment; filename=model.pkl"),
        ("plot.png", "image/png", "attachment; filename=plot.png"),
        ("no ending", "application/octet-stream", 'attachment; filename="no ending"'),
        ('é"q.txt', "text/plain", 'attachment; filename="e\\"q.txt"; filename*=UTF-8\'\'%C3%A9%22q.txt'),
    ],
)
def test_nothing_that_was_logged_is_ever_shown_as_a_page(client, root, name, kind, disposition):
    put(client, f"{root}/{name}", b"<script>alert(1)</script>")

    answer = client.get(f"{BASE}/{root}/{quote(name)}")

    assert (answer.headers["content-type"], answer.headers["content-disposition"]) == (kind, disposition)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"
    assert "content-security-policy" not in client.get(BASE).headers


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_parts_of_a_file_can_be_asked_for(client, root, size):
    data = (b"0123456789" * (size // 10 + 1))[:size]
    put(client, f"{root}/r", data)
    for given, part in {
        "bytes=1-2": data[1:3],
        "bytes=-3": data[-3:],
        f"bytes={size - 5}-": data[-5:],
        f"bytes=5-{size * 2}": data[5:],
        f"bytes=0-{size - 1}": data,
    }.items():
        answer = client.get(f"{BASE}/{root}/r", headers={"range": given})
        assert (answer.status_code, answer.content) == (206, part), given
        assert answer.headers["content-range"].endswith(f"/{size}")
    for given in (f"bytes={size}-", "bytes=-0"):
        answer = client.get(f"{BASE}/{root}/r", headers={"range": given})
        assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{size}"), given
    for given in ("x", "bytes=0-1,3-4", "bytes=5-2", "bytes=-", "bytes=" + "9" * 30 + "-"):
        assert client.get(f"{BASE}/{root}/r", headers={"range": given}).content == data
    other = client.get(f"{BASE}/{root}/r", headers={"range": "bytes=0-1", "if-range": '"other"'})
    assert (other.status_code, other.content) == (200, data)
    head = client.head(f"{BASE}/{root}/r")
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    assert head.headers["etag"] == f'"{ids.digest_bytes(data).removeprefix("sha256:")}"'


@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_damaged_file_never_arrives_whole(client, served, root, size):
    data = ids.digest_bytes(root.encode()).encode() * (size // 71 + 1)
    put(client, f"{root}/d", data)
    file = served.home.blobs / key(ids.digest_bytes(data))
    file.write_bytes(data[:-1] + b"x")

    try:
        answer = client.get(f"{BASE}/{root}/d")
    except httpx.RemoteProtocolError:
        return

    assert problem(answer) == (500, "INTERNAL_ERROR")


def test_an_upload_that_breaks_off_leaves_nothing(client, served, root):
    connection = http.client.HTTPConnection(served.address.removeprefix("http://"))
    connection.putrequest("PUT", f"{BASE}/{root}/half")
    connection.putheader("authorization", f"Bearer {served.key}")
    connection.putheader("content-length", str(8 << 20))
    connection.endheaders(b"x" * (6 << 20))  # some pieces of it
    eventually(lambda: list(served.home.blobs.glob(".incoming.*")))
    connection.close()
    eventually(lambda: not list(served.home.blobs.glob(".incoming.*")))
    assert client.get(BASE, params={"path": root}).json() == {}


# ----------------------------------------------------------------------------------------------------------- who may


def test_every_verb_needs_a_key_and_the_right(served, client, root):
    put(client, f"{root}/a")
    viewer = served.identity.add_principal("user", f"vera {root}", ("viewers",), actor="test")
    looks = {"authorization": f"Bearer {served.identity.create_key(viewer.id, actor='test')}"}
    calls = [
        ("GET", BASE, 200),
        ("GET", f"{BASE}/{root}/a", 200),
        ("PUT", f"{BASE}/{root}/b", 403),
        ("DELETE", f"{BASE}/{root}/a", 403),
        ("POST", f"{MPU}/create/{root}", 403),
        ("POST", f"{MPU}/complete/{root}", 403),
        ("POST", f"{MPU}/abort/{root}", 403),
        ("PUT", f"{MPU}/part/{ids.new_id('upl')}/1", 403),
        ("GET", f"/get-artifact?path=a&run_id={root.split('/')[1]}", 200),
        ("GET", f"/api/2.0/mlflow/artifacts/list?run_id={root.split('/')[1]}", 200),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?path=b&run_uuid={root.split('/')[1]}", 403),
    ]
    with httpx.Client(base_url=served.address) as anybody:
        for method, path, expected in calls:
            assert anybody.request(method, path).status_code == 401, path
            assert anybody.request(method, path, headers=looks).status_code == expected, path
        denied = anybody.put(f"{BASE}/{root}/b", content=b"x" * 5_000_000, headers=looks)

    assert problem(denied) == (403, "PERMISSION_DENIED")
    assert [f["path"] for f in client.get(BASE, params={"path": root}).json()["files"]] == ["a"]


def test_a_cookie_alone_reads_and_changes_nothing(served, client, root):
    put(client, f"{root}/a")
    cookie = {"cookie": f"bedplate_session={served.identity.redeem_link(served.link().rsplit('/', 1)[1])}"}
    with httpx.Client(base_url=served.address, headers=cookie) as browser:
        for prefix in ("/api", "/ajax-api"):
            base = f"{prefix}/2.0/mlflow-artifacts"
            assert browser.get(f"{base}/artifacts/{root}/a").status_code == 200
            assert browser.put(f"{base}/artifacts/{root}/b", content=b"x").status_code == 403
            assert browser.delete(f"{base}/artifacts/{root}/a").status_code == 403
            assert browser.post(f"{base}/mpu/create/{root}", json={"path": "m"}).status_code == 403
        upload = f"/ajax-api/2.0/mlflow/upload-artifact?path=b&run_uuid={root.split('/')[1]}"
        assert browser.post(upload, content=b"x").status_code == 403
    assert [f["path"] for f in client.get(BASE, params={"path": root}).json()["files"]] == ["a"]


def test_workspaces_do_not_reach_each_other(served, client, root):
    team = ids.new_id("team").replace("_", "-")
    workspaces.create(served.site.system, served.identity.authenticate(served.key), team)
    there = {"x-mlflow-workspace": team}
    put(client, f"{root}/a", b"ours")
    put(client, f"{root}/b", b"theirs", **there)
    upload = client.post(f"{MPU}/create/{root}", json={"path": "m", "num_parts": 1}, headers=there).json()["upload_id"]
    done = {"path": "m", "upload_id": upload, "parts": [{"part_number": 1, "etag": "x"}]}
    run = root.split("/")[1]

    for method, path, body in (
        ("GET", f"{BASE}/{root}/b", None),
        ("PUT", f"{MPU}/part/{upload}/1", b"x"),
        ("POST", f"{MPU}/complete/{root}", done),
        ("POST", f"{MPU}/abort/{root}", done),
    ):
        sent = {"json": body} if isinstance(body, dict) else {"content": body or b""}
        assert problem(client.request(method, path, **sent)) == (404, "RESOURCE_DOES_NOT_EXIST"), path
    for path in (f"/get-artifact?path=a&run_id={run}", f"/api/2.0/mlflow/artifacts/list?run_id={run}"):
        assert problem(client.get(path, headers=there)) == (404, "RESOURCE_DOES_NOT_EXIST"), path
    client.delete(f"{BASE}/0", headers=there)
    assert client.get(f"{BASE}/{root}/a").content == b"ours"
    unknown = {"x-mlflow-workspace": "nowhere"}
    assert problem(client.put(f"{BASE}/a", content=b"x", headers=unknown)) == (404, "RESOURCE_DOES_NOT_EXIST")
    body = {"path": "m", "num_parts": 1}
    assert problem(client.post(f"{MPU}/create/a", json=body, headers=unknown)) == (404, "RESOURCE_DOES_NOT_EXIST")


# ------------------------------------------------------------------------------------------------------ hostile names


class Raw:
    """A client that sends paths as they are."""

    def __init__(self, served):
        self._connection = http.client.HTTPConnection(served.address.removeprefix("http://"), timeout=60)
        self._headers = {"authorization": f"Bearer {served.key}", "content-type": "application/json"}

    def __call__(self, method, path, body=None):
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        headers = {**self._headers, "content-length": str(len(body or b""))}
        for name, value in headers.items():
            self._connection.putheader(name, value)
        self._connection.endheaders(body)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self):
        self._connection.close()


def spellings(path):
    """The name as the server decodes it from a URL, and as a URL that holds it as it is."""
    encoded = quote(path, safe="", errors="surrogatepass")
    asis = quote(path, safe="/%\\:;.~+=,", errors="surrogatepass")
    return {encoded, asis}


@pytest.mark.parametrize("group", [0, *(pytest.param(group, marks=pytest.mark.long) for group in (1, 2, 3))])
def test_hostile_names_fail_closed_on_every_verb(served, client, run, group):
    """Whatever is written as a way out is refused, on every route that takes a name, in every spelling."""
    call, root, taken = Raw(served), f"0/{run}/artifacts", []
    before = {path: path.stat().st_mtime_ns for path in served.home.root.rglob("*") if path.suffix not in (".db-wal",)}
    body = json.dumps({"path": "m", "num_parts": 1, "upload_id": "upl_1", "parts": [{"part_number": 1}]}).encode()
    for path in CORPUS[group::4]:
        for spelled in spellings(path):
            asked = [
                ("GET", f"{BASE}/{root}/{spelled}", None),
                ("PUT", f"{BASE}/{root}/{spelled}", b"x"),
                ("DELETE", f"{BASE}/{root}/{spelled}", None),
                ("PUT", f"/ajax-api/2.0/mlflow-artifacts/artifacts/{spelled}", b"x"),
                ("POST", f"{MPU}/create/{root}/{spelled}", body),
                ("POST", f"{MPU}/complete/{root}/{spelled}", body),
                ("POST", f"{MPU}/abort/{root}/{spelled}", body),
                ("GET", f"{BASE}?path={quote(path, safe='', errors='surrogatepass')}", None),
                ("GET", f"/get-artifact?run_id={run}&path={quote(path, safe='', errors='surrogatepass')}", None),
                ("GET", f"/api/2.0/mlflow/artifacts/list?run_id={run}&path={quote(path, safe='')}", None),
                ("GET", f"/model-versions/get-artifact?name=x&version=1&path={quote(path, safe='')}", None),
                ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run}&path={quote(path, safe='')}", b"x"),
            ]
            for method, target, sent in asked:
                status, said = call(method, target, sent)
                if status not in (400, 404, 414) or b"root:" in said:
                    taken.append((method, target, status, said[:100]))
    for path in CORPUS[group::4]:  # the client's own name of a file gives only its last part
        create = json.dumps({"path": path, "num_parts": 1}).encode()
        status, said = call("POST", f"{MPU}/create/{root}", create)
        if status == 200:
            upload = json.loads(said)["upload_id"]
            with served.store.read() as tx:
                name = tx.uploads.get("default", upload).path
            assert name.startswith(f"{root}/")
            assert ".." not in name.split("/")

    call.close()
    assert taken == []
    assert client.get(BASE, params={"path": root}).json() == {}
    after = {path: path.stat().st_mtime_ns for path in served.home.root.rglob("*") if path.suffix not in (".db-wal",)}
    new = {str(path.relative_to(served.home.root)) for path in after.keys() - before.keys()}
    assert not {name for name in new if not name.startswith(("ledger/", "keys/tickets.key", "bedplate.db"))}


# -------------------------------------------------------------------------------------------------------- many parts


def begin(client, root, parts, name="big.bin"):
    answer = client.post(f"{MPU}/create/{root}", json={"path": f"/home/ana/{name}", "num_parts": parts})
    assert answer.status_code == 200, answer.text
    return answer.json()


def send(credential, data):
    """What MLflow's client does with a part: no key of its own, the headers that it was given."""
    return httpx.put(credential["url"], content=data, headers=credential["headers"])


def done(upload, sent, name="big.bin"):
    parts = [{"part_number": n, "etag": answer.headers["etag"], "url": "x"} for n, answer in enumerate(sent, 1)]
    return {"path": f"/home/ana/{name}", "upload_id": upload["upload_id"], "parts": parts}


def test_an_upload_in_parts_as_the_client_sends_it(client, root):
    upload = begin(client, root, 3)
    data = [bytes([n]) * (1 << 20) for n in range(3)]
    with ThreadPoolExecutor(3) as pool:
        sent = list(pool.map(send, upload["credentials"], data))

    answer = client.post(f"{MPU}/complete/{root}", json=done(upload, sent))

    assert [(a.status_code, a.headers["etag"]) for a in sent] == [
        (200, f'"{ids.digest_bytes(part).removeprefix("sha256:")}"') for part in data
    ]
    assert (answer.status_code, answer.json()) == (200, {})
    assert client.get(f"{BASE}/{root}/big.bin").content == b"".join(data)
    again = client.post(f"{MPU}/complete/{root}", json=done(upload, sent))
    assert (again.status_code, again.json()) == (200, {})


def test_a_ticket_is_for_one_part_of_one_upload(client, served, root):
    upload, other = begin(client, root, 2), begin(client, root, 2)
    first, second = upload["credentials"]

    moved = {**first, "url": second["url"]}
    elsewhere = {**first, "url": other["credentials"][0]["url"]}
    bare = {**first, "headers": {}}
    get = httpx.get(f"{served.address}{BASE}", headers=first["headers"])

    assert [send(part, b"x").status_code for part in (moved, elsewhere, bare)] == [401, 401, 401]
    assert get.status_code == 401
    assert send(first, b"x").status_code == 200
    with_key = {**second, "headers": {"authorization": f"Bearer {served.key}"}}
    assert send(with_key, b"y").status_code == 200
    client.post(f"{MPU}/abort/{root}", json={"path": "big.bin", "upload_id": upload["upload_id"]})
    assert send(first, b"x").status_code == 404


def test_a_ticket_gives_no_more_than_its_holder_has(client, served, root):
    writer = served.identity.add_principal("user", f"will {root}", ("engineers",), actor="test")
    token = served.identity.create_key(writer.id, actor="test")
    with httpx.Client(base_url=served.address, headers={"authorization": f"Bearer {token}"}) as theirs:
        part = begin(theirs, root, 1)["credentials"][0]
    assert send(part, b"x").status_code == 200

    served.identity.set_groups(writer.id, ("viewers",), actor="test")
    assert send(part, b"x").status_code == 403
    served.identity.disable(writer.id, actor="test")
    assert send(part, b"x").status_code == 401


def test_wrong_parts_are_refused(client, root):
    upload = begin(client, root, 2)
    sent = [send(credential, b"part") for credential in upload["credentials"]]
    right = done(upload, sent)
    wrong = {
        "etag": {**right, "parts": [right["parts"][0], {"part_number": 2, "etag": '"0"'}]},
        "order": {**right, "parts": right["parts"][::-1]},
        "none": {**right, "parts": []},
        "number": {**right, "parts": [{"part_number": 9, "etag": right["parts"][0]["etag"]}]},
        "no path": {**right, "path": None},
        "no upload": {**right, "upload_id": None},
    }
    for name, body in wrong.items():
        assert problem(client.post(f"{MPU}/complete/{root}", json=body)) == (400, "INVALID_PARAMETER_VALUE"), name
    for body in ({**right, "upload_id": "upl_1"}, {**right, "path": "other.bin"}):
        assert problem(client.post(f"{MPU}/complete/{root}", json=body)) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert client.get(BASE, params={"path": root}).json() == {}
    assert client.post(f"{MPU}/complete/{root}", json=right).status_code == 200


def test_an_upload_that_is_given_up_is_gone(client, root):
    upload = begin(client, root, 1)
    sent = send(upload["credentials"][0], b"x")
    given_up = {"path": "big.bin", "upload_id": upload["upload_id"]}

    assert client.post(f"{MPU}/abort/{root}", json=given_up).json() == {}
    assert problem(client.post(f"{MPU}/complete/{root}", json=done(upload, [sent]))) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert problem(client.post(f"{MPU}/abort/{root}", json=given_up)) == (404, "RESOURCE_DOES_NOT_EXIST")


@pytest.mark.parametrize("parts", [0, -1, 10_001])
def test_the_number_of_parts_is_bounded(client, root, parts):
    answer = client.post(f"{MPU}/create/{root}", json={"path": "big.bin", "num_parts": parts})
    assert problem(answer) == (400, "INVALID_PARAMETER_VALUE")


def test_behind_a_proxy_parts_go_where_the_client_came_from(client, root):
    answer = client.post(
        f"{MPU}/create/{root}", json={"path": "a", "num_parts": 1}, headers={"x-forwarded-proto": "https"}
    )
    assert answer.json()["credentials"][0]["url"].startswith("https://127.0.0.1:")


# ------------------------------------------------------------------------------------------------------------- of runs


def test_the_files_of_a_run_are_listed_and_read_by_its_id(client, run, root):
    for name in ("model/MLmodel", "a.txt"):
        put(client, f"{root}/{name}", name.encode())

    top = client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run}).json()
    inside = client.get("/ajax-api/2.0/mlflow/artifacts/list", params={"run_uuid": run, "path": "model"}).json()
    file = client.get("/get-artifact", params={"run_uuid": run, "path": "model/MLmodel"})

    location = f"mlflow-artifacts:/{root}"
    assert top == {
        "root_uri": location,
        "files": [{"path": "a.txt", "is_dir": False, "file_size": 5}, {"path": "model", "is_dir": True}],
    }
    assert inside == {
        "root_uri": location,
        "files": [{"path": "model/MLmodel", "is_dir": False, "file_size": 13}],
    }
    assert (file.content, file.headers["content-type"]) == (b"model/MLmodel", "text/plain")
    assert client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": "none"}).json() == {
        "root_uri": location
    }


def test_a_large_folder_of_a_run_comes_in_pages(client, run, root, monkeypatch):
    from bedplate.api.mlflow import artifacts

    monkeypatch.setattr(artifacts, "LISTED", 3)
    for number in range(7):
        put(client, f"{root}/{number}")
    seen, token = [], None
    while True:
        page = client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "page_token": token or ""}).json()
        seen.append([file["path"] for file in page["files"]])
        token = page.get("next_page_token")
        if token is None:
            break
        other = client.get("/api/2.0/mlflow/artifacts/list", params={"run_id": run, "path": "x", "page_token": token})
        assert problem(other) == (400, "INVALID_PARAMETER_VALUE")

    assert seen == [["0", "1", "2"], ["3", "4", "5"], ["6"]]
    assert len(client.get(BASE, params={"path": root}).json()["files"]) == 7  # the proxy knows no pages


def test_small_files_come_from_pages_too(client, run, root):
    address = "/ajax-api/2.0/mlflow/upload-artifact"

    answer = client.post(address, params={"run_uuid": run, "path": "up/load.txt"}, content=b"data")

    assert (answer.status_code, answer.content) == (200, b"")
    assert client.get(f"{BASE}/{root}/up/load.txt").content == b"data"
    wrong = {
        "no data": client.post(address, params={"run_uuid": run, "path": "x"}),
        "no run": client.post(address, params={"path": "x"}, content=b"data"),
        "no path": client.post(address, params={"run_uuid": run}, content=b"data"),
        "large": client.post(address, params={"run_uuid": run, "path": "x"}, content=bytes((10 << 20) + 1)),
    }
    assert {name: problem(each) for name, each in wrong.items()} == dict.fromkeys(
        wrong, (400, "INVALID_PARAMETER_VALUE")
    )
    unknown = client.post(address, params={"run_uuid": "f" * 32, "path": "x"}, content=b"data")
    assert problem(unknown) == (404, "RESOURCE_DOES_NOT_EXIST")


def test_a_run_that_is_not_there_has_no_files(client):
    for path in ("/get-artifact?path=a&", "/api/2.0/mlflow/artifacts/list?"):
        assert problem(client.get(f"{path}run_id={'f' * 32}")) == (404, "RESOURCE_DOES_NOT_EXIST")
        assert problem(client.get(path)) == (400, "INVALID_PARAMETER_VALUE")


def test_the_files_of_a_registered_version_are_read_by_its_number(client, run, root):
    put(client, f"{root}/model/MLmodel", b"flavors: {}")
    name = ids.new_id("model")
    client.post("/api/2.0/mlflow/registered-models/create", json={"name": name})
    source = {"name": name, "source": f"runs:/{run}/model", "run_id": run}
    assert client.post("/api/2.0/mlflow/model-versions/create", json=source).status_code == 200

    asked = {"name": name, "version": "1", "path": "MLmodel"}
    answer = client.get("/model-versions/get-artifact", params=asked)

    assert (answer.status_code, answer.content) == (200, b"flavors: {}")
    assert answer.headers["content-disposition"] == "attachment; filename=MLmodel"
    for changed, expected in (
        ({"version": "2"}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"name": "nobody"}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"path": "none"}, (404, "RESOURCE_DOES_NOT_EXIST")),
        ({"path": "../a.txt"}, (400, "INVALID_PARAMETER_VALUE")),
        ({"version": "x"}, (400, "INVALID_PARAMETER_VALUE")),
    ):
        assert problem(client.get("/model-versions/get-artifact", params={**asked, **changed})) == expected, changed


def test_files_that_lie_elsewhere_are_not_fetched_from_there(client):
    made = client.post(
        "/api/2.0/mlflow/experiments/create", json={"name": ids.new_id("exp"), "artifact_location": "s3://bucket/x"}
    )
    run = new_run(client, made.json()["experiment_id"])

    for path in (f"/get-artifact?path=a&run_id={run}", f"/api/2.0/mlflow/artifacts/list?run_id={run}"):
        assert problem(client.get(path)) == (404, "RESOURCE_DOES_NOT_EXIST")


# ---------------------------------------------------------------------------------------------------------- at once


def test_many_clients_at_once(served, client, root):
    """Writers and readers of the same few names, all at once: every answer is one of the contents that were put."""
    contents = [bytes([n]) * 300_000 for n in range(4)]
    put(client, f"{root}/shared", contents[0])
    wrong, barrier = [], threading.Barrier(8)

    def work(number):
        with httpx.Client(base_url=served.address, headers=client.headers, timeout=60) as mine:
            barrier.wait(10)
            for turn in range(10):
                put(mine, f"{root}/shared", contents[(number + turn) % 4])
                put(mine, f"{root}/{number}/{turn}", contents[number % 4])
                if mine.get(f"{BASE}/{root}/shared").content not in contents:
                    wrong.append(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    assert wrong == []
    assert len(client.get(BASE, params={"path": f"{root}/7"}).json()["files"]) == 10
