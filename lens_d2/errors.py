"""The one error that bad input raises, so that every command can report it the same way."""


class DataError(ValueError):
    """A file that cannot be used, and why.

    Args:
        path: the file or folder at fault.
        fault: what is wrong with it, without a full stop.

    ``str(error)`` is the single line ``"<path>: <fault>"``.
    """

    def __init__(self, path, fault: str):
        self.path = str(path)
        self.fault = " ".join(str(fault).split())
        super().__init__(f"{self.path}: {self.fault}")

    def __reduce__(self):
        return type(self), (self.path, self.fault)
