"""Images in ROS messages: sensor_msgs/Image and sensor_msgs/CompressedImage, to uint8 grey or RGB.

    Image             Header, uint32 height, uint32 width, string encoding, uint8 is_bigendian, uint32 step,
                      uint8[] data; a row begins every `step` bytes. Encodings: sensor_msgs/image_encodings.h.
    CompressedImage   Header, string format, uint8[] data: a JPEG or PNG file. image_transport puts the encoding before
                      compression in front of the format: "bayer_rggb8; jpeg compressed" is a mosaic still.

Of 16-bit samples the upper 8 bits are kept. A camera that puts 10 or 12 bits into them unscaled comes out dark.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np

from evlift.events.readers.ros_messages import Cursor, Damaged

IMAGE, COMPRESSED = "sensor_msgs/Image", "sensor_msgs/CompressedImage"

_CHANNELS = {  # encoding: the channels that red, green and blue are in (one for grey), number of channels
    "mono": ([0], 1),
    "rgb": ([0, 1, 2], 3),
    "bgr": ([2, 1, 0], 3),
    "rgba": ([0, 1, 2], 4),
    "bgra": ([2, 1, 0], 4),
}
_SAME = {"8UC1": "mono8", "8UC3": "bgr8", "8UC4": "bgra8", "yuv422": "uyvy", "yuv422_yuy2": "yuyv"}  # as in cv_bridge


def decode_image(kind: str, cursor: Cursor) -> np.ndarray:
    """uint8 [H, W] or [H, W, 3] RGB of an Image or CompressedImage whose header has been read.

    Raises Damaged: fields or data that are not all there, an encoding that is not read, a picture that does not decode.
    """
    return _decode_raw(cursor) if kind == IMAGE else _decode_compressed(cursor)


def _decode_raw(cursor: Cursor) -> np.ndarray:
    height, width, encoding = cursor.number("I"), cursor.number("I"), cursor.string()
    big_endian, step = cursor.number("B"), cursor.number("I")
    data = cursor.take(cursor.number("I"))

    encoding = _SAME.get(encoding, encoding)
    name, depth = (encoding[:-2], 2) if encoding.endswith("16") else (encoding.removesuffix("8"), 1)
    channels = 2 if encoding in ("uyvy", "yuyv") else 1 if name.startswith("bayer_") else _CHANNELS.get(name, (0, 0))[1]
    if not channels or (name in _CHANNELS and name == encoding):
        raise Damaged(f"encoding {encoding[:20]!r}, which evlift does not read")
    row = width * channels * depth
    if not row or not height or step < row or (height - 1) * step + row > len(data):
        raise Damaged(f"{len(data)} bytes of data for {width}×{height} {encoding} with a step of {step}")

    samples = np.dtype("u1" if depth == 1 else ">u2" if big_endian else "<u2")
    picture = np.ndarray((height, width, channels), samples, data, 0, (step, channels * depth, depth))
    picture = picture if depth == 1 else (picture >> 8).astype(np.uint8)
    if name in _CHANNELS:
        order = _CHANNELS[name][0]
        return np.ascontiguousarray(picture[..., order] if len(order) == 3 else picture[..., 0])
    return _convert(np.ascontiguousarray(picture), encoding if channels == 2 else name)


def _convert(picture: np.ndarray, name: str) -> np.ndarray:
    """RGB of a mosaic [H, W, 1] or of 4:2:2 colour [H, W, 2]."""
    import cv2

    codes = {
        "bayer_rggb": cv2.COLOR_BayerRGGB2RGB,
        "bayer_bggr": cv2.COLOR_BayerBGGR2RGB,
        "bayer_gbrg": cv2.COLOR_BayerGBRG2RGB,
        "bayer_grbg": cv2.COLOR_BayerGRBG2RGB,
        "uyvy": cv2.COLOR_YUV2RGB_UYVY,
        "yuyv": cv2.COLOR_YUV2RGB_YUY2,
    }
    if name not in codes:
        raise Damaged(f"encoding {name[:20]!r}, which evlift does not read")
    if picture.shape[0] < 3 or picture.shape[1] < 3 or picture.shape[1] % 2:
        raise Damaged(f"{picture.shape[1]}×{picture.shape[0]} pixels, too few for {name}")
    return cv2.cvtColor(picture, codes[name])


def _decode_compressed(cursor: Cursor) -> np.ndarray:
    source, _, _ = cursor.string().partition(";")
    data = bytes(cursor.take(cursor.number("I")))
    if data[:2] == b"\xff\xd8":
        picture = _decode_jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        picture = _decode_png(data)
    else:
        raise Damaged("neither JPEG nor PNG")
    if source.startswith("bayer_") and picture.ndim == 2:
        return _convert(picture[..., None], source.removesuffix("8").removesuffix("16"))
    return picture


def _decode_jpeg(data: bytes) -> np.ndarray:
    import simplejpeg

    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, data)
        if colours == "Gray":
            return simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
        return simplejpeg.decode_jpeg(data, colorspace="RGB")
    except ValueError as error:
        raise Damaged("damaged JPEG") from error


def _decode_png(data: bytes) -> np.ndarray:
    import cv2

    _check_png(data)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise Damaged("damaged PNG") from error
    if picture is None:
        raise Damaged("damaged PNG")
    if picture.dtype == np.uint16:
        picture = (picture.view(np.uint16) >> 8).astype(np.uint8)
    return np.ascontiguousarray(picture[..., 2::-1]) if picture.ndim == 3 else picture


def _check_png(data: bytes) -> None:
    """Damaged unless every chunk is whole to the last one: decoders fill in what is missing and say nothing."""
    at, kind = 8, b""
    while kind != b"IEND":
        if len(data) < at + 12:
            raise Damaged("damaged PNG")
        size, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 4 : at + 8 + size]
        if len(data) < at + 12 + size or zlib.crc32(body) != struct.unpack_from(">I", data, at + 8 + size)[0]:
            raise Damaged("damaged PNG")
        if at == 8:
            if kind != b"IHDR" or size != 13:
                raise Damaged("damaged PNG")
            width, height = struct.unpack(">II", body[4:12])
            _check_size(width, height, data)
        at += 12 + size


def _check_size(width: int, height: int, data: bytes) -> None:
    """A few bytes can claim a picture of gigabytes."""
    if not 0 < width * height <= max(1 << 24, 7 * len(data)):
        raise Damaged(f"{len(data)} bytes of data that claim {width}×{height} pixels")
