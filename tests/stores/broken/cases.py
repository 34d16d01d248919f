"""The suite for each broken store of the table, cut down to the tests that are named for it and should all fail.

No test run collects this file by itself; ``tests/stores/test_conformance_bites.py`` names it.
"""

from __future__ import annotations

from tests.stores.broken import abilities, expiry, keys, lifetime, sharing, values, writes
from tests.stores.broken.table import TABLE, rules_of

__all__ = ["abilities", "expiry", "keys", "lifetime", "sharing", "values", "writes"]

for row in TABLE:
    named = {other.test for other in TABLE if other.store is row.store}
    left_out = dict.fromkeys(rules_of(row.suite) - named)
    # Two seconds until a thread or process counts as stuck: those which are stuck here always will be.
    globals()[row.case] = type(row.case, (row.suite,), {"Store": row.store, "patience": 2.0, **left_out})
