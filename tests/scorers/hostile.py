"""Text that breaks what is careless with text."""

from hypothesis import strategies as st

PIECES = [
    "",
    "\ud800",
    "\udfff",
    "\0",
    "\u202e\u2066\u200f",
    "\x1b[2J\x07\x9b",
    "a" + "\u0301" * 3000,
    "9" * 5000,
    "-" + "9" * 4999 + "." + "9" * 5000,
    "1e999",
    "1e-99999",
    "NaN",
    "Infinity",
    "[" * 3000,
    '{"a":' * 3000,
    "[" * 60 + "]" * 60,
    '{"a": 1, "a": 2}',
    '"\\ud800"',
    "```python\n",
    "```json\n",
    "\n```",
    "\\boxed{",
    "\\frac{" * 50,
    "$",
    "}" * 100,
    "1/" * 500,
    "[T1, M2",
    "[" * 500 + "T1]",
    "漢字かなカナ",
    "\U0001f468\u200d\U0001f469",
    "\ufeff",
    "\u2028\u2029\x85",
    "ſ\u0130\u0131ß",
    "\u0660\u0661\uff11\u00b2",
]


def texts() -> st.SearchStrategy[str]:
    """Return texts made of such pieces and of any characters, lone surrogates too."""
    anything = st.text(st.characters(), max_size=20)
    return st.lists(st.sampled_from(PIECES) | anything, max_size=6).map("".join)
