"""What Bedplate answers otherwise than ``mlflow server``, on purpose. ``docs/reference/mlflow.md`` shows this table.

An entry that no call of the corpus shows any more fails a test, as does a reply that differs without an entry.
"""

import msgspec


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. ``fields`` allows it by place: (glob of "METHOD path", glob of the field), and if ``values`` are
    given only between these two (theirs, ours). Where a whole reply is another one, each step of the corpus names the
    entry and says what ours is."""

    name: str
    where: str
    theirs: str
    ours: str
    why: str
    fields: tuple[tuple[str, str], ...] = ()
    values: tuple[tuple[object, object], ...] = ()


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        name="no-internal-errors",
        where="Any call that the caller got wrong",
        theirs="500, for some of them, as a page or as JSON",
        ours="400 with an `error_code`",
        why="What the caller got wrong is not a failure of the server.",
        fields=(("*", "internal error"),),
    ),
    Difference(
        name="no-database-errors",
        where="A rename to a name that is taken",
        theirs="`BAD_REQUEST` with the text of the SQL statement",
        ours="`RESOURCE_ALREADY_EXISTS`, as on creation",
        why="The code says what is wrong, and no statement leaves the server.",
    ),
    Difference(
        name="left-out",
        where="Traces, webhooks, evaluation data sets, the gateway and the other families listed above",
        theirs="They are there",
        ours="501 `NOT_IMPLEMENTED`",
        why="They come later; an address that says so is not taken for a mistake in the address.",
    ),
    Difference(
        name="strict-types",
        where="A value that is not of its type, a status or view that does not exist, a number out of range",
        theirs="200; the value is dropped, and zero or nothing is kept in its place",
        ours="400 `INVALID_PARAMETER_VALUE`, nothing is kept",
        why="A loss that nobody is told of is the worst answer. The stock client sends no such values.",
    ),
    Difference(
        name="strict-filters",
        where="A filter with a comparison missing beside AND, AND missing between two, or text without quotes",
        theirs="200; AND is added or dropped, and in searches of logged models quotes are added",
        ours="400 `INVALID_PARAMETER_VALUE`, with the place in the text",
        why="A filter that was cut off would silently find too much.",
    ),
    Difference(
        name="first-tags",
        where="Tags given to runs/create",
        theirs="Not checked",
        ours="Checked as by set-tag: key of at most 250 characters that is no path; a value above 8,000 is cut",
        why="One rule for tags, however they come.",
    ),
    Difference(
        name="strict-paths",
        where="Artifact paths with a backslash, a percent sign, an empty segment or `.`",
        theirs="Taken as they are, or resolved by the file system under them",
        ours="400 `INVALID_PARAMETER_VALUE`",
        why="One name for one file on every kind of storage, and none that a second decoding makes another.",
    ),
    Difference(
        name="infinity",
        where="Metrics that are infinite",
        theirs="Kept as ±1.7976931348623157e308",
        ours="Kept, sorted and given back as infinite",
        why="What was logged comes back.",
        fields=(("*", "*value"),),
        values=((1.7976931348623157e308, "Infinity"), (-1.7976931348623157e308, "-Infinity")),
    ),
    Difference(
        name="safety-tags",
        where="Versions whose files can run code when they are loaded",
        theirs="No tags but those that were given",
        ours="`bedplate.safety` and `bedplate.unsafe_because` as well",
        why="Whoever loads the model should know; such a version does not become production.",
        fields=(("POST */model-versions/create", "model_version.tags"),),
        values=(
            (
                "<absent>",
                [
                    {"key": "bedplate.safety", "value": "unsafe"},
                    {"key": "bedplate.unsafe_because", "value": "MLmodel names no flavor"},
                ],
            ),
        ),
    ),
    Difference(
        name="server-info",
        where="GET of server-info",
        theirs="What that server can do",
        ours="What this one can do: workspaces and uploads in parts, no gateway, no signed addresses",
        why="Clients choose by it what they ask for.",
        fields=(("GET *-info", "*"),),
    ),
    Difference(
        name="both-versions",
        where="Operations of the API's version 2.0 under /api/3.0 and /ajax-api/3.0",
        theirs="404",
        ours="The same as under 2.0",
        why="Some clients ask there.",
    ),
    Difference(
        name="search-by-get",
        where="GET of runs/search",
        theirs="405",
        ours="The same as by POST",
        why="Experiments can be searched both ways; so can runs.",
    ),
    Difference(
        name="order-by-run-name",
        where="`Run Name` in the order of a search",
        theirs="400, though a filter may say it",
        ours="The same as `run_name`",
        why="A name that filters take is one for orders too.",
    ),
    Difference(
        name="no-redirects",
        where="Addresses with a double slash",
        theirs="Redirected to the address with a single one",
        ours="404",
        why="What policy decides about is the address as it came.",
    ),
    Difference(
        name="content-types",
        where="A content type of a body in capitals",
        theirs="400",
        ours="The same as in small letters",
        why="HTTP does not tell them apart.",
    ),
    Difference(
        name="old-clients",
        where="JSON that was encoded twice, as clients before 1.0 sent it",
        theirs="Read",
        ours="400 `INVALID_PARAMETER_VALUE`",
        why="Clients of 3.x are spoken to.",
    ),
    Difference(
        name="one-spelling",
        where="Fields spelt in camelCase (`artifactLocation`)",
        theirs="Read like `artifact_location`; both at once are refused",
        ours="Passed over, like every field that is not known",
        why="One spelling, the one that MLflow documents and its clients send.",
    ),
    Difference(
        name="tickets",
        where="Addresses and headers for the parts of an upload",
        theirs="Addresses in the storage, signed for an hour, and no headers",
        ours="Addresses here, with a header that lets this one request in for six hours",
        why="The storage stays behind the server, where policy and ledger are.",
        fields=(
            ("POST */mpu/create/*", "credentials.*.url"),
            ("POST */mpu/create/*", "credentials.*.headers"),
        ),
    ),
    Difference(
        name="numbers-of-parts",
        where="Beginning an upload in no part, in fewer, or in more than 10,000",
        theirs="200, with addresses that the storage refuses, or with none",
        ours="400 `INVALID_PARAMETER_VALUE`",
        why="Such an upload cannot be completed.",
    ),
    Difference(
        name="given-up-twice",
        where="Giving up an upload that was given up",
        theirs="What the storage says: 200 or an internal error",
        ours="404 `RESOURCE_DOES_NOT_EXIST`, as for every call about it",
        why="It is not there any more.",
    ),
    Difference(
        name="release-requests",
        where="transition-stage to Production, and aliases that stand for production",
        theirs="200 for everybody",
        ours="403 `PERMISSION_DENIED` with the reason, until gates, approvers and policy let the version in",
        why="Moving a version into production is a release: docs/explain/registry.md.",
    ),
    Difference(
        name="final-numbers",
        where="The first version of a model that was deleted and made again",
        theirs="Version 1",
        ours="The number after the highest that a version of this name ever had",
        why="Which version was live at a time is answered for ever, so a number means one version.",
        fields=(("POST */model-versions/create", "model_version.version"),),
        values=(("1", "2"),),
    ),
    Difference(
        name="metrics-of-models",
        where="Two values of one metric of a logged model at the same time and step, such as on two datasets",
        theirs="`BAD_REQUEST` for the second, with the text of the SQL statement",
        ours="Both are kept",
        why="A model is measured on training and test data in the same millisecond.",
    ),
    Difference(
        name="status-words",
        where="Filters of logged models by `status`",
        theirs="Compared with numbers; words find nothing",
        ours="Compared with words as well: PENDING, READY, FAILED, and those of the API",
        why="Nobody knows the numbers.",
    ),
    Difference(
        name="any-digest",
        where="Searches of logged models with `datasets` that have a name and no digest",
        theirs="Only values on datasets without a digest, of which there are none",
        ours="Values on any dataset of that name",
        why="That is what the client's documentation says.",
    ),
    Difference(
        name="long-names",
        where="Names of logged models above 500, keys of their params and tags above 255 characters",
        theirs="Kept in SQLite, refused by other databases",
        ours="400 `INVALID_PARAMETER_VALUE`",
        why="One rule for every database.",
    ),
    Difference(
        name="workspaces-emptied-first",
        where="Deleting a workspace with mode SET_DEFAULT or CASCADE",
        theirs="What belongs to it goes to the default workspace, or is deleted with it",
        ours="400 `INVALID_PARAMETER_VALUE`",
        why="What is lost with a workspace, or becomes readable by others, is decided thing by thing.",
    ),
    Difference(
        name="workspaces-share-storage",
        where="`default_artifact_root` and `trace_archival_config` of a workspace",
        theirs="Kept and used",
        ours="400 `INVALID_PARAMETER_VALUE`; empty ones are passed over",
        why="Artifacts of every workspace lie with the server, kept apart by policy and addressed by digest.",
    ),
)
