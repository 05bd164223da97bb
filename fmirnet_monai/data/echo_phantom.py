"""The generated echocardiograms: sector, speckle and a beating ventricle, as clips and tables in EchoNet's layout.

No patient's data; they let the whole way from clip to trained model run without a download.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from tqdm import tqdm

from fmirnet_monai.output import new_files

SIZE = 112  # pixels of EchoNet-Dynamic's clips
CHORDS = 20


def phantom_clip(seed: int, frames: int = 32, size: int = SIZE) -> tuple[NDArray[np.uint8], NDArray[np.floating]]:
    """A clip of a beating ventricle seen from the apex, one beat, and its traced outlines.

    Speckle is carried along by the motion, as that of tissue is.

    Args:
        seed: another seed gives another heart.
        frames: of the clip.
        size: pixels of each side.

    Returns:
        grey values ``(frames, X, Y)``, and for each frame the long axis and the chords across it,
        ``(frames, 1 + 20, 4)`` as x1, y1, x2, y2 in pixels.
    """
    rng = np.random.default_rng(seed)
    apex = np.array([0.5 + rng.uniform(-0.05, 0.05), 0.20 + rng.uniform(-0.02, 0.04)])
    tilt = rng.uniform(-0.25, 0.25)
    length, width = rng.uniform(0.42, 0.50), rng.uniform(0.26, 0.34)
    shortening, narrowing = rng.uniform(0.10, 0.18), rng.uniform(0.25, 0.40)
    wall = rng.uniform(0.055, 0.075)
    phase_at = rng.uniform(0, 1)
    along, across = np.array([np.sin(tilt), np.cos(tilt)]), np.array([np.cos(tilt), -np.sin(tilt)])
    x, y = np.meshgrid(*(np.arange(size) / size for _ in range(2)), indexing="ij")
    offset = np.stack([x, y], -1) - apex
    u, v = offset @ along, offset @ across
    sector = (np.hypot(x - 0.5, y) < 0.97) & (np.abs(np.arctan2(x - 0.5, y + 0.02)) < 0.72)
    speckle = gaussian_filter(rng.rayleigh(1.0, (2 * size, 2 * size)), (1.4, 0.8))
    speckle = np.clip(1 + 0.4 * (speckle - speckle.mean()) / speckle.std(), 0, None)
    clip, traced = [], []
    for number in range(frames):
        squeeze = 0.5 - 0.5 * np.cos(2 * np.pi * (number / frames + phase_at))  # 0 in diastole, 1 in systole
        own_length, own_width = length * (1 - shortening * squeeze), width * (1 - narrowing * squeeze)
        # where a point of the heart lies in diastole: the base goes to the apex and the walls inwards, less further out
        fade = np.exp(-((np.abs(v) / (1.6 * width)) ** 4)) * np.exp(-((np.clip(u - length, 0, 1) / 0.3) ** 2))
        u0 = u / (1 - shortening * squeeze * fade)
        v0 = v / (1 - narrowing * squeeze * fade)
        radius = _profile(u0 / length) * width / 2
        outer = _profile((u0 + wall) / (length + 1.2 * wall)) * (width / 2 + wall)
        tissue = np.full((size, size), 0.30)
        tissue[np.abs(v0) < outer] = 0.62
        tissue[np.abs(v0) < radius] = 0.07
        valve = (np.abs(u0 - length) < 0.018) & (np.abs(v0) < width / 2 + wall)
        tissue[valve] = 0.8
        atrium = ((u0 - length - 0.16) / 0.13) ** 2 + (v0 / (0.45 * width + 0.03)) ** 2 < 1
        tissue[atrium] = 0.08
        moved = [(n + 0.5) * size for n in (u0 + 0.2, v0 + 0.5)]
        texture = map_coordinates(speckle, moved, order=1, mode="reflect")
        image = gaussian_filter(tissue, 0.7) * texture * (1.1 - 0.4 * y)
        image = 255 * np.clip(image + rng.normal(0, 0.01, image.shape), 0, 1) ** 0.7 * sector
        clip.append(np.rint(image).astype(np.uint8))
        places = (np.arange(CHORDS) + 0.5) / CHORDS
        middle = apex + np.outer(places * own_length, along)
        half = np.outer(_profile(places) * own_width / 2, across)
        axis = np.concatenate([apex, apex + own_length * along])
        traced.append(np.vstack([axis, np.hstack([middle - half, middle + half])]) * size)
    return np.stack(clip), np.stack(traced)


def write_clip(clip: NDArray[np.uint8], path: str | Path, rate: int = 50) -> None:
    """Write grey values ``(frames, X, Y)`` as a motion-JPEG ``.avi``, as EchoNet's are."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = clip.shape[1], clip.shape[2], "yuvj420p"
        stream.bit_rate = 8 * clip[0].size * rate  # so much that little is lost
        for frame in clip:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.T), format="gray")
            container.mux(stream.encode(picture.reformat(format="yuvj420p")))
        container.mux(stream.encode())


def write_echo_phantom(output_dir: str | Path, subjects: int = 40, frames: int = 32, seed: int = 0) -> Path:
    """Write generated clips as EchoNet-Dynamic has them: ``Videos/*.avi``, ``FileList.csv``, ``VolumeTracings.csv``.

    Args:
        output_dir: folder to write.
        subjects: number of clips.
        frames: of each.
        seed: of the first.

    Returns:
        ``output_dir``.
    """
    if subjects < 1 or frames < 2:
        raise ValueError(f"subjects must be at least 1 and frames at least 2, got {subjects=}, {frames=}.")
    files, tracings = [], []
    with new_files(output_dir) as folder:
        for number in tqdm(range(1, subjects + 1), desc="phantom clips", unit="clip"):
            name = f"0XPHANTOM{number:04d}"
            clip, traced = phantom_clip(seed + number, frames)
            write_clip(clip, folder / "Videos" / f"{name}.avi")
            area = np.abs(traced[:, 1:, 2:] - traced[:, 1:, :2]).sum((1, 2))
            diastole, systole = int(area.argmax()), int(area.argmin())
            files.append(
                {"FileName": name, "FrameHeight": SIZE, "FrameWidth": SIZE, "FPS": 50, "NumberOfFrames": frames}
            )
            for frame in sorted((diastole, systole)):
                for corners in traced[frame].round(3):
                    places = dict(zip(("X1", "Y1", "X2", "Y2"), corners, strict=True))
                    tracings.append({"FileName": f"{name}.avi", **places, "Frame": frame})
        pd.DataFrame(files).to_csv(folder / "FileList.csv", index=False)
        pd.DataFrame(tracings).to_csv(folder / "VolumeTracings.csv", index=False)
    return Path(output_dir)


def _profile(place: NDArray[np.floating]) -> NDArray[np.floating]:
    """Half width of the ventricle, in (0, 1], by the place from apex (0) to base (1); 0 beyond."""
    inside = np.clip(place, 0, 1)
    return np.where((place > 0) & (place < 1), np.sqrt(np.clip(inside * (2.15 - 1.35 * inside), 0, None)) * 1.08, 0)
