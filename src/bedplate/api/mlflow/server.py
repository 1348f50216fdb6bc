"""What clients ask of a server before anything else: whether it lives, its version, what it can do."""

from collections.abc import Iterator

from bedplate.api.mlflow import wire
from bedplate.app.site import Site
from bedplate.http import Limits, Request, Response, Route, fixed, unaudited

SPOKEN = "3.17.2"
"""The version of MLflow whose API this server speaks; clients choose by it what they send."""

_PROBE = Limits(body=0, depth=1, receipt=5.0, deadline=5.0)


def routes(site: Site) -> Iterator[Route]:
    """The routes of this file."""
    home = fixed("Home", "home")

    def health(request: Request) -> Response:
        return Response.text("OK")

    def version(request: Request) -> Response:
        return Response.text(SPOKEN)

    def info(request: Request) -> Response:
        return wire.json(
            {
                "store_type": "SqlStore",
                "workspaces_enabled": True,
                "trace_archival_enabled": False,
                "multipart_uploads_enabled": True,
                "multipart_downloads_enabled": False,
                "presigned_upload_run_id_supported": False,
                "presigned_upload_model_id_supported": False,
                "features_enabled": {"gateway": False},
            }
        )

    for path, handler, says in (
        ("/health", health, "says only that the server answers"),
        ("/version", version, "says only which API is spoken"),
    ):
        yield Route(
            "GET", path, "read", home, unaudited(says), _PROBE, handler,
            public=True, name=f"mlflow_{path[1:]}", summary=f"MLflow: {path[1:]}", render=wire.error,
        )  # fmt: skip
    yield from wire.routes(
        "GET", "/mlflow/server-info", "enter", unaudited("says only what the server can do"), info,
        summary="What this server can do", prefixes=("/api/3.0", "/ajax-api/3.0"), resource=home,
    )  # fmt: skip
