"""The house: only what is seen is known, every step pays once, and every meal can be served."""

import re
from collections.abc import Iterator

import gymnasium
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playing import LAZY, contents, make, played, told

import llmgym
from llmgym.envs.house.commands import read_command
from llmgym.envs.house.layout import LEVELS
from llmgym.envs.text_env import TextEnv
from llmgym.errors import ConfigError

DIFFICULTIES = range(len(LEVELS))


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_expert_serves_every_meal_in_two_thirds_of_the_turns_and_earns_one(difficulty: int) -> None:
    env = make("House", difficulty=difficulty)
    for seed in range(60):
        reward, info = told(env, seed, "expert")
        assert reward == pytest.approx(1.0)
        assert info["success"] == 1.0
        assert info["invalid"] == 0.0
        assert len(env.episode.turns) <= LEVELS[difficulty].turns * 2 / 3


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_mistake_forgets_a_treatment_and_never_succeeds(difficulty: int) -> None:
    env = make("House", difficulty=difficulty)
    for seed in range(30):
        reward, info = told(env, seed, "mistake")
        assert 0.0 < reward < 0.9
        assert info["success"] == 0.0


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_training_and_evaluation_share_no_house(difficulty: int) -> None:
    train, held_out = (contents("House", split, range(100), difficulty=difficulty) for split in ("train", "eval"))
    assert len(train) == len(held_out) == 100
    assert not train & held_out


def explorer(env: TextEnv) -> Iterator[str]:
    """Reply by what was said alone: search room after room, then fetch, treat and serve each dish of the goal."""
    seen = env.heard[0].content
    goal = re.match(r"Put (.*) on the (.*?)\. You have", seen)
    assert goal is not None
    dishes = [one.split() for one in re.split(r", | and (?=the )", goal[1].replace("the ", "", 1))]
    dishes = [[word for word in one if word not in ("the", "and")] for one in dishes]
    stations = {"washed": ("wash", "sink"), "sliced": ("slice", "chopping board")}
    stations |= {"heated": ("heat", "stove"), "cooled": ("cool", "fridge")}
    doors: dict[str, list[str]] = {}
    where: dict[str, str] = {}  # food, furniture and stations: their rooms
    here = ""

    def look() -> list[str]:
        nonlocal here
        view = env.heard[0].content.splitlines()[-1]
        found = re.fullmatch(r"You are in the (.*), and hold (.*)\. Here: (.*)\. Doors: (.*)\.", view)
        assert found is not None, view
        here, doors[found[1]] = found[1], found[4].split(", ")
        closed = []
        for name, inside in re.findall(r"a ([a-z ]+)(?: \((.*?)\))?(?:; |$)", found[3]):
            where[name] = here
            closed += [name] if inside == "closed" else []
            where.update({food.split()[-1]: here for food in inside.split(", ") if inside})
        return closed

    def to(rooms: set[str]) -> Iterator[str]:
        ways = [[here]]
        for way in ways:
            if way[-1] in rooms:
                break
            ways += [[*way, room] for room in doors.get(way[-1], ()) if room not in way]
        for room in way[1:]:
            yield f"go to {room}"
            look()

    closed = look()
    while True:
        for name in closed:
            yield f"open {name}"
            look()
        unseen = {room for rooms in doors.values() for room in rooms} - doors.keys()
        if not unseen:
            break
        yield from to(unseen)
        closed = look()
    for *how, food in dishes:
        yield from to({where[food]})
        yield f"take {food}"
        for one in how:
            verb, station = stations[one]
            yield from to({where[station]})
            yield f"{verb} {food}"
        yield from to({where[goal[2]]})
        yield f"put {food} on {goal[2]}"


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_who_only_reads_what_is_said_can_serve_the_meal_in_time(difficulty: int) -> None:
    env = make("House", difficulty=difficulty)
    served = 0
    for seed in range(20):
        env.reset(seed=seed)
        replies, over, total = explorer(env), False, 0.0
        while not over:
            _, reward, terminated, truncated, _ = env.step(next(replies))
            total, over = total + reward, terminated or truncated
        served += total == pytest.approx(1.0)
    assert served >= 18


def test_a_step_pays_once_and_at_once() -> None:
    env = make("House", difficulty=0)
    env.reset(seed=0)
    food, (treatment,) = next(iter(env.episode.task.dishes.items()))
    for command in env.expert():
        rewards = [env.step(command)[1]]
        if command.startswith("take"):
            place = env.episode.task.food[food]
            rewards += [env.step(reply)[1] for reply in (f"put {food} on {place}", f"take {food}") * 3]
        if command.startswith(treatment):
            rewards += [env.step(command)[1] for _ in range(3)]
        pays = command.startswith(("take", treatment, "put"))
        assert rewards == [pytest.approx(1 / 3 if pays else 0.0), *[0.0] * (len(rewards) - 1)]


def test_what_is_not_in_reach_cannot_be_taken_and_costs_only_its_turn() -> None:
    env = make("House", difficulty=3)
    env.reset(seed=1)
    before = env.state.view()  # type: ignore[attr-defined]
    for reply in ["take unicorn", "go to moon", "open stove", "put potato on desk", "heat potato", "hello", ""]:
        seen, reward, over, truncated, info = env.step(reply)
        assert (reward, over, truncated, info["invalid"]) == (0.0, False, False, 1.0)
        assert seen.endswith(before)


def test_food_that_is_heated_is_no_longer_cooled() -> None:
    env = make("House", difficulty=0)
    state = None
    for seed in range(100):
        env.reset(seed=seed)
        state = env.state  # type: ignore[attr-defined]
        if state.layout.stations["stove"] == state.layout.stations["fridge"]:
            break
    assert state is not None
    food = next(iter(state.layout.food))
    state.room, state.food[food] = "kitchen", "your hands"
    for reply, shown in [("heat it", "heated"), ("chill it", "cooled"), ("cook it", "heated")]:
        assert f"hold the {shown} {food}" in env.step(reply)[0]


def test_finishing_keeps_what_was_earned() -> None:
    env = make("House", difficulty=1)
    env.reset(seed=3)
    total = 0.0
    for command in env.expert():
        total += env.step(command)[1]
        if total > 0:
            break
    _, reward, terminated, truncated, info = env.step("I give up.\nFinish.")
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, 0.0)
    assert info["found"] == pytest.approx(total)


@pytest.mark.parametrize(
    ("reply", "command"),
    [
        ("go kitchen", ("go", "kitchen")),
        ("<think>take the potato? no</think> I walk to the KITCHEN.", ("go", "kitchen")),
        ("Pick up the potato", ("take", "potato")),
        ("place potato in toolbox", ("put", "potato", "toolbox")),
        ("take the potato to finish", ("take", "potato")),
        ("**finish**", ("finish",)),
        ("potatoes", None),
        ("takeaway", None),
    ],
)
def test_commands_are_read_forgivingly(reply: str, command: tuple[str, ...] | None) -> None:
    read = read_command(reply, ["kitchen", "potato", "toolbox"])
    assert (None if read is None else (read.verb, *read.things)) == command


@pytest.mark.parametrize("policy", LAZY)
def test_lazy_policies_earn_little(policy: str) -> None:
    env = make("House")
    assert sum(played(env, seed, LAZY[policy])[0] for seed in range(20)) / 20 < 0.2


@given(st.lists(st.text(), max_size=5))
def test_no_reply_breaks_it(replies: list[str]) -> None:
    env = make("House", difficulty=0)
    env.reset(seed=0)
    for reply in replies:
        _, reward, over, _, _ = env.step(reply)
        assert 0.0 <= reward <= 1.0
        if over:
            break


@pytest.mark.parametrize("options", [{"difficulty": 3, "split": "eval"}, {"difficulty": 0}], ids=str)
def test_it_passes_the_checker_at_other_difficulties(options: dict[str, object]) -> None:
    llmgym.check_env(gymnasium.make("llmgym/House-v0", disable_env_checker=True, **options), seeds=5)


@pytest.mark.parametrize("options", [{"difficulty": 4}, {"difficulty": True}, {"split": "test"}])
def test_what_there_is_not_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} has to be one of"):
        make("House", **options)
