"""Drawing a shop."""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from llmgym.envs.orders.shop import TIMES, Appointment, Customer, Order, Shop, closed, folder_of, invoice_of

_FIRST = ("Ada", "Bruno", "Clara", "Dario", "Elena", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Karin", "Leo")
_LAST = ("Abel", "Brandt", "Costa", "Dahl", "Ekman", "Fischer", "Garcia", "Holm", "Ivanov", "Jansen", "Keller", "Lund")
CITIES = ("Aldbury", "Brexham", "Corsley", "Denholm", "Elmstead", "Farnley", "Gosford", "Hadley")
ITEMS = ("lamp", "kettle", "chair", "basket", "clock", "rug", "mirror", "shelf", "teapot", "vase", "stool", "blanket")
STREETS = ("Mill Lane", "High Street", "Station Road", "Park Avenue", "Church Walk", "Bridge Street")

_FIRST_DAY = date(2030, 1, 7)


class Size(NamedTuple):
    """How much there is in a shop."""

    customers: int
    orders: int  # of each customer
    namesakes: bool = False  # whether each customer has one, in another city


def draw_shop(rng: np.random.Generator, size: Size) -> Shop:
    """Draw a shop on a working day. The orders of a customer are of different items."""
    today = _FIRST_DAY + timedelta(int(rng.integers(700)))
    shop = Shop(today + timedelta(7 - today.weekday()) if closed(today) else today)
    _add_customers(rng, shop, size)
    numbers = iter(rng.choice(9000, 4 * size.customers * size.orders, replace=False) + 1000)
    for customer in shop.customers.values():
        for item in rng.permutation(ITEMS)[: size.orders]:
            _add_order(rng, shop, f"O-{next(numbers)}", customer.id, str(item))
        _add_appointment(rng, shop, f"A-{next(numbers)}", customer.id)
    return shop


def draw_address(rng: np.random.Generator) -> str:
    """Draw an address."""
    return f"{rng.integers(1, 99)} {_any(rng, STREETS)}, {_any(rng, CITIES)}"


def draw_day(rng: np.random.Generator, shop: Shop, *, open_: bool = True) -> date:
    """Draw a day of the next weeks on which the shop is open, or closed."""
    while True:
        day = shop.today + timedelta(int(rng.integers(1, 28)))
        if closed(day) != open_:
            return day


def free_times(shop: Shop, day: date) -> list[str]:
    """Return the times of a day at which there is no appointment."""
    taken = shop.at(day)
    return [time for time in TIMES if time not in taken]


def _add_customers(rng: np.random.Generator, shop: Shop, size: Size) -> None:
    people = size.customers // 2 if size.namesakes else size.customers
    for number in rng.choice(len(_FIRST) * len(_LAST), people, replace=False):
        name = f"{_FIRST[number // len(_LAST)]} {_LAST[number % len(_LAST)]}"
        for city in rng.permutation(CITIES)[: 2 if size.namesakes else 1]:
            id = f"C-{len(shop.customers) + 1:02d}"
            shop.customers[id] = Customer(id, name, str(city))


def _add_order(rng: np.random.Generator, shop: Shop, id: str, customer: str, item: str) -> None:
    # Two of three are delivered, and two of three of those so lately that a refund is possible.
    kind = int(rng.integers(6))
    status = "processing" if kind == 0 else "shipped" if kind == 1 else "delivered"
    days = int(rng.integers(32, 90)) if kind == 2 else int(rng.integers(1, 29))
    order = Order(id, customer, item, status, None, draw_address(rng), refunded=kind == 3)  # type: ignore[arg-type]
    order.delivered = shop.today - timedelta(days) if status == "delivered" else None
    shop.orders[id] = order
    shop.files[invoice_of(id)] = "inbox" if rng.random() < 0.7 else folder_of(customer)


def _add_appointment(rng: np.random.Generator, shop: Shop, id: str, customer: str) -> None:
    day = draw_day(rng, shop)
    times = free_times(shop, day)
    while not times:
        day = draw_day(rng, shop)
        times = free_times(shop, day)
    shop.appointments[id] = Appointment(id, customer, day, _any(rng, times))


def _any(rng: np.random.Generator, among: tuple[str, ...] | list[str]) -> str:
    return among[rng.integers(len(among))]
