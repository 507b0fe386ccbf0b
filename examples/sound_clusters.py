"""How to train on sounds: the clusters of one description of a clip label its spectrogram.

The clips are synthesised: six kinds of tones that differ in how they start, fade and vibrate. The
teacher sees the loudness curve and the mean spectrum of a clip. The target, a small AlexNet, sees
the spectrogram of the clip, an array [frequency, time, 2] in a `.npy` file. The probes then tell
how well the target's features separate the kinds of tones.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

RATE, SECONDS, SIDE = 8000, 1.0, 64
KINDS = ("bell", "siren", "tremolo", "rising", "noise", "clicks")


def clip(kind: str, rng: np.random.Generator) -> np.ndarray:
    """Synthesise a clip: float32 [RATE * SECONDS]."""
    t = np.arange(int(RATE * SECONDS)) / RATE
    pitch, rate = rng.uniform(300, 900), rng.uniform(4, 7)
    if kind == "bell":
        sound = sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2.76, 3.4)) * np.exp(-4 * t)
    elif kind == "siren":
        sound = np.sin(2 * np.pi * pitch * t + 40 * np.sin(2 * np.pi * rate / 3 * t))
    elif kind == "tremolo":
        sound = np.sin(2 * np.pi * pitch * t) * (1 + np.sin(2 * np.pi * rate * t))
    elif kind == "rising":
        sound = np.sin(2 * np.pi * (pitch * t + pitch * t**2))
    elif kind == "noise":
        sound = rng.standard_normal(len(t)) * np.hanning(len(t))
    else:
        sound = (np.sin(2 * np.pi * rate * t) > 0.97) * rng.standard_normal(len(t))
    return (sound + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def spectrogram(sound: np.ndarray) -> np.ndarray:
    """Loudness in dB, and its change over time: float32 [SIDE, SIDE, 2]."""
    starts = np.linspace(0, len(sound) - 2 * SIDE, SIDE).astype(int)
    frames = np.stack([sound[start : start + 2 * SIDE] for start in starts]) * np.hanning(2 * SIDE)
    power = np.abs(np.fft.rfft(frames))[:, :SIDE].T ** 2
    loudness = 10 * np.log10(power + 1e-6)
    change = np.diff(loudness, axis=1, prepend=loudness[:, :1])
    return np.stack([loudness, change], axis=2).astype(np.float32)


def description(sound: np.ndarray) -> np.ndarray:
    """What the teacher sees of a clip: loudness curve and mean spectrum, float32 [96]."""
    curve = np.sqrt((sound.reshape(32, -1) ** 2).mean(1))
    spectrum = spectrogram(sound)[:, :, 0].mean(1)
    return np.concatenate([10 * curve / curve.max(), spectrum / 10]).astype(np.float32)


def write_clips(folder: Path, *, per_kind: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Write a spectrogram per clip; return the paths and the teacher's features."""
    rng = np.random.default_rng(seed)
    paths, rows = [], []
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for number in range(per_kind):
            sound = clip(kind, rng)
            paths.append(f"{kind}/{number:03d}.npy")
            np.save(folder / paths[-1], spectrogram(sound))
            rows.append(description(sound))
    return paths, np.stack(rows)


if __name__ == "__main__":
    from ktfast.cli.main import main

    work = Path(tempfile.mkdtemp(prefix="ktfast-example-"))
    paths, features = write_clips(work / "train", per_kind=25, seed=0)
    write_clips(work / "test", per_kind=15, seed=1)
    np.savez(work / "teacher.npz", features=features, paths=paths)
    command = f"run --run {work}/run --data.pretext {work}/train --data.test {work}/test"
    command += f" --cluster.features {work}/teacher.npz --cluster.n_clusters 12 --device cpu"
    command += f" --transfer.channels 2 --transfer.array_range=-60,40 --data.short_side {SIDE}"
    command += f" --transfer.image_size {SIDE} --transfer.crop 56 --transfer.width 0.125"
    command += " --transfer.batch_norm true --transfer.training.epochs 7"
    command += " --transfer.training.batch_size 24 --transfer.training.learning_rate 0.02"
    command += (
        " --evaluate.baselines random --evaluate.probe_epochs 5 --evaluate.layers conv3,conv5"
    )
    sys.exit(main(command.split()))
