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
_KEEP = """
    INSERT INTO answers VALUES (?, ?)
    ON CONFLICT (key) DO UPDATE SET text = excluded.text WHERE typeof(answers.text) <> 'text'
"""


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
            path = None if path is None else path.expanduser()
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                path or ":memory:", timeout=_PATIENCE, check_same_thread=False, isolation_level=None
            )
            self._file.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
            self._file.execute("INSERT OR REPLACE INTO answers (key, text) VALUES ('', 'this cache can be written')")
            self._file.execute("SELECT count(text) FROM answers").fetchone()
        except (sqlite3.Error, OSError, ValueError, RuntimeError) as error:
            raise ConfigError(f"judge: the cache {str(path)!r} cannot be used: {error}") from error

    def answers(self, questions: Sequence[Question]) -> list[Answer] | Awaitable[list[Answer]]:
        """Return an answer to each question, in order; an awaitable if the model waits."""
        keyed = [(self._key(question), question) for question in questions]
        if self.waits:
            return each(self._answer, keyed, blocking=True)
        found = {key: answer for key, _ in keyed if (answer := self._known(key)) is not None}
        missing = {key: question for key, question in keyed if key not in found}
        asked = zip(missing, self._model.answers(list(missing.values())), strict=True) if missing else ()
        new = {key: self._keep(key, answer) for key, answer in asked}
        counted: set[str] = set()
        return [_once(found.get(key) or new[key], key, counted) for key, _ in keyed]

    def _answer(self, key: str, question: Question) -> Answer:
        """Answer a question in a thread of its own, once nobody else is asking it."""
        with self._alone(key):
            answer = self._known(key)
            if answer is None:
                (answer,) = self._model.answers([question])
                answer = self._keep(key, answer)
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
        with self._lock, self._patiently():  # what cannot be read is asked again
            row = self._file.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
            if row is not None and isinstance(row[0], str):
                return Answer(row[0], calls=0)
        return None

    def _keep(self, key: str, answer: Answer) -> Answer:
        """Keep an answer; return it with the text that is kept, which another process may have written first."""
        if answer.text is not None:
            with self._lock, self._patiently():  # an answer counts, kept or not
                self._file.execute(_KEEP, (key, answer.text))
                row = self._file.execute("SELECT text FROM answers WHERE key = ?", (key,)).fetchone()
                return replace(answer, text=row[0])
        return answer

    @contextlib.contextmanager
    def _patiently(self) -> Iterator[None]:
        """Do without the file where it cannot be used; who had to wait for others once waits no more."""
        try:
            yield
        except sqlite3.Error:
            self._file.execute("PRAGMA busy_timeout = 0")


def _once(answer: Answer, key: str, counted: set[str]) -> Answer:
    """Return an answer that costs nothing if it was counted already."""
    if key in counted:
        return replace(answer, read=0, written=0, calls=0)
    counted.add(key)
    return answer
