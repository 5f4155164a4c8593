"""Hearing from a cloud machine that it is about to be taken away.

Google's machines, Cloud TPU workers among them, say on a metadata server that a
maintenance will end them, or that they are preempted. A run that hears of it does what
it does on SIGTERM: it finishes the step, saves and exits with 143, and its launcher
starts it again.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import signal
import threading
import urllib.request
from collections.abc import Iterator

from tflearn.support.console import say

#: Names another host, as Google's own libraries have it.
HOST = "GCE_METADATA_HOST"
_HOST = "metadata.google.internal"
_PRODUCT = pathlib.Path("/sys/class/dmi/id/product_name")
_EVENT, _PREEMPTED = "maintenance-event", "preempted"
_POLL_SECONDS, _ANSWER_SECONDS = 5.0, 5.0
_MOST_BYTES = 1000


@contextlib.contextmanager
def watching(poll_seconds: float = _POLL_SECONDS) -> Iterator[None]:
    """Sends this process SIGTERM when its machine is about to end.

    On machines that are not Google's nothing is asked. A maintenance that was announced
    before this process began, to a run that was started again meanwhile, is told of
    and ends nothing: the run would stop at every start until it happens.

    Args:
        poll_seconds: Seconds between looks.
    """
    host = os.environ.get(HOST) or (_HOST if _is_google() else "")
    if not host:
        yield
        return
    done = threading.Event()
    thread = threading.Thread(
        target=_watch,
        args=(host, poll_seconds, done),
        name="tflearn-maintenance",
        daemon=True,
    )
    thread.start()
    try:
        yield
    finally:
        done.set()


def _watch(host: str, poll_seconds: float, done: threading.Event) -> None:
    first = _ends(_ask(host, _EVENT))
    if first:
        say("note: a maintenance of this machine is announced; it ends the run")
    while not done.is_set():
        event = "" if first else _ask(host, _EVENT)
        if _ends(event) or _ask(host, _PREEMPTED) == "TRUE":
            why = event or "preempted"
            os.write(2, f"\nthis machine is about to end ({why})\n".encode())
            # To all that listens for it: the run, and JAX's service of many processes.
            os.kill(os.getpid(), signal.SIGTERM)
            return
        done.wait(poll_seconds)


def _ends(event: str) -> bool:
    # A machine that is moved while it runs goes on.
    return event.startswith("TERMINATE")


def _ask(host: str, name: str) -> str:
    """Returns what the server says, nothing if it does not answer."""
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/instance/{name}",
        headers={"Metadata-Flavor": "Google"},
    )
    # Past any proxy: the server answers this machine alone.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_ANSWER_SECONDS) as answer:
            return answer.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException):
        return ""


def _is_google() -> bool:
    with contextlib.suppress(OSError):
        return _PRODUCT.read_text().startswith("Google")
    return False
