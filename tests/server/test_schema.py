"""The OpenAPI document is true: whatever it allows is answered as it says, whatever not refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.server.conftest import Client, echo, listening
from unspool.backends.scripted import ScriptedModel
from unspool.server.app import make_app
from unspool.server.settings import ServerSettings

CONFIG = """
request-timeout = 120.0
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 303, 401, 403, 404, 409, 422]
[checks.negative_data_rejection]
expected-statuses = [400, 401, 403, 404, 405, 413, 415, 422]
# These answer 400 where the interfaces that they follow do: an unknown index, a model or a prompt
# that does not fit, which no schema can tell.
[[operations]]
include-name = "POST /"
checks.positive_data_acceptance.enabled = false
[[operations]]
include-path-regex = "completions"
checks.positive_data_acceptance.enabled = false
"""


def test_every_route_is_described(client: Client) -> None:
    schema = client.get("/openapi.json").json()
    described = {(m, p) for p, methods in schema["paths"].items() for m in methods}
    operations = ("count", "find", "documents", "next", "prob", "cnf", "trace", "document")
    for name in operations:
        assert ("post", f"/v1/indexes/{{index}}/{name}") in described
        assert ("post", f"/v1/indexes/{{index}}/{name}/batch") in described
    for path in ("/v1/chat/completions", "/v1/completions", "/"):
        assert ("post", path) in described
    for path in ("/v1/models", "/healthz", "/metrics"):
        assert ("get", path) in described
    assert not any("HTTPValidationError" in str(part) for part in schema["paths"].values())


def test_limits_stand_in_the_schema(client: Client) -> None:
    forms: dict[str, Any] = client.get("/openapi.json").json()["components"]["schemas"]
    assert forms["FindRequest"]["properties"]["limit"]["maximum"] == 1000
    assert forms["FindRequest"]["additionalProperties"] is False
    assert forms["CountBatchRequest"]["properties"]["queries"]["maxItems"] == 10_000
    symbols = forms["CountRequest"]["properties"]["query"]["anyOf"][1]["items"]
    assert symbols["minimum"] == 0


def test_a_method_that_is_not_there_is_named(client: Client) -> None:
    answer = client("DELETE", "/v1/indexes/main/count")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert client.post("/healthz").status_code == 405
    assert client.get("/nothing").json()["error"]["code"] == "not_found"


@pytest.mark.slow
def test_schemathesis_finds_nothing(index_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    settings = ServerSettings(search_seconds=120, body_seconds=120)  # a busy machine is no finding
    app = make_app(settings, {"main": (index_dir,)}, ScriptedModel(echo, window=4096))
    limits = ["--max-examples", "20", "-w", "1", "--seed", "1"]
    program = Path(sys.executable).with_name("schemathesis")
    with listening(app) as address:
        done = subprocess.run(
            [program, "--config-file", config, "run", f"{address}/openapi.json", *limits],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-8000:]
