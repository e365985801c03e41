"""Round 1 may reason about everything, deny and ask; it may not conclude, however it puts it."""

import pytest

from llmgym.envs.incidents.conclusions import concludes


@pytest.mark.parametrize(
    "text",
    [
        "It is disk_full.",
        "A disk full, I think",
        "This looks like a memory leak in catalog.",
        "memory-leak",
        "MemoryLeak on checkout",
        "Probably pool exhausted.",
        "dns failure",
        "Bad deploy!",
        "Root cause is the pool",
        "The root cause: payments.",
        "The cause is the database",
        "Everything is caused by catalog.",
        "All of this was caused by the database pool",
        "The culprit is auth.",
        "Diagnosis: database",
        "payments is to blame.",
        "I blame payments",
        "payments is at fault",
        "The fault lies with payments.",
        "The fault is in payments",
        "cache is responsible for all of it",
        "It originates in cache",
        "payments is the origin of the slowness",
        "The source of the trouble is search.",
        "It all stems from queue",
        "This comes from the database",
        "It is slow due to the database",
        "It starts at payments",
        "In conclusion, database.",
        "I conclude that database broke",
        "My answer is database",
        "payments is faulty",
        "It is not disk full, it is a memory leak.",
        "It is not the database but payments is the culprit",
        "根因是数据库",
        "根本原因为 payments",
        "元凶就是 cache",
        "结论：database",
        "诊断：payments 出了问题",
        "问题出在 payments",
        '{"service": "payments"}',
    ],
)
def test_a_conclusion_is_found_in_any_words(text: str) -> None:
    assert concludes(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[M1] payments disk 97%",
        "Not disk full: disk is at 40%.",
        "It is not a memory leak.",
        "No sign of packet loss here",
        "This isn't a bad deploy",
        "Disk full can be excluded",
        "disk_full is ruled out",
        "swapping is unlikely, heap is normal",
        "Is it a memory leak?",
        "The cause is unknown so far",
        "The root cause is not clear yet",
        "I do not conclude yet.",
        "Nothing says which service is at fault",
        "It is open whether payments is to blame",
        "payments is slow and its cpu is high",
        "The slow service furthest down is payments",
        "disk is full of old files at 40%",
        "There was a deploy yesterday, all requests in time",
        "requests to the database time out",
        "不是磁盘问题，disk_full 可排除",
        "根因尚不清楚",
        "没有 memory_leak 的迹象",
        "payments 变慢，cpu 升高",
    ],
)
def test_reasoning_a_denial_or_a_question_is_no_conclusion(text: str) -> None:
    assert not concludes(text)
