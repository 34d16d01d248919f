"""What goes well with a product, worked out from what was ordered together.

That takes its time and hardly changes, so ``product.html`` caches what is made of it: once it is old it is still
served, while one worker works it out again behind a response.
"""

import contextlib
import itertools
import time

from flask import current_app

from flask_stateful.errors import StoreError

from .cart import Line
from .catalogue import Product, shelf
from .extensions import state

#: How many products are recommended.
MOST = 3

#: How long an order counts, in seconds.
MONTH = 30 * 24 * 60 * 60


def note(ordered: list[Line]) -> None:
    """Count what was ordered together. A rough figure will do, so the counters are in the cache, not in a database."""
    with contextlib.suppress(StoreError):
        for one, other in itertools.permutations((line.product.slug for line in ordered), 2):
            state.cache.incr(("together", one, other), ttl=MONTH)


def companions(product: Product) -> list[Product]:
    """Return those products that were ordered together with one most often."""
    # A shop with a million orders would take a while, and this one pretends to.
    time.sleep(current_app.config["SHOP_THINKS_FOR"])
    others = [other for other in shelf() if other != product]
    counted = state.cache.get_many([("together", product.slug, other.slug) for other in others])
    return sorted(others, key=lambda other: -counted.get(("together", product.slug, other.slug), 0))[:MOST]
