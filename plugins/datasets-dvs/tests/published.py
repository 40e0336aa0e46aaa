"""What the authors give out, made small: the archives of every named dataset in their genuine formats and layouts.

`put(name, data)` writes them where a person would put them. Every recording has events of its own.
"""

import io
import tarfile
import wave
import zipfile

import numpy as np
import pytest
import writers

from spikecore.registry import load
from spikecore_datasets_dvs import declarations


def columns(seed, n=50, width=30, height=30, longest=100_000):
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(0, longest, n))
    return tuple(c.tolist() for c in (t, rng.integers(0, width, n), rng.integers(0, height, n), rng.integers(0, 2, n)))


def zip_of(members):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def tar_of(members):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            item = tarfile.TarInfo(name)
            item.size = len(content)
            archive.addfile(item, io.BytesIO(content))
    return out.getvalue()


def npy(array, **kwargs):
    out = io.BytesIO()
    np.save(out, array, **kwargs)
    return out.getvalue()


def npz(**arrays):
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def mat(**arrays):
    return writers.mat(arrays)


def h5(times, units, labels, speakers):
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        for name, rows, kind in (("times", times, np.float16), ("units", units, np.uint16)):
            made = file.create_dataset(f"spikes/{name}", (len(rows),), dtype=h5py.vlen_dtype(kind))
            for i, row in enumerate(rows):
                made[i] = np.asarray(row, kind)
        file["labels"] = np.asarray(labels)
        file["extra/speaker"] = np.asarray(speakers)
        file["extra/keys"] = np.array([f"word{i}".encode() for i in range(20)])
    return out.getvalue()


def wav(samples, rate=16_000, channels=1):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()


def sine(hz, n=16_000):
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(n) / 16_000)


def bullying(rows):
    frames = np.empty(2, object)
    frames[0], frames[1] = rows[:20], rows[20:]
    return npy(frames, allow_pickle=True)


def n_mnist():
    return {
        f"{half}.zip": zip_of(
            {f"{half}/{d}/{i:05}.bin": writers.atis_bin(*columns([k, d, i])) for d in range(10) for i in (1, 2)}
        )
        for k, half in enumerate(("Train", "Test"))
    }


def n_caltech101():
    names = ("accordion", "BACKGROUND_Google", "yin_yang")
    inner = {
        f"Caltech101/{name}/image_{i:04}.bin": writers.atis_bin(*columns([k, i], width=240, height=180))
        for k, name in enumerate(names)
        for i in range(4)
    }
    return {"N-Caltech101-archive.zip": zip_of({"N-Caltech101-archive/Caltech101.zip": zip_of(inner)})}


def cifar10_dvs():
    return {
        f"{name}.zip": zip_of(
            {
                f"{name}/cifar10_{name}_{i}.aedat": writers.aedat2(*columns([k, i], width=128, height=128))
                for i in range(10)
            }
        )
        for k, name in enumerate(declarations.CIFAR10)
    }


def dvs128_gesture():
    members = {"DvsGesture/trials_to_train.txt": b"user01_led.aedat\n", "DvsGesture/trials_to_test.txt": b""}
    for k, (who, split) in enumerate((("user01", "train"), ("user24", "test"))):
        own = columns(k, n=400, width=128, height=128, longest=4_000_000)
        rows = b"class,startTime_usec,endTime_usec\n1,100000,900000\n11,1000000,3000000\n"
        members[f"DvsGesture/{who}_led.aedat"] = writers.aedat3(*own)
        members[f"DvsGesture/{who}_led_labels.csv"] = rows
        members[f"DvsGesture/trials_to_{split}.txt"] = f"{who}_led.aedat\n".encode()
    return {"DvsGesture.tar.gz": tar_of(members)}


def dvs128_gesture_of_tonic():
    def rows(k, label):
        t, x, y, p = columns([k, label], width=128, height=128)
        return npy(np.stack([np.array(c, np.float64) for c in (x, y, p, np.array(t) / 1000)], 1))

    return {
        f"ibmGesture{half}.tar.gz": tar_of({f"ibmGesture{half}/user{k}_lab/{i}.npy": rows(k, i) for i in (0, 10)})
        for k, half in enumerate(("Train", "Test"))
    }


def asl_dvs():
    def content(k, i):
        t, x, y, p = (np.array(c, np.float64)[:, None] for c in columns([k, i], width=240, height=180))
        return mat(ts=t, x=x, y=y, pol=p)

    inner = {
        f"{a}.zip": zip_of({f"{a}/{a}_{i:04}.mat": content(k, i) for i in (1, 2)})
        for k, a in enumerate(declarations.ASL)
    }
    return {"ICCV2019_DVS_dataset.zip": zip_of(inner)}


def nav_gesture(kind):
    inner = {
        f"{who}.zip": zip_of(
            {
                f"{who}/{who}_{word}_1.dat": writers.dat(*columns([j, k], width=304, height=240), version=1, kind=0)
                for k, word in enumerate(declarations.NAV)
            }
        )
        for j, who in enumerate(("aa", "bb", "cc", "dd", "ee"))
    }
    return {f"navgesture-{kind}.zip": zip_of(inner)}


def es_imagenet():
    """Unpacked by a person; the archive itself is a rar of 25 parts."""

    def content(k):
        t, x, y, p = (np.array(c) for c in columns(k, width=256, height=256))
        return npz(**{name: np.stack([x, y, t], 1)[p == sign] for name, sign in (("neg", 0), ("pos", 1))})

    top = "ES-imagenet-0.18"
    files = {f"{top}/train/class{k}/a.npz": content(k) for k in (0, 999)}
    files |= {f"{top}/val/{k}.npz": content(10 + k) for k in (3, 4)}
    return files | {f"{top}/vallabel.txt": b"3.npz 3\n4.npz 4\n"}


def hardvs():
    def content(a, i):
        return npz(**dict(zip("txyp", map(np.array, columns([a, i], width=346, height=260)), strict=True)))

    inner = {
        f"MINI_HARDVS_files/action_{a:03}.zip": zip_of(
            {f"action_{a:03}/dvSave-{a}-{i}.npz": content(a, i) for i in range(3)}
        )
        for a in (1, 300)
    }
    labels = {
        f"{split}_label.txt": f"action_001/dvSave-1-{i} 0\naction_300/dvSave-300-{i} 299\n".encode()
        for i, split in enumerate(("train", "test", "val"))
    }
    return {"MINI_HARDVS_files.zip": zip_of(inner), **labels}


def bullying10k():
    def content(k, i):
        return bullying([tuple(row) for row in np.array(columns([k, i], width=346, height=260)).T.tolist()])

    return {
        f"{name}.zip": zip_of({f"{name}/a/{i:02}.npy": content(k, i) for i in range(3)})
        for k, name in enumerate(declarations.BULLYING)
    }


def dvs_lip():
    def content(k, i):
        rows = np.zeros(50, [("t", "<i4"), ("x", "i1"), ("y", "i1"), ("p", "i1")])
        for name, column in zip("txyp", columns([k, i], width=128, height=128), strict=True):
            rows[name] = column
        return npy(rows)

    return {
        "DVS-Lip.zip": zip_of(
            {
                f"DVS-Lip/{half}/{word}/0.npy": content(k, i)
                for k, half in enumerate(("train", "test"))
                for i, word in enumerate(declarations.DVS_LIP.classes)
            }
        )
    }


def heidelberg(name, splits):
    pytest.importorskip("h5py")

    def content(k):
        rngs = [np.random.default_rng([k, i]) for i in range(5)]
        times = [np.sort(rng.random(30 + i).astype(np.float16)) for i, rng in enumerate(rngs)]
        units = [rng.integers(0, 700, 30 + i) for i, rng in enumerate(rngs)]
        return h5(times, units, [0, 19, 7, 3, 3], [4, 5, 4, 1, k])

    return {f"{name}_{split}.h5.zip": zip_of({f"{name}_{split}.h5": content(k)}) for k, split in enumerate(splits)}


def st_mnist():
    def recording(seed):
        rng = np.random.default_rng(seed)
        train = rng.choice([-1.0, 0.0, 1.0], (101, 30), p=[0.01, 0.98, 0.01])
        train[seed % 100, ::7] = 1.0
        train[100] = np.sort(rng.integers(0, 2_000_000, 30)) / 1e6
        return mat(spiketrain=train)

    members = {f"data_submission/{d}/rec{i}.mat": recording(10 * d + i) for d in range(10) for i in range(3)}
    return {
        "STMNIST dataset NUS Tee Research Group.zip": zip_of({**members, "data_submission/0/LUT.mat": b"no recording"})
    }


def n_cars():
    inner = {
        f"n-cars_{split}.zip": zip_of(
            {
                f"n-cars_{split}/{name}/obj_{i:06}_td.dat": writers.dat(*columns([k, label, i], width=60, height=50))
                for label, name in enumerate(("background", "cars"))
                for i in range(3)
            }
        )
        for k, split in enumerate(("train", "test"))
    }
    members = {f"Prophesee_Dataset_n_cars/{name}": content for name, content in inner.items()}
    return {"Prophesee_Dataset_n_cars.zip": zip_of(members)}


BOX = [
    ("ts", "<u8"),
    ("x", "<f4"),
    ("y", "<f4"),
    ("w", "<f4"),
    ("h", "<f4"),
    ("class_id", "u1"),
    ("confidence", "<f4"),
    ("track_id", "<u4"),
]


def gen1_boxes(seed, moments=(200_000, 300_000, 300_000, 700_000)):
    boxes = np.zeros(len(moments), BOX)
    rng = np.random.default_rng(seed)
    boxes["ts"] = moments
    for name, side in (("x", 200), ("y", 150), ("w", 60), ("h", 40)):
        boxes[name] = rng.integers(5, side, len(moments))
    boxes["class_id"] = np.arange(len(moments)) % 2
    return boxes


def prophesee_gen1():
    return {
        f"{split}/{name}": content
        for k, split in enumerate(("train", "val", "test"))
        for i in range(2)
        for name, content in (
            (f"17-04-13_{i}_td.dat", writers.dat(*columns([k, i], 2000, 304, 240, 1_000_000))),
            (f"17-04-13_{i}_bbox.npy", npy(gen1_boxes([k, i]))),
        )
    }


def speech_commands():
    words = declarations.COMMANDS
    members = {
        f"{word}/{i}.wav": wav(np.random.default_rng([k, i]).normal(0, 0.1, 12_000))
        for k, word in enumerate(words)
        for i in range(3)
    }
    members |= {
        "validation_list.txt": "\n".join(f"{word}/1.wav" for word in words).encode(),
        "testing_list.txt": "\n".join(f"{word}/2.wav" for word in words).encode(),
        "_background_noise_/pink.wav": wav(sine(50)),
    }
    return {"speech_commands_v0.02.tar.gz": tar_of(members)}


FILES = {
    "st-mnist": st_mnist,
    "n-cars": n_cars,
    "prophesee-gen1": prophesee_gen1,
    "n-mnist": n_mnist,
    "n-caltech101": n_caltech101,
    "cifar10-dvs": cifar10_dvs,
    "dvs128-gesture": dvs128_gesture,
    "asl-dvs": asl_dvs,
    "nav-gesture-walk": lambda: nav_gesture("walk"),
    "nav-gesture-sit": lambda: nav_gesture("sit"),
    "es-imagenet": es_imagenet,
    "hardvs": hardvs,
    "bullying10k": bullying10k,
    "dvs-lip": dvs_lip,
    "shd": lambda: heidelberg("shd", ("train", "test")),
    "ssc": lambda: heidelberg("ssc", ("train", "valid", "test")),
    "speech-commands": speech_commands,
}


def put(name, data, files=None):
    """Write the files of a dataset where a person would put them; archives that nobody declared are a mistake."""
    cls = load("dataset", name)
    for path, content in (files or FILES[name]()).items():
        if "/" not in path:
            assert path in {file.name for file in (*cls.info.files, *cls.repacks)}, f"nobody declared {path}"
        target = data / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
