"""What the well-known event datasets are: one table of facts each.

Digests are those that the authors publish, or that SpikingJelly 2.0 or Tonic 1.7 record for the same file; where nobody
states one, there is none, and the number of recordings is what is checked. None of the archives was at hand when this
was written: what was not held against the authors' own words stands in `unverified`, which `spike info` shows.
"""

from __future__ import annotations

from importlib.resources import files

from spikecore.interfaces import DataFile, DatasetInfo

SEE_PAGE = "see the authors' page"
LAYOUT = "the names and the layout of the files: from descriptions and other readers, not from the archives themselves"
NO_LICENCE = "the licence: no plain statement was found; read the authors' page before you use the data"
LICENCE = "the licence: as it is quoted, not read on the authors' page"
COUNTS = "the numbers of recordings: as they are quoted, not counted"
DIGITS = tuple("0123456789")
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
GESTURES = (
    *("hand clapping", "right hand wave", "left hand wave", "right arm clockwise", "right arm counter-clockwise"),
    *("left arm clockwise", "left arm counter-clockwise", "arm roll", "air drums", "air guitar", "other gestures"),
)
BULLYING = (
    *("handshake", "slapping", "punching", "walking", "fingerguess"),
    *("strangling", "greeting", "pushing", "hairgrabs", "kicking"),
)
NAV = ("le", "ri", "up", "do", "ho", "se")
NAV_NAMES = ("left", "right", "up", "down", "home", "select")
ASL = tuple("abcdefghiklmnopqrstuvwxy")
SPOKEN = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
)
COMMANDS = (
    *("backward", "bed", "bird", "cat", "dog", "down", "eight", "five", "follow", "forward", "four", "go", "happy"),
    *("house", "learn", "left", "marvin", "nine", "no", "off", "on", "one", "right", "seven", "sheila", "six", "stop"),
    *("three", "tree", "two", "up", "visual", "wow", "yes", "zero"),
)


def _words(name: str) -> tuple[str, ...]:
    return tuple(files("spikecore_datasets_dvs").joinpath(name).read_text(encoding="utf-8").split())


N_MNIST = DatasetInfo(
    title="N-MNIST: MNIST before a moving ATIS",
    classes=DIGITS,
    sample_shape=(None, 2, 34, 34),
    licence="CC BY-SA 4.0",
    citation="G. Orchard, A. Jayawant, G. K. Cohen, N. Thakor, Converting Static Image Datasets to Spiking "
    "Neuromorphic Datasets Using Saccades, Frontiers in Neuroscience 9:437, 2015",
    homepage="https://www.garrickorchard.com/datasets/n-mnist",
    sensor_size=(34, 34),
    num_samples=(("train", 60_000), ("test", 10_000)),
    files=(
        DataFile(
            "Train.zip",
            (
                "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
                "39c25547-014b-4137-a934-9d29fa53c7a0/file_downloaded",
            ),
            md5="20959b8e626244a1b502305a9e6e2031",
        ),
        DataFile(
            "Test.zip",
            (
                "https://data.mendeley.com/public-files/datasets/468j46mzdv/files/"
                "05a4d654-7e03-4c15-bdfa-9bb2bcbea494/file_downloaded",
            ),
            md5="69ca8762b2fe404d9b9bad1103e97832",
        ),
    ),
    unverified=(LAYOUT, LICENCE, COUNTS),
)

N_CALTECH101 = DatasetInfo(
    title="N-Caltech101: Caltech101 before a moving ATIS",
    classes=_words("caltech101_classes.txt"),
    sample_shape=(None, 2, 180, 240),
    licence=SEE_PAGE,
    citation=N_MNIST.citation,
    homepage="https://www.garrickorchard.com/datasets/n-caltech101",
    notes="The authors publish no split: a share of each class, seeded, is the test split. The annotations (boxes) are "
    "not read.",
    sensor_size=(180, 240),
    num_samples=(("all", 8_709),),
    files=(
        DataFile(
            "N-Caltech101-archive.zip",
            (
                "https://data.mendeley.com/public-files/datasets/cy6cvx3ryv/files/"
                "36b5c52a-b49d-4853-addb-a836a8883e49/file_downloaded",
            ),
            md5="66201824eabb0239c7ab992480b50ba3",
        ),
    ),
    unverified=(LAYOUT, NO_LICENCE, COUNTS),
)

CIFAR10_DVS = DatasetInfo(
    title="CIFAR10-DVS: CIFAR-10 images moved before a DVS128",
    classes=CIFAR10,
    sample_shape=(None, 2, 128, 128),
    licence="CC BY 4.0",
    citation="H. Li, H. Liu, X. Ji, G. Li, L. Shi, CIFAR10-DVS: An Event-Stream Dataset for Object Classification, "
    "Frontiers in Neuroscience 11:309, 2017",
    homepage="https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671",
    notes="The authors publish no split. Usual is 90 % to 10 % of each class; option `test` says which tenth. Tonic's "
    "repack (CIFAR10DVS.zip, AEDAT 4) is read as well, where it lies in the dataset's directory.",
    sensor_size=(128, 128),
    num_samples=(("all", 10_000),),
    files=tuple(
        DataFile(f"{name}.zip", (f"https://ndownloader.figshare.com/files/{number}",), md5=md5)
        for name, number, md5 in zip(
            CIFAR10,
            (7712788, 7712791, 7712794, 7712812, 7712815, 7712818, 7712842, 7712851, 7712836, 7712839),
            (
                "0afd5c4bf9ae06af762a77b180354fdd",
                "8438dfeba3bc970c94962d995b1b9bdd",
                "a9c207c91c55b9dc2002dc21c684d785",
                "52c63c677c2b15fa5146a8daf4d56687",
                "b6bf21f6c04d21ba4e23fc3e36c8a4a3",
                "f379ebdf6703d16e0a690782e62639c3",
                "cad6ed91214b1c7388a5f6ee56d08803",
                "e7cbbf77bec584ffbf913f00e682782a",
                "41c7bd7d6b251be82557c6cce9a7d5c9",
                "89f3922fd147d9aeff89e76a2b0b70a7",
            ),
            strict=True,
        )
    ),
    unverified=(LAYOUT, LICENCE, COUNTS),
)
CIFAR10_DVS_TONIC = (
    DataFile(
        "CIFAR10DVS.zip",
        ("https://figshare.com/ndownloader/files/38023437",),
        md5="ce3a4a0682dc0943703bd8f749a7701c",
    ),
)

DVS128_GESTURE = DatasetInfo(
    title="DVS128 Gesture: eleven hand and arm gestures",
    classes=GESTURES,
    sample_shape=(None, 2, 128, 128),
    licence="CC BY 4.0",
    citation="A. Amir et al., A Low Power, Fully Event-Based Gesture Recognition System, CVPR 2017",
    homepage="https://research.ibm.com/interactive/dvsgesture/",
    notes="Recordings are cut into trials by the authors' label files; the split is theirs, by subject. Tonic's repack "
    "(ibmGestureTrain.tar.gz and ibmGestureTest.tar.gz) is read as well, where both lie in the dataset's directory.",
    sensor_size=(128, 128),
    num_samples=(("train", 1_176), ("test", 288)),
    files=(DataFile("DvsGesture.tar.gz", md5="8a5c71fb11e24e5ca5b11866ca6c00a1"),),
    manual="open https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8/folder/50167556794 in a browser and "
    "download DvsGesture.tar.gz",
    unverified=(
        LAYOUT,
        LICENCE,
        "the numbers of trials: SpikingJelly's for the authors' files; without them allow_partial = true",
        "the numbers of trials in Tonic's repack: nobody states them, and they are not checked",
    ),
)
DVS128_GESTURE_TONIC = (
    DataFile(
        "ibmGestureTrain.tar.gz",
        ("https://figshare.com/ndownloader/files/38022171",),
        md5="3a8f0d4120a166bac7591f77409cb105",
    ),
    DataFile(
        "ibmGestureTest.tar.gz",
        ("https://figshare.com/ndownloader/files/38020584",),
        md5="56070e45dadaa85fff82e0fbfbc06de5",
    ),
)

ASL_DVS = DatasetInfo(
    title="ASL-DVS: letters of American Sign Language",
    classes=ASL,
    sample_shape=(None, 2, 180, 240),
    licence=SEE_PAGE,
    citation="Y. Bi, A. Chadha, A. Abbas, E. Bourtsoulatze, Y. Andreopoulos, Graph-Based Object Classification for "
    "Neuromorphic Vision Sensing, ICCV 2019",
    homepage="https://github.com/PIX2NVS/NVS2Graph",
    notes="24 letters: j and z are movements. The authors publish no split: a share of each class, seeded. Nobody "
    "states a digest for the archive; the number of recordings is checked.",
    sensor_size=(180, 240),
    num_samples=(("all", 100_800),),
    files=(DataFile("ICCV2019_DVS_dataset.zip"),),
    manual="open https://www.dropbox.com/sh/ibq0jsicatn7l6r/AACNrNELV56rs1YInMWUs9CAa?dl=0 in a browser and download "
    "the folder as ICCV2019_DVS_dataset.zip",
    unverified=(
        LAYOUT,
        NO_LICENCE,
        COUNTS,
        "the archive: nobody states a digest or a size of it",
        "the version of the MATLAB files: 5 (-v6, -v7) is read",
    ),
)


def _nav(kind: str, place: str, md5: str) -> DatasetInfo:
    return DatasetInfo(
        title=f"NAV Gesture, {place}: six gestures before a telephone with an ATIS",
        classes=NAV_NAMES,
        sample_shape=(None, 2, 240, 304),
        licence=SEE_PAGE,
        citation="J.-M. Maro, S.-H. Ieng, R. Benosman, Event-Based Gesture Recognition With Dynamic Background "
        "Suppression Using Smartphone Computational Capabilities, Frontiers in Neuroscience 14:275, 2020",
        homepage="https://www.neuromorphic-vision.com/public/downloads/navgesture/",
        notes="No split is published: subjects are divided, seeded, so that nobody is in both. The label is part of "
        "the file name (le ri up do ho se), the subject its beginning.",
        sensor_size=(240, 304),
        files=(DataFile(f"navgesture-{kind}.zip", md5=md5),),
        manual=f"the authors' server has been unreachable at times: "
        f"https://www.neuromorphic-vision.com/public/downloads/navgesture/navgesture-{kind}.zip",
        unverified=(LAYOUT, NO_LICENCE, "the numbers of recordings: not known, and not checked"),
    )


NAV_WALK = _nav("walk", "walking", "5d305266f13005401959e819abe206f0")
NAV_SIT = _nav("sit", "sitting", "1571753ace4d9e0946e6503313712c22")

ES_IMAGENET = DatasetInfo(
    title="ES-ImageNet: ImageNet converted to events by image movement",
    classes=tuple(f"class{i}" for i in range(1000)),
    sample_shape=(None, 2, 256, 256),
    licence=f"{SEE_PAGE}; the images are ImageNet's, under its terms",
    citation="Y. Lin, W. Ding, S. Qiang, L. Deng, G. Li, ES-ImageNet: A Million Event-Stream Classification Dataset "
    "for Spiking Neural Networks, Frontiers in Neuroscience 15:726582, 2021",
    homepage="https://github.com/lyh983012/ES-imagenet-master",
    notes="The authors' validation part is the split `test`. 25 parts of a rar archive: needs rarfile "
    "(pip install 'spikecore-datasets-dvs[rar]') and bsdtar (apt install libarchive-tools), or unpack it yourself. "
    "SpikingJelly exchanges x and y.",
    sensor_size=(256, 256),
    files=tuple(
        DataFile(
            f"ES-imagenet-0.18.part{i:02}.rar",
            (f"https://cloud.tsinghua.edu.cn/d/94873ab4ec2a4eb497b3/files/?p=%2FES-imagenet-0.18.part{i:02}.rar&dl=1",),
            md5=md5,
        )
        for i, md5 in enumerate(
            [
                "900bdd57b5641f7d81cd4620283fef76",
                "5982532009e863a8f4e18e793314c54b",
                "8f408c1f5a1d4604e48d0d062a8289a0",
                "5c5b5cf0a55954eb639964e3da510097",
                "51feb661b4c9fa87860b63e76b914673",
                "fcd007a2b17b7c13f338734c53f6db31",
                "d3e74b96d9c5df15714bbc3abcd329fc",
                "65b9cf7fa63e18d2e7d92ff45a42a5e5",
                "241c9a37a83ff9efd305fe46d012211e",
                "ceee96971008e30d0cdc34086c49fd75",
                "4fbfefbe6e48758fbb72427c81f119cf",
                "c8cc163be4e5f6451201dccbded4ec24",
                "08c9dff32f6b42c49ef7cd78e37c728e",
                "43aa157dc5bd5fcea81315a46e0322cf",
                "480a69b050f465ef01efcc44ae29f7df",
                "11abd24d92b93e7f85acd63abd4a18ab",
                "3891486a6862c63a325c5f16cd01fdd1",
                "cf8bb0525b514f411bca9d7c2d681f7c",
                "3766bc35572ccacc03f0f293c571d0ae",
                "bf73a5e338644122220e41da7b5630e6",
                "564de4a2609cbb0bb67ffa1bc51f2487",
                "60a9e52db1acadfccc9a9809073f0b04",
                "373b5484826d40d7ec35f0e1605cb6ea",
                "a50612e889b20f99cc7b2725dfd72e9e",
                "0802ccdeb0cff29237faf55164524101",
            ],
            1,
        )
    ),
    unverified=(
        LAYOUT,
        NO_LICENCE,
        "the numbers of recordings: not known, and not checked",
        "the names of classes: numbers stand for ImageNet's",
        "which version of rar the archive is",
    ),
)

HARDVS = DatasetInfo(
    title="HARDVS: 300 human activities",
    classes=tuple(f"action_{i:03}" for i in range(1, 301)),
    sample_shape=(None, 2, 260, 346),
    licence=SEE_PAGE,
    citation="X. Wang et al., HARDVS: Revisiting Human Activity Recognition with Dynamic Vision Sensors, AAAI 2024",
    homepage="https://github.com/Event-AHU/HARDVS",
    notes="The small variant (MINI_HARDVS), with the authors' split into train, test and val.",
    sensor_size=(260, 346),
    files=(
        DataFile("MINI_HARDVS_files.zip", md5="9c4cc0d9ba043faa17f6f1a9e9aff982"),
        DataFile("test_label.txt", md5="5b664af5843f9b476a9c22626f7f5a59"),
        DataFile("train_label.txt", md5="0d642b6e6871034f151b2649a89d8d3c"),
        DataFile("val_label.txt", md5="cd2cebcba80e4552102bbacf2b5df812"),
    ),
    manual="follow the links to MINI_HARDVS on https://github.com/Event-AHU/HARDVS",
    unverified=(
        LAYOUT,
        NO_LICENCE,
        "the numbers of recordings: not known, and not checked",
        "the lines of the label files: `name label`, with labels from 0, are assumed",
        "the names of classes: numbers, action_001 to action_300",
    ),
)

BULLYING10K = DatasetInfo(
    title="Bullying10K: ten kinds of contact between people",
    classes=BULLYING,
    sample_shape=(None, 2, 260, 346),
    licence=SEE_PAGE,
    citation="Y. Dong, Y. Li, D. Zhao, G. Shen, Y. Zeng, Bullying10K: A Large-Scale Neuromorphic Dataset towards "
    "Privacy-Preserving Bullying Recognition, NeurIPS 2023 (Datasets and Benchmarks)",
    homepage="https://figshare.com/articles/dataset/Bullying10k/19160663",
    notes="Every fifth recording of a class (by name) is in the test split, as SpikingJelly does it. The files hold "
    "pickled lists; a reader that knows nothing but lists, numbers and arrays opens them.",
    sensor_size=(260, 346),
    files=tuple(
        DataFile(f"{name}.zip", (f"https://figshare.com/ndownloader/files/{number}",), md5=md5)
        for name, number, md5 in zip(
            BULLYING,
            (41268834, 41247021, 41263314, 41247024, 41253057, 41261904, 41268792, 41268951, 41277855, 41278008),
            (
                "681d70f499e736a1e805305284ddc425",
                "84b41d6805958f9f62f425223916ffc2",
                "40954f480ab210099d448b7b88fc4719",
                "56e4cac9c0814ce701c3b2292c15b6a9",
                "f83114e5b4f0ea57cac86fb080c7e4d7",
                "8185ecd6f3147e9b609d22f06270aa86",
                "4a763fad728b04c8356db8544f1121fe",
                "7986c74ade7149a98672120a89b13ba8",
                "a9cf690ed0a3305da4a4b8e110f64db1",
                "6c3218f977de4ac29c84a10b17779c33",
            ),
            strict=True,
        )
    ),
    unverified=(LAYOUT, NO_LICENCE, "the numbers of recordings: not known, and not checked"),
)

DVS_LIP = DatasetInfo(
    title="DVS-Lip: a hundred words, read from lips",
    classes=_words("dvs_lip_words.txt"),
    sample_shape=(None, 2, 128, 128),
    licence=SEE_PAGE,
    citation="G. Tan, Y. Wang, H. Han, Y. Cao, F. Wu, Z.-J. Zha, Multi-Grained Spatio-Temporal Features Perceived "
    "Network for Event-Based Lip-Reading, CVPR 2022",
    homepage="https://sites.google.com/view/event-based-lipreading",
    notes="The split is the authors', by speaker.",
    sensor_size=(128, 128),
    num_samples=(("train", 14_896), ("test", 4_975)),
    files=(DataFile("DVS-Lip.zip", md5="2dcb959255122d4cdeb6094ca282494b"),),
    manual="open https://drive.google.com/file/d/1dBEgtmctTTWJlWnuWxFtk8gfOdVVpkQ0/view in a browser and download it",
    unverified=(LAYOUT, NO_LICENCE, COUNTS, "the order of classes: that of the alphabet"),
)

HEIDELBERG = (
    "B. Cramer, Y. Stradmann, J. Schemmel, F. Zenke, The Heidelberg Spiking Data Sets for the Systematic Evaluation of "
    "Spiking Neural Networks, IEEE TNNLS 33(7), 2022"
)
ZENKE = "https://zenkelab.org/datasets"

SHD = DatasetInfo(
    title="Spiking Heidelberg Digits",
    classes=SPOKEN,
    sample_shape=(None, 700),
    licence="CC BY 4.0",
    citation=HEIDELBERG,
    homepage="https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
    notes="700 units of a model cochlea. The test split holds two speakers whom training does not. HDF5 files need "
    "h5py: pip install 'spikecore-datasets-dvs[hdf5]'.",
    sensor_size=(1, 700),
    num_samples=(("train", 8_156), ("test", 2_264)),
    files=(
        DataFile("shd_train.h5.zip", (f"{ZENKE}/shd_train.h5.zip",), md5="f3252aeb598ac776c1b526422d90eecb"),
        DataFile("shd_test.h5.zip", (f"{ZENKE}/shd_test.h5.zip",), md5="1503a5064faa34311c398fb0a1ed0a6f"),
    ),
    unverified=(
        LAYOUT,
        LICENCE,
        COUNTS,
        "the names of classes: English and German numbers in our spelling; the files have their own, under extra/keys",
    ),
)

SSC = DatasetInfo(
    title="Spiking Speech Commands",
    classes=tuple(str(i) for i in range(35)),
    sample_shape=(None, 700),
    licence="CC BY 4.0",
    citation=HEIDELBERG,
    homepage=SHD.homepage,
    notes="700 units of a model cochlea; the words of the 35 labels stand in the files, under extra/keys. HDF5 files "
    "need h5py: pip install 'spikecore-datasets-dvs[hdf5]'.",
    sensor_size=(1, 700),
    num_samples=(("train", 75_466), ("val", 9_981), ("test", 20_382)),
    files=(
        DataFile("ssc_train.h5.zip", (f"{ZENKE}/ssc_train.h5.zip",), md5="d102be95e7144fcc0553d1f45ba94170"),
        DataFile("ssc_valid.h5.zip", (f"{ZENKE}/ssc_valid.h5.zip",), md5="b4eee3516a4a90dd0c71a6ac23a8ae43"),
        DataFile("ssc_test.h5.zip", (f"{ZENKE}/ssc_test.h5.zip",), md5="a35ff1e9cffdd02a20eb850c17c37748"),
    ),
    unverified=(
        LAYOUT,
        LICENCE,
        COUNTS,
        "the names of classes: numbers; the words stand in the files, under extra/keys",
    ),
)

ST_MNIST = DatasetInfo(
    title="ST-MNIST: digits written on a tactile sensor",
    classes=DIGITS,
    sample_shape=(None, 2, 10, 10),
    licence=SEE_PAGE,
    citation="H. H. See, B. Lim, S. Li, H. Yao, W. Cheng, H. Soh, B. C. K. Tee, ST-MNIST: The Spiking Tactile MNIST "
    "Neuromorphic Dataset, arXiv:2005.04319, 2020",
    homepage="https://scholarbank.nus.edu.sg/handle/10635/168106",
    notes="A neuromorphic skin of 10 × 10 elements. The authors publish no split: a share of each class, seeded.",
    sensor_size=(10, 10),
    num_samples=(("all", 6_953),),
    files=(
        DataFile(
            "STMNIST dataset NUS Tee Research Group.zip",
            sha256="825bb5a64753fff4a2a2c32e3497fa8a951d9c94993e03ba25a057e17d83b884",
        ),
    ),
    manual="fill in the form on https://scholarbank.nus.edu.sg/handle/10635/168106 and download the archive",
    unverified=(
        LAYOUT,
        NO_LICENCE,
        COUNTS,
        "the places of the elements: x = number mod 10, y = number / 10, as Tonic has them",
        "the version of the MATLAB files: 5 (-v6, -v7) is read",
    ),
)

N_CARS = DatasetInfo(
    title="N-Cars: cars and background from an ATIS behind a windscreen",
    classes=("background", "car"),
    sample_shape=(None, 2, 100, 120),
    licence=SEE_PAGE,
    citation="A. Sironi, M. Brambilla, N. Bourdis, X. Lagorce, R. Benosman, HATS: Histograms of Averaged Time Surfaces "
    "for Robust Event-Based Object Classification, CVPR 2018",
    homepage="https://www.prophesee.ai/2018/03/13/dataset-n-cars/",
    notes="Recordings of 100 ms, cut out around an object: pictures are smaller than 100 × 120 by different amounts, "
    "and lie in the upper left corner.",
    sensor_size=(100, 120),
    num_samples=(("train", 15_422), ("test", 8_607)),
    files=(
        DataFile(
            "Prophesee_Dataset_n_cars.zip",
            ("http://www.prophesee.ai/resources/Prophesee_Dataset_n_cars.zip",),
            md5="553ce464d6e5e617b3c21ce27c19368e",
        ),
    ),
    unverified=(LAYOUT, NO_LICENCE, COUNTS, "the largest picture: 100 × 120, as Tonic has it"),
)

PROPHESEE_GEN1 = DatasetInfo(
    title="Prophesee Gen1 Automotive Detection: boxes of cars and pedestrians",
    classes=("car", "pedestrian"),
    sample_shape=(None, 2, 240, 304),
    licence=f"{SEE_PAGE}; accept the authors' terms first",
    citation="P. de Tournemire, D. Nitti, E. Perot, D. Migliore, A. Sironi, A Large Scale Event-based Detection "
    "Dataset for Automotive, arXiv:2001.08499, 2020",
    homepage="https://www.prophesee.ai/2020/01/24/prophesee-gen1-automotive-detection-dataset/",
    notes="Labels are boxes, [N, 5]: class, x, y, width, height. 39 hours in recordings of 60 s; a sample is what was "
    "seen before a labelled moment.",
    sensor_size=(240, 304),
    manual="accept the terms on https://www.prophesee.ai/2020/01/24/prophesee-gen1-automotive-detection-dataset/, "
    "download the archives (7z) and unpack them, so that train, val and test hold *_td.dat and *_bbox.npy",
    unverified=(
        LAYOUT,
        NO_LICENCE,
        "the numbers of labelled moments: not known, and not checked",
        "boxes may reach beyond the picture: they are passed on as they stand in the files",
    ),
)

SPEECH_COMMANDS = DatasetInfo(
    title="Speech Commands v0.02, as mel spectra",
    classes=COMMANDS,
    sample_shape=(None, 40),
    licence="CC BY 4.0",
    citation="P. Warden, Speech Commands: A Dataset for Limited-Vocabulary Speech Recognition, arXiv:1804.03209, 2018",
    homepage="https://arxiv.org/abs/1804.03209",
    notes="Not events: the logarithm of mel energies, one step per 10 ms. The split is that of the archive's lists.",
    num_samples=(("train", 84_843), ("val", 9_981), ("test", 11_005)),
    files=(
        DataFile(
            "speech_commands_v0.02.tar.gz",
            ("https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz",),
            md5="6b74f3901214cb2c2934e98196829835",
        ),
    ),
    unverified=(LAYOUT, LICENCE, COUNTS),
)
