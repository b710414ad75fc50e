"""Paths of local files: what is there, and whether it can be read within limits."""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import BinaryIO

from ..quoting import quoted
from .errors import MediaDecodeError, MediaError, MediaNotFoundError, MediaRefusedError, MediaTypeError
from .kinds import BinaryFile
from .limits import check_bytes
from .policy import MediaPolicy

_LONGEST_PATH = 32_767  # characters; no system takes longer ones
_PIECE = 1 << 20  # bytes read at once
_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EINVAL)
_DO_NOT_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_KINDS = {
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def stat_of(path: str) -> os.stat_result | None:
    """Return what the system says of a path, None if nothing is there; raises a `MediaError` if it may not be asked."""
    if len(path) > _LONGEST_PATH:
        return None
    try:
        return os.stat(path)
    except ValueError:  # a NUL, or half of a surrogate pair
        return None
    except OSError as error:
        if error.errno in _NOTHING:
            return None
        raise _cannot_be_read(path, error) from None


def check_file(path: str, found: os.stat_result | None, policy: MediaPolicy, kind: str) -> None:
    """Refuse what is no file, may not be read or is too large; `kind` is what it should hold, for messages."""
    label = quoted(path)
    if found is None:
        raise MediaNotFoundError(f"Incorrect {kind} source: there is no file {label}.")
    mode = stat.S_IFMT(found.st_mode)
    if mode == stat.S_IFDIR:
        raise MediaNotFoundError(f"Incorrect {kind} source: {label} is a directory; pass the path of a file.")
    if mode != stat.S_IFREG:
        what = _KINDS.get(mode, "special file")
        raise MediaNotFoundError(f"Incorrect {kind} source: {label} is a {what}; pass a regular file, or its bytes.")
    if not os.access(path, os.R_OK):
        raise _cannot_be_read(path, PermissionError())
    check_bytes(found.st_size, label, policy)


def open_file(path: str) -> BinaryIO:
    """Open a regular file for reading; does not wait for a pipe that has taken its name meanwhile."""
    try:
        handle = os.open(path, os.O_RDONLY | _DO_NOT_WAIT)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise MediaNotFoundError(f"{quoted(path)} is no regular file any more")
        return open(handle, "rb")
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise _cannot_be_read(path, error) from None


def read_sizeless(path: str, limit: int) -> bytes:
    """Return at most about `limit` bytes of a file whose size the system gives as 0, as it does of those in /proc."""
    try:
        with open_file(path) as file:
            return read_pieces(file, limit)
    except OSError as error:
        if isinstance(error, MediaError):
            raise
        raise _cannot_be_read(path, error) from None


def read_pieces(file: BinaryFile, limit: int) -> bytes:
    """Return the next `limit` bytes of a file object, or what it has; memory follows what it holds, not the limit."""
    content = io.BytesIO()
    while content.tell() < limit:
        piece: object = file.read(min(_PIECE, limit - content.tell()))
        if isinstance(piece, str):
            raise MediaTypeError("a picture or a clip is no text: open the file in binary mode ('rb')")
        if not isinstance(piece, (bytes, bytearray, memoryview)) or not piece:  # None: nothing for now
            break
        content.write(piece)
    return content.getvalue()


def _cannot_be_read(path: str, error: OSError) -> MediaError:
    label = quoted(path)
    if isinstance(error, PermissionError):
        return MediaRefusedError(f"{label} may not be read: the system refuses it to this user")
    if error.errno == errno.ELOOP:
        return MediaNotFoundError(f"{label} is a loop of symbolic links")
    if error.errno in _NOTHING:
        return MediaNotFoundError(f"there is no file {label} any more")
    name = errno.errorcode.get(error.errno or 0, type(error).__name__)
    return MediaDecodeError(f"{label} cannot be read ({name})")
