"""Groups of shards behind Ray Serve: deployed over the nodes of a cluster, asked with a deadline.

What: consecutive shards are one deployment; each of its replicas lies on another node and opens
them by mmap. A question that a dying replica took with it is asked again of the next one.
Source: Ray Serve (deployments, `max_replicas_per_node`, handles).
Departures: no web server of Serve's is used. A group counts as missing only when no replica of it
runs, not while its answer takes long; how long a question may take is the caller's deadline.
Cost: a few milliseconds a call, so questions are asked in batches where they can be; some seconds
to deploy. Processes that open the same files share one deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unspool._optional import require
from unspool.errors import BackendError, ConfigError, DeadlineExceeded, ShardsMissing
from unspool.index._deadline import seconds_left
from unspool.index.local import revived
from unspool.index.manifest import MANIFEST, Manifest

_LOOK = 1.0
"""Seconds after which a question without an answer is looked after."""
_PATIENCE = 3.0
"""Seconds without any running replica after which a group is missing."""
_TRIES = 8
"""How often a question is asked again that a replica took with it when it died."""
_THREADS = 8
_GRACE = 5.0
"""Seconds that replicas of an index that is closed are given to end their answers."""


class Replica:
    """What runs on a node: a group of shards, several questions at a time."""

    def __init__(self, *where: Any) -> None:
        from unspool.index.shard_group import ShardGroup

        self._group = ShardGroup(*where)
        self._threads = ThreadPoolExecutor(_THREADS)

    async def reply(self, name: str, args: Sequence[Any], seconds: float | None) -> dict[str, Any]:
        """See `ShardGroup.reply`; in a thread, so that health checks are answered meanwhile."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._group.reply, name, args, seconds)


class RayGroups:
    """The groups of one index, as `remote.Groups`."""

    def __init__(self, app: str, names: Sequence[Sequence[str]], owner: bool) -> None:
        """Take up a deployment.

        Args:
            app: Its name.
            names: The shards of each group.
            owner: Whether it ends when this is closed.
        """
        from ray import serve

        self.app, self.names, self._owner = app, names, owner
        self._serve: Any = serve
        self._handles = [
            serve.get_deployment_handle(_group_name(number), app).options(method_name="reply")
            for number in range(len(names))
        ]

    @classmethod
    def start(
        cls,
        folders: Sequence[Path],
        manifests: Sequence[Manifest],
        tier: str,
        load: str,
        replicas: int | None = None,
    ) -> RayGroups:
        """Deploy an index over the nodes of a cluster, or take it up where that was done.

        Raises:
            MissingExtra: Ray Serve is not installed.
            ConfigError: More replicas are asked for than there are nodes.
            BackendError: The cluster cannot start them, as where it does not see the files.
        """
        ray = connect()
        nodes = sum(bool(node["Alive"]) for node in ray.nodes())
        copies = min(2, nodes) if replicas is None else replicas
        if not 1 <= copies <= nodes:
            raise ConfigError(
                f"A node holds at most one copy of a shard and the cluster has {nodes:,}, so "
                f"replicas must be from 1 to {nodes:,}, got {replicas}."
            )
        names = [
            f"{folder.resolve().name}/{shard.files[tier]['name']}"
            for folder, manifest in zip(folders, manifests, strict=True)
            for shard in manifest.shards
        ]
        bounds = split(len(names), min(nodes, len(names)))
        groups = [names[first:last] for first, last in bounds]
        places = [str(folder.resolve()) for folder in folders]
        app = _app_name(places, tier, load, copies, len(groups))
        owner = not _is_there(app)
        if owner:
            options: dict[str, Any] = {
                "num_replicas": copies,
                "max_replicas_per_node": 1,
                "ray_actor_options": {"num_cpus": 0},
                "max_ongoing_requests": 4 * _THREADS,
                "max_constructor_retry_count": 3,
                "health_check_period_s": 2,
                "health_check_timeout_s": 10,
                "graceful_shutdown_timeout_s": _GRACE,
            }
            _deploy(app, [(places, *bound, tier, load) for bound in bounds], options)
        _wait(app, len(groups))
        return cls(app, groups, owner)

    def ask(self, group: int, name: str, args: Sequence[Any]) -> Any:
        """The answer of one group; see `remote.Groups`."""
        return self._answer(group, self._send(group, name, args), name, args)

    def ask_all(self, name: str, args: Sequence[Any]) -> list[Any]:
        """The answers of all groups, or what says that one is missing."""
        sent = [self._send(group, name, args) for group in range(len(self.names))]
        outcomes: list[Any] = []
        for group, response in enumerate(sent):
            try:
                outcomes.append(self._answer(group, response, name, args))
            except ShardsMissing as error:
                outcomes.append(error)
        return outcomes

    def close(self) -> None:
        """Let go of the groups, and end them if this process began them."""
        if self._owner:
            self.end()

    def end(self) -> None:
        """See `remote.Groups`."""
        self._owner = False
        with contextlib.suppress(Exception):  # the cluster may be gone already
            _delete(self.app)

    def _send(self, group: int, name: str, args: Sequence[Any]) -> Any:
        return self._handles[group].remote(name, list(args), seconds_left())

    def _answer(self, group: int, response: Any, name: str, args: Sequence[Any]) -> Any:
        """Wait for an answer; ask again what was lost; give up where nobody can answer."""
        from ray.exceptions import RayError

        alone: float | None = None
        tries = 0
        while True:
            left = seconds_left()
            if left is not None and left <= -_LOOK:
                raise DeadlineExceeded("The search did not end before its deadline.")
            try:
                found = response.result(timeout_s=_LOOK if left is None else min(_LOOK, left + 1))
            except TimeoutError:
                if self._running(group):
                    alone = None
                    continue
                alone = time.monotonic() if alone is None else alone
                if time.monotonic() - alone >= _PATIENCE:
                    raise ShardsMissing(self.names[group]) from None
                continue
            except RayError as error:  # the replica, or its node, died with the question
                tries += 1
                if tries > _TRIES:
                    raise ShardsMissing(self.names[group]) from error
                response = self._send(group, name, args)
                continue
            if "error" in found:
                raise revived(found)
            return found["result"]

    def _running(self, group: int) -> int:
        """Replicas of a group that run, as far as the cluster knows."""
        try:
            return _running(self._serve.status().applications[self.app], group)
        except Exception:  # the controller is gone, or forgot the deployment
            return 0


class Front:
    """Ties the groups of an index into one application; asked nothing itself."""

    def __init__(self, *groups: Any) -> None:
        self.groups = groups


def connect() -> Any:
    """Ray with Serve running, of the cluster of `RAY_ADDRESS` or of this machine.

    Raises:
        MissingExtra: Ray Serve is not installed.
    """
    ray = require("ray", extra="cluster", purpose="engine='ray'")
    for package in ("grpc", "starlette"):  # what ray's own extra `serve` brings
        require(package, extra="cluster", purpose="engine='ray'")
    from ray import serve

    if not ray.is_initialized():
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="WARNING")
    serve.start(proxy_location="Disabled")
    return ray


def split(items: int, parts: int) -> list[tuple[int, int]]:
    """Consecutive ranges of nearly equal length."""
    return [(items * n // parts, items * (n + 1) // parts) for n in range(parts)]


def _group_name(number: int) -> str:
    return f"shards-{number}"


def _app_name(places: Sequence[str], tier: str, load: str, copies: int, groups: int) -> str:
    """The same for the same files, opened in the same way."""
    digest = hashlib.blake2b(f"{tier} {load} {copies} {groups}".encode(), digest_size=8)
    for place in places:
        digest.update(place.encode("utf-8", "surrogateescape"))
        digest.update((Path(place) / MANIFEST).read_bytes())
    return f"unspool-{digest.hexdigest()}"


def _deploy(app: str, places: Sequence[tuple[Any, ...]], options: dict[str, Any]) -> None:
    """Start a deployment a group, one application in all."""
    from ray import serve

    made: Any = serve.deployment(Replica)
    front: Any = serve.deployment(Front)
    parts = [
        made.options(name=_group_name(number), **options).bind(*place)
        for number, place in enumerate(places)
    ]
    front = front.options(ray_actor_options={"num_cpus": 0}).bind(*parts)
    try:
        serve.run(front, name=app, route_prefix=None)
    except RuntimeError as error:
        raise _failed(app, str(error)) from error


def _failed(app: str, message: str) -> BackendError:
    """What the cluster says of an application that did not come up, the last line of it."""
    found = _application(app)
    told = [part.message for part in found.deployments.values()] if found is not None else []
    lines = [line for each in (message, *told) for line in each.splitlines() if line.strip()]
    gist = lines[-1].strip() if lines else "it says no more."
    with contextlib.suppress(Exception):  # nothing is left of it, then
        _delete(app)
    return BackendError(
        f"The Ray cluster could not open the index: {gist} Every node must see the directories "
        "under the same path."
    )


def _delete(app: str) -> None:
    from ray import serve

    serve.delete(app, _blocking=False)


def _running(application: Any, group: int) -> int:
    deployment = application.deployments.get(_group_name(group))
    states = {} if deployment is None else deployment.replica_states
    return sum(int(number) for state, number in states.items() if state == "RUNNING")


def _application(app: str) -> Any:
    """What the cluster knows of an application; None if there is none."""
    from ray import serve

    return serve.status().applications.get(app)


def _is_there(app: str) -> bool:
    found = _application(app)
    return found is not None and found.status in ("DEPLOYING", "RUNNING", "UNHEALTHY")


def _wait(app: str, groups: int) -> None:
    """Until every group has a replica that runs."""
    while True:
        found = _application(app)
        if found is None or found.status == "DEPLOY_FAILED":
            raise _failed(app, "it vanished." if found is None else str(found.message))
        if all(_running(found, group) for group in range(groups)):
            return
        time.sleep(0.2)
