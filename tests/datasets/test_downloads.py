"""Downloads against a local server that breaks off, lies, changes its mind and sends web pages."""

import hashlib
import random
import threading

import pytest

from spikecore.datasets import downloads as module
from spikecore.datasets.store import DataFile, fetch, matches, verify
from spikecore.errors import DatasetError
from tests.datasets.server import serving

BODY = random.Random(0).randbytes(300_000)
SHA256, MD5 = hashlib.sha256(BODY).hexdigest(), hashlib.md5(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    with serving() as files:
        files.content["/a.zip"] = BODY
        yield files


def wanted(server, **changes):
    return DataFile(**{"name": "a.zip", "urls": (f"{server.url}/a.zip",), "sha256": SHA256, "md5": MD5} | changes)


def only(directory):
    return sorted(path.name for path in directory.iterdir() if not path.name.endswith(".lock"))


def test_a_file_comes_whole_and_only_once(server, tmp_path):
    path = fetch(wanted(server, size=len(BODY)), tmp_path / "new")
    assert path.read_bytes() == BODY
    assert only(path.parent) == ["a.zip"]
    fetch(wanted(server), path.parent)
    assert server.log == [None]


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    server.cut_after = [70_000, 50_000]
    assert fetch(wanted(server), tmp_path).read_bytes() == BODY
    starts = [int(text.removeprefix("bytes=").rstrip("-")) for text in server.log[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 70_000
    assert starts[0] < starts[1] <= 120_000


def test_the_next_call_goes_on_as_well(server, tmp_path):
    server.cut_after = [70_000]
    with pytest.raises(DatasetError, match="broke off 1 times"):
        fetch(wanted(server), tmp_path, attempts=1)
    assert not (tmp_path / "a.zip").exists()
    assert fetch(wanted(server), tmp_path).read_bytes() == BODY
    assert server.log[1] is not None


def test_a_file_that_changed_meanwhile_is_not_glued_to_the_old_one(server, tmp_path):
    server.cut_after = [70_000]
    with pytest.raises(DatasetError):
        fetch(wanted(server), tmp_path, attempts=1)
    server.content["/a.zip"], server.tag = b"x" * 200_000, '"v2"'
    new = wanted(server, sha256=hashlib.sha256(b"x" * 200_000).hexdigest(), md5="")
    assert fetch(new, tmp_path).read_bytes() == b"x" * 200_000


@pytest.mark.parametrize("behaviour", [{"ranges": False}, {"tag": ""}, {"lie_about_start": 7}])
def test_servers_that_cannot_resume(server, tmp_path, behaviour):
    vars(server).update(behaviour)
    server.cut_after = [70_000]
    assert fetch(wanted(server), tmp_path).read_bytes() == BODY


def test_a_server_error_is_tried_again_and_then_told(server, tmp_path):
    server.status = [503, 503]
    assert fetch(wanted(server), tmp_path).read_bytes() == BODY
    server.status = [500] * 9
    with pytest.raises(DatasetError, match="broke off 3 times"):
        fetch(wanted(server), tmp_path / "b", attempts=3)


def test_a_refusal_moves_on_to_the_next_address(server, tmp_path):
    file = wanted(server, urls=(f"{server.url}/gone.zip", f"{server.url}/a.zip"))
    assert fetch(file, tmp_path).read_bytes() == BODY
    with pytest.raises(DatasetError, match="404"):
        fetch(wanted(server, urls=(f"{server.url}/gone.zip",)), tmp_path / "b")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sha256": "0" * 64}, "its sha256 is"),
        ({"sha256": "", "md5": "0" * 32}, "its md5 is"),
        ({"size": 5}, "300000 bytes instead of 5"),
        ({"size": 400_000}, "300000 bytes instead of 400000"),
    ],
)
def test_what_is_not_the_file_is_thrown_away(server, tmp_path, change, says):
    with pytest.raises(DatasetError, match=says):
        fetch(wanted(server, **change), tmp_path)
    assert only(tmp_path) == []


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/zip"])
def test_a_web_page_in_place_of_an_archive(server, tmp_path, content_type):
    server.content["/a.zip"] = b"\n<!DOCTYPE html><html>sign in</html>"
    server.content_type = content_type
    with pytest.raises(DatasetError, match="a web page came instead"):
        fetch(wanted(server), tmp_path)
    assert only(tmp_path) == []


def test_other_schemes_are_not_fetched(server, tmp_path):
    with pytest.raises(DatasetError, match="only http"):
        fetch(wanted(server, urls=("file:///etc/passwd",)), tmp_path)


def test_a_manual_download_says_where_from_and_where_to(tmp_path):
    with pytest.raises(DatasetError) as caught:
        fetch(DataFile("DvsGesture.tar.gz"), tmp_path, manual="accept the licence at https://example.org")
    assert "https://example.org" in str(caught.value)
    assert str(tmp_path / "DvsGesture.tar.gz") in str(caught.value)


def test_a_file_put_there_by_hand_is_verified(server, tmp_path):
    (tmp_path / "a.zip").write_bytes(BODY[:-1])
    with pytest.raises(DatasetError, match=r"its sha256 is .* Delete it"):
        fetch(wanted(server), tmp_path)
    assert not matches(tmp_path / "a.zip", wanted(server))
    (tmp_path / "a.zip").write_bytes(BODY)
    verify(tmp_path / "a.zip", wanted(server))
    assert matches(tmp_path / "a.zip", wanted(server))
    assert server.log == []


def test_two_at_once_download_once(server, tmp_path):
    threads = [threading.Thread(target=fetch, args=(wanted(server), tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.log == [None]
    assert (tmp_path / "a.zip").read_bytes() == BODY
