"""The reference runtime: transformers' CLIP on torch, float32, CPU or CUDA.

Plain on purpose: every other runtime is checked against this one. SigLIP and other dual encoders
that transformers knows load the same way.
"""

from __future__ import annotations

import inspect
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kinshelf.db.errors import EncoderUnavailable
from kinshelf.store.encode.fingerprint import fingerprint
from kinshelf.store.encode.image_processor import read_preprocessing
from kinshelf.store.encode.precision import FLOAT32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from PIL import Image

T = TypeVar("T")

_BATCH = {"cpu": 32, "cuda": 256}
"""Items a forward pass: a CPU gains nothing beyond its caches, a GPU starves below."""

_ANEW = "download it anew, with config, weights and tokenizer of one model"


class ClipEncoder:
    """`store.encoder.Encoder` by transformers, from a complete model directory.

    Raises EncoderUnavailable if the model is damaged, incomplete, no dual encoder, or the device
    is not there.
    """

    precision = FLOAT32

    def __init__(self, name: str, directory: Path, *, device: str | None = None) -> None:
        self.name = name
        self.preprocessing = read_preprocessing(directory)
        self.fingerprint = fingerprint(directory)
        self._device = choose_device(device)
        with _quiet():
            self._model = _load_model(directory).to(self._device)
            self._tokenizer = _load_tokenizer(directory)
        config = self._model.config
        self.dimension: int = _dimension(config)
        self._max_tokens = min(
            self._tokenizer.model_max_length, config.text_config.max_position_embeddings
        )
        self._reads = inspect.signature(self._model.get_text_features).parameters
        # SigLIP was trained on texts padded to the full length, and reads the padding.
        self._padding = "max_length" if config.model_type.startswith("siglip") else True

    def preprocess(self, image: Image.Image) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, resized and cropped; thread-safe. See `Encoder.preprocess`."""
        return self.preprocessing.pixels(image)

    def encode_pixels(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Unit rows, (n, d) float32, of n results of `preprocess`."""
        return self._encode(pixels, self._image_features)

    def encode_images(self, images: Sequence[Image.Image]) -> NDArray[np.float32]:
        """Unit rows, (n, d) float32, of n RGB pictures."""
        return self._encode(
            images, lambda batch: self._image_features([self.preprocess(i) for i in batch])
        )

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit rows, (n, d) float32, of n texts; beyond the last token a text is not read."""
        return self._encode(texts, self._text_features)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """Count the texts with more tokens than the model reads, start and end included."""
        if not texts:
            return 0
        with _quiet():
            tokens = self._tokenizer(list(texts))["input_ids"]
        return sum(len(ids) > self._max_tokens for ids in tokens)

    def _encode(
        self, items: Sequence[T], features: Callable[[Sequence[T]], Any]
    ) -> NDArray[np.float32]:
        import torch

        rows = np.empty((len(items), self.dimension), dtype=np.float32)
        step = _BATCH[self._device.type]
        for start in range(0, len(items), step):
            with torch.inference_mode(), _full_precision():
                # transformers 5 returns an output object, before that a tensor.
                found = features(items[start : start + step])
                tensor = getattr(found, "pooler_output", found)
                unit = torch.nn.functional.normalize(tensor.float(), dim=-1)
            rows[start : start + step] = unit.cpu().numpy()
        return rows

    def _image_features(self, pixels: Sequence[NDArray[np.uint8]]) -> Any:
        import torch

        batch = torch.from_numpy(self.preprocessing.normalised(pixels))
        return self._model.get_image_features(pixel_values=batch.to(self._device))

    def _text_features(self, texts: Sequence[str]) -> Any:
        tokens = self._tokenizer(
            list(texts),
            padding=self._padding,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        # A generic tokenizer adds token types, which only some text towers know.
        known = {key: value.to(self._device) for key, value in tokens.items() if key in self._reads}
        return self._model.get_text_features(**known)


def choose_device(device: str | None) -> torch.device:
    """The device of that name, or the best there is. Raises EncoderUnavailable."""
    import torch

    try:
        chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError as error:
        raise EncoderUnavailable(f"{device!r} is no device: give cpu, cuda or cuda:N") from error
    if chosen.type not in _BATCH:
        raise EncoderUnavailable(f"device {device!r} is not supported: give cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise EncoderUnavailable(f"there is no device {device!r}: torch sees {count}; give cpu")
    return chosen


def _load_model(directory: Path) -> Any:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel

    try:
        model, report = AutoModel.from_pretrained(
            directory,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise EncoderUnavailable(f"it cannot be loaded ({_first_line(error)}); {_ANEW}") from error
    # transformers would fill them with random numbers and only warn.
    if wrong := sorted(report["missing_keys"] | {key for key, *_ in report["mismatched_keys"]}):
        message = f"its weights and config.json do not fit: {wrong[0]} is missing or another shape"
        raise EncoderUnavailable(f"{message}; {_ANEW}")
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        message = f"it is a {model.config.model_type} model, not one of pictures and texts"
        raise EncoderUnavailable(f"{message}: give a CLIP or SigLIP")
    return model.eval().requires_grad_(False)


def _load_tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, ImportError) as error:
        message = f"its tokenizer cannot be loaded ({_first_line(error)})"
        raise EncoderUnavailable(f"{message}; {_ANEW}") from error


def _dimension(config: Any) -> int:
    projection = getattr(config, "projection_dim", None)
    return int(projection or config.vision_config.hidden_size)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(". ")


@contextmanager
def _full_precision() -> Iterator[None]:
    """cuDNN computes float32 convolutions with 10-bit mantissas unless configured otherwise."""
    import torch

    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' warnings and progress bars; its settings are put back afterwards."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        # With that variable set, switching them on again would warn.
        if bars and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
            logging.enable_progress_bar()
