"""Folders of small tables that are complete or absent, and verified whenever they are read."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..io.errors import DataError
from ..io.files import write_whole

logger = logging.getLogger(__name__)


class DamagedTable(DataError):
    """A stored table that is not what was written, or was made from something else."""


class TableStore:
    """A folder with a table for each of many things. One that is absent, damaged or outdated is made again.

    A subclass says how a thing is named (:meth:`name`), and how its value becomes a table and back
    (:meth:`encode`, :meth:`decode`).
    """

    def __init__(self, root: str | os.PathLike, fingerprint: str, make: Callable[[Any], Any] | None = None):
        """
        Args:
            root: the folder.
            fingerprint: of all that the values depend on; tables with another one are outdated.
            make: gives the value of a thing; without it, a table that cannot be used is an error.
        """
        self.root = Path(root)
        self.fingerprint = fingerprint
        self._make = make

    def name(self, thing: Any) -> str:
        raise NotImplementedError

    def encode(self, value: Any) -> pa.Table:
        raise NotImplementedError

    def decode(self, table: pa.Table) -> Any:
        """The value of a table; ValueError or KeyError where it is none."""
        raise NotImplementedError

    def path(self, thing: Any) -> Path:
        """Where the table of a thing is or would be."""
        name = self.name(thing)
        safe = re.sub(r"[^\w.-]+", "_", name)
        if safe != name:  # two names must not become one
            safe += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
        return self.root / f"{safe}.parquet"

    def fault(self, thing: Any) -> str | None:
        """Why a thing's table has to be made; None where it is sound."""
        try:
            self._read(thing)
        except FileNotFoundError:
            return "absent"
        except DamagedTable as error:
            return error.fault
        return None

    def write(self, thing: Any) -> None:
        """Make the table of a thing, whether there is one or not."""
        path = self.path(thing)
        if self._make is None:
            raise DataError(path, "absent or damaged, and nothing here to make it with")
        table = self.encode(self._make(thing))
        header = {**(table.schema.metadata or {}), **self._header(thing), "rows": str(len(table))}
        sink = pa.BufferOutputStream()
        pq.write_table(table.replace_schema_metadata(header), sink, compression="zstd", write_page_checksum=True)
        write_whole(path, sink.getvalue())

    def read(self, thing: Any) -> Any:
        """The value of a thing, made where its table is absent or damaged."""
        try:
            return self._read(thing)
        except FileNotFoundError:
            logger.info("%s: absent; making it", self.path(thing))
        except DamagedTable as damage:
            logger.warning("%s; making it again", damage)
        self.write(thing)
        return self._read(thing)

    def _header(self, thing: Any) -> dict[str, str]:
        return {"name": self.name(thing), "fingerprint": self.fingerprint}

    def _read(self, thing: Any) -> Any:
        path = self.path(thing)
        if not path.exists():
            raise FileNotFoundError(path)
        try:
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                table = file.read()
            header = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            outdated = [key for key, value in self._header(thing).items() if header[key] != value]
            if outdated:
                raise DamagedTable(path, f"outdated, it has another {outdated[0]}")
            if int(header["rows"]) != len(table):
                raise ValueError(f"{len(table)} of {header['rows']} rows")
            return self.decode(table)
        except DamagedTable:
            raise
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise DamagedTable(path, f"damaged ({reason[:160]})") from None
