"""`unspool serve` as it is typed: what it says, what it refuses, how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import write_index
from unspool.cli import main as cli
from unspool.errors import ConfigError
from unspool.server.run import parse_indexes


@contextmanager
def serving(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and the address that it says."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unspool", "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            found = re.search(r"Serving at (http://\S+?)(\.|\s|$)", line)
            if found:
                break
        else:
            raise AssertionError("".join(said))
        address = re.search(r"http://[\w.\[\]:]+:\d+", line)
        assert address is not None
        end = time.monotonic() + 20
        while time.monotonic() < end:
            try:
                httpx.get(f"{address.group()}/healthz", timeout=2)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield process, address.group()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_serves_and_ends_when_told(index_dir: Path) -> None:
    with serving("--index", f"main={index_dir}") as (process, address):
        answer = httpx.post(f"{address}/v1/indexes/main/count", json={"query": "dog"})
        assert answer.json()["count"] > 0
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing to serve"),
        (("--index", "a=/does/not/exist"), "nothing is there"),
        (("--index", "="), "NAME=DIR"),
        (("--index", "a=x", "--port", "99999"), "port"),
        (("--index", "a=x", "--host", "0.0.0.0"), "UNSPOOL_SERVER_TOKEN"),
        (("--index", "a=x", "--search-seconds", "0"), "search_seconds"),
        (("--index", "a=x", "--colour", "1"), "Unknown option"),
    ],
)
def test_wrong_commands_say_what_is_wrong(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["serve", *arguments]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_a_port_in_use_is_said(index_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert cli.run(["serve", "--index", f"main={index_dir}", "--port", port]) == 1
    said = capsys.readouterr().err
    assert "in use" in said
    assert "--port 0" in said


def test_names_of_indexes() -> None:
    assert parse_indexes(["a=x", "b=y/z", "a=w"]) == {
        "a": (Path("x"), Path("w")),
        "b": (Path("y/z"),),
    }
    assert parse_indexes(["some/notes.idx"]) == {"notes.idx": (Path("some/notes.idx"),)}
    with pytest.raises(ConfigError, match="twice"):
        parse_indexes(["a=x", "a=x"])


@pytest.mark.slow
def test_several_processes_share_a_port_and_are_replaced(tmp_path: Path) -> None:
    folder = write_index(tmp_path)
    with serving("--index", f"main={folder}", "--workers", "2") as (process, address):
        children = _children(process.pid)
        assert len(children) >= 2
        url = f"{address}/v1/indexes/main/count"
        for _ in range(40):
            assert httpx.post(url, json={"query": "dog"}).status_code == 200
        figures = httpx.get(f"{address}/metrics").text  # of both processes together
        assert 'route="/v1/indexes/{index}/count",status="200"} 40.0' in figures
        os.kill(_servers(children)[0], signal.SIGKILL)
        end = time.monotonic() + 20
        while len(_servers(_children(process.pid))) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        for _ in range(40):
            assert httpx.post(url, json={"query": "dog"}, timeout=20).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert not _children(process.pid)


@pytest.mark.slow
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    folder = write_index(tmp_path)
    with serving("--index", f"main={folder}", "--workers", "2") as (process, address):
        servers = _servers(_children(process.pid))
        assert len(servers) == 2
        process.kill()
        process.wait(20)
        end = time.monotonic() + 30
        while any(_runs(each) for each in servers) and time.monotonic() < end:
            time.sleep(0.1)
        assert not any(_runs(each) for each in servers)
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{address}/healthz", timeout=5)


def _runs(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z"


@pytest.mark.slow
def test_memory_stays_flat_under_load(tmp_path: Path) -> None:
    """Anonymous memory of two processes over thousands of searches of every kind, and slow ones."""
    folder = write_index(tmp_path)
    with (
        serving("--index", f"main={folder}", "--workers", "2") as (process, address),
        ExitStack() as stack,
    ):
        host, port = address.removeprefix("http://").split(":")
        for _ in range(50):  # clients that never end their request
            half = stack.enter_context(socket.create_connection((host, int(port))))
            half.sendall(b"POST /v1/indexes/main/count HTTP/1.1\r\nHost: localhost\r\nContent-")

        def ask(rounds: int) -> None:
            for number in range(rounds):
                with httpx.Client(base_url=f"{address}/v1/indexes/main", timeout=60) as client:
                    for _ in range(10):
                        word = f"{number} of a long"
                        answers = [
                            client.post("/count", json={"query": word}),
                            client.post("/count/batch", json={"queries": ["dog", word] * 50}),
                            client.post("/find", json={"query": "long", "limit": 20}),
                            client.post("/next", json={"query": "lazy "}),
                            client.post("/trace", json={"text": f"a lazy dog {word}"}),
                            client.post("/find", json={"query": ""}),
                        ]
                        codes = [answer.status_code for answer in answers]
                        assert codes == [200] * 5 + [400]

        ask(10)
        before = _anonymous(process.pid)
        ask(60)
        assert _anonymous(process.pid) - before < 12 << 20


def _anonymous(parent: int) -> int:
    """Bytes of memory of a process and its children that no file stands behind."""
    total = 0
    for process in (parent, *_children(parent)):
        status = Path(f"/proc/{process}/status").read_text()
        found = re.search(r"RssAnon:\s+(\d+) kB", status)
        total += int(found[1]) * 1024 if found else 0
    return total


def _children(parent: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def _servers(processes: list[int]) -> list[int]:
    """Those that serve, without multiprocessing's own helper."""
    return [
        p
        for p in processes
        if b"spawn_main" in Path(f"/proc/{p}/cmdline").read_bytes()
        and b"resource_tracker" not in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
