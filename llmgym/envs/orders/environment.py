"""The environment: a customer, a desk with tools, and rules to keep."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, NamedTuple

import numpy as np

from llmgym.calls import ActionLike, ToolCall
from llmgym.envs.orders import requests
from llmgym.envs.orders.generate import Size, draw_shop
from llmgym.envs.orders.requests import Caller, Request
from llmgym.envs.orders.scoring import score_parts
from llmgym.envs.orders.shop import REFUND_DAYS, TIMES, Appointment, Facts, Order, Rule, Shop
from llmgym.envs.splits import Split, check_difficulty_and_split, draw_in_split
from llmgym.envs.text_env import TextEnv
from llmgym.envs.tools import Tool, ToolError
from llmgym.errors import did_you_mean
from llmgym.types import Episode, Score

_LONGEST = 100  # text that a tool takes


class Level(NamedTuple):
    """What a difficulty asks for."""

    turns: tuple[int, ...]  # requests in each turn of the user
    size: Size
    forbidden: float  # share of the requests that a rule forbids
    by_number: bool = False  # whether the user gives ids
    asks: tuple[requests.Ask, ...] = requests.ALL
    amends: bool = False  # whether the user changes their mind about an appointment


LEVELS = (
    Level((1,), Size(6, 3), 0.0, by_number=True),
    Level((2,), Size(8, 4), 0.4),
    Level((2, 1), Size(10, 5), 0.4),
    Level((2, 2), Size(16, 6, namesakes=True), 0.4, asks=(*requests.ALL, requests.earliest), amends=True),
)


@dataclass(frozen=True, slots=True)
class Desk:
    """One task: a shop, and what its user asks for.

    Attributes:
        shop: The shop, which tools change.
        start: Its state at first.
        customer: The id of the user.
        turns: What the user asks for, turn by turn.
        texts: How they say it.
    """

    shop: Shop
    start: Facts
    customer: str
    turns: tuple[tuple[Request, ...], ...]
    texts: tuple[str, ...]

    @property
    def content(self) -> str:
        """What is said, and when."""
        return f"{self.shop.today} {' '.join(self.texts)}"

    @property
    def wanted(self) -> Facts:
        """The state that the right changes give."""
        wanted = dict(self.start)
        for request in self.requests:
            wanted |= request.wanted
        return wanted

    @property
    def requests(self) -> list[Request]:
        """Everything that is asked for."""
        return [request for turn in self.turns for request in turn]


class Orders(TextEnv):
    """Serve a customer at the desk of a shop: look things up, keep the rules, change what has to be changed.

    The user asks for refunds, cancellations, other addresses, other appointments, and for invoices to be filed; from
    difficulty 2 on they ask for more after the first reply without a call. Tools show and change the state of the
    shop, which each episode has for itself. They do what they are told, except that ``reschedule`` refuses a time that
    is taken or no full hour from 9 to 16: the rules in the system prompt are the agent's to keep. What a rule forbids
    is declined with a tool, which names the rule. A reply without a call is said to the user; the last one ends the
    episode.

    The reward compares the final state with the one that the right changes give, object by object, and is the sum of
    two parts:

    - ``done``: the share of the objects to change (orders, appointments, files, requests to decline) that are as they
      should be.
    - ``harm``: minus as large a share for every other object that has changed, and for every id that was guessed:
      that a tool was to change and there is not. At most as much is lost as was earned.

    Every task has something to change, so doing nothing earns nothing. What the agent says is not scored.

    | difficulty | requests | customers | |
    |---|---|---|---|
    | 0 | 1 | 6 | ids are given, nothing is forbidden |
    | 1 | 2 | 8 | orders are named by what they are of; some requests are forbidden |
    | 2 | 2, then 1 | 10 | the same |
    | 3 | 2, then 2 | 16 | customers have namesakes, appointments are moved twice or to the earliest free time |

    Args:
        difficulty: 0 to 3.
        split: ``"train"`` or ``"eval"``; no task belongs to both.
        options: What every `TextEnv` takes: `render_mode`, `scorer`.
    """

    # What the agent looks up.

    def find_customer(self, name: str) -> list[dict[str, Any]]:
        """Find the customers of a name.

        Args:
            name: First and last name.
        """
        found = [one for one in self._shop.customers.values() if one.name.lower() == name.strip().lower()]
        return [asdict(one) for one in found]

    def list_orders(self, customer_id: str) -> list[dict[str, Any]]:
        """List the orders of a customer.

        Args:
            customer_id: Such as C-01.
        """
        return [asdict(one) for one in self._shop.orders_of(_known(customer_id, self._shop.customers, "customer"))]

    def list_appointments(self, customer_id: str) -> list[dict[str, Any]]:
        """List the appointments of a customer.

        Args:
            customer_id: Such as C-01.
        """
        return [
            asdict(one) for one in self._shop.appointments_of(_known(customer_id, self._shop.customers, "customer"))
        ]

    def show_day(self, day: date) -> dict[str, Any]:
        """Show which times of a day are free, and which weekday it is.

        Args:
            day: As in 2030-01-31.
        """
        taken = self._shop.at(day)
        return {"weekday": f"{day:%A}", "free": [time for time in TIMES if time not in taken], "taken": sorted(taken)}

    def list_files(self, folder: str) -> list[str]:
        """List the names of the files in a folder.

        Args:
            folder: Such as inbox, or customers/C-01.
        """
        return [name for name, place in self._shop.files.items() if place == folder]

    # What the agent changes.

    def refund(self, order_id: str) -> str:
        """Refund an order.

        Args:
            order_id: Such as O-1234.
        """
        self._order(order_id).refunded = True
        return "refunded"

    def cancel(self, order_id: str) -> str:
        """Cancel an order.

        Args:
            order_id: Such as O-1234.
        """
        self._order(order_id).status = "cancelled"
        return "cancelled"

    def change_address(self, order_id: str, address: str) -> str:
        """Change where an order is sent.

        Args:
            order_id: Such as O-1234.
            address: Street and city, as the customer gives them.
        """
        self._order(order_id).address = _short(address, "address")
        return "changed"

    def reschedule(self, appointment_id: str, day: date, time: str) -> str:
        """Move an appointment to a free time.

        Args:
            appointment_id: Such as A-1234.
            day: As in 2030-01-31.
            time: A full hour from 09:00 to 16:00.
        """
        appointment = self._appointment(appointment_id)
        if time not in TIMES:
            raise ToolError(f"expected one of the times {', '.join(TIMES)}, got {time!r:.80}")
        if self._shop.at(day).get(time, appointment) is not appointment:
            raise ToolError(f"{time} on {day} is taken")
        appointment.day, appointment.time = day, time
        return "moved"

    def move_file(self, name: str, folder: str) -> str:
        """Move a file to a folder.

        Args:
            name: Of the file, such as invoice-O-1234.pdf.
            folder: Such as inbox, archive, or customers/C-01.
        """
        self._shop.files[self._to_change(name, self._shop.files, "file")] = _short(folder.strip(" /"), "folder")
        return "moved"

    def decline(self, about: str, rule: Rule) -> str:
        """Record that a request is declined, and by which rule.

        Args:
            about: The id of the order or the appointment.
            rule: The rule that forbids it.
        """
        known = {**self._shop.orders, **self._shop.appointments}
        self._shop.declined[self._to_change(about, known, "id")] = rule
        return "recorded"

    tools: Sequence[Callable[..., Any] | Tool] = (
        find_customer, list_orders, list_appointments, show_day, list_files,
        refund, cancel, change_address, reschedule, move_file, decline,
    )  # fmt: skip

    def __init__(self, difficulty: int = 1, split: Split = "train", **options: Any) -> None:
        super().__init__(**options)
        check_difficulty_and_split(difficulty, len(LEVELS), split)
        self.level = LEVELS[difficulty]
        self.split: Split = split
        self.max_turns = 2 + 8 * len(self.level.turns)

    def begin(self) -> str:
        """Draw a shop and what its user asks for."""
        task = draw_in_split(self._draw, self.np_random, self.split)
        self.episode.task = task
        self.episode.system_prompt = _rules(task.shop.today)
        self._said = 0
        return task.texts[0]

    def respond(self, action: str) -> str | None:
        """Let the user ask for more, until they have no more to ask for."""
        self._said += 1
        texts = self.episode.task.texts
        return texts[self._said] if self._said < len(texts) else None

    def score(self, episode: Episode) -> Score:
        """Compare the shop with what it should be."""
        task: Desk = episode.task
        parts = score_parts(task.start, task.wanted, task.shop.facts)
        return Score(sum(parts.values()), parts)

    @property
    def _shop(self) -> Shop:
        task: Desk = self.episode.task
        return task.shop

    def _order(self, id: str) -> Order:
        return self._shop.orders[self._to_change(id, self._shop.orders, "order")]

    def _appointment(self, id: str) -> Appointment:
        return self._shop.appointments[self._to_change(id, self._shop.appointments, "appointment")]

    def _to_change(self, id: str, among: Mapping[str, object], what: str) -> str:
        """Return the id of something to change; one of which there is nothing was guessed, which counts."""
        if id not in among:
            self._shop.guessed.add(id[:_LONGEST])
        return _known(id, among, what)

    def _draw(self, rng: np.random.Generator) -> Desk:
        shop = draw_shop(rng, self.level.size)
        caller = Caller(shop, str(rng.choice(list(shop.customers))), self.level.by_number)
        turns: list[tuple[Request, ...]] = []
        for count in self.level.turns:
            asked: list[Request] = []
            moved = [one for turn in turns for one in turn if any(kind == "appointment" for kind, _ in one.wanted)]
            if moved and self.level.amends:
                asked.append(requests.amend(rng, caller, moved[0]))
            while len(asked) < count:
                ask = self.level.asks[rng.integers(len(self.level.asks))]
                request = ask(rng, caller, rng.random() >= self.level.forbidden)
                if request is not None:
                    asked.append(request)
                    caller = replace(caller, asked=caller.asked | {request.about})
            turns.append(tuple(asked))
        customer = shop.customers[caller.customer]
        known = f"customer {customer.id}" if self.level.by_number else f"from {customer.city}"
        texts = [" ".join(request.text for request in turn) for turn in turns]
        texts[0] = f"Hello, this is {customer.name}, {known}. {texts[0]}"
        return Desk(shop, copy.deepcopy(shop.facts), customer.id, tuple(turns), tuple(texts))

    def expert(self) -> Iterator[ActionLike]:
        """Look everything up, change what has to be changed, and say so."""
        yield from self._served({request.text: request.calls for request in self.episode.task.requests})

    def mistake(self) -> Iterator[ActionLike]:
        """Get one request wrong: another order, another time, or what a rule forbids."""
        asked = self.episode.task.requests
        calls = {request.text: request.calls for request in asked}
        final = list({request.about: request for request in asked}.values())  # what was amended no longer counts
        spoilt = final[self.np_random.integers(len(final))]
        yield from self._served({**calls, spoilt.text: spoilt.wrong})

    def _served(self, calls: dict[str, tuple[ToolCall, ...]]) -> Iterator[ActionLike]:
        task: Desk = self.episode.task
        yield ToolCall("find_customer", {"name": task.shop.customers[task.customer].name})
        own = {"customer_id": task.customer}
        yield [ToolCall("list_orders", own), ToolCall("list_appointments", own)]
        for turn in task.turns:
            days = [day for request in turn for day in request.days]
            if days:
                yield [ToolCall("show_day", {"day": str(day)}) for day in days]
            changes = [call for request in turn for call in calls[request.text]]
            if changes:
                yield changes
            yield "I have seen to it. Is there anything else?"


def _rules(today: date) -> str:
    return (
        f"You serve customers at the desk of a shop. Today is {today:%A}, {today}. Look things up with your tools, "
        "never guess an id, change only what the customer asks for, and keep these rules:\n"
        f"- An order is refunded once (already_refunded), after it was delivered (not_delivered), and at most "
        f"{REFUND_DAYS} days after that (too_late).\n"
        "- An order is cancelled or sent to another address only while it is processing (already_shipped).\n"
        "- Appointments are on working days, Monday to Friday (closed_day), at a time that is free (time_taken).\n"
        "- The folder of customer C-01 is customers/C-01; new invoices are in inbox.\n"
        "If a rule forbids what a customer asks for, do not do it: record it with the tool decline, with the id of the "
        "order or appointment and the rule in parentheses. When you have seen to everything, reply to the customer "
        "without a call."
    )


def _known(id: str, among: Mapping[str, object], what: str) -> str:
    if id not in among:
        raise ToolError(f"there is no {what} {id!r:.80}.{did_you_mean(id[:80], among)}")
    return id


def _short(text: str, what: str) -> str:
    if not text.strip() or len(text) > _LONGEST:
        raise ToolError(f"expected {what} of at most {_LONGEST} characters, got {len(text)}")
    return text.strip()
