"""Blosc chunks of an HDF5 dataset, decoded many at a time.

HDF5 hands its filter one chunk after another, and each time the filter sets up a zstd decoder anew, which takes longer
than to decode. The frames of many chunks in a row are one zstd stream: one decoder for all of them is two to five times
as fast. What is made in a way not known here (another codec, split or incompressible blocks) is left to HDF5's filter.

A chunk ("Blosc Chunk Format", README_CHUNK_FORMAT.rst of c-blosc), little-endian:

    0  u8   version of the format, 2
    1  u8   version of the codec's format
    2  u8   flags: 1 bytes shuffled, 2 plainly copied, 4 bits shuffled, 16 blocks not split, codec << 5 (4: zstd)
    3  u8   size of a value in bytes
    4  u32  bytes when decoded;  8  u32  bytes a block when decoded;  12  u32  bytes of this chunk
    16 i32  start of each block, which is an i32 length and so many bytes of one zstd frame

Shuffling (bytes or bits of a block's values lie plane by plane) is undone here.
"""

from __future__ import annotations

import threading

import numpy as np

HEADER = 16
_PART = 1 << 17  # bytes decoded at a time, so that they are still in the cache when their shuffling is undone
_kept = threading.local()


def decode(chunks: np.ndarray, bounds: np.ndarray, nbytes: int, dtype: np.dtype) -> np.ndarray | None:
    """The values of the chunks ``chunks[bounds[i] : bounds[i + 1]]``, each of which holds ``nbytes`` when decoded.

    chunks: uint8 [M]; bounds: int64 [N + 1]. None when they are damaged or made in a way that this does not know; ask
    HDF5's filter then.
    """
    import pyarrow as pa

    from evlift.events.readers import blosc_kernels as kernels

    places = np.empty((8 * len(bounds), 2), np.int64)
    found, block, shuffle = kernels.find_frames(chunks, bounds, nbytes, dtype.itemsize, places)
    if found == kernels.FULL:  # as many as the bytes can hold: a frame takes 8 with its start and length
        places = np.empty((len(chunks) // 8, 2), np.int64)
        found, block, shuffle = kernels.find_frames(chunks, bounds, nbytes, dtype.itemsize, places)
    if found < 0:
        return None
    view = chunks.data
    frames = b"".join([view[start:stop] for start, stop in places[:found].tolist()])
    total = nbytes * (len(bounds) - 1)
    values = np.empty(total // dtype.itemsize, dtype)
    out = values.view(np.uint8)
    step = max(_PART // nbytes, 1) * nbytes  # whole chunks
    planes = buffer("planes", min(step, total))
    spare = buffer("spare", len(planes) if shuffle & 4 else 0)
    try:
        with pa.CompressedInputStream(pa.BufferReader(frames), "zstd") as stream:
            for start in range(0, total, step):
                part = planes[: min(step, total - start)]
                filled = 0
                while filled < len(part) and (more := stream.readinto(part[filled:])):
                    filled += more
                rest, here = spare[: len(part)], out[start : start + len(part)]
                if filled < len(part) or not kernels.unshuffle(
                    part, nbytes, block, dtype.itemsize, shuffle, rest, here
                ):
                    return None
            return None if stream.read(1) else values
    except (OSError, pa.ArrowException):
        return None


def sound(chunk: bytes, nbytes: int) -> bool:
    """Whether a chunk's header claims what it must: HDF5's filter believes it."""
    if len(chunk) < HEADER:
        return False
    claimed = np.frombuffer(chunk, "<u4", 3, 4)
    return int(claimed[0]) == nbytes and int(claimed[2]) == len(chunk)


def buffer(name: str, size: int) -> np.ndarray:
    """This thread's working memory of that name, uint8 [size]: fresh memory costs as much as decoding into it."""
    kept = getattr(_kept, name, None)
    if kept is None or len(kept) < size:
        kept = np.empty(size, np.uint8)
        if size <= 1 << 25:
            setattr(_kept, name, kept)
    return kept[:size]
