"""Every wording of the triage task, in English and Chinese; names of services and types stay as they are."""

from typing import Literal

from llmgym.envs.aiops.incident import Kind

Language = Literal["en", "zh"]
Wording = dict[Language, str]

SYSTEM: Wording = {
    "en": "You are on call for an online shop. Triage goes in two rounds.",
    "zh": "你是一家网店的值班工程师。故障分诊分两轮进行。",
}

RULES: Wording = {
    "en": (
        "One service is at fault. It is slow, and so is every service that calls it, directly or through others; "
        "all others answer as usual. The incident raises exactly two gauges of the service at fault and no others "
        "of it; gauges of other services may be raised for other reasons. Log lines from before the incident say "
        "nothing about it."
    ),
    "zh": (
        "有一个服务出了故障。它变慢，直接或间接调用它的服务也都变慢；其他服务响应照常。故障使该服务恰好两个指标升高，"
        "其余指标平常；其他服务的指标可能因别的原因升高。故障发生之前的日志与故障无关。"
    ),
}

WORLD: Wording = {
    "en": "Services and what they call: {services}\nIncident types and the gauges they raise: {types}",
    "zh": "服务及其调用：{services}\n故障类型及其升高的指标：{types}",
}

ROUND_1: Wording = {
    "en": (
        "Round 1. Reason about these signals and cite by tag, such as [M1], those that tell the cause apart, "
        "and no more than it takes. Do not name an incident type and do not conclude yet.\n"
        "{rules}\n{world}\n{report}"
    ),
    "zh": (
        "第一轮。请分析下列信号，并用标签引用（例如 [M1]）能区分原因的信号，够用即可。"
        "先不要说出故障类型，也不要下结论。\n"
        "{rules}\n{world}\n{report}"
    ),
}

ROUND_2: Wording = {
    "en": 'Round 2. Answer with this JSON and nothing else: {"service": ..., "incident_type": ...}',
    "zh": '第二轮。只回答这个 JSON，不要有其他内容：{"service": ..., "incident_type": ...}',
}

SECTIONS: dict[Kind, Wording] = {
    "symptom": {"en": "Symptoms", "zh": "现象"},
    "trace": {"en": "Sampled traces", "zh": "采样链路"},
    "log": {"en": "Logs, by minutes after the incident began", "zh": "日志，按故障开始后的分钟数"},
    "metric": {"en": "Metrics now (usually)", "zh": "当前指标（平时）"},
}

SYMPTOMS: dict[str, Wording] = {
    "slow": {"en": "{service} answers {0} times slower", "zh": "{service} 响应变慢 {0} 倍"},
    "fine": {"en": "{service} answers as usual", "zh": "{service} 响应照常"},
}

TRACES: dict[str, Wording] = {
    "call": {
        "en": "{service} {0} ms, usually {1} ms, called by {2}",
        "zh": "{service} {0} 毫秒，平时 {1} 毫秒，由 {2} 调用",
    },
}

LOGS: dict[str, Wording] = {
    "timeouts": {"en": "{service} {0} min {1} requests time out", "zh": "{service} {0} 分 {1} 请求超时"},
    "deadline": {"en": "{service} {0} min {1} deadline exceeded", "zh": "{service} {0} 分 {1} 超过期限"},
    "backlog": {"en": "{service} {0} min {1} backlog is growing", "zh": "{service} {0} 分 {1} 积压增长"},
    "retries": {"en": "{service} {0} min {1} clients retry", "zh": "{service} {0} 分 {1} 客户端重试"},
    "healthy": {"en": "{service} {0} min {1} health check passed", "zh": "{service} {0} 分 {1} 健康检查通过"},
    "on_time": {"en": "{service} {0} min {1} all requests in time", "zh": "{service} {0} 分 {1} 请求均按时完成"},
}

GAUGES: dict[str, Wording] = {
    "cpu": {"en": "cpu {0}% ({1}%)", "zh": "cpu {0}%（{1}%）"},
    "heap": {"en": "heap {0}% ({1}%)", "zh": "heap {0}%（{1}%）"},
    "disk": {"en": "disk {0}% ({1}%)", "zh": "disk {0}%（{1}%）"},
    "pool": {"en": "pool {0}% ({1}%)", "zh": "pool {0}%（{1}%）"},
    "errors": {"en": "errors {0}/min ({1}/min)", "zh": "errors {0} 次/分（{1} 次/分）"},
    "retransmits": {"en": "retransmits {0}% ({1}%)", "zh": "retransmits {0}%（{1}%）"},
}

ROW: Wording = {"en": "{service}: {gauges}", "zh": "{service}：{gauges}"}
"""The gauges of one service, in the report and in a reply."""

STATES: dict[str, Wording] = {
    "slow": {"en": "slow", "zh": "变慢"},
    "fine": {"en": "fine", "zh": "照常"},
    "earlier": {"en": "earlier", "zh": "更早"},
    "high": {"en": "high", "zh": "升高"},
    "normal": {"en": "normal", "zh": "平常"},
}
"""What a reply says of a signal, by the state that the signal claims."""

FURTHEST: Wording = {"en": "Slow and furthest down: {service}", "zh": "最下游的慢服务：{service}"}
OR: Wording = {"en": " or ", "zh": " 或 "}
TELLING: Wording = {"en": "Telling: {tags}", "zh": "关键信号：{tags}"}
"""How a reply cites the signals that tell the cause apart."""

CONCLUDING: Wording = {"en": "The root cause is {type} in {service}.", "zh": "根因是 {service} 的 {type}。"}
"""How a reply concludes."""
