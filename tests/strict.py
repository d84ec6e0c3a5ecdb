"""What Slack and PagerDuty document about their payloads, as judges for the sink."""

from __future__ import annotations

from sink import Call
from slack_sdk.models.blocks import (
    ActionsBlock,
    ButtonElement,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    SectionBlock,
)


def slack_problems(call: Call) -> list[str]:
    """Against Slack's own models (slack-sdk checks the lengths) and the limits of a message: 50 blocks, 40,000 characters of text."""
    message, problems = call.json, []
    blocks = message.get("blocks", [])
    if len(blocks) > 50 or not blocks:
        problems.append(f"{len(blocks)} blocks")
    if not message.get("text") or len(message["text"]) > 40_000:
        problems.append("text")
    for block in blocks:
        try:
            _slack_block(block)
        except Exception as error:
            problems.append(f"{block.get('type')}: {error}")
    return problems


def _slack_block(block: dict) -> None:
    if block["type"] == "header":
        HeaderBlock(text=PlainTextObject(text=block["text"]["text"])).validate_json()
    elif block["type"] == "section":
        assert 1 <= len(block["text"]["text"]) <= 3000
        SectionBlock(text=MarkdownTextObject(text=block["text"]["text"])).validate_json()
    elif block["type"] == "actions":
        ActionsBlock(
            elements=[ButtonElement(text=e["text"]["text"], url=e["url"], action_id=e["action_id"]) for e in block["elements"]]
        ).validate_json()
    elif block["type"] == "context":
        ContextBlock(elements=[MarkdownTextObject(text=e["text"]) for e in block["elements"]]).validate_json()
    else:
        raise ValueError("an unknown block")


def pagerduty_problems(call: Call) -> list[str]:
    """developer.pagerduty.com/docs/events-api-v2/trigger-events: required fields, enumerations, lengths, 512 KB."""
    event, problems = call.json, []
    if len(call.body) > 512_000:
        problems.append(f"{len(call.body)} bytes")
    if event.get("event_action") not in ("trigger", "acknowledge", "resolve"):
        problems.append("event_action")
    if not event.get("routing_key") or not event.get("dedup_key") or len(event["dedup_key"]) > 255:
        problems.append("routing_key or dedup_key")
    if event.get("event_action") == "trigger":
        payload = event.get("payload", {})
        problems += [name for name in ("summary", "source", "severity") if not payload.get(name)]
        problems += ["summary too long"] if len(payload.get("summary", "")) > 1024 else []
        problems += ["severity"] if payload.get("severity") not in ("critical", "error", "warning", "info") else []
    return problems
