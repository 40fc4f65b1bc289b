"""How JupyterLab serves the course: `make lab` names this class."""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """What a kernel sends goes to the page at once.

    Else TCP keeps a small message back until the page has acknowledged the one before (Nagle's algorithm): up to 40 ms
    between a kernel's "busy" and the row of weights that the attention explorer waits for.
    """

    def connect(self) -> Any:
        self.websocket_handler.set_nodelay(True)
        return super().connect()
