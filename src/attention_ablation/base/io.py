"""Files as the project reads and writes them: regular, text in UTF-8, whole or not at all."""

import csv
import fcntl
import hashlib
import io
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from attention_ablation.base.errors import UserError

OTHER_FILES = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFSOCK: "a socket",
}


class Missing(UserError):  # noqa: N818  (a user's mistake, too)
    """There is no such file."""


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Return a regular file's content.

    Raises Missing where there is none, and UserError where it cannot be read, has more than `most`
    bytes, or is no regular file: a pipe or a device, also behind a link, may never end.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe waits for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                what = OTHER_FILES.get(stat.S_IFMT(found.st_mode), "something else")
                raise UserError(f"{path}: expected a regular file, got {what}.")
            if most is not None and found.st_size > most:
                raise UserError(f"{path}: expected at most {most:,} bytes, got {found.st_size:,}.")
            with open(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Missing(f"{path}: it cannot be read: {error.strerror}.") from None
    except ValueError:  # a path with a NUL character
        raise UserError(f"{str(path)!r}: expected the path of a file.") from None
    except OSError as error:
        raise UserError(f"{path}: it cannot be read: {error.strerror}.") from None


def read_text(path: Path) -> str:
    """Return a text file's content, without a byte-order mark. Raises as `read_bytes`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: expected text in UTF-8.") from None


def read_csv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return a CSV file's columns, and its records with the numbers of their last lines.

    Raises as `read_text`, and UserError for other text.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=None))
    try:
        records = [(reader.line_num, record) for record in reader]
        return list(reader.fieldnames or []), records
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: this is not valid CSV: {error}.") from None


def read_json(path: Path) -> Any:
    """Return what a JSON file holds. Raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path), path)


def parse_json(text: str, where: object) -> Any:
    """Return what JSON holds. Raises UserError, about `where`, for other text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: this is not valid JSON: {error}.") from None


@contextmanager
def replacing(path: Path, *, durable: bool = False, part: str | None = None) -> Iterator[BinaryIO]:
    """Open a file so that a reader sees the old content or the whole new one, never a part.

    It is written beside, under one name for every attempt (`part`, where each attempt has another
    `path`), so that a killed writer leaves nothing that the next one does not replace, and moved
    into place: a link of that name is replaced and not followed.

    durable: it is on the disk before it has its name. Raises UserError where the folder cannot be
    written or the disk is full; what was there before is then intact.
    """
    beside = path.with_name(part or f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside.is_symlink():
            beside.unlink()
        with open(_begin(beside), "wb") as file:
            file.truncate()
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            beside.replace(path)
    except (OSError, UserError) as error:
        with suppress(OSError):
            beside.unlink()
        if isinstance(error, UserError):  # about something that is read meanwhile
            raise
        raise UserError(
            f"{path}: it cannot be written: {error.strerror}. What was there before is intact; "
            "make room or the folder writable, and run it again."
        ) from None


def write_bytes(
    path: Path, content: bytes | memoryview, *, durable: bool = False, part: str | None = None
) -> None:
    """Write a file, whole or not at all; see `replacing`."""
    with replacing(path, durable=durable, part=part) as file:
        file.write(content)


def _begin(path: Path) -> int:
    """Open a file that one process at a time writes and then moves away; it is locked till then."""
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # another one moved it away meanwhile


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a text file, its lines ended by what `text` has; see `write_bytes`."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, data: Any, *, durable: bool = False) -> None:
    """Write JSON for people, too; see `write_bytes`. Raises ValueError for NaN."""
    write_text(path, json.dumps(data, indent=2, allow_nan=False) + "\n", durable=durable)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> str:
    """Write arrays as a compressed `.npz`; see `write_bytes`. Returns its SHA-256."""
    content = packed(arrays)
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def packed(arrays: Mapping[str, Any]) -> bytes:
    """Return the content of a compressed `.npz`."""
    import numpy as np

    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()
