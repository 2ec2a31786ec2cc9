"""`unspool serve`: search, an OpenAI-compatible model and a web page, over HTTP."""

from __future__ import annotations

import os
from typing import Literal

from cyclopts import App

_EXAMPLES = """
For example:

    unspool serve --index notes=notes.idx

    unspool serve --index man=man.idx --index rfc=rfc.idx --workers 2

    unspool serve --model '' --method lm-infinite --port 9000

    UNSPOOL_SERVER_TOKEN=… unspool serve --index notes=notes.idx --host 0.0.0.0
"""

app = App(
    name="serve",
    help="Serve search, a model and a web page over HTTP.",
    help_epilogue=_EXAMPLES,
)


@app.default
def serve(
    *,
    index: list[str] | None = None,
    model: str | None = None,
    endpoint: str | None = None,
    method: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    workers: int = 1,
    allow_host: list[str] | None = None,
    search_seconds: float = 5.0,
    generate_seconds: float = 600.0,
    engine: Literal["local", "ray"] = "local",
    replicas: int | None = None,
    partial: bool = False,
) -> None:
    """Serve search, a model and a web page over HTTP, until interrupted.

    The search API and its form stand at /openapi.json, the OpenAI interface under /v1, figures at
    /metrics. An index whose directory is replaced is opened again, and no request is lost.

    Args:
        index: NAME=DIR, or a directory alone, which is named after itself. May be given several
            times; several directories of one name are searched as one.
        model: A Hugging Face id, a folder with a model, or the name that the endpoint serves; ''
            is SmolLM2-135M-Instruct, which comes with the package. Default: no model.
        endpoint: Pass questions on to this OpenAI-compatible server.
        method: How the model reads past its window: NAME or NAME:KEY=VALUE,…; several joined by +.
            `unspool list methods` has them.
        host: Address to listen on. Anything but loopback needs a token in UNSPOOL_SERVER_TOKEN.
        port: Port to listen on; 0 takes any that is free.
        workers: Processes that answer. Each loads a model of its own.
        allow_host: A further name under which browsers reach the service, behind a proxy.
        search_seconds: Most time of one search.
        generate_seconds: Most time that the model writes one answer.
        engine: Where indexes are searched: local, in the processes that answer, or ray, spread over
            the nodes of a Ray cluster (RAY_ADDRESS), which see the directories under the same path.
        replicas: With --engine ray, nodes that hold each shard. Default: two where there are two.
        partial: With --engine ray, answer without shards that no node answers for, and name them
            in the answer. Default: such a question fails with 503 and their names.
    """
    from unspool.server.run import Served, parse_indexes, settings_from
    from unspool.server.run import serve as run

    settings = settings_from(
        os.environ,
        host=host,
        port=port,
        workers=workers,
        allow_hosts=tuple(allow_host or ()),
        search_seconds=search_seconds,
        generate_seconds=generate_seconds,
        engine=engine,
        replicas=replicas,
        partial=partial,
    )
    served = Served(
        indexes=parse_indexes(index or []), model=model, endpoint=endpoint, method=method
    )
    run(settings, served)
