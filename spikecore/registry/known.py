"""Plugins that are known but perhaps not installed: what to type to get them.

Nobody owns these names on a public index yet, so the line installs from a checkout; installing an unknown name from an
index would be an invitation to whoever registers it first.
"""

from __future__ import annotations

KNOWN: dict[tuple[str, str], str] = {
    ("neuron", "qif"): "neuron-zoo",
    ("neuron", "eif"): "neuron-zoo",
    ("neuron", "adex"): "neuron-zoo",
    ("neuron", "izhikevich"): "neuron-zoo",
    ("neuron", "alif"): "neuron-zoo",
    ("neuron", "klif"): "neuron-zoo",
    ("neuron", "glif"): "neuron-zoo",
    ("neuron", "timed_glif"): "neuron-zoo",
    ("neuron", "liaf"): "neuron-zoo",
    ("neuron", "ilif"): "neuron-zoo",
    ("neuron", "ternary_if"): "neuron-zoo",
    ("neuron", "ternary_lif"): "neuron-zoo",
    ("neuron", "resonate_and_fire"): "neuron-zoo",
    ("neuron", "psn"): "neuron-zoo",
    ("neuron", "masked_psn"): "neuron-zoo",
    ("neuron", "sliding_psn"): "neuron-zoo",
    ("neuron", "mpbn_lif"): "neuron-zoo",
    ("neuron", "ilc_if"): "neuron-zoo",
    ("neuron", "ilc_lif"): "neuron-zoo",
    ("neuron", "ilc_cuba_lif"): "neuron-zoo",
    ("neuron", "noisy_cuba_lif"): "neuron-zoo",
    ("neuron", "noisy_ilc_cuba_lif"): "neuron-zoo",
    ("surrogate", "nonzero_sign_log_abs"): "neuron-zoo",
    ("surrogate", "piecewise_leaky_relu"): "neuron-zoo",
    ("surrogate", "squarewave_fourier_series"): "neuron-zoo",
    ("surrogate", "s2nn"): "neuron-zoo",
    ("surrogate", "q_pseudo_spike"): "neuron-zoo",
    ("surrogate", "leaky_k_relu"): "neuron-zoo",
    ("surrogate", "fake_numerical_gradient"): "neuron-zoo",
    ("surrogate", "log_tailed_relu"): "neuron-zoo",
    ("surrogate", "dspike"): "neuron-zoo",
    ("surrogate", "deterministic_pass"): "neuron-zoo",
    ("surrogate", "poisson_pass"): "neuron-zoo",
    ("surrogate", "multi_level_spike_count"): "neuron-zoo",
    **{
        ("encoder", name): "layer-zoo"
        for name in ("periodic", "weighted_phase", "population", "gaussian_tuning", "rank_order")
    },
    ("neuron", "synapse_filter"): "layer-zoo",
    ("backend", "cpu"): "cpu-backend",
    **{
        ("dataset", name): "datasets-dvs"
        for name in (
            *("ndigits", "moving-bars", "event-folder", "n-mnist", "n-caltech101", "cifar10-dvs", "dvs128-gesture"),
            *("asl-dvs", "nav-gesture-walk", "nav-gesture-sit", "es-imagenet", "hardvs", "bullying10k", "dvs-lip"),
            *("shd", "ssc", "speech-commands"),
        )
    },
    **{
        ("dataset", name): "datasets-vision"
        for name in ("mnist", "fashion-mnist", "cifar10", "cifar100", "image-folder")
    },
    **{
        ("dataset", f"tonic:{name}"): "datasets-dvs"
        for name in (
            *("ASLDVS", "CIFAR10DVS", "DAVISDATA", "DSEC", "DVSGesture", "DVSLip", "EBSSA", "MVSEC", "NCALTECH101"),
            *("NERDD", "NMNIST", "NTIDIGITS18", "POKERDVS", "SHD", "SMNIST", "SSC", "ThreeET_Eyetracking", "TUMVIE"),
            "VPR",
        )
    },
    **{
        ("event_representation", name): "datasets-dvs"
        for name in ("frames", "fixed_duration", "binary", "voxel_grid", "time_surface", "units")
    },
    **{("event_transform", name): "datasets-dvs" for name in ("crop", "downsample", "flip", "denoise", "refractory")},
    **{
        ("event_augment", name): "datasets-dvs"
        for name in (
            *("random_crop", "random_flip", "drop_events", "spatial_jitter", "time_jitter"),
            *("random_temporal_delete", "event_cutmix"),
        )
    },
    **{("image_transform", name): "datasets-vision" for name in ("resize", "pad", "crop")},
    **{
        ("image_augment", name): "datasets-vision"
        for name in (
            *("random_crop", "random_resized_crop", "random_flip", "colour_jitter", "rand_augment"),
            *("random_erasing", "torchvision", "mixup", "cutmix"),
        )
    },
    **{("image_normalisation", name): "datasets-vision" for name in ("unit", "channels")},
}
PUBLISHED: frozenset[str] = frozenset()


def install_hint(kind: str, name: str) -> str:
    """`It is in the plugin …: pip install …`, or "" for an unknown one."""
    folder = KNOWN.get((kind, name)) or KNOWN.get((kind, name.partition(":")[2]))
    if folder is None:
        return ""
    line = f"spikecore-{folder}" if folder in PUBLISHED else f"./plugins/{folder}"
    return f"It is in the plugin {folder}: pip install {line}"
