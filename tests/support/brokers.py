"""What a test does to a RabbitMQ beyond starting and stopping it."""

from collections.abc import Iterable

from localcluster.rabbitmq import Broker


def write_out(broker: Broker) -> None:
    """Return when the queues that exist are on disk, not their messages alone.

    RabbitMQ confirms a declare earlier: the queue's name lies in the log of Mnesia, which is flushed now and then, and
    the name of its Raft server in a dets table that is saved after half a second in which nobody asked it anything. A
    broker that is killed before has a queue that never gets a leader.
    """
    broker.ctl("eval", "mnesia:sync_log(), [ok = dets:sync(Table) || Table <- dets:all()].")


def lose_queues(broker: Broker, virtual_host: str, queues: Iterable[str]) -> None:
    """Do to these queues, by a kill and a start, what a kill right after their declare does by chance.

    They exist afterwards, take publishes without a confirm and consumers without an answer.
    """
    write_out(broker)
    servers = ", ".join(f"'{virtual_host}_{queue}'" for queue in queues)
    forget = f"[ok = dets:delete(ra_directory_reverse, Name) || Name <- [{servers}]], dets:sync(ra_directory_reverse)."
    broker.ctl("eval", forget)
    broker.kill()
    broker.start()
