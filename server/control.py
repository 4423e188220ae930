"""The SuperLink's Control interface, as the operator's commands use it on the server's own machine."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    StreamLogsRequest,
    UnregisterNodeRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab

from server.errors import ControlError


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that the SuperLink knows."""

    node_id: int
    public_key: str
    """PEM."""
    status: str
    """`registered`, `online`, `offline` or `unregistered`."""
    since: str
    """Of that status, in ISO form; empty where it never was online."""


@dataclass(frozen=True, kw_only=True)
class FlowerRun:
    """A run as the SuperLink sees it, and what the run itself was configured to be."""

    flower_id: int
    name: str
    """Our own run id."""
    rounds: int
    output_dir: str
    status: str
    """`pending`, `starting`, `running` or `finished:completed|failed|stopped`."""
    started: str
    details: str


class Control:
    """Asks the SuperLink at `address`, whose certificate is of the CA `ca` (PEM)."""

    def __init__(self, address: str, ca: bytes) -> None:
        self._address = address
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca,
            interceptors=[],
        )

    def __enter__(self) -> "Control":
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._client.close()

    def nodes(self) -> list[Node]:
        """Every node that was ever registered.

        Raises:
            ControlError: the SuperLink does not answer.
        """
        found = self._ask(self._client.ListNodes, ListNodesRequest()).nodes_info
        return [
            Node(
                node_id=info.node_id,
                public_key=info.public_key.decode("ascii", errors="replace"),
                status=info.status,
                since=info.last_activated_at if info.status == "online" else info.last_deactivated_at,
            )
            for info in found
        ]

    def register(self, public_pem: str, name: str) -> int:
        """The node id under which the SuperLink lets the holder of this key in."""
        request = RegisterNodeRequest(public_key=public_pem.encode("ascii"), name=name)
        return int(self._ask(self._client.RegisterNode, request).node_id)

    def unregister(self, node_id: int) -> None:
        """Let a node in no more."""
        self._ask(self._client.UnregisterNode, UnregisterNodeRequest(node_id=node_id))

    def submit(self, bundle: bytes, config: Mapping[str, str], *, resume: bool = False) -> int:
        """Start a run with this bundle and run configuration, or go on with it; Flower's id of the run."""
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        override = user_config_to_proto({**config, "resume": resume})
        request = StartRunRequest(fab=fab_to_proto(fab), override_config=override)
        answer = self._ask(self._client.StartRun, request)
        if not answer.HasField("run_id"):
            raise ControlError(f"the SuperLink did not start the run: {answer.note or 'it says no more'}")
        return int(answer.run_id)

    def runs(self) -> list[FlowerRun]:
        """Every run, the newest first."""
        found = self._ask(self._client.ListRuns, ListRunsRequest()).run_dict.values()
        runs = [
            FlowerRun(
                flower_id=run.run_id,
                **_configured(run),
                status=f"{run.status.status}:{run.status.sub_status}".rstrip(":"),
                started=run.running_at or run.pending_at,
                details=run.status.details,
            )
            for run in found
        ]
        return sorted(runs, key=lambda run: run.started, reverse=True)

    def stop(self, flower_id: int) -> None:
        """Stop a run."""
        self._ask(self._client.StopRun, StopRunRequest(run_id=flower_id))

    def logs(self, flower_id: int) -> Iterator[str]:
        """What the run prints, as it prints it, until it ends."""
        try:
            for part in self._client.StreamLogs(StreamLogsRequest(run_id=flower_id, after_timestamp=0.0)):
                yield part.log_output
        except httpx.HTTPError as error:
            raise ControlError(self._broken(error)) from None

    def _ask(self, call: Any, request: Any) -> Any:
        try:
            return call(request)
        except httpx.HTTPError as error:
            raise ControlError(self._broken(error)) from None

    def _broken(self, error: httpx.HTTPError) -> str:
        if isinstance(error, httpx.HTTPStatusError):
            return (
                f"the SuperLink at {self._address} refuses: {error.response.text[:300] or error.response.status_code}"
            )
        return (
            f"the SuperLink at {self._address} does not answer ({type(error).__name__}); start it with "
            "mumc-server start DIR"
        )


def _configured(run: Any) -> dict[str, Any]:
    """What `mumc-server run` sent along; another way to submit leaves Flower's own id for a name."""
    try:
        config = json.loads(run.override_config["run-json"].string if "run-json" in run.override_config else "{}")
    except ValueError:
        config = {}
    return {
        "name": config.get("run_id") or str(run.run_id),
        "rounds": config.get("federation", {}).get("rounds", 0),
        "output_dir": config.get("output_dir", ""),
    }
