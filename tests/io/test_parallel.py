"""Jobs on processes give results and one-line errors, and end if a process is killed or the consumer goes."""

import functools
import logging
import multiprocessing
import os
import signal
import time

import pytest

from lens_d2.io.errors import DataError
from lens_d2.io.parallel import run_all


def double(number):
    if number == 3:
        raise DataError("three.txt", "is odd")
    return 2 * number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def jobs(work, count=6):
    return {str(n): functools.partial(work, n) for n in range(count)}


@pytest.mark.parametrize("processes", [1, 2])
def test_every_job_gives_its_result_or_its_error(processes, caplog):
    caplog.set_level(logging.INFO)
    results = dict(run_all(jobs(double), "doubles", processes, start="fork"))
    assert str(results.pop("3")) == "three.txt: is odd"
    assert results == {str(n): 2 * n for n in (0, 1, 2, 4, 5)}
    assert caplog.messages[0].startswith("doubles: 6 of 6, ")


def test_a_killed_process_is_one_line():
    with pytest.raises(DataError, match="doubles: one of its processes was killed"):
        list(run_all(jobs(double) | {"x": functools.partial(die, 0)}, "doubles", 2, start="fork"))


def test_other_errors_and_an_end_before_time_stop_the_processes():
    with pytest.raises(TypeError):
        dict(run_all(jobs(len), "lengths", 2, start="fork"))
    results = run_all(jobs(functools.partial(time.sleep), 1) | jobs(double), "sleeps", 2, start="fork")
    next(results)
    results.close()
    assert not multiprocessing.active_children()
