"""The server that the tests in JupyterLab share."""

from __future__ import annotations

import socket
import urllib.request

import lab
import pytest

pytestmark = pytest.mark.browser


def test_a_port_that_is_taken_meanwhile_costs_a_start_and_not_the_tests(tmp_path, monkeypatch):
    ports, free = [], lab._free_port
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()

        def taken_first() -> int:
            ports.append(free() if ports else other.getsockname()[1])
            return ports[-1]

        monkeypatch.setattr(lab, "_free_port", taken_first)
        with lab.lab_server(tmp_path) as server:
            assert server.url.endswith(f":{ports[1]}") and len(ports) == 2
            urllib.request.urlopen(f"{server.url}/api/status?token={server.token}", timeout=30).close()
