"""Every named dataset from tiny archives in the authors' layout, read back; what is missing, foreign or malicious."""

import contextlib
import hashlib
import pickle
import signal
import subprocess
import sys
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import writers
from click.testing import CliRunner
from published import bullying, columns, h5, mat, npy, npz, sine, tar_of, wav, zip_of
from published import put as put_as_published

from spikecore import create
from spikecore.cli.info import command as info
from spikecore.datasets.store import DataFile
from spikecore.errors import DatasetError, OptionError
from spikecore.registry import load
from spikecore_datasets_dvs import declarations, pickled
from spikecore_datasets_dvs.catalogue import ALL, CIFAR10DVS, DVS128Gesture
from spikecore_datasets_dvs.events import make_events


def put(monkeypatch, cls, directory, archives):
    """Archives where a person would put them; their digests are those of the fixtures, the counts are not checked."""
    directory.mkdir(parents=True, exist_ok=True)
    known = {file.name for file in cls.info.files} | {file.name for file in getattr(cls, "repacks", ())}
    assert set(archives) <= known, "an archive that nobody declared"
    described = []
    for name, content in archives.items():
        directory.joinpath(name).write_bytes(content)
        described.append(DataFile(name, sha256=hashlib.sha256(content).hexdigest()))
    if {file.name for file in cls.info.files} >= set(archives):
        monkeypatch.setattr(cls, "info", replace(cls.info, files=tuple(described)))
    else:
        monkeypatch.setattr(cls, "repacks", tuple(described))


def opened(name, **options):
    return create("dataset", name, allow_partial=True, cache=False, **options)


def same(split, index, wanted):
    events, _ = split.events(index)
    for column, values in zip("txyp", wanted, strict=True):
        assert getattr(events, column).tolist() == list(values), column


def test_n_mnist(data, monkeypatch):
    files = {
        "Train.zip": zip_of(
            {f"Train/{d}/{i:05}.bin": writers.atis_bin(*columns(10 * d + i)) for d in range(10) for i in (1, 2)}
        ),
        "Test.zip": zip_of({f"Test/{d}/00001.bin": writers.atis_bin(*columns(500 + d)) for d in range(10)}),
    }
    put(monkeypatch, load("dataset", "n-mnist"), data / "n-mnist", files)
    dataset = opened("n-mnist")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (20, 10)
    same(train, 7, columns(32))
    assert train[7][1] == 3
    assert train[7][0].shape == (10, 2, 34, 34)
    same(test, 9, columns(509))
    with pytest.raises(DatasetError, match=r"there are 20 of 60000 \(train\), 10 of 10000 \(test\) recordings"):
        create("dataset", "n-mnist").split("train")


def test_n_caltech101_in_nested_archives(data, monkeypatch):
    names = ("accordion", "BACKGROUND_Google", "yin_yang")
    members = {
        f"Caltech101/{name}/image_{i:04}.bin": writers.atis_bin(*columns(i)) for name in names for i in range(10)
    }
    inner = zip_of(members)
    put(
        monkeypatch,
        load("dataset", "n-caltech101"),
        data / "n-caltech101",
        {
            "N-Caltech101-archive.zip": zip_of(
                {"N-Caltech101-archive/Caltech101.zip": inner, "N-Caltech101-archive/ReadMe.txt": b""}
            )
        },
    )
    dataset = opened("n-caltech101")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (27, 3)
    assert {dataset.info.classes[i] for i in train.labels} == set(names)
    assert dataset.num_outputs == 101
    assert not {r.path for r in train.recordings} & {r.path for r in test.recordings}
    number = int(train.recordings[4].path[-8:-4])
    same(train, 4, columns(number))


def test_nothing_is_unpacked_where_a_planted_link_leads(data, tmp_path, monkeypatch):
    """An interrupted build is resumed, and the directory that it left may come from somebody else."""
    archive = zip_of({"N-Caltech101-archive/ReadMe.txt": b""})
    top = data / "n-caltech101"
    put(monkeypatch, load("dataset", "n-caltech101"), top, {"N-Caltech101-archive.zip": archive})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.zip").write_bytes(zip_of({"b": b"1"}))
    (top / ".extracted.partial").mkdir()
    (top / ".extracted.partial" / "N-Caltech101-archive").symlink_to(tmp_path / "mine")
    with pytest.raises(DatasetError):
        opened("n-caltech101").split("train")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["a.zip"]


@pytest.mark.parametrize(("test", "numbers"), [("first", {0, 1}), ("last", {18, 19})])
def test_cifar10_dvs(data, monkeypatch, test, numbers):
    files = {}
    for label, name in enumerate(CIFAR10DVS.info.classes):
        members = {f"{name}/cifar10_{name}_{i}.aedat": writers.aedat2(*columns(100 * label + i)) for i in range(20)}
        files[f"{name}.zip"] = zip_of(members)
    put(monkeypatch, CIFAR10DVS, data / "cifar10-dvs", files)
    dataset = opened("cifar10-dvs", test=test)
    train, held = dataset.split("train"), dataset.split("test")
    assert (len(train), len(held)) == (180, 20)
    assert {int(r.path.rpartition("_")[2][:-6]) for r in held.recordings} == numbers
    number = int(held.recordings[3].path.rpartition("_")[2][:-6])
    t, x, y, p = columns(100 + number)
    rows, places = [127 - v for v in y], [127 - v for v in x]  # as the addresses have them
    same(held, 3, (t, [127 - row for row in rows], [127 - place for place in places], p))


def gestures(labels=None):
    t, x, y, p = columns(3, n=400, width=128, height=128, longest=4_000_000)
    rows = "class,startTime_usec,endTime_usec\n1,100000,900000\n11,1000000,3000000\n"
    return (t, x, y, p), {
        "DvsGesture/user01_fluorescent.aedat": writers.aedat3(t, x, y, p),
        "DvsGesture/user01_fluorescent_labels.csv": (labels or rows).encode(),
        "DvsGesture/user02_led.aedat": writers.aedat3(t, x, y, p),
        "DvsGesture/user02_led_labels.csv": b"class,startTime_usec,endTime_usec\n5,0,500000\n",
        "DvsGesture/trials_to_train.txt": b"user01_fluorescent.aedat\n",
        "DvsGesture/trials_to_test.txt": b"user02_led.aedat\n",
    }


def test_dvs128_gesture_is_cut_into_trials(data, monkeypatch):
    (t, x, y, p), members = gestures()
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", {"DvsGesture.tar.gz": tar_of(members)})
    dataset = opened("dvs128-gesture")
    train = dataset.split("train")
    assert train.labels.tolist() == [0, 10]
    for index, (start, stop) in enumerate([(100_000, 900_000), (1_000_000, 3_000_000)]):
        inside = [i for i, time in enumerate(t) if start <= time < stop]
        same(train, index, [[c[i] for i in inside] for c in (t, x, y, p)])
    assert train.recordings[0].subject == "user01"
    test = dataset.split("test")
    assert test.labels.tolist() == [4]
    assert test[0][0].shape == (10, 2, 128, 128)


def test_dvs128_gesture_in_tonics_repack(data, monkeypatch):
    t, x, y, p = columns(3)
    rows = np.stack([np.array(c, np.float64) for c in (x, y, p, np.array(t) / 1000)], 1)
    files = {
        "ibmGestureTrain.tar.gz": tar_of({f"ibmGestureTrain/user01_lab/{k}.npy": npy(rows) for k in (0, 10)}),
        "ibmGestureTest.tar.gz": tar_of({"ibmGestureTest/user24_led/3.npy": npy(rows)}),
    }
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", files)
    dataset = opened("dvs128-gesture")
    assert sorted(dataset.split("train").labels.tolist()) == [0, 10]
    same(dataset.split("test"), 0, (t, x, y, p))
    unasked = create("dataset", "dvs128-gesture", cache=False)  # nobody states how many there are
    assert [len(unasked.split(name)) for name in ("train", "test")] == [2, 1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"DvsGesture/user01_fluorescent_labels.csv": None}, "file of labels is missing"),
        ({"DvsGesture/trials_to_test.txt": None}, "list of the split is missing"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"h\n12,0,5\n"}, "line 2 has the unknown class 12"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"h\nx,0,5\n"}, "class, start and end were expected"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"h\n1,5,5\n"}, "line 2 ends at 5 µs, not behind its start at 5"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"h\n1,-5,5\n"}, "line 2 starts at -5 µs"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"1,0,5\n2,5,9\n"}, "line 1 is .*; a heading was expected"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b""}, "line 1 is .*; a heading was expected"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b"h\n\xff,0,5\n"}, r"labels\.csv: cannot be read: .*utf-8"),
        ({"DvsGesture/user01_fluorescent_labels.csv": "h\n1,²,5\n".encode()}, "class, start and end were expected"),
        ({"DvsGesture/user01_fluorescent_labels.csv": b'h\n"1,0,5\n' + b"x" * 200_000}, r"labels\.csv: cannot be read"),
        ({"DvsGesture/trials_to_train.txt": b"\xff.aedat\n"}, r"trials_to_train\.txt: cannot be read: .*utf-8"),
        ({"DvsGesture/trials_to_train.txt": b"/tmp/a.aedat\n"}, "names '/tmp/a.aedat', which leads out of"),
        ({"DvsGesture/trials_to_train.txt": b"../../a.aedat\n"}, "names '../../a.aedat', which leads out of"),
    ],
)
def test_labels_missing_or_unknown(data, monkeypatch, change, says):
    _, members = gestures()
    members = {name: content for name, content in (members | change).items() if content is not None}
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", {"DvsGesture.tar.gz": tar_of(members)})
    with pytest.raises(DatasetError, match=says):
        opened("dvs128-gesture").split("train")


def test_a_trial_beyond_its_recording(data, monkeypatch):
    _, members = gestures("h\n1,0,900000\n2,4000001,5000000\n")
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", {"DvsGesture.tar.gz": tar_of(members)})
    train = opened("dvs128-gesture").split("train")
    assert len(train.events(0)[0]) > 0
    with pytest.raises(DatasetError, match=r"trial from 4000001 to 5000000 µs is not in the recording, .* to \d+ µs"):
        train.events(1)


def test_asl_dvs(data, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 240, 20), rng.integers(0, 180, 20)
    arrays = {"ts": np.arange(20)[:, None], "x": x[:, None], "y": y[:, None], "pol": np.ones((20, 1))}
    letters = declarations.ASL
    assert len(letters) == 24
    inner = {f"{a}.zip": zip_of({f"{a}/{a}_{i:04}.mat": mat(**arrays) for i in range(1, 11)}) for a in letters}
    put(monkeypatch, load("dataset", "asl-dvs"), data / "asl-dvs", {"ICCV2019_DVS_dataset.zip": zip_of(inner)})
    dataset = opened("asl-dvs")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (216, 24)
    same(test, 0, (range(20), (239 - x).tolist(), (179 - y).tolist(), [1] * 20))
    path = train.directory / train.recordings[0].path
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(DatasetError, match=r"sound MATLAB file|lacks|cannot be read"):
        train.events(0)


@pytest.mark.parametrize("kind", ["walk", "sit"])
def test_nav_gesture(data, monkeypatch, kind):
    name = f"nav-gesture-{kind}"
    events = columns(5, width=304, height=240)
    content = writers.dat(*events, version=1, kind=0)
    inner = {
        f"{who}.zip": zip_of({f"{who}/{who}_{word}_{i}.dat": content for word in declarations.NAV for i in (1, 2)})
        for who in ("aa", "bb", "cc", "dd", "ee")
    }
    put(monkeypatch, load("dataset", name), data / name, {f"navgesture-{kind}.zip": zip_of(inner)})
    dataset = opened(name)
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (48, 12)
    assert not {r.subject for r in train.recordings} & {r.subject for r in test.recordings}
    t, x, y, p = events
    same(test, 0, (t, x, [239 - v for v in y], p))
    assert dataset.info.classes[train.recordings[0].label] == "down"
    assert "_do_" in train.recordings[0].path


def es_imagenet(top):
    pos, neg = np.array([[3, 4, 10], [5, 6, 30]]), np.array([[200, 1, 20]])
    content = npz(pos=pos, neg=neg)
    for name in ("train/class0/a.npz", "train/class999/b.npz", "val/c.npz"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    (top / "vallabel.txt").write_text("c.npz 7\n")


def test_es_imagenet_unpacked(data):
    es_imagenet(data / "es-imagenet" / "ES-imagenet-0.18")
    dataset = opened("es-imagenet")
    train, test = dataset.split("train"), dataset.split("test")
    assert train.labels.tolist() == [0, 999]
    assert test.labels.tolist() == [7]
    same(test, 0, ([10, 20, 30], [3, 200, 5], [4, 1, 6], [1, 0, 1]))
    labels = data / "es-imagenet" / "ES-imagenet-0.18" / "vallabel.txt"
    labels.write_text("c.npz 1000\n")
    with pytest.raises(DatasetError, match="unknown class 1000"):
        opened("es-imagenet").split("test")
    for name in ("/tmp/v.npz", "../../v.npz", "../train/class0/a.npz"):
        labels.write_text(f"{name} 0\n")
        with pytest.raises(DatasetError, match=f"names '{name}', which leads out of"):
            opened("es-imagenet").split("test")
    for line, says in (("a ²".encode(), "a name and a label were expected"), (b"a\xff 0", "cannot be read: .*utf-8")):
        labels.write_bytes(line + b"\n")
        with pytest.raises(DatasetError, match=says):
            opened("es-imagenet").split("test")
    labels.unlink()
    with pytest.raises(DatasetError, match="file of labels is missing"):
        opened("es-imagenet").split("test")


def test_hardvs(data, monkeypatch):
    t, x, y, p = columns(8, width=346, height=260)
    content = npz(t=np.array(t), x=np.array(x), y=np.array(y), p=np.array(p))
    inner = {
        f"action_{a:03}.zip": zip_of({f"action_{a:03}/dvSave-{a}-{i}.npz": content for i in range(3)}) for a in (1, 300)
    }
    files = {"MINI_HARDVS_files.zip": zip_of({f"MINI_HARDVS_files/{name}": part for name, part in inner.items()})}
    for i, split in enumerate(("train", "test", "val")):
        files[f"{split}_label.txt"] = f"action_001/dvSave-1-{i} 0\naction_300/dvSave-300-{i} 299\n".encode()
    put(monkeypatch, load("dataset", "hardvs"), data / "hardvs", files)
    dataset = opened("hardvs")
    for i, split in enumerate(("train", "test", "val")):
        part = dataset.split(split)
        assert part.labels.tolist() == [0, 299]
        assert part.recordings[1].path.endswith(f"dvSave-300-{i}.npz")
        same(part, 1, (t, x, y, p))
    (data / "hardvs" / "train_label.txt").write_text("action_001/nowhere 0\n")
    with pytest.raises(DatasetError, match="names action_001/nowhere, which is not there"):
        dataset.split("train")


def test_bullying10k(data, monkeypatch):
    rows = [tuple(row) for row in np.array(columns(4, width=346, height=260)).T.tolist()]
    files = {
        f"{name}.zip": zip_of({f"{name}/a/{i:02}.npy": bullying(rows) for i in range(10)})
        for name in declarations.BULLYING
    }
    put(monkeypatch, load("dataset", "bullying10k"), data / "bullying10k", files)
    dataset = opened("bullying10k")
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (80, 20)
    assert {r.path[-6:-4] for r in test.recordings} == {"00", "05"}
    same(test, 0, columns(4, width=346, height=260))


class Evil:
    def __reduce__(self):
        return print, ("the file ran code",)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy(np.array([Evil()], object), allow_pickle=True), "wants builtins.print"),
        (npy(np.array([{"a": 1}], object), allow_pickle=True), "operation that no list of numbers needs"),
        (npy(np.array(["a"], object), allow_pickle=True), "holds a str"),
        (npy(np.zeros((3, 4))), "holds no objects"),
        (b"", "has 0 bytes"),
        (npy(np.array([[1, 2]], object), allow_pickle=True)[:-4], "is damaged"),
    ],
)
def test_pickles_that_are_refused(tmp_path, content, says, capsys):
    path = tmp_path / "a.npy"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=says):
        pickled.read(path)
    assert capsys.readouterr().out == ""


def test_any_damage_to_a_pickle_is_an_error_of_ours(tmp_path):
    whole = bytearray(bullying([(1, 2, 3, 0)] * 40))
    rng = np.random.default_rng(0)
    path = tmp_path / "a.npy"
    for _ in range(1500):
        raw = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(len(raw))] = rng.integers(256)
        path.write_bytes(raw)
        with contextlib.suppress(DatasetError):
            pickled.read(path)


def test_pickles_that_would_take_all_memory(tmp_path):
    path = tmp_path / "a.npy"
    head = npy(np.array([None], object), allow_pickle=True)
    head = head[: head.index(b"\n") + 1]
    itself = []
    itself.append(itself)
    bodies = {
        "within itself": pickle.dumps(itself),
        "cut short|damaged|refused": b"\x80\x04]r\xff\xff\xff\x7f.",  # an empty list, kept as number 2^31 - 1
        "is refused": pickle.dumps([np.zeros(3)]).replace(b"\x4b\x03\x85", b"\x4a\xff\xff\xff\x7f\x85"),
    }
    for says, body in bodies.items():
        path.write_bytes(head + body)
        tracemalloc.start()
        with contextlib.suppress(DatasetError):
            assert len(pickled.read(path)) == 0, says
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


@pytest.mark.parametrize("part", [np.zeros((1000, 4), "f4"), [[1, 2, 3, 0]] * 1000, (1, 2, 3, 0), [[]] * 1000])
def test_a_pickle_that_names_the_same_rows_over_and_over(tmp_path, part):
    path = tmp_path / "a.npy"
    head = npy(np.array([None], object), allow_pickle=True)
    path.write_bytes(head[: head.index(b"\n") + 1] + pickle.dumps([part] * 60_000, 4))
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"a\.npy: holds .* over and over"):
        pickled.read(path)
    assert tracemalloc.get_traced_memory()[1] < 100 * path.stat().st_size
    tracemalloc.stop()


def test_arrays_of_rows_are_read_as_well(tmp_path):
    path = tmp_path / "a.npy"
    inner = np.empty(2, object)
    inner[0], inner[1] = np.array([[1, 2, 3, 1]]), [np.array([[4, 5, 6, 0], [7, 8, 9, 1]])]
    path.write_bytes(npy(inner, allow_pickle=True))
    assert pickled.read(path) == make_events([1, 4, 7], [2, 5, 8], [3, 6, 9], [1, 0, 1])
    assert pickle.HIGHEST_PROTOCOL >= 4


def test_dvs_lip(data, monkeypatch):
    kind = np.dtype([("t", "<i4"), ("x", "i1"), ("y", "i1"), ("p", "i1")])
    rows = np.zeros(30, kind)
    for name, column in zip("txyp", columns(6, n=30, width=128, height=128), strict=True):
        rows[name] = column
    members = {
        f"DVS-Lip/{half}/{word}/0.npy": npy(rows) for half in ("train", "test") for word in declarations.DVS_LIP.classes
    }
    put(monkeypatch, load("dataset", "dvs-lip"), data / "dvs-lip", {"DVS-Lip.zip": zip_of(members)})
    dataset = opened("dvs-lip")
    assert len(dataset.split("train")) == 100
    same(dataset.split("test"), 99, columns(6, n=30, width=128, height=128))


@pytest.mark.parametrize(("name", "splits"), [("shd", ("train", "test")), ("ssc", ("train", "valid", "test"))])
def test_heidelberg(data, monkeypatch, name, splits):
    pytest.importorskip("h5py")
    times, units = [[0.0, 0.25, 0.5], [0.125], []], [[0, 699, 3], [5], []]
    content = h5(times, units, [0, 19, 7], [4, 5, 4])
    files = {f"{name}_{split}.h5.zip": zip_of({f"{name}_{split}.h5": content}) for split in splits}
    put(monkeypatch, load("dataset", name), data / name, files)
    dataset = opened(name)
    assert dataset.splits == tuple("val" if split == "valid" else split for split in splits)
    assert all(len(dataset.split(split)) == 3 for split in dataset.splits)
    assert dataset.sample_shape == (700,)
    part = dataset.split("test")
    assert part.labels.tolist() == [0, 19, 7]
    assert [r.subject for r in part.recordings] == ["4", "5", "4"]
    same(part, 0, ([0, 250_000, 500_000], [0, 699, 3], [0] * 3, [1] * 3))
    x, _ = part[0]
    assert x.shape == (10, 700)
    assert x.sum() == 3
    assert part[2][0].sum() == 0
    ours = pickle.loads(pickle.dumps(part))
    assert ours[0][0].equal(x)


def test_speech_commands(data, monkeypatch):
    words = declarations.COMMANDS
    members = {f"{word}/{i}.wav": wav(sine(200 + 100 * i, 12_000)) for word in words for i in range(3)}
    members |= {
        "validation_list.txt": "\n".join(f"{word}/1.wav" for word in words).encode(),
        "testing_list.txt": "\n".join(f"{word}/2.wav" for word in words).encode(),
        "_background_noise_/pink.wav": wav(sine(50)),
    }
    put(
        monkeypatch,
        load("dataset", "speech-commands"),
        data / "speech-commands",
        {"speech_commands_v0.02.tar.gz": tar_of(members)},
    )
    dataset = create("dataset", "speech-commands", allow_partial=True)
    for split in ("train", "val", "test"):
        part = dataset.split(split)
        assert len(part) == 35
        assert part[0][0].shape == (98, 40)
    assert dataset.sample_shape == (40,)
    with pytest.raises(DatasetError, match="sounds, not events"):
        part.events(0)
    with pytest.raises(OptionError, match="holds no events"):
        create("dataset", "speech-commands", transforms=["denoise"])
    with pytest.raises(OptionError, match="holds no events"):
        create("dataset", "speech-commands", representation="voxel_grid")


@pytest.mark.parametrize("cls", [*ALL, load("dataset", "speech-commands")], ids=lambda cls: cls.name)
def test_spike_info_shows_what_nobody_verified(cls):
    shown = CliRunner().invoke(info, ["dataset", cls.name])
    assert shown.exit_code == 0
    assert shown.output.count("\n  ! ") == len(cls.info.unverified) >= 3
    for statement in (*cls.info.unverified, cls.info.licence, cls.info.homepage):
        assert statement in shown.output
    for file in cls.info.files:
        assert file.name in shown.output
        assert file.md5 in shown.output


def test_a_manual_download_is_explained(data):
    with pytest.raises(DatasetError) as caught:
        create("dataset", "dvs128-gesture").split("train")
    assert "ibm.ent.box.com" in str(caught.value)
    assert str(data / "dvs128-gesture" / "DvsGesture.tar.gz") in str(caught.value)


def test_a_damaged_archive_is_refused(data, monkeypatch):
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", {"DvsGesture.tar.gz": tar_of({"a": b""})})
    (data / "dvs128-gesture" / "DvsGesture.tar.gz").write_bytes(b"other")
    with pytest.raises(DatasetError, match=r"its sha256 is .* Delete it"):
        opened("dvs128-gesture").split("train")


def test_an_archive_of_something_else(data, monkeypatch):
    put(monkeypatch, DVS128Gesture, data / "dvs128-gesture", {"DvsGesture.tar.gz": tar_of({"a": b""})})
    with pytest.raises(DatasetError, match="nothing there matches"):
        opened("dvs128-gesture").split("train")


def test_an_interrupted_unpacking_is_taken_up(data, monkeypatch):
    cls = load("dataset", "n-mnist")
    train = zip_of({f"Train/{d}/1.bin": writers.atis_bin(*columns(d)) for d in range(10)})
    test = zip_of({f"Test/{d}/1.bin": writers.atis_bin(*columns(d)) for d in range(10)})
    put(monkeypatch, cls, data / "n-mnist", {"Train.zip": train, "Test.zip": test})
    real = cls._unpack

    def stops(self, path, into):
        if path.name == "Test.zip":
            raise KeyboardInterrupt
        real(self, path, into)

    monkeypatch.setattr(cls, "_unpack", stops)
    with pytest.raises(KeyboardInterrupt):
        opened("n-mnist").split("train")
    assert not (data / "n-mnist" / "extracted").exists()
    monkeypatch.setattr(cls, "_unpack", real)
    assert len(opened("n-mnist").split("test")) == 10


KILLED = """
import os, sys, time
from pathlib import Path
from spikecore import create
from spikecore.testing.stand_ins import stand_ins
from spikecore_datasets_dvs import named
real = named.extract
def slow(path, into):
    if path.name == "Test.zip" and sys.argv[1] == "slow":
        print("unpacking", flush=True)
        time.sleep(60)
    real(path, into)
named.extract = slow
with stand_ins(Path(os.environ["SPIKECORE_DATA"])):
    print(len(create("dataset", "n-mnist", allow_partial=True).split("test")), flush=True)
"""


def test_kill_9_while_unpacking_and_two_who_unpack_at_once(data):
    put_as_published("n-mnist", data)

    def start(how):
        return subprocess.Popen([sys.executable, "-c", KILLED, how], stdout=subprocess.PIPE, text=True)

    killed = start("slow")
    assert killed.stdout.readline() == "unpacking\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (data / "n-mnist" / "extracted").exists()
    both = [start("quick") for _ in range(2)]
    assert [process.communicate(timeout=600)[0] for process in both] == ["20\n", "20\n"]
    assert (data / "n-mnist" / "extracted").is_dir()


def test_a_recording_that_vanishes_while_the_cache_is_built(data, monkeypatch):
    cls = load("dataset", "n-mnist")
    for half in ("Train", "Test"):
        for d in range(10):
            path = data / "n-mnist" / half / str(d) / "1.bin"
            path.parent.mkdir(parents=True)
            path.write_bytes(writers.atis_bin(*columns(d)))
    real = cls.integrate

    def vanishing(self, directory, recording):
        (directory / "Train" / "5" / "1.bin").unlink(missing_ok=True)
        return real(self, directory, recording)

    monkeypatch.setattr(cls, "integrate", vanishing)
    with pytest.raises(DatasetError, match=r"5/1\.bin: is missing; is the name right, or was it moved"):
        create("dataset", "n-mnist", allow_partial=True).split("train")
    monkeypatch.undo()


@pytest.mark.parametrize("cls", ALL, ids=[cls.name for cls in ALL])
def test_declarations_are_complete(cls):
    info = cls.info
    assert any("licence" in statement for statement in info.unverified)
    assert any("number" in statement for statement in info.unverified)
    assert any("layout" in statement for statement in info.unverified)
    assert load("dataset", cls.name) is cls
    assert len(set(info.classes)) == len(info.classes) > 1
    assert info.citation
    assert info.licence
    assert info.homepage.startswith("https://")
    assert info.sample_shape[1:] == cls().sample_shape
    assert cls().num_outputs == len(info.classes)
    for file in info.files:
        assert file.urls or info.manual
        assert len(file.md5) in (0, 32)
        assert file.md5 or info.num_samples, "neither digest nor count: nothing would be checked"
        assert all(url.startswith("https://") for url in file.urls)
