"""What can go wrong between the leader and RabbitMQ, with one root."""


class BrokerError(Exception):
    """The root: something went wrong between us and RabbitMQ.

    Attributes:
        retryable: Whether the same may succeed later.
    """

    retryable = True


class BrokerUnreachableError(BrokerError):
    """No connection could be made, or the one that was there is gone."""


class TicketNotTakenError(BrokerError):
    """A ticket was returned (no queue has its key), nacked, or not confirmed in time."""


class NoConfirmError(TicketNotTakenError):
    """A ticket was not confirmed in time, by a broker that takes messages: its queue may be lost."""


class QueueReplacedError(BrokerError):
    """The report queue answered nobody and was deleted: connect anew, which declares it."""
