"""A crowd of hostile clients, for some seconds; `make soak` lets thousands come."""

import numpy as np

from segline.model.images import encode_png
from tests.serve.clients import ALLOWED, Crowd
from tests.serve.conftest import Ask

CLIENTS = 150
PNG = encode_png(np.zeros((8, 8), np.uint8))


def test_a_crowd_of_hostile_clients(port: int, ask: Ask) -> None:
    """150 clients: answered or refused, never by an error of the server; others are answered meanwhile."""
    crowd = Crowd(port, PNG, seed=1)
    for number in range(CLIENTS):
        crowd.act()
        if number % 10 == 0:
            assert ask("GET /health").status == 200
    assert set(crowd.statuses) <= ALLOWED, crowd.statuses
    assert crowd.statuses[200] > 50 and crowd.statuses[400] > 5
    crowd.leave()
    assert ask("POST /invocations", PNG, "image/png").status == 200
