"""Metrics for an MLflow tracking server, over its REST interface.

MLflow's own client repeats a request for minutes while training waits; here a request
has one short attempt, and `tflearn.reports.outbox` repeats it in a thread of its own.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Any

from tflearn.reports.outbox import Event
from tflearn.support.errors import ConfigError

_MOST_BYTES = 2**20
# What MLflow lets a request hold.
_MOST_METRICS = 1000
_NO_NAME = re.compile(r"[^\w\-. :/]")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mlflow:
    """An MLflow server.

    `MLFLOW_TRACKING_TOKEN`, or `MLFLOW_TRACKING_USERNAME` and `_PASSWORD`, are sent
    along if they are set; so are a user and a password in the address.

    Args:
        url: Its address, such as `http://localhost:5000`.
        experiment: Name of the experiment there.
        timeout_seconds: How long an answer may take.
    """

    url: str
    experiment: str = "tflearn"
    timeout_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Checks the address."""
        if urllib.parse.urlsplit(self.url).scheme not in ("http", "https"):
            raise ConfigError(
                "this is no address of an MLflow server",
                received=self.url,
                expected="such as http://localhost:5000",
            )

    def begin(self, name: str) -> str:
        """Makes a run, and the experiment if need be; returns the run's id."""
        asked = {
            "experiment_id": self._experiment(),
            "run_name": name,
            "start_time": _milliseconds(time.time()),
        }
        return self._call("runs/create", asked)["run"]["info"]["run_id"]

    def send(self, run: str, events: Sequence[Event]) -> None:
        """Sends events; a metric is called `stage/name`.

        MLflow knows an equal point of a curve again, so that events may be sent twice.
        """
        metrics = [
            {
                "key": _NO_NAME.sub("_", f"{event['stage']}/{name}"),
                "value": value,
                "timestamp": _milliseconds(event["time"]),
                "step": event["step"],
            }
            for event in events
            for name, value in event["metrics"].items()
        ]
        for start in range(0, len(metrics), _MOST_METRICS):
            some = metrics[start : start + _MOST_METRICS]
            self._call("runs/log-batch", {"run_id": run, "metrics": some})

    def end(self, run: str) -> None:
        """Marks a run as finished."""
        ended = {"status": "FINISHED", "end_time": _milliseconds(time.time())}
        self._call("runs/update", {"run_id": run} | ended)

    def _experiment(self) -> str:
        query = urllib.parse.urlencode({"experiment_name": self.experiment})
        try:
            found = self._call(f"experiments/get-by-name?{query}", None)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return self._call("experiments/create", {"name": self.experiment})[
                "experiment_id"
            ]
        return found["experiment"]["experiment_id"]

    def _call(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        place = urllib.parse.urlsplit(self.url)
        host = place.netloc.rpartition("@")[2]
        base = place._replace(netloc=host, query="", fragment="").geturl().rstrip("/")
        request = urllib.request.Request(
            f"{base}/api/2.0/mlflow/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"} | _credentials(place),
        )
        with _OPENER.open(request, timeout=self.timeout_seconds) as answer:
            return json.loads(answer.read(_MOST_BYTES) or b"{}")


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows nothing: credentials would go along to another host."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirects)


def _credentials(place: urllib.parse.SplitResult) -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    user = place.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    if not user:
        return {}
    password = place.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    pair = f"{urllib.parse.unquote(user)}:{urllib.parse.unquote(password)}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _milliseconds(seconds: float) -> int:
    return int(1000 * seconds)
