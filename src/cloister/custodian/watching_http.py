"""What each route of health and alarms does."""

from __future__ import annotations

from cloister.custodian.calls import Call, Reply, json_reply
from cloister.custodian.service.health import State


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
