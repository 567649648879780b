"""Files as the project reads and writes them."""

import os
import socket
from pathlib import Path

import pytest

from attention_ablation.study.errors import UserError
from attention_ablation.study.io import Missing, read_bytes, read_text, write_bytes


def test_only_regular_files_are_read_and_nothing_waits_for_another(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name, said in {
        "pipe": "expected a regular file, got a pipe",
        "zeros": "expected a regular file, got a device",
        "folder": "expected a regular file, got a folder",
        "loop": "it cannot be read: Too many levels of symbolic links",
        "a\0b": "expected the path of a file",
    }.items():
        with pytest.raises(UserError, match=said):
            read_bytes(tmp_path / name)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(UserError):
            read_bytes(tmp_path / "socket")
    with pytest.raises(Missing):
        read_bytes(tmp_path / "pipe" / "below")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_text_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfn \xc2\xb1 1\n")
    assert read_text(path) == "n ± 1\n"
    path.write_bytes(b"n \xb1 1\n")
    with pytest.raises(UserError, match="expected text in UTF-8"):
        read_text(path)


def test_a_link_is_replaced_and_what_it_points_to_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "other").write_text("somebody's")
    for link in ("file", ".file.part"):
        (tmp_path / link).symlink_to(tmp_path / "other")
    write_bytes(tmp_path / "file", b"ours")
    assert (tmp_path / "file").read_text() == "ours"
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "other").read_text() == "somebody's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "other"]
