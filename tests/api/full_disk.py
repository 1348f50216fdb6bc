"""Artifacts on a disk that fills up: run by :mod:`tests.api.test_artifacts_server` in a process of its own."""

import sys
from pathlib import Path

import httpx

from bedplate import ids
from tests import plane

BASE = "/api/2.0/mlflow-artifacts/artifacts"
MPU = "/api/2.0/mlflow-artifacts/mpu"


def main(root: Path) -> None:
    with plane.running(root / "home") as served:
        headers = {"authorization": f"Bearer {served.key}"}
        with httpx.Client(base_url=served.address, headers=headers, timeout=60) as client:
            assert client.put(f"{BASE}/r/before", content=b"kept").status_code == 200
            before = sorted(served.home.blobs.rglob("*"))
            for number in range(3):
                full = client.put(f"{BASE}/r/large", content=bytes(64 << 20))
                assert (full.status_code, full.json()["error_code"]) == (507, "INTERNAL_ERROR"), full.text
                print(full.json()["message"])
                assert sorted(served.home.blobs.rglob("*")) == before, number
            upload = client.post(f"{MPU}/create/r", json={"path": "parts", "num_parts": 2}).json()
            first, second = upload["credentials"]
            sent = httpx.put(first["url"], content=bytes(8 << 20), headers=first["headers"])
            assert sent.status_code == 200
            late = httpx.put(second["url"], content=bytes(60 << 20), headers=second["headers"], timeout=60)
            assert late.status_code == 507, late.text
            # The same server goes on, and the upload with it.
            again = httpx.put(second["url"], content=b"end", headers=second["headers"])
            parts = [{"part_number": n, "etag": answer.headers["etag"]} for n, answer in enumerate((sent, again), 1)]
            done = {"path": "parts", "upload_id": upload["upload_id"], "parts": parts}
            assert client.post(f"{MPU}/complete/r", json=done).status_code == 200
            assert client.get(f"{BASE}/r/parts").content == bytes(8 << 20) + b"end"
            assert client.get(f"{BASE}/r/before").content == b"kept"
            files = client.get(BASE, params={"path": "r"}).json()["files"]
            assert [file["path"] for file in files] == ["before", "parts"]
            assert served.contents.get(ids.digest_bytes(b"kept")) == b"kept"


main(Path(sys.argv[1]))
