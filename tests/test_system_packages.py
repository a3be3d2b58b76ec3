"""``scripts/system-packages`` installs what it must and starts nothing, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "system-packages"
TOOLS = ("bash", "cat", "chmod", "env", "find", "grep", "ls", "mv", "rm", "sort")
THEIRS = "#!/bin/sh\n# of the owner of this machine\nexit 0\n"
WANTS = "etc/systemd/system/multi-user.target.wants"
# An apt-get that does as packages of servers do: asks the policy, starts, and switches itself on for the next boot.
APT = f"""#!/bin/bash
[ "$1" = install ] || exit 0
"$CLOISTER_SYSTEM_ROOT/usr/sbin/policy-rc.d" docker-registry start; echo "$?" >"$CLOISTER_SYSTEM_ROOT/asked"
ln -s /lib/docker-registry.service "$CLOISTER_SYSTEM_ROOT/{WANTS}/docker-registry.service"
case "$FAKE" in fails) exit 100;; hangs) echo here >"$CLOISTER_SYSTEM_ROOT/hangs"; sleep 60;; esac
"""


class Machine:
    """A folder that the script takes for the root of a Debian on which nothing is installed."""

    def __init__(self, root: Path) -> None:
        self.root, self.policy = root, root / "usr/sbin/policy-rc.d"
        tools = root / "tools"
        for folder in (tools, self.policy.parent, root / WANTS):
            folder.mkdir(parents=True)
        (root / WANTS / "ssh.service").symlink_to("/lib/ssh.service")
        for name in (*TOOLS, "ln", "sleep"):
            found = shutil.which(name)
            assert found is not None
            (tools / name).symlink_to(found)
        for name, text in (("id", "#!/bin/bash\necho 0\n"), ("apt-get", APT)):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)

    def start(self, how: str = "") -> subprocess.Popen[str]:
        environment = {"PATH": str(self.root / "tools"), "CLOISTER_SYSTEM_ROOT": str(self.root), "FAKE": how}
        bash = shutil.which("bash")
        assert bash is not None
        return subprocess.Popen(  # noqa: S603 - the script that is tested
            [bash, str(SCRIPT)], env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
        )

    def run(self, how: str = "") -> str:
        process = self.start(how)
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 0, said
        return said

    @property
    def switched_on(self) -> set[str]:
        return {place.name for place in (self.root / WANTS).iterdir()}

    @property
    def left(self) -> set[str]:
        return {place.name for place in self.policy.parent.iterdir()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


@pytest.mark.parametrize("how", ["", "fails"])
def test_nothing_starts_now_or_at_the_next_boot_and_nothing_is_left(machine: Machine, how: str) -> None:
    said = machine.run(how)
    assert "docker-registry" in said
    assert ("could not install" in said) == (how == "fails")
    assert (machine.root / "asked").read_text() == "101\n"
    assert machine.left == set()
    assert machine.switched_on == {"ssh.service"}


def test_a_policy_that_was_there_is_there_again(machine: Machine) -> None:
    machine.policy.write_text(THEIRS)
    machine.policy.chmod(0o700)
    machine.run()
    assert (machine.root / "asked").read_text() == "101\n"
    assert machine.policy.read_text() == THEIRS
    assert machine.policy.stat().st_mode & 0o777 == 0o700
    assert machine.left == {"policy-rc.d"}


@pytest.mark.parametrize("theirs", [True, False])
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_an_interrupted_installation_leaves_the_policy_of_before_at_the_latest_after_the_next_one(
    machine: Machine, end: signal.Signals, *, theirs: bool
) -> None:
    if theirs:
        machine.policy.write_text(THEIRS)
    process = machine.start("hangs")
    while not (machine.root / "hangs").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, end)
    process.communicate(timeout=60)
    if end is signal.SIGKILL:
        assert "exit 101" in machine.policy.read_text(), "killed, it forbids too much and not too little"
        (machine.root / WANTS / "docker-registry.service").unlink()
        machine.run()
    assert machine.left == ({"policy-rc.d"} if theirs else set())
    if theirs:
        assert machine.policy.read_text() == THEIRS
