"""`Cached`: a model that is asked each question once, in this run and in later ones."""

import contextlib
import hashlib
import json
import sqlite3
import threading
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from llmgym.envs.waiting import each
from llmgym.errors import ConfigError
from llmgym.scorers.judges.chat import Answer, ChatModel, Question

_PATIENCE = 10.0  # seconds to wait for others who write


class Cached:
    """A model whose answers are kept in a file.

    A question that is being asked is not asked again meanwhile, so equal replies get equal verdicts. What a model did
    not answer is asked again the next time.

    Args:
        model: Is asked what is not known.
        path: An SQLite database, made if need be; None to remember for this run alone.

    Raises:
        ConfigError: It cannot be opened.
    """

    def __init__(self, model: ChatModel, path: Path | None = None) -> None:
        self._model, self.waits = model, model.waits
        self._lock = threading.Lock()  # of the connection, which threads share
        self._asking: dict[str, tuple[threading.Lock, int]] = {}
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                path or ":memory:", timeout=_PATIENCE, check_same_thread=False, isolation_level=None
            )
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
            self._file.execute("INSERT OR REPLACE INTO answers (key, text) VALUES ('', 'this cache can be written')")
            self._file.execute("SELECT count(text) FROM answers").fetchone()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"judge: the cache {str(path)!r} cannot be used: {error}") from error

    def answers(self, questions: Sequence[Question]) -> list[Answer] | Awaitable[list[Answer]]:
        """Return an answer to each question, in order; an awaitable if the model waits."""
        keyed = [(self._key(question), question) for question in questions]
        if self.waits:
            return each(self._answer, keyed, blocking=True)
        found = {key: answer for key, _ in keyed if (answer := self._known(key)) is not None}
        missing = {key: question for key, question in keyed if key not in found}
        new = dict(zip(missing, self._model.answers(list(missing.values())), strict=True)) if missing else {}
        for key, answer in new.items():
            self._keep(key, answer)
        counted: set[str] = set()
        return [_once(found.get(key) or new[key], key, counted) for key, _ in keyed]

    def _answer(self, key: str, question: Question) -> Answer:
        """Answer a question in a thread of its own, once nobody else is asking it."""
        with self._alone(key):
            answer = self._known(key)
            if answer is None:
                (answer,) = self._model.answers([question])
                self._keep(key, answer)
            return answer

    @contextlib.contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Wait until nobody else asks a question."""
        with self._lock:
            lock, waiting = self._asking.get(key, (threading.Lock(), 0))
            self._asking[key] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, waiting = self._asking.pop(key)
                if waiting > 1:
                    self._asking[key] = lock, waiting - 1

    def _key(self, question: Question) -> str:
        asked = {
            "model": dict(self._model.identity),
            "messages": [one.chat for one in question.messages],
            "vote": question.vote,
        }
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def _known(self, key: str) -> Answer | None:
        with self._lock, contextlib.suppress(sqlite3.Error):  # what cannot be read is asked again
            row = self._file.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
            if row is not None and isinstance(row[0], str):
                return Answer(row[0], calls=0)
        return None

    def _keep(self, key: str, answer: Answer) -> None:
        if answer.text is not None:
            with self._lock, contextlib.suppress(sqlite3.Error):  # an answer counts, kept or not
                self._file.execute("INSERT OR IGNORE INTO answers VALUES (?, ?)", (key, answer.text))


def _once(answer: Answer, key: str, counted: set[str]) -> Answer:
    """Return an answer that costs nothing if it was counted already."""
    if key in counted:
        return replace(answer, read=0, written=0, calls=0)
    counted.add(key)
    return answer
