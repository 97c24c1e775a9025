"""Bytes are given out once, returned once, and never beyond the budget."""

import pytest

from scheduler import LedgerError
from scheduler.ledger import Ledger, Pool
from scheduler.types import Budget

A, B = ("weights", "a"), ("state", "b")


def test_reserve_grow_and_release() -> None:
    pool = Pool("device", 10)
    pool.reserve(A, 4)
    pool.reserve(B, 0)
    pool.grow(B, 6)
    assert (pool.reserved, pool.free) == (10, 0)
    assert pool.totals() == {"state": 6, "weights": 4}
    pool.release(A)
    assert (pool.reserved, pool.free) == (6, 4)
    assert dict(pool.accounts) == {B: 6}


@pytest.mark.parametrize("size", [11, -1])
def test_bytes_that_are_not_there(size: int) -> None:
    pool = Pool("device", 10)
    with pytest.raises(LedgerError, match=rf"device: {size} bytes for .*, 10 are free"):
        pool.reserve(A, size)
    assert pool.reserved == 0
    assert dict(pool.accounts) == {}
    pool.reserve(A, 10)
    with pytest.raises(LedgerError, match=r"1 bytes for .*, 0 are free\n.*10 of 10 .*'a'\): 10"):
        pool.grow(A, 1)
    assert pool.reserved == 10


def test_an_account_is_open_or_it_is_not() -> None:
    pool = Pool("host", 10)
    pool.reserve(A, 1)
    with pytest.raises(LedgerError, match="is reserved already"):
        pool.reserve(A, 1)
    assert pool.reserved == 1
    with pytest.raises(LedgerError, match="is not reserved"):
        pool.release(B)
    with pytest.raises(LedgerError, match="is not reserved"):
        pool.grow(B, 1)


def test_the_audit_compares_accounts_and_recomputes_the_sum() -> None:
    pool = Pool("device", 10)
    pool.reserve(A, 4)
    assert pool.audit({A: 4}) is None
    assert "expected" in (pool.audit({A: 5}) or "")
    assert "expected" in (pool.audit({}) or "")
    pool._reserved = 3
    assert "the sum is wrong" in (pool.audit({A: 4}) or "")
    pool._accounts[A] = pool._reserved = 11
    assert "over budget" in (pool.audit({A: 11}) or "")


def test_two_pools() -> None:
    ledger = Ledger(Budget(device_bytes=3, host_bytes=7))
    assert (ledger.device.budget, ledger.host.budget) == (3, 7)
    with pytest.raises(LedgerError, match=r"^device"):
        ledger.device.reserve(A, 4)
    with pytest.raises(LedgerError, match=r"^host"):
        ledger.host.reserve(A, 8)
