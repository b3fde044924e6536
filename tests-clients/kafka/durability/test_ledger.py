"""The ledger bites: each way in which a broker can break its word is complained about, and a good one is not."""

import pytest

from ledger import Ledger


def told(sent=10):
    ledger = Ledger()
    for producer in (0, 1):
        ledger.on_send(producer, sent)
    return ledger


def log(*records):
    return {0: list(enumerate(records))}


def test_a_good_broker():
    ledger = told()
    ledger.on_ack((0, 0), (0, 0))
    ledger.on_ack((0, 2), (0, 1))
    ledger.on_taken((0, 0), (0, 0), None)
    ledger.on_committed(0, 1)
    ledger.on_found_committed(0, 2)
    ledger.audit(log((0, 0), (1, 0), (0, 1)), ledger.known())
    ledger.audit(log((0, 0), (1, 0), (0, 1), (1, 5)), ledger.known())
    assert ledger.complaints == [] and len(ledger.left_over(log((0, 0), (1, 0)))) == 1


@pytest.mark.parametrize("records, word", [
    ([(0, 0), (1, 0)], "lost"),
    ([(0, 0), (1, 0), (1, 1)], "holds"),
    ([(0, 0), (0, 0), (0, 1)], "and at"),
    ([(0, 3), (0, 2), (0, 1)], "comes after"),
    ([(0, 0), (1, 11), (0, 1)], "never sent"),
])
def test_a_bad_log(records, word):
    ledger = told()
    ledger.on_ack((0, 2), (0, 1))
    ledger.audit(log(*records), ledger.known())
    assert any(word in complaint for complaint in ledger.complaints), ledger.complaints


def test_a_gap():
    ledger = told()
    ledger.audit({0: [(0, (0, 0)), (2, (0, 1))]}, ledger.known())
    assert "where 1 follows" in ledger.complaints[0]


def test_what_was_read_stays():
    ledger = told()
    ledger.on_taken((0, 0), (0, 0), None)
    ledger.audit(log((1, 0)), ledger.known())
    assert "held" in ledger.complaints[0]
    ledger = told()
    ledger.on_taken((0, 1), (0, 0), None)
    ledger.audit(log((1, 0)), ledger.known())
    assert "is gone" in ledger.complaints[0]


def test_a_member_that_skips():
    ledger = told()
    ledger.on_taken((0, 3), (0, 0), 1)
    assert "after offset 1" in ledger.complaints[0]


def test_an_offset_that_goes_back():
    ledger = told()
    ledger.on_committed(0, 5)
    ledger.on_found_committed(0, 4)
    assert "went back" in ledger.complaints[0]
    ledger = told()
    ledger.on_committed(0, 5)
    ledger.on_found_committed(0, -1001)
    assert "went back" in ledger.complaints[0]
