"""What is refused, with the status and the reason that a client is told."""


class RefusedError(ValueError):
    """A request that cannot be answered; the message says what was found and what is needed."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
