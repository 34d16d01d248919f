"""The tests that every store passes, to be inherited by the test class of each.

A new store's test file is:

.. code-block:: python

    from flask_stateful.testing import StoreConformance

    class TestMyStore(StoreConformance):
        def make_store(self, tmp_path):
            return MyStore(tmp_path / "data", timeout=30)

and, where it is needed, the other hooks of :class:`~flask_stateful.testing.conformance.suite.Suite`.
"""

from __future__ import annotations

import pkgutil

import pytest

# pytest explains an assertion only in a module that it was told of before the import.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from .abilities import AbilityRules, EpochRules, PurgeRules, ScanRules, WatchRules  # noqa: E402
from .expiry import ExpiryRules, TtlRules  # noqa: E402
from .keys import KeyRules  # noqa: E402
from .lifetime import FailureRules, LifetimeRules  # noqa: E402
from .sharing import ForkRules, ProcessRules, ThreadRules  # noqa: E402
from .values import ValueRules  # noqa: E402
from .writes import CounterRules, WriteRules  # noqa: E402

__all__ = ["StoreConformance"]


class StoreConformance(
    KeyRules,
    ValueRules,
    WriteRules,
    CounterRules,
    TtlRules,
    ExpiryRules,
    AbilityRules,
    ScanRules,
    PurgeRules,
    WatchRules,
    EpochRules,
    ThreadRules,
    ProcessRules,
    ForkRules,
    LifetimeRules,
    FailureRules,
):
    """Every rule of :mod:`flask_stateful.stores.base` as a test. Subclass it and say how your store is made.

    .. code-block:: text

        make_store(tmp_path)         a new, empty store: the one hook that is needed (or override the fixture ``store``)
        across_processes             False where the data lives in one process
        reopen(store)                the same data, opened once more
        advance(store, seconds)      let time pass; by default on a FakeClock
        make_with_client(tmp_path)   a store on a ready client, and a use of that client
        make_unreachable(tmp_path)   a store whose server does not answer
    """
