"""What a customer asks for, what has to become of it, and how one would get it wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date

import numpy as np

from llmgym.calls import ToolCall
from llmgym.envs.orders.generate import draw_address, draw_day, free_times
from llmgym.envs.orders.shop import TIMES, Order, Rule, Shop, folder_of, invoice_of, refusal


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that a customer asks for.

    Attributes:
        about: The id of the order or the appointment.
        text: How the customer says it.
        wanted: The objects that have to change, and what they have to be.
        calls: The calls that change them.
        wrong: Plausible calls that do not.
        days: Whose appointments one has to look at before.
    """

    about: str
    text: str
    wanted: Mapping[tuple[str, str], object]
    calls: tuple[ToolCall, ...]
    wrong: tuple[ToolCall, ...]
    days: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        shop: As it is when the episode begins.
        customer: The id of the customer.
        by_number: Whether they name orders by their numbers.
        asked: What they have asked about already.
    """

    shop: Shop
    customer: str
    by_number: bool
    asked: frozenset[str] = frozenset()

    def orders(self, holds: Callable[[Order], bool]) -> list[Order]:
        """Return the orders for which something holds, those asked about left out."""
        return [one for one in self.shop.orders_of(self.customer) if one.id not in self.asked and holds(one)]

    def name(self, order: Order) -> str:
        """Return how the customer calls an order."""
        return f"order {order.id}" if self.by_number else f"the {order.item} I ordered"

    def other(self, order: Order) -> Order:
        """Return another order of the customer, which one may take for it."""
        return next(one for one in self.shop.orders_of(self.customer) if one.id != order.id)


Ask = Callable[[np.random.Generator, Caller, bool], Request | None]
"""Draws a request that may be granted, or else one that a rule forbids; None if the shop has nothing to ask it for."""


def refund(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask for money back."""
    order = _one_of(rng, caller.orders(lambda one: (refusal(caller.shop, one) is None) == granted))
    if order is None:
        return None
    said = (f"Please refund {caller.name(order)}.", f"I want my money back for {caller.name(order)}.")
    wanted = {("order", order.id): (order.status, True, order.address)}
    done, other = _call("refund", order_id=order.id), _call("refund", order_id=caller.other(order).id)
    return _of_order(order, said[rng.integers(2)], wanted, done, other, refusal(caller.shop, order))


def cancel(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask not to be sent an order."""
    order = _one_of(rng, caller.orders(lambda one: (one.status == "processing") == granted))
    if order is None:
        return None
    said = (f"Please cancel {caller.name(order)}.", f"I no longer need {caller.name(order)}: cancel it, please.")
    wanted = {("order", order.id): ("cancelled", order.refunded, order.address)}
    done, other = _call("cancel", order_id=order.id), _call("cancel", order_id=caller.other(order).id)
    return _of_order(order, said[rng.integers(2)], wanted, done, other, None if granted else "already_shipped")


def redirect(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask for another address."""
    order = _one_of(rng, caller.orders(lambda one: (one.status == "processing") == granted))
    if order is None:
        return None
    address = draw_address(rng)
    while address == order.address:
        address = draw_address(rng)
    said = f"Please send {caller.name(order)} to {address} instead."
    wanted = {("order", order.id): (order.status, order.refunded, address)}
    done = _call("change_address", order_id=order.id, address=address)
    other = _call("change_address", order_id=caller.other(order).id, address=address)
    return _of_order(order, said, wanted, done, other, None if granted else "already_shipped")


def file_invoice(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask for an invoice to be filed; no rule forbids it."""
    folder = folder_of(caller.customer)
    order = _one_of(rng, caller.orders(lambda one: caller.shop.files[invoice_of(one.id)] != folder))
    if order is None or not granted:
        return None
    name = invoice_of(order.id)
    done, wrong = (_call("move_file", name=name, folder=to) for to in (folder, "archive"))
    said = f"Please put the invoice for {caller.name(order)} into my folder."
    return _of_order(order, said, {("file", name): folder}, done, wrong, None)


def reschedule(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask for another day and time; a time may be taken, and a day closed."""
    shop, (own,) = caller.shop, caller.shop.appointments_of(caller.customer)
    if own.id in caller.asked:
        return None
    rule: Rule | None = None if granted else ("closed_day", "time_taken")[rng.integers(2)]
    if rule == "time_taken":
        others = [one for one in shop.appointments.values() if one.day != own.day]
        if not others:
            return None
        there = others[rng.integers(len(others))]
        day, time = there.day, there.time
    else:
        day = draw_day(rng, shop, open_=granted)
        free = free_times(shop, day)
        if day == own.day or len(free) < 2:
            return None
        time = free[rng.integers(len(free))]
    said = f"Please move my appointment to {day} at {time}."
    return _of_appointment(own.id, said, day, time, wrong=free_times(shop, day)[-1], rule=rule)


def earliest(rng: np.random.Generator, caller: Caller, granted: bool) -> Request | None:
    """Ask for the earliest free time of a day."""
    shop, (own,) = caller.shop, caller.shop.appointments_of(caller.customer)
    busy = [day for day in sorted({one.day for one in shop.appointments.values()}) if TIMES[0] in shop.at(day)]
    day = busy[rng.integers(len(busy))] if busy else draw_day(rng, shop)
    free = free_times(shop, day)
    if own.id in caller.asked or not granted or day == own.day or len(free) < 2:
        return None
    said = f"Please move my appointment to the earliest free time on {day}."
    return _of_appointment(own.id, said, day, free[0], wrong=free[-1], rule=None)


def amend(rng: np.random.Generator, caller: Caller, before: Request) -> Request:
    """Ask for yet another day, after an appointment was moved."""
    (own,) = caller.shop.appointments_of(caller.customer)
    day, free = own.day, [own.time]
    while day in (own.day, *before.days) or not free:
        day = draw_day(rng, caller.shop)
        free = free_times(caller.shop, day)
    time = free[rng.integers(len(free))]
    said = f"Sorry, I cannot come on {before.days[0]} after all. Please make my appointment {day} at {time}."
    return replace(_of_appointment(before.about, said, day, time, wrong=time, rule=None), wrong=())


def _of_order(
    order: Order,
    said: str,
    wanted: Mapping[tuple[str, str], object],
    done: ToolCall,
    wrong: ToolCall,
    rule: Rule | None,
) -> Request:
    if rule is None:
        return Request(order.id, said, wanted, (done,), (wrong,))
    return Request(order.id, said, {("declined", order.id): rule}, (_declined(order.id, rule),), (done,))


def _of_appointment(about: str, said: str, day: date, time: str, *, wrong: str, rule: Rule | None) -> Request:
    call = _call("reschedule", appointment_id=about, day=str(day), time=time)
    if rule is not None:
        return Request(about, said, {("declined", about): rule}, (_declined(about, rule),), (call,), (day,))
    other = TIMES[TIMES.index(time) - 1] if wrong == time else wrong
    mistaken = _call("reschedule", appointment_id=about, day=str(day), time=other)
    return Request(about, said, {("appointment", about): (day, time)}, (call,), (mistaken,), (day,))


def _declined(about: str, rule: Rule) -> ToolCall:
    return _call("decline", about=about, rule=rule)


def _call(name: str, /, **arguments: str) -> ToolCall:
    return ToolCall(name, arguments)


def _one_of(rng: np.random.Generator, orders: list[Order]) -> Order | None:
    return orders[rng.integers(len(orders))] if orders else None


ALL: tuple[Ask, ...] = (refund, cancel, redirect, file_invoice, reschedule)
