"""What the shop keeps of a visitor, and where: one class for each place. To move something, change its base class.

The page about privacy shows the first sentence of each class to visitors.
"""

from datetime import timedelta
from typing import Literal

from flask_stateful import AppState, CookieState, LocalState, SessionState, TabState, UserState, field

Step = Literal["address", "delivery", "review"]
Delivery = Literal["post", "bicycle", "balloon"]


class Prefs(LocalState, shared=True):
    """The theme, and whether the state drawer is open.

    It is in the browser's localStorage, for whoever uses this browser.
    """

    theme: Literal["auto", "light", "dark"] = "auto"
    drawer: bool = True


class Seen(LocalState, purpose="preferences"):
    """What you have looked at, to show it to you again.

    It is in the browser's localStorage, if the visitor has agreed.
    """

    slugs: list[str] = field(default_factory=list, max_bytes=1024, ttl=timedelta(days=30))


class Checkout(TabState):
    """Where an order is to go, until it is sent.

    It is in the sessionStorage of one tab: two tabs may order two things for two people.
    """

    step: Step = "address"
    name: str = field("", max_bytes=200)
    street: str = field("", max_bytes=200)
    town: str = field("", max_bytes=200)
    delivery: Delivery = "post"


class Banner(CookieState, max_age=timedelta(days=180)):
    """Whether you have answered our one question, so that it is asked once.

    It is in an encrypted cookie.
    """

    answered: bool = False


class Cart(SessionState):
    """What is in your cart.

    It is on the server, in the visitor's session.
    """

    items: dict[str, int] = field(default_factory=dict)


class Account(UserState):
    """Where your orders went the last time, to fill that in for you.

    It is in the database, one row for each user who is signed in.
    """

    name: str = field("", max_bytes=200)
    street: str = field("", max_bytes=200)
    town: str = field("", max_bytes=200)
    delivery: Delivery = "post"


class Notice(AppState):
    """What the shopkeeper tells everybody.

    It is in the database, one row for the shop: every worker shows a new one from the next page on.
    """

    text: str = field("", max_bytes=500)


prefs, seen, checkout, banner, cart = Prefs(), Seen(), Checkout(), Banner(), Cart()
account, notice = Account(), Notice()
