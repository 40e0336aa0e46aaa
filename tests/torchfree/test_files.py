"""Files are whole or absent, links are not followed, locks tell who holds them."""

import errno
import multiprocessing
import os
import stat
import threading

import pytest

from spikecore import files
from spikecore.files import FileLock, LockTaken


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_write_file_replaces(tmp_path):
    path = tmp_path / "a"
    files.write_file(path, "one")
    files.write_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("call", ["os.replace", "os.fsync"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, call):
    path = tmp_path / "a"
    files.write_file(path, "one")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"spikecore.files.{call}", full)
    with pytest.raises(OSError, match="No space") as caught:
        files.write_file(path, "two")
    with pytest.raises(OSError, match="No space"):
        files.write_with(path, lambda aside: aside.write_text("two"))
    monkeypatch.undo()
    assert "free some space" in files.cure(caught.value)
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a"]


def write_with(path, text):
    files.write_with(path, lambda aside: aside.write_text(text))


@pytest.mark.parametrize("write", [files.write_file, write_with])
def test_a_planted_link_is_not_followed(tmp_path, write):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "a"
    for name in ("a", "a.partial", f".a.{os.getpid()}-{threading.get_ident()}.partial"):
        (tmp_path / name).symlink_to(victim)
    write(path, "x")
    assert victim.read_text() == "precious"
    assert path.read_text() == "x"
    assert not path.is_symlink()


def test_another_writer_of_the_file_takes_nothing_away(tmp_path, monkeypatch):
    """It comes when the first one has written its text, but not renamed it yet."""
    path, replace = tmp_path / "a", os.replace

    def replace_second(source, target):
        monkeypatch.undo()
        other = threading.Thread(target=files.write_file, args=(path, "second"))
        other.start()
        other.join()
        assert path.read_text() == "second"
        replace(source, target)

    monkeypatch.setattr("spikecore.files.os.replace", replace_second)
    files.write_file(path, "first")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["a"]


def test_threads_may_write_one_file(tmp_path):
    """Each under a temporary name of its own: the last one wins, none fails."""
    path, num_threads = tmp_path / "a", 6
    all_have_begun = threading.Barrier(num_threads)
    failures = []

    def write(aside, text):
        aside.write_text(text)
        all_have_begun.wait(timeout=60)

    def client(text):
        try:
            files.write_with(path, lambda aside: write(aside, text))
        except Exception as error:
            failures.append(error)

    texts = [str(index) * 1000 for index in range(num_threads)]
    threads = [threading.Thread(target=client, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert path.read_text() in texts
    assert names(tmp_path) == ["a"]


def test_a_directory_is_there_with_all_its_files_or_not_at_all(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "kept").write_text("")
    (tmp_path / "d.partial").symlink_to(victim)
    files.write_directory(tmp_path / "d", {"a": b"1", "b": b"2"})
    assert names(tmp_path / "d") == ["a", "b"]
    assert names(victim) == ["kept"]
    with pytest.raises(OSError, match=r"not empty|exists"):
        files.write_directory(tmp_path / "d", {"c": b"3"})
    assert names(tmp_path / "d") == ["a", "b"]
    files.remove_directory(tmp_path / "d")
    assert names(tmp_path) == ["victim"]


def test_removing_a_link_leaves_what_it_points_to(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "d")
    files.remove_directory(tmp_path / "link")
    assert names(tmp_path) == ["d"]


def test_clean_deletes_what_was_left(tmp_path):
    (tmp_path / "a.partial").write_text("")
    (tmp_path / "d.partial").mkdir()
    (tmp_path / "d.partial" / "x").write_text("")
    (tmp_path / "kept").write_text("")
    files.clean(tmp_path)
    assert names(tmp_path) == ["kept"]


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert files.read_file(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than the 4 bytes"):
        files.read_file(tmp_path / "a", 4)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: a blocking open would never return
    for name, code in (("link", errno.ELOOP), ("pipe", errno.EINVAL), (".", errno.EISDIR), ("missing", errno.ENOENT)):
        with pytest.raises(OSError, match=os.strerror(code) if code != errno.EINVAL else "not a regular file"):
            files.read_file(tmp_path / name, 5)


def hold(path, held, release):
    with FileLock(path):
        held.set()
        release.wait(60)


def test_a_lock_tells_who_holds_it_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, held, release))
    process.start()
    assert held.wait(60)
    assert FileLock.holder(path)["pid"] == process.pid
    with pytest.raises(LockTaken) as caught, FileLock(path, timeout_s=0):
        pass
    assert caught.value.holder["pid"] == process.pid
    process.kill()
    process.join()
    assert FileLock.holder(path) is None
    with FileLock(path, timeout_s=0) as lock:
        assert FileLock.holder(path)["pid"] == os.getpid()
        assert lock.is_in_place()
        path.unlink()
        assert not lock.is_in_place()
        path.write_text("another file")
        assert not lock.is_in_place()


def test_a_lock_is_a_regular_file(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for name, text in (("link", os.strerror(errno.ELOOP)), ("pipe", "not a regular file")):
        with pytest.raises(OSError, match=text), FileLock(tmp_path / name, timeout_s=0):
            pass
    assert victim.read_text() == "precious"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
