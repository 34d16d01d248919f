"""The checkout: three steps, which each tab keeps for itself."""

from collections.abc import Mapping
from typing import cast, get_args

from . import kept
from .extensions import state
from .kept import Delivery, Step

#: The steps, in their order.
STEPS = get_args(Step)

#: The ways to send things.
DELIVERIES: dict[str, str] = {
    "post": "By post, in two days",
    "bicycle": "By bicycle, tomorrow",
    "balloon": "By balloon, wind permitting",
}

_ADDRESS = ("name", "street", "town")


def fill_in(form: Mapping[str, str]) -> None:
    """Keep what a form says; it may say only some of it."""
    for name in _ADDRESS:
        if name in form:
            setattr(kept.checkout, name, form[name].strip()[:60])
    if form.get("delivery") in DELIVERIES:
        kept.checkout.delivery = cast("Delivery", form["delivery"])


def begin() -> None:
    """Fill in where the last order of this user went, in a tab that has nothing filled in."""
    if state.user_id is not None and not any(getattr(kept.checkout, name) for name in _ADDRESS):
        for name in (*_ADDRESS, "delivery"):
            setattr(kept.checkout, name, getattr(kept.account, name))


def is_complete() -> bool:
    """Tell whether there is an address to send things to."""
    return all(getattr(kept.checkout, name) for name in _ADDRESS)


def go_to(step: str) -> None:
    """Go to one of :data:`STEPS`; without an address, to the first one."""
    kept.checkout.step = cast("Step", step) if is_complete() else "address"


def leave() -> None:
    """Forget what this tab has filled in; of a user, keep it for the next order."""
    if state.user_id is not None:
        for name in (*_ADDRESS, "delivery"):
            setattr(kept.account, name, getattr(kept.checkout, name))
    state.reset(kept.checkout)
