"""examples/websocket, run as documented."""

import time

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from tests.support.examples import running_example


def test_the_websocket_and_the_events_end_with_their_token() -> None:
    with running_example("websocket") as example:
        address = example.origin.replace("http", "ws", 1) + "/echo"
        with pytest.raises(InvalidStatus) as refused, connect(address, proxy=None):
            pass
        assert refused.value.response.status_code == 401
        fields = example.fields(example.origin + "/echo", sub="alice", exp=time.time() + 5)
        with connect(address, additional_headers=fields, proxy=None) as websocket:
            assert websocket.recv() == "hello, alice"
            websocket.send("echo")
            assert websocket.recv() == "echo"
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(timeout=60)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "the access token has expired")
        auth = example.auth(sub="alice", exp=time.time() + 60)
        asked = {"Origin": example.origin}
        answer = httpx2.post(f"{example.origin}/ticket", headers=asked, auth=auth, trust_env=False)
        assert answer.headers["Cache-Control"] == "no-store"
        protocols = [Subprotocol("dpop.ticket"), Subprotocol(f"dpop.ticket.{answer.json()['ticket']}")]
        page = Origin(example.origin)
        with connect(address, subprotocols=protocols, origin=page, proxy=None) as websocket:
            assert websocket.recv() == "hello, alice"
        with pytest.raises(InvalidStatus), connect(address, subprotocols=protocols, origin=page, proxy=None):
            pass
        auth = example.auth(sub="alice", exp=time.time() + 5)
        events = httpx2.get(f"{example.origin}/ticks", auth=auth, trust_env=False)
        assert events.text.startswith("data: tick for alice\n\n")
        assert events.text.endswith("data: tick for alice\n\n")
