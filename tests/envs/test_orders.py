"""Orders: the final state is what counts, and it can be found from what the tools and the rules say."""

import json
import re
from datetime import date
from typing import Any

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym import TextEnv, ToolCall, calling
from llmgym.calls import as_action
from llmgym.envs.orders.scoring import score_parts
from llmgym.errors import ConfigError


def call(env: TextEnv, name: str, /, **arguments: str) -> Any:
    """Call a tool; return its answer, or raise what it refuses with."""
    env.step(calling(ToolCall(name, arguments)))
    (message,) = env.heard
    if not message.content.startswith(("[", "{")):
        return message.content
    answer = json.loads(message.content)
    if isinstance(answer, dict) and "error" in answer:
        raise ValueError(answer["error"])
    return answer


class Clerk:
    """Serves a customer by what is said and shown alone."""

    def __init__(self, env: TextEnv, said: str) -> None:
        self.env = env
        self.today = date.fromisoformat(re.findall(r"\d{4}-\d\d-\d\d", env.episode.system_prompt or "")[0])
        name, known = re.match(r"Hello, this is ([^,]+), ([^.]+)\. ", said).groups()  # type: ignore[union-attr]
        namesakes = call(env, "find_customer", name=name)
        (self.customer,) = [one["id"] for one in namesakes if known in (f"customer {one['id']}", f"from {one['city']}")]
        self.orders = call(env, "list_orders", customer_id=self.customer)
        (self.appointment,) = call(env, "list_appointments", customer_id=self.customer)

    def serve(self, said: str) -> None:
        for sentence in re.split(r"(?<=\.) ", said):
            if "appointment" in sentence:
                self.move(sentence)
            elif order := self.order(sentence):
                self.change(order, sentence)

    def order(self, sentence: str) -> dict[str, Any] | None:
        mine = [one for one in self.orders if one["id"] in sentence or f"the {one['item']} I ordered" in sentence]
        return mine[0] if mine else None

    def change(self, order: dict[str, Any], sentence: str) -> None:
        if "invoice" in sentence:
            name = f"invoice-{order['id']}.pdf"
            assert name in call(self.env, "list_files", folder="inbox")
            call(self.env, "move_file", name=name, folder=f"customers/{self.customer}")
        elif "refund" in sentence or "money back" in sentence:
            days = (self.today - date.fromisoformat(order["delivered"] or str(self.today))).days
            rule = (
                "already_refunded" if order["refunded"] else "not_delivered" if not order["delivered"] else "too_late"
            )
            forbidden = order["refunded"] or not order["delivered"] or days > 30
            self.do(order["id"], rule if forbidden else None, "refund", order_id=order["id"])
        else:
            rule = None if order["status"] == "processing" else "already_shipped"
            if "cancel" in sentence:
                self.do(order["id"], rule, "cancel", order_id=order["id"])
            else:
                address = re.findall(r" to (.*) instead", sentence)[0]
                self.do(order["id"], rule, "change_address", order_id=order["id"], address=address)

    def move(self, sentence: str) -> None:
        day = re.findall(r"\d{4}-\d\d-\d\d", sentence)[-1]
        shown = call(self.env, "show_day", day=day)
        time = shown["free"][0] if "earliest" in sentence else re.findall(r"\d\d:\d\d", sentence)[0]
        rule = "closed_day" if shown["weekday"] in ("Saturday", "Sunday") else None
        rule = rule or (None if time in shown["free"] else "time_taken")
        about = self.appointment["id"]
        self.do(about, rule, "reschedule", appointment_id=about, day=day, time=time)

    def do(self, about: str, rule: str | None, name: str, /, **arguments: str) -> None:
        if rule is None:
            call(self.env, name, **arguments)
        else:
            call(self.env, "decline", about=about, rule=rule)


@pytest.mark.parametrize("difficulty", range(4))
def test_who_reads_what_is_said_and_shown_and_keeps_the_rules_earns_it_all(difficulty: int) -> None:
    env = make("Orders", difficulty=difficulty)
    env.max_turns = None
    for seed in range(30):
        said, _ = env.reset(seed=seed)
        clerk, over, reward = Clerk(env, said), False, 0.0
        while not over:
            clerk.serve(said)
            said, reward, over, _, _ = env.step("Done.")
        assert reward == pytest.approx(1.0)


@pytest.mark.parametrize("split", ["train", "eval"])
@pytest.mark.parametrize("difficulty", range(4))
def test_the_expert_earns_it_all_and_a_mistake_less(difficulty: int, split: str) -> None:
    env = make("Orders", difficulty=difficulty, split=split)
    for seed in range(15):
        total, info = told(env, seed, "expert")
        assert (total, info["success"], info["tools/failures"]) == (1.0, 1.0, 0.0)
        assert len(env.episode.turns) < env.max_turns
        total, info = told(env, seed, "mistake")
        assert total <= 0.75
        assert info["success"] == 0.0
        assert all(played(env, seed, policy)[0] == 0 for policy in LAZY.values())


def test_requests_of_every_kind_and_every_rule_come_up() -> None:
    env = make("Orders", difficulty=3)
    tools, rules = set(), set()
    for seed in range(80):
        env.reset(seed=seed)
        calls = [call for request in env.episode.task.requests for call in request.calls]
        tools |= {call.name for call in calls}
        rules |= {call.arguments.get("rule") for call in calls} - {None}
    assert tools == {"refund", "cancel", "change_address", "move_file", "reschedule", "decline"}
    assert rules == {"not_delivered", "too_late", "already_refunded", "already_shipped", "closed_day", "time_taken"}


RULES = ["not_delivered", "too_late", "already_refunded", "already_shipped", "closed_day", "time_taken"]


@pytest.mark.parametrize(
    "zeal",
    [
        lambda shop: [ToolCall("refund", {"order_id": id}) for id in shop.orders],
        lambda shop: [ToolCall("cancel", {"order_id": id}) for id in shop.orders],
        lambda shop: [
            ToolCall("decline", {"about": id, "rule": "too_late"}) for id in (*shop.orders, *shop.appointments)
        ],
        lambda shop: [ToolCall("move_file", {"name": name, "folder": "customers/C-01"}) for name in shop.files],
        lambda shop: [ToolCall("decline", {"about": "O-1", "rule": rule}) for rule in RULES],
    ],
)
def test_changing_everything_earns_nothing(zeal: Any) -> None:
    for difficulty in range(4):
        env = make("Orders", difficulty=difficulty)
        for seed in range(8):
            env.reset(seed=seed)
            env.step(calling(*zeal(env.episode.task.shop)))
            reward, over = 0.0, False
            while not over:
                _, reward, over, _, info = env.step("Done.")
            assert reward == 0
            assert info["done"] + info["harm"] == reward


def test_what_is_put_right_in_time_does_no_harm() -> None:
    env = make("Orders", difficulty=0)
    env.reset(seed=0)
    files, (_, folder) = env.episode.task.shop.files, (None, "archive")
    name = next(name for name, place in files.items() if place == "inbox" and ("file", name) not in wanted(env))
    for place in (folder, "/inbox/ "):
        assert call(env, "move_file", name=name, folder=place) == "moved"
    expert = list(env.expert())
    for action in expert[:-1]:
        env.step(as_action(action))
    assert env.step("Done.")[1] == 1.0


def wanted(env: TextEnv) -> set[tuple[str, str]]:
    return {key for request in env.episode.task.requests for key in request.wanted}


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("refund", {"order_id": "O-1"}, "there is no order 'O-1'"),
        ("list_orders", {"customer_id": "C-99"}, "there is no customer 'C-99'. Did you mean 'C-0"),
        ("decline", {"about": "x", "rule": "too_late"}, "there is no id 'x'"),
        ("decline", {"about": "C-01", "rule": "because"}, "rule: Input should be 'not_delivered'"),
        ("show_day", {"day": "tomorrow"}, "day: Input should be a valid date"),
        ("move_file", {"name": "x", "folder": "inbox"}, "there is no file 'x'"),
        ("find_customer", {"name": 3}, "name: Input should be a valid string"),
        ("refund", {"order_id": "x" * 100_000}, "there is no order"),
    ],
)
def test_a_tool_refuses_what_there_is_not(name: str, arguments: dict[str, str], expected: str) -> None:
    env = make("Orders")
    env.reset(seed=1)
    before = env.episode.task.shop.facts
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        call(env, name, **arguments)
    assert len(str(error.value)) < 300
    changed = env.episode.task.shop.facts.items() - before.items()
    assert {kind for (kind, _), _ in changed} <= {"guessed"}


def test_guessing_ids_costs_and_asking_for_customers_that_there_are_not_does_not() -> None:
    for guess, worth in (
        (ToolCall("list_orders", {"customer_id": "C-99"}), 1.0),
        (ToolCall("refund", {"order_id": "O-1"}), 0.5),
        (ToolCall("decline", {"about": "O-1", "rule": "too_late"}), 0.5),
        ([ToolCall("cancel", {"order_id": f"O-{number}"}) for number in range(500)], 0.0),
    ):
        env = make("Orders", difficulty=1)
        env.reset(seed=3)
        env.step(as_action(guess))
        rewards = [env.step(as_action(action))[1] for action in env.expert()]
        assert rewards[-1] == worth


def test_an_appointment_moves_only_to_a_time_that_there_is_and_is_free() -> None:
    env = make("Orders", difficulty=3)
    env.reset(seed=1)
    one, other = list(env.episode.task.shop.appointments.values())[:2]
    with pytest.raises(ValueError, match="is taken"):
        call(env, "reschedule", appointment_id=one.id, day=str(other.day), time=other.time)
    with pytest.raises(ValueError, match="expected one of the times 09:00"):
        call(env, "reschedule", appointment_id=one.id, day=str(other.day), time="08:00")
    assert call(env, "reschedule", appointment_id=one.id, day=str(one.day), time=one.time) == "moved"


def test_long_texts_are_not_kept() -> None:
    env = make("Orders")
    env.reset(seed=1)
    order = next(iter(env.episode.task.shop.orders))
    with pytest.raises(ValueError, match="at most 100 characters, got 100000"):
        call(env, "change_address", order_id=order, address="x" * 100_000)


states = st.dictionaries(st.tuples(st.just("file"), st.sampled_from("abcdef")), st.integers(0, 2))


@given(states, states, states)
def test_a_score_is_between_nothing_and_all_and_all_only_for_the_state_that_is_wanted(
    start: Any, wanted: Any, final: Any
) -> None:
    if start == wanted:
        return
    total = sum(score_parts(start, wanted, final).values())
    assert 0 <= total <= 1
    assert (total == 1) == (final == wanted)
    assert sum(score_parts(start, wanted, start).values()) == 0


def test_an_episode_leaves_nothing_to_the_next() -> None:
    env = make("Orders", difficulty=2)
    env.reset(seed=5)
    first = dict(env.episode.task.shop.facts)
    told(env, 5, "mistake")
    env.reset(seed=5)
    assert env.episode.task.shop.facts == first


def test_no_task_is_in_both_splits() -> None:
    for difficulty in range(4):
        seen = {split: contents("Orders", split, range(20), difficulty=difficulty) for split in ("train", "eval")}
        assert not seen["train"] & seen["eval"]
        assert min(map(len, seen.values())) == 20


def test_it_keeps_its_promises() -> None:
    llmgym.check_env(gymnasium.make("llmgym/Orders-v0", render_mode="ansi"), seeds=5)


@pytest.mark.parametrize("options", [{"difficulty": 4}, {"difficulty": True}, {"split": "test"}])
def test_an_unknown_difficulty_or_split_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("Orders", **options)
