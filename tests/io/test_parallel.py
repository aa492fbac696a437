"""Jobs on processes give results and one-line errors, and end if a process is killed or the consumer goes."""

import functools
import logging
import multiprocessing
import os
import signal
import threading
import time
import weakref

import pytest

from lens_d2.io.errors import DataError
from lens_d2.io.parallel import read_ahead, run_all


def double(number):
    if number == 3:
        raise DataError("three.txt", "is odd")
    return 2 * number


def die(number):
    os.kill(os.getpid(), signal.SIGKILL)


def jobs(work, count=6):
    return {str(n): functools.partial(work, n) for n in range(count)}


def test_a_job_that_cannot_be_sent_is_a_line():
    with pytest.raises(DataError, match="0: cannot be sent to another process .*at the top level of its file"):
        dict(run_all({str(n): lambda: None for n in range(3)}, "lambdas", processes=2))


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


def note_and_sleep(folder):
    (folder / str(os.getpid())).touch()
    time.sleep(60)


def work_until_killed(folder):
    os.setsid()
    list(run_all({str(n): functools.partial(note_and_sleep, folder) for n in range(2)}, "sleeps", 2, start="fork"))


def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    parent = multiprocessing.get_context("fork").Process(target=work_until_killed, args=(tmp_path,))
    parent.start()
    limit = time.monotonic() + 30
    while len(os.listdir(tmp_path)) < 2 and time.monotonic() < limit:
        time.sleep(0.02)
    group = parent.pid
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    try:
        while time.monotonic() < limit:
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)
        pytest.fail("they wait for ever")
    except ProcessLookupError:
        assert len(os.listdir(tmp_path)) == 2


def test_other_errors_and_an_end_before_time_stop_the_processes():
    with pytest.raises(TypeError):
        dict(run_all(jobs(len), "lengths", 2, start="fork"))
    results = run_all(jobs(functools.partial(time.sleep), 1) | jobs(double), "sleeps", 2, start="fork")
    next(results)
    results.close()
    assert not multiprocessing.active_children()


# One item read ahead


class Volume:
    """Something that takes memory as long as somebody has it."""


def test_the_next_item_is_read_while_this_one_is_worked_on():
    reading, worked_on = threading.Event(), threading.Event()

    def read(number):
        if number == 1:
            reading.set()
            assert worked_on.wait(30)
        return number

    for number, take in read_ahead(range(3), read):
        assert take() == number
        if number == 0:
            assert reading.wait(30)  # the next one, before this one is done
            worked_on.set()


def test_two_results_are_in_memory_at_most():
    alive, counts = weakref.WeakSet(), []

    def read(number):
        volume = Volume()
        alive.add(volume)
        counts.append(len(alive))
        return volume

    for _, take in read_ahead(range(20), read):
        volume = take()
        del take
        assert isinstance(volume, Volume)
        del volume
    assert len(counts) == 20 and max(counts) <= 2


def test_what_cannot_be_read_beside_another_is_read_again_alone():
    attempts, tried = [], threading.Event()

    def read(number):
        attempts.append(number)
        if number == 1 and attempts.count(1) == 1:
            tried.set()
            raise DataError("1", "no memory for it")
        if number == 2:
            raise DataError("2", "damaged")
        return number

    done, faults = [], []
    for _, take in read_ahead(range(4), read):
        try:
            done.append(take())
        except DataError as error:
            faults.append(str(error))
        assert tried.wait(30)
    assert done == [0, 1, 3] and faults == ["2: damaged"]
    assert attempts == [0, 1, 1, 2, 2, 3]


def test_an_item_is_asked_for_when_the_one_before_it_is_taken():
    asked = []

    def items():
        for number in range(4):
            asked.append(number)
            yield number

    ahead = read_ahead(items(), str)
    _, take = next(ahead)
    assert asked == [0] and take() == "0" and asked == [0, 1]
    next(ahead)
    next(ahead)  # the second was not taken
    assert asked == [0, 1, 2]
    ahead.close()
