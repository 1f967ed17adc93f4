"""The ledger finds what it is there to find: a harness that cannot fail shows nothing."""

from ledger import Ledger


def ledger(*ids, accepted=True):
    made = Ledger()
    for id in ids:
        made.sent(id, "t", b"payload " + id.encode())
        if accepted:
            made.accepted(id, duplicate=False)
    return made


def arrive(ledger, id, topic="t", payload=None):
    ledger.arrived(id, topic, payload or b"payload " + id.encode())


def kinds(ledger, **arguments):
    return [violation.split(":")[0] for violation in ledger.violations(**arguments)]


def test_what_was_accepted_and_arrived_is_well():
    book = ledger("a", "b")
    assert book.open_count() == 2
    arrive(book, "a"), arrive(book, "b")
    assert book.open_count() == 0 and kinds(book) == []
    assert (book.accepted_count, book.arrived_count, book.duplicate_count) == (2, 2, 0)


def test_what_was_accepted_and_did_not_arrive_is_lost():
    assert kinds(ledger("a")) == ["lost"]


def test_what_was_not_accepted_may_arrive_or_not():
    book = ledger("a", "b", accepted=False)
    arrive(book, "a")
    assert kinds(book) == []


def test_an_event_may_arrive_before_its_answer():
    book = ledger("a", accepted=False)
    arrive(book, "a")
    book.accepted("a", duplicate=False)
    assert book.open_count() == 0 and kinds(book) == []


def test_other_bytes_another_topic_and_an_unknown_id_are_phantoms():
    for arguments in ({"payload": b"payload a "}, {"topic": "u"}):
        book = ledger("a", accepted=False)
        arrive(book, "a", **arguments)
        assert kinds(book) == ["phantom"]
    book = ledger()
    arrive(book, "z")
    assert kinds(book) == ["phantom"]


def test_duplicates_are_bounded_by_what_was_in_flight():
    book = ledger("a")
    arrive(book, "a"), arrive(book, "a"), arrive(book, "a")
    assert kinds(book) == ["duplicates"]
    book.broke(2)
    assert kinds(book) == []


def test_an_event_stored_twice_is_found_and_a_duplicate_answer_is_not_one():
    book = ledger("a")
    arrive(book, "a")
    book.accepted("a", duplicate=True)
    assert kinds(book) == []
    book.accepted("a", duplicate=False)
    assert kinds(book) == ["twice alive"] and kinds(book, deduplicates=False) == []


def test_the_dead_are_not_lost_but_must_be_allowed_to_die_and_stay_dead():
    book = ledger("a")
    book.died("a", "refused")
    assert book.open_count() == 0 and kinds(book) == ["dead"]
    book = Ledger()
    book.sent("a", "t", b"payload a", may_die=True)
    book.accepted("a", duplicate=False)
    book.died("a", "refused")
    assert kinds(book) == []
    arrive(book, "a")
    assert kinds(book) == ["dead too"]


def test_order_holds_for_what_was_sent_after_an_answer():
    book = ledger("a", "b")  # b was sent when a had been answered
    arrive(book, "b"), arrive(book, "a")
    assert kinds(book) == ["order"] and kinds(book, ordered=False) == []


def test_what_was_under_way_at_once_has_no_order():
    book = ledger("a", "b", accepted=False)
    book.accepted("b", duplicate=False), book.accepted("a", duplicate=False)
    arrive(book, "b"), arrive(book, "a")
    assert kinds(book) == []


def test_a_second_arrival_does_not_count_for_the_order():
    book = ledger("a", "b")
    book.broke(1)
    arrive(book, "a"), arrive(book, "b"), arrive(book, "a")
    assert kinds(book) == []
