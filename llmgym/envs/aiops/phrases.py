"""Every wording of the triage task, in English and Chinese; names of services and types stay as they are."""

from typing import Literal

from llmgym.envs.aiops.incident import Kind

Language = Literal["en", "zh"]
Wording = dict[Language, str]

SYSTEM: Wording = {
    "en": "You are on call for an online shop. Triage goes in two rounds.",
    "zh": "你是一家网店的值班工程师。故障分诊分两轮进行。",
}

ROUND_1: Wording = {
    "en": (
        "Round 1. Reason about these signals and cite them by tag, such as [M1]. "
        "Do not name an incident type and do not conclude yet.\n"
        "Services: {services}\nIncident types: {types}\n"
        "Incident at {time}\n{report}"
    ),
    "zh": (
        "第一轮。请分析下列信号，并用标签引用，例如 [M1]。先不要说出故障类型，也不要下结论。\n"
        "服务：{services}\n故障类型：{types}\n"
        "故障时间 {time}\n{report}"
    ),
}

ROUND_2: Wording = {
    "en": 'Round 2. Answer with this JSON and nothing else: {"service": ..., "incident_type": ...}',
    "zh": '第二轮。只回答这个 JSON，不要有其他内容：{"service": ..., "incident_type": ...}',
}

SECTIONS: dict[Kind, Wording] = {
    "symptom": {"en": "Symptoms", "zh": "现象"},
    "metric": {"en": "Metrics", "zh": "指标"},
    "log": {"en": "Logs", "zh": "日志"},
    "trace": {"en": "Trace", "zh": "链路"},
}

SYMPTOMS: dict[str, Wording] = {
    "slow": {"en": "{service} answers {0} times slower", "zh": "{service} 响应变慢 {0} 倍"},
    "failing": {"en": "{service} fails {0}% of requests", "zh": "{service} 有 {0}% 的请求失败"},
}

METRICS: dict[str, Wording] = {
    "cpu": {"en": "{service} cpu {0}%, usually {1}%", "zh": "{service} CPU {0}%，平时 {1}%"},
    "heap": {"en": "{service} heap {0}%, usually {1}%", "zh": "{service} 堆内存 {0}%，平时 {1}%"},
    "disk": {"en": "{service} disk {0}%, usually {1}%", "zh": "{service} 磁盘 {0}%，平时 {1}%"},
    "pool": {"en": "{service} pool {0}%, usually {1}%", "zh": "{service} 连接池 {0}%，平时 {1}%"},
    "retransmits": {"en": "{service} retransmits {0}%, usually {1}%", "zh": "{service} 重传率 {0}%，平时 {1}%"},
    "exceptions": {
        "en": "{service} exceptions {0}/min, usually {1}/min",
        "zh": "{service} 异常 {0} 次/分，平时 {1} 次/分",
    },
    "tls_failures": {
        "en": "{service} TLS failures {0}/min, usually {1}/min",
        "zh": "{service} TLS 失败 {0} 次/分，平时 {1} 次/分",
    },
    "lookup_errors": {
        "en": "{service} lookup errors {0}/min, usually {1}/min",
        "zh": "{service} 解析错误 {0} 次/分，平时 {1} 次/分",
    },
    "lock_wait": {"en": "{service} lock wait {0} ms, usually {1} ms", "zh": "{service} 锁等待 {0} 毫秒，平时 {1} 毫秒"},
    "requests": {"en": "{service} requests {0}/s, usually {1}/s", "zh": "{service} 请求 {0} 次/秒，平时 {1} 次/秒"},
    "reload_failures": {
        "en": "{service} reload failures {0}/min, usually {1}/min",
        "zh": "{service} 重载失败 {0} 次/分，平时 {1} 次/分",
    },
    "clock_offset": {
        "en": "{service} clock offset {0} ms, usually {1} ms",
        "zh": "{service} 时钟偏移 {0} 毫秒，平时 {1} 毫秒",
    },
}

LOGS: dict[str, Wording] = {
    "timeout_calling": {"en": "timeout calling {2}", "zh": "调用 {2} 超时"},
    "threads_starved": {"en": "worker threads starved", "zh": "工作线程得不到调度"},
    "cores_busy": {"en": "all cores busy, run queue growing", "zh": "所有核心占满，运行队列增长"},
    "loop_blocked": {"en": "event loop blocked", "zh": "事件循环被阻塞"},
    "full_gc": {"en": "full GC reclaimed almost nothing", "zh": "完全垃圾回收几乎没有释放空间"},
    "oom_killed": {"en": "worker killed, out of memory", "zh": "工作进程因内存不足被杀"},
    "alloc_failed": {"en": "allocation failed, heap at its limit", "zh": "分配失败，堆已到上限"},
    "no_space": {"en": "write failed, no space left on device", "zh": "写入失败，设备没有剩余空间"},
    "rotate_failed": {"en": "cannot rotate log file, volume is full", "zh": "无法轮转日志文件，卷已满"},
    "volume_full": {"en": "checkpoint aborted, nothing free on volume", "zh": "检查点中止，卷上没有空闲"},
    "no_connection": {"en": "waited too long for a free connection", "zh": "等待空闲连接过久"},
    "all_in_use": {"en": "all connections are in use", "zh": "所有连接都在使用中"},
    "checkout_timeout": {"en": "could not borrow a connection", "zh": "无法借到连接"},
    "peer_reset": {"en": "connection reset by peer", "zh": "连接被对端重置"},
    "retransmit_burst": {"en": "burst of TCP retransmissions", "zh": "TCP 重传突增"},
    "read_stalled": {"en": "read stalled, segments missing", "zh": "读取停滞，缺少分段"},
    "null_pointer": {"en": "null pointer in new build", "zh": "新版本出现空指针"},
    "unknown_field": {"en": "unknown field since the last release", "zh": "上次发布后出现未知字段"},
    "flag_missing": {"en": "feature flag missing after rollout", "zh": "上线后缺少功能开关"},
    "cert_not_valid": {"en": "x509: certificate not valid after today", "zh": "x509：证书今日后失效"},
    "handshake_refused": {"en": "handshake refused, certificate out of date", "zh": "握手被拒，证书过期"},
    "tls_alert": {"en": "TLS alert 45 from client", "zh": "客户端返回 TLS 警报 45"},
    "no_such_host": {"en": "no such host", "zh": "找不到主机"},
    "servfail": {"en": "SERVFAIL from resolver", "zh": "解析器返回 SERVFAIL"},
    "lookup_timeout": {"en": "name lookup timed out", "zh": "域名查询超时"},
    "deadlock": {"en": "deadlock found, transaction rolled back", "zh": "发现死锁，事务已回滚"},
    "lock_timeout": {"en": "gave up waiting for a lock", "zh": "放弃等待锁"},
    "row_lock": {"en": "row locked by another transaction", "zh": "行被另一事务锁定"},
    "shedding_load": {"en": "shedding load", "zh": "正在丢弃负载"},
    "too_many_requests": {"en": "429 sent to clients", "zh": "向客户端返回 429"},
    "backlog_full": {"en": "accept backlog full", "zh": "接收队列已满"},
    "invalid_value": {"en": "invalid value for timeout", "zh": "timeout 的取值无效"},
    "missing_variable": {"en": "required variable is not set", "zh": "必需的变量未设置"},
    "reload_failed": {"en": "reload failed, keeping old settings", "zh": "重载失败，沿用旧设置"},
    "token_in_future": {"en": "token issued in the future", "zh": "令牌签发时间在未来"},
    "ntp_unsynced": {"en": "NTP not synchronised", "zh": "NTP 未同步"},
    "timestamp_refused": {"en": "request refused, timestamp too far off", "zh": "请求被拒，时间戳偏差过大"},
}

TRACE: Wording = {"en": "slowest request: {hops}", "zh": "最慢请求：{hops}"}

FAR_OFF: Wording = {"en": "[{tag}] {line}, far off", "zh": "[{tag}] {line}，相差很大"}
TIME_GOES: Wording = {"en": "[{tag}] the time goes to {service}", "zh": "[{tag}] 时间花在 {service}"}
"""How a reply cites a metric and a trace; other signals are quoted as they stand."""

CONCLUSIONS: tuple[str, ...] = (
    "root cause is", "root cause:", "the cause is", "diagnosis:", "the culprit is", "in conclusion",
    "根因是", "根因为", "根本原因是", "结论是", "结论：", "诊断：",
)  # fmt: skip
"""What gives a conclusion away in round 1, whichever the language; incident types do too."""

CONCLUDING: Wording = {"en": "The root cause is {type} in {service}.", "zh": "根因是 {service} 的 {type}。"}
"""How a reply concludes."""
