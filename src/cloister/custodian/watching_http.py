"""What each route of health, alarms, metrics and spending does."""

from __future__ import annotations

from datetime import timedelta

from cloister.custodian.calls import Call, Member, Reply, json_reply
from cloister.custodian.service.health import State
from cloister.telemetry.exposition import negotiated

_MAX_STEP_S, _MAX_STEPS = 86_400, 500
STEPS = (
    Member(name="step_s", type="integer", doc="seconds of a step, at most 86400; 60 by default", required=False),
    Member(name="steps", type="integer", doc="how many steps, at most 500; 60 by default", required=False),
)
"""How spending is cut into steps."""


def healthz(call: Call) -> Reply:
    """Answer as long as the process lives, with how it stood when somebody last looked; looks at nothing itself."""
    last = call.service.watch.health.last
    well = last is None or last.state is State.OK
    return json_reply({"status": State.OK.value if well else State.DEGRADED.value})


def readyz(call: Call) -> Reply:
    """Tell, part by part, whether keys can be released now: everything is tried, at most once a second."""
    report = call.service.watch.health.report()
    return json_reply(report.to_json(), status=503 if report.state is State.FAILED else 200)


def alarms(call: Call) -> Reply:
    """List the alarms that are active, worst first."""
    return json_reply({"alarms": [alarm.to_json() for alarm in call.service.watch.look()]})


def metrics(call: Call) -> Reply:
    """Show metrics as monitoring systems read them: Prometheus text, or OpenMetrics by `Accept`."""
    call.service.watch.measure()
    kind, text = negotiated(call.service.metrics, call.accept)
    return Reply(body=text.encode(), media_type=kind)


def spending(call: Call) -> Reply:
    """Tell what every loan spent lately, step by step, and in all."""
    step, steps = _steps(call)
    return json_reply(call.service.spending.of_all(step=step, steps=steps))


def loan_spending(call: Call) -> Reply:
    """Tell what one loan spent lately, step by step, and in all."""
    step, steps = _steps(call)
    return json_reply(call.service.spending.of_one(call.loan, step=step, steps=steps))


def _steps(call: Call) -> tuple[timedelta, int]:
    """Return length and number of the steps. Raises ``Malformed``."""
    length = call.number("step_s", default=60, floor=1, cap=_MAX_STEP_S)
    return timedelta(seconds=length), call.number("steps", default=60, floor=1, cap=_MAX_STEPS)
