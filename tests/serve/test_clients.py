"""150 hostile clients; `make soak` sends thousands."""

import numpy as np

from segline.model.images import encode_png
from tests.serve.clients import ALLOWED, Crowd
from tests.serve.conftest import Ask

CLIENTS = 150
PNG = encode_png(np.zeros((8, 8), np.uint8))


def test_hostile_clients_cause_no_server_error(port: int, ask: Ask) -> None:
    """Every client is answered or refused without a server error, and /health answers meanwhile."""
    crowd = Crowd(port, PNG, seed=1)
    for number in range(CLIENTS):
        crowd.act()
        if number % 10 == 0:
            assert ask("GET /health").status == 200
    assert set(crowd.statuses) <= ALLOWED, crowd.statuses
    assert crowd.statuses[200] > 50 and crowd.statuses[400] > 5
    crowd.leave()
    assert ask("POST /invocations", PNG, "image/png").status == 200
