"""Check alert policies, see where an incident would go, send a marked test message."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

from holter_monitor.alerting.policies import Policy
from holter_monitor.alerting.policy_files import PolicyError, chosen
from holter_monitor.findings import KINDS, Severity
from holter_monitor.incidents import Incident
from holter_monitor.notify.http import client
from holter_monitor.notify.receivers import notifier, tried


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="alerts_verb", metavar="check|test", required=True)
    check = verbs.add_parser("check", help="validate the policies; with --kind, show where such an incident would go")
    check.add_argument("--kind", choices=KINDS, help="the finding's name")
    check.add_argument("--severity", choices=[severity.word for severity in Severity], default="warning")
    check.add_argument("--project", default="demo")
    check.add_argument("--run", default="run", metavar="NAME", dest="run_name")
    check.add_argument("--node", action="append", default=[], help="a node that it is about; may be repeated")
    test = verbs.add_parser("test", help="send a message that is marked as a test")
    test.add_argument("receiver")
    for verb in (check, test):
        verb.add_argument(
            "--policies", type=Path, metavar="PATH", help="a folder of *.yml, or one file; without it, what the environment says"
        )
        verb.add_argument("--json", action="store_true")


def run(arguments: argparse.Namespace) -> int:
    """0: fine; 2: the policy (or the receiver's name) is wrong; 3: the test message could not be delivered."""
    try:
        policy = chosen(arguments.policies, os.environ, notifier)
    except (PolicyError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return _check(policy, arguments) if arguments.alerts_verb == "check" else _test(policy, arguments)


def _check(policy: Policy, arguments: argparse.Namespace) -> int:
    incident = _incident(arguments) if arguments.kind else None
    routes = _routes(policy, incident, arguments.run_name) if incident else []
    if arguments.json:
        print(json.dumps({"receivers": sorted(policy.receivers), "num_routes": len(policy.routes), "routes": routes}))
        return 0
    print(f"fine: {len(policy.receivers)} receivers ({', '.join(policy.receivers)}), {len(policy.routes) or 'the default'} routes")
    if incident is not None:
        print(f"{incident.severity.word} {incident.kind} on {incident.project}/{arguments.run_name}:")
        for route in routes:
            print(f"  {route['when']} to {', '.join(route['receivers']) or 'nobody'}")
        if not routes:
            print("  to nobody: no route matches, it is recorded only")
    return 0


def _routes(policy: Policy, incident: Incident, run_name: str) -> list[dict[str, Any]]:
    now, found = time.time(), []
    window = policy.maintenance_of(incident, run_name, now)
    if window is not None:
        return [{"when": f"hidden by maintenance {window[0]!r} for {(window[1] - now) / 60:.0f} min:", "receivers": []}]
    for route in policy.routes_of(incident, run_name):
        if route.observe_only:
            found.append({"when": "observed only:", "receivers": []})
            continue
        wait = 0.0 if incident.severity == Severity.CRITICAL else route.group_wait
        left = route.quiet_hours.left(now + wait) if route.quiet_hours and incident.severity < Severity.CRITICAL else 0.0
        found.append({"when": f"after {wait + left:g} s" + (" (quiet hours)" if left else ""), "receivers": route.receivers})
        found += [{"when": f"after {step.after / 60:g} min, not acknowledged", "receivers": step.receivers} for step in route.escalate]
    return found


def _incident(arguments: argparse.Namespace) -> Incident:
    return Incident(
        id="example",
        run=arguments.run_name,
        project=arguments.project,
        kind=arguments.kind,
        scope="run",
        severity=Severity[arguments.severity.upper()],
        state="open",
        onset_step=0,
        detected_step=0,
        summary="an example",
        created=time.time(),
        updated=time.time(),
        nodes=arguments.node,
    )


def _test(policy: Policy, arguments: argparse.Namespace) -> int:
    facts = policy.receivers.get(arguments.receiver)
    if facts is None:
        print(f"no receiver is called {arguments.receiver!r}; there are {', '.join(policy.receivers)}", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # so that the receiver `log` shows its line
    with client(allow_private=policy.allow_private) as http:
        problem = tried(arguments.receiver, facts, http, allow_private=policy.allow_private)
    if arguments.json:
        print(json.dumps({"receiver": arguments.receiver, "delivered": problem is None, "problem": problem}))
    else:
        print(f"{arguments.receiver}: delivered" if problem is None else f"{arguments.receiver}: not delivered: {problem}")
    return 0 if problem is None else 3
