"""Requests to end: at once, or when asked about; the second one ends at once."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from lens_d2.io import preemption
from lens_d2.io.preemption import REQUEUE, SIGNALS, Preempted, obeyed, passed_on, requested, wait, wait_no_longer


def ask(number=signal.SIGTERM):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_request_ends_a_run_where_it_is_and_handlers_are_put_back(number):
    before = [signal.getsignal(each) for each in SIGNALS]
    with pytest.raises(SystemExit) as end, obeyed():
        ask(number)
    assert end.value.code == REQUEUE == 75
    assert [signal.getsignal(each) for each in SIGNALS] == before


def test_a_request_waits_for_the_work_in_hand():
    with obeyed():
        assert not requested()
        wait()
        ask()
        ask(signal.SIGUSR1)  # the same request, passed on by another way
        assert requested()
    with pytest.raises(Preempted), obeyed():
        assert not requested()
        wait()
        wait_no_longer()
        ask()


def test_in_a_thread_nothing_is_handled():
    def work():
        with obeyed():
            handlers.append(signal.getsignal(signal.SIGTERM))

    handlers = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]


def test_without_processes_to_pass_it_on_to_a_request_ends_this_one():
    with pytest.raises(Preempted), passed_on():
        ask()


def test_an_error_without_a_request_passes():
    with pytest.raises(KeyError), passed_on():
        raise KeyError


def test_a_second_request_ends_at_once(repo_root):
    code = "import os, signal; from lens_d2.io import preemption as p\np.ONE_REQUEST_S = -1\n"
    code += "with p.obeyed():\n p.wait(); [os.kill(os.getpid(), signal.SIGTERM) for _ in 'ab']; print('there')"
    ended = subprocess.run([sys.executable, "-c", code], cwd=repo_root, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "")


def test_ignored_in_processes_that_others_end():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        preemption.ignore(0)
        ask()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
