"""The only place where bytes are added or subtracted.

Two pools, the device and the (pinned) host, each a set of named accounts under one budget. The
sum is kept, never recomputed; ``audit`` recomputes it.
"""

from __future__ import annotations

from collections.abc import Mapping

from scheduler.errors import LedgerError
from scheduler.types import Budget

Account = tuple[str, str]
"""What for and whose: ``("weights", component)``, ``("state", job)``, ``("run", lease id)``."""


class Pool:
    """Bytes under one budget; ``0 <= reserved <= budget`` holds after every call."""

    def __init__(self, name: str, budget: int) -> None:
        self._name = name
        self._budget = budget
        self._reserved = 0
        self._accounts: dict[Account, int] = {}

    @property
    def budget(self) -> int:
        return self._budget

    @property
    def reserved(self) -> int:
        return self._reserved

    @property
    def free(self) -> int:
        return self._budget - self._reserved

    @property
    def accounts(self) -> Mapping[Account, int]:
        return self._accounts

    def reserve(self, account: Account, size: int) -> None:
        """Open an account. Raises ``LedgerError`` if it is open or the bytes are not free."""
        if account in self._accounts:
            raise LedgerError(f"{self._name}: {account} is reserved already\n{self._story()}")
        self._accounts[account] = 0
        try:
            self.grow(account, size)
        except LedgerError:
            del self._accounts[account]
            raise

    def grow(self, account: Account, size: int) -> None:
        """Add to an open account. Raises ``LedgerError`` if the bytes are not free."""
        if account not in self._accounts:
            raise LedgerError(f"{self._name}: {account} is not reserved\n{self._story()}")
        if not 0 <= size <= self.free:
            raise LedgerError(
                f"{self._name}: {size} bytes for {account}, {self.free} are free\n{self._story()}"
            )
        self._accounts[account] += size
        self._reserved += size

    def release(self, account: Account) -> None:
        """Close an account: what it held is free. Raises ``LedgerError`` if it is not open."""
        if account not in self._accounts:
            raise LedgerError(f"{self._name}: {account} is not reserved\n{self._story()}")
        self._reserved -= self._accounts.pop(account)

    def totals(self) -> dict[str, int]:
        """Bytes by what they are for, in alphabetical order."""
        totals: dict[str, int] = {}
        for (purpose, _), size in self._accounts.items():
            totals[purpose] = totals.get(purpose, 0) + size
        return dict(sorted(totals.items()))

    def audit(self, expected: Mapping[Account, int]) -> str | None:
        """What is wrong with the books, given what should be open; ``None`` if nothing is."""
        if self._accounts != expected:
            return f"{self._name}: expected {dict(sorted(expected.items()))}\n{self._story()}"
        if self._reserved != sum(self._accounts.values()):
            return f"{self._name}: the sum is wrong\n{self._story()}"
        if not 0 <= self._reserved <= self._budget:
            return f"{self._name}: over budget\n{self._story()}"
        return None

    def _story(self) -> str:
        books = dict(sorted(self._accounts.items()))
        return f"{self._name}: {self._reserved} of {self._budget} bytes reserved: {books}"


class Ledger:
    """What is given out on the device and on the host."""

    def __init__(self, budget: Budget) -> None:
        self.device = Pool("device", budget.device_bytes)
        self.host = Pool("host", budget.host_bytes)
