"""The crash test's account of messages must complain about every breach; here each breach is made up."""

import pytest

from ledger import Ledger

A, B, C = ("q", 0, 0), ("q", 0, 1), ("q", 0, 2)


@pytest.fixture
def ledger():
    one = Ledger()
    one.on_send([A, B, C])
    one.on_confirm([A, B])
    return one


def crashed(ledger, *found):
    doubtful = ledger.on_crash()
    for message in found:
        ledger.on_delivery(message, True)
    ledger.audit({"q": list(found)}, doubtful)
    return ledger.complaints


def test_keeping_the_word_is_no_complaint(ledger):
    ledger.on_delivery(A, False)
    ledger.on_ack([A])
    ledger.on_certain([A])
    assert crashed(ledger, B) == []
    assert crashed(ledger, B) == []


def test_an_unconfirmed_message_may_be_there_and_then_stays(ledger):
    assert crashed(ledger, A, B, C) == []
    assert "is lost" in crashed(ledger, A, B)[0]


def test_an_uncertain_acknowledgement_may_be_lost_or_not(ledger):
    ledger.on_delivery(A, False)
    ledger.on_delivery(B, False)
    ledger.on_ack([A, B])
    assert crashed(ledger, B) == []


@pytest.mark.parametrize("found, complaint", [
    ([A], "was confirmed and is lost"),
    ([A, A, B], "is there 2 times"),
    ([B, A], "comes after"),
    ([A, B, ("q", 9, 9)], "was never sent"),
])
def test_breaches_of_the_audit(ledger, found, complaint):
    assert any(complaint in one for one in crashed(ledger, *found))


def test_a_certain_acknowledgement_is_final(ledger):
    ledger.on_ack([A])
    ledger.on_certain([A])
    assert "returned after it was settled for certain" in crashed(ledger, A, B)[0]


def test_what_was_not_there_after_a_crash_never_comes(ledger):
    assert crashed(ledger, A, B) == []
    assert "found lost" in crashed(ledger, A, B, C)[0]


def test_redelivered_is_never_false_for_what_was_handed_out(ledger):
    ledger.on_delivery(A, False)
    ledger.on_crash()
    ledger.on_delivery(A, False)
    assert "redelivered=false" in ledger.complaints[0]


def test_an_acknowledged_message_does_not_return_without_a_crash(ledger):
    ledger.on_delivery(A, False)
    ledger.on_ack([A])
    ledger.on_delivery(A, True)
    assert "without a crash" in ledger.complaints[0]
