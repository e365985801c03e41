"""The shop: customers, orders, a calendar and files, as they are at one moment."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

Status = Literal["processing", "shipped", "delivered", "cancelled"]

Rule = Literal["not_delivered", "too_late", "already_refunded", "already_shipped", "closed_day", "time_taken"]
"""Why a request is declined."""

TIMES = tuple(f"{hour:02d}:00" for hour in range(9, 17))
"""When an appointment may be."""

REFUND_DAYS = 30

Facts = Mapping[tuple[str, str], object]
"""What is the case of each object, by its kind and id."""


@dataclass(slots=True)
class Customer:
    """Somebody who orders."""

    id: str
    name: str
    city: str


@dataclass(slots=True)
class Order:
    """Something that a customer ordered."""

    id: str
    customer: str
    item: str
    status: Status
    delivered: date | None
    address: str
    refunded: bool = False


@dataclass(slots=True)
class Appointment:
    """When a customer comes."""

    id: str
    customer: str
    day: date
    time: str


@dataclass(slots=True)
class Shop:
    """Everything that tools read and change.

    Attributes:
        today: The day of the episode.
        customers: By id.
        orders: By id.
        appointments: By id; no two at the same time.
        files: The folder of each file, by its name.
        declined: Why a request was declined, by what it was about.
        guessed: Ids of which there is nothing, and which somebody tried to change.
    """

    today: date
    customers: dict[str, Customer] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
    appointments: dict[str, Appointment] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    declined: dict[str, Rule] = field(default_factory=dict)
    guessed: set[str] = field(default_factory=set)

    @property
    def facts(self) -> Facts:
        """All that can change, object by object; an id that was guessed is one, too."""
        return dict(self._facts())

    def _facts(self) -> Iterator[tuple[tuple[str, str], object]]:
        for order in self.orders.values():
            yield ("order", order.id), (order.status, order.refunded, order.address)
        for appointment in self.appointments.values():
            yield ("appointment", appointment.id), (appointment.day, appointment.time)
        for name, folder in self.files.items():
            yield ("file", name), folder
        for about, rule in self.declined.items():
            yield ("declined", about), rule
        for id in self.guessed:
            yield ("guessed", id), True

    def at(self, day: date) -> dict[str, Appointment]:
        """Return the appointments of a day, by their times."""
        return {one.time: one for one in self.appointments.values() if one.day == day}

    def orders_of(self, customer: str) -> list[Order]:
        """Return what a customer ordered."""
        return [order for order in self.orders.values() if order.customer == customer]

    def appointments_of(self, customer: str) -> list[Appointment]:
        """Return when a customer comes."""
        return [one for one in self.appointments.values() if one.customer == customer]


def folder_of(customer: str) -> str:
    """Return the folder of a customer."""
    return f"customers/{customer}"


def invoice_of(order: str) -> str:
    """Return the name of the file with the invoice of an order."""
    return f"invoice-{order}.pdf"


def closed(day: date) -> bool:
    """Tell whether the shop is closed on a day."""
    return day.weekday() >= 5


def refusal(shop: Shop, order: Order) -> Rule | None:
    """Return the rule that forbids to refund an order, if one does."""
    if order.refunded:
        return "already_refunded"
    if order.status != "delivered" or order.delivered is None:
        return "not_delivered"
    return "too_late" if (shop.today - order.delivered).days > REFUND_DAYS else None
