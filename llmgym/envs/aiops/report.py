"""From an incident to the text that the team on call reads."""

from llmgym.envs.aiops import phrases
from llmgym.envs.aiops.incident import Incident, Signal
from llmgym.envs.aiops.phrases import Language
from llmgym.envs.aiops.world import Difficulty


def round_1_message(incident: Incident, difficulty: Difficulty, language: Language) -> str:
    """Return the first observation: the rules of round 1, the world in play and the report."""
    services = "; ".join(
        f"{name} > {', '.join(callees)}" if callees else name for name, callees in difficulty.topology.items()
    )
    return phrases.ROUND_1[language].format(
        services=services,
        types=", ".join(cause.name for cause in difficulty.types),
        time=clock(incident.onset),
        report=report(incident, language),
    )


def report(incident: Incident, language: Language) -> str:
    """Return the signals in their sections, one per line, each following its tag."""
    lines = []
    for kind, title in phrases.SECTIONS.items():
        section = incident.of_kind(kind)
        if section:
            lines.append(f"{title[language]}:")
            lines += [f"[{signal.tag}] {describe(signal, language)}" for signal in section]
    return "\n".join(lines)


def cite(signal: Signal, language: Language) -> str:
    """Return a line that cites the signal by its tag and quotes what it shows."""
    match signal.kind:
        case "trace":
            return phrases.TIME_GOES[language].format(tag=signal.tag, service=signal.service)
        case "metric":
            return phrases.FAR_OFF[language].format(tag=signal.tag, line=describe(signal, language))
        case _:
            return f"[{signal.tag}] {describe(signal, language)}"


def describe(signal: Signal, language: Language) -> str:
    """Return one signal in words, without its tag."""
    match signal.kind:
        case "symptom":
            return phrases.SYMPTOMS[signal.phrase][language].format(*signal.values, service=signal.service)
        case "metric":
            return phrases.METRICS[signal.phrase][language].format(*signal.values, service=signal.service)
        case "log":
            minute, level = signal.values[:2]
            line = phrases.LOGS[signal.phrase][language].format(*signal.values)
            return f"{clock(int(minute))} {level} {signal.service} {line}"
        case "trace":
            names, milliseconds = signal.values[::2], signal.values[1::2]
            hops = " > ".join(f"{name} {ms} ms" for name, ms in zip(names, milliseconds, strict=True))
            return phrases.TRACE[language].format(hops=hops)


def clock(minutes: int) -> str:
    """Return minutes after midnight as ``HH:MM``.

    Examples:
        >>> clock(845)
        '14:05'
    """
    return f"{minutes // 60:02d}:{minutes % 60:02d}"
