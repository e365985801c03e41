"""Twenty ordinary conversations, for whatever is compared on real text: user, assistant, user and so on."""

from llmgym.types import Message

_TEXTS = (
    ("What is the capital of France?", "The capital of France is Paris.", "And of Italy?", "Rome."),
    (
        "Explain recursion to a child.",
        "Imagine a box in a box in a box. To reach the smallest you open each in the same way.",
        "How do I know when to stop?",
        "You stop when a box has no box in it.",
        "So every box is opened once?",
        "Yes, once each, from the outside in.",
    ),
    (
        "Write a haiku about rain.",
        "Soft rain on the roof\nThe street lamps blur into gold\nNobody hurries",
        "Thanks!",
        "😊",
    ),
    (
        "Fix this: `for i in range(10) print(i)`",
        "A colon is missing:\n\n```python\nfor i in range(10):\n    print(i)\n```",
        "Why a colon?",
        "It tells Python that an indented block follows.",
    ),
    (
        "Translate 'good morning' into German.",
        "Guten Morgen.",
        "Into Spanish?",
        "Buenos días.",
        "Japanese?",
        "おはよう。",
    ),
    ("My flight is at 6:40. When should I leave?", "How far is the airport?", "25 km.", "At about 4:00."),
    (
        "List three fruits.",
        "1. Apple\n2. Pear\n3. Plum",
        "Now as JSON.",
        '{"fruits": ["apple", "pear", "plum"]}',
    ),
    ("What's 17 + 25?", "42", "Minus 2?", "40", "Halved?", "20"),
    (
        "Summarise: The committee met on Monday, could not agree on the budget and will meet again in March.",
        "The committee postponed its decision on the budget to March.",
        "Shorter.",
        "Budget decision postponed.",
    ),
    ("Who wrote Hamlet?", "William Shakespeare.", "When?", "Around 1600."),
    (
        "The server returns 502 since noon.",
        "A proxy gets no valid answer from the service behind it. Is the service running?",
        "systemctl says: active (running)",
        "Then look at its port and at the time-outs of the proxy.",
        "It listens on 8081, the proxy asks 8080.",
        "That is it: let the proxy ask 8081.",
    ),
    ("Give me a name for a cat.", "Miso.", "Something more dignified?", "Lord Whiskerton III."),
    ("Is a tomato a fruit?", "Botanically yes; in the kitchen it is a vegetable.", "And a cucumber?", "The same."),
    ("How do I boil an egg?", "Seven minutes in boiling water.", "And soft?", "Four to five minutes."),
    (
        "I feel tired all the time.",
        "I am sorry to hear that. How do you sleep?",
        "Badly, about five hours.",
        "More sleep would be the first thing to try; if it does not help, please see a doctor.",
    ),
    ("Convert 3 miles to km.", "About 4.83 km.", "   and 10?   ", "About 16.1 km."),
    (
        "What does `git rebase` do?",
        "It replays your commits on top of another commit.",
        "Is that dangerous?",
        "Only where others already have your old commits.",
    ),
    (
        "Tell me a joke.",
        "Why did the scarecrow win a prize? He was outstanding in his field.",
        "Another?",
        "No, one is enough.",
    ),
    ("¿Hablas español?", "Sí, un poco. ¿En qué puedo ayudarte?", "¿Qué hora es?", "No tengo reloj."),
    ("Name a prime above 100.", "101", "The next one?", "103", "Is 105 one?", "No: 105 = 3 · 5 · 7."),
)
CONVERSATIONS = [[Message("assistant" if i % 2 else "user", text) for i, text in enumerate(texts)] for texts in _TEXTS]
