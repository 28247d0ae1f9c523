"""A signal ends a command wherever Python is when it comes."""

import signal
import subprocess
import sys
import time

import pytest

from latf_openmm.cli.stopping import end_at_signals

_IGNORED = """
import os, signal, time, weakref
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
from latf_openmm.cli import application
class Thing: pass
def app():
    thing = Thing()
    reference = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.{name}))
    del thing
    time.sleep(20)
application.app = app
application.main()
"""
"""Python ignores what is raised in the callback of a weak reference."""

_SLOW = """
import time
from latf_openmm.cli import application
def app():
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("slow to end", flush=True)
        time.sleep(60)
application.app = app
application.main()
"""
"""A command that takes long to leave."""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_an_ignored_exception_is_raised_again(name: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _IGNORED.format(name=name)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.split("\n") == ["interrupted; the same command continues where it stopped", ""]


def test_a_second_signal_ends_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", _SLOW], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "slow to end\n"
        process.send_signal(signal.SIGTERM)  # the same once more, as `timeout` sends it
        time.sleep(1.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 143


def test_a_system_without_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no SIGALRM: commands start there all the same."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.delattr(signal, "SIGALRM")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in jobs in the background
    before = {number: signal.getsignal(number) for number in handlers}
    try:
        end_at_signals()
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
