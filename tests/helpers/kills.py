"""Ends a run in the middle of a call, as a kill would."""

import inspect


class Killed(BaseException):
    """End of a run that no code catches."""


def kill_at(patch, owner, name, number=None, when=lambda *args: True):
    """Let the number-th call of a method or function be the last thing that happens.

    Args:
        patch: pytest's monkeypatch.
        owner: class or module.
        name: of the method or function there.
        number: of the call, from 1; None: none, the calls are only noted.
        when: of a call's arguments, whether it counts.

    Returns:
        list that fills with the arguments of each call.
    """
    original, calls = getattr(owner, name), []

    def method(*args, **kwargs):
        if when(*args):
            calls.append(args)
            if len(calls) == number:
                raise Killed
        return original(*args, **kwargs)

    patch.setattr(owner, name, staticmethod(method) if inspect.ismethod(original) else method)
    return calls
