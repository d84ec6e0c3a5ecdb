"""Whether the people would be reached: a message that says it is a test, to the receivers of the policy."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from holter_monitor.alerting.policies import default_policy
from holter_monitor.alerting.policy_files import load
from holter_monitor.notify import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.http import client
from holter_monitor.notify.notice import example
from holter_monitor.notify.receivers import notifier
from holter_monitor.preflight.check import Check


def look(names: Sequence[str], policies: Path | None, environment: Mapping[str, str]) -> Iterator[Check]:
    """`names`: "all", or receivers of the policy. Raises `PolicyError`, `ValueError` (a policy that cannot be read)."""
    policy = default_policy(environment) if policies is None else load(policies, environment, notifier)
    with client(allow_private=policy.allow_private) as http:
        for name in policy.receivers if "all" in names else names:
            what = f"receiver {name}"
            if name not in policy.receivers:
                yield Check(
                    what=what, mark="fail", found="the policy has none of this name", remedy=f"it has {', '.join(policy.receivers)}"
                )
                continue
            try:
                notifier(name, policy.receivers[name]).send(example(time.time()), http)
                yield Check(what=what, mark="ok", found="took a test message")
            except (DeliveryFailed, DeliveryRefused) as error:
                yield Check(what=what, mark="fail", found=str(error), remedy="mend its address or key; until then nobody is told there")
