"""Files as the project reads and writes them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from attention_ablation.base.errors import UserError
from attention_ablation.base.io import Missing, read_bytes, read_text, write_bytes


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


WRITER = """
import sys
from pathlib import Path
from attention_ablation.base.io import write_bytes
for _ in range(300):
    write_bytes(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)
"""


def test_two_that_write_one_file_leave_what_one_of_them_wrote(tmp_path: Path) -> None:
    path = tmp_path / "file"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, path, name]) for name in "ab"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = read_bytes(path)
            assert len(content) == 200_000
            assert len(set(content)) == 1
            seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0, 0]
    assert seen == {b"a", b"b"}
    assert [left.name for left in tmp_path.iterdir()] == ["file"]
