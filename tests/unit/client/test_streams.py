"""The event stream format, as the HTML standard has it."""

from distriqueue.client.streams import Event, EventReader


def _feed(reader: EventReader, text: str) -> list[Event]:
    return [event for line in text.split("\n") if (event := reader.feed(line)) is not None]


def test_events_come_with_name_data_and_position() -> None:
    reader = EventReader()
    events = _feed(reader, 'retry: 1500\n\nevent: job\nid: 7\ndata: {"a":1}\n\ndata: one\ndata: two\n\n')
    assert events == [Event("job", '{"a":1}', "7"), Event("message", "one\ntwo", "7")]
    assert reader.last_id == "7"
    assert reader.retry_seconds == 1.5


def test_comments_and_unknown_fields_are_nothing() -> None:
    reader = EventReader()
    assert _feed(reader, ": keep-alive\n\ncolour: red\nretry: soon\nid: with\0null\n\n") == []
    assert (reader.last_id, reader.retry_seconds) == ("", None)


def test_one_space_after_the_colon_is_no_part_of_the_value() -> None:
    assert _feed(EventReader(), "data:  a: b\n\ndata:c\n\ndata\n\n") == [
        Event("message", " a: b", ""),
        Event("message", "c", ""),
        Event("message", "", ""),
    ]


def test_an_event_that_was_cut_does_not_count_and_resuming_begins_before_it() -> None:
    reader = EventReader("3")
    assert _feed(reader, "event: job\nid: 4\ndata: x\n\nevent: job\nid: 5\ndata: half") == [Event("job", "x", "4")]
    reader.abandon()
    assert reader.last_id == "4"
    assert _feed(reader, "data: whole\n\n") == [Event("message", "whole", "4")]
