"""A model's file: what it is, its vocabulary, whether it is whole."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from woolly.errors import ModelLoadFailed, translated
from woolly.quantization import QuantizationType
from woolly.vocabulary import Vocabulary

if TYPE_CHECKING:
    from quintet.tools.inspect import Inspection


class Architecture(str):
    """A model's family by its name, such as "llama"; comparable with texts."""

    __slots__ = ()

    @property
    def is_supported(self) -> bool:
        """Whether Quintet runs models of this family."""
        from quintet.models import architectures

        return str(self) in architectures()


@dataclass(frozen=True)
class ModelMetadata:
    """
    What a file says of its model.

    Args:
        parameters: weights of all tensors together.
        quantization: the number format of most of its bytes.
        file_size: bytes of all its files.
    """

    name: str
    author: str | None
    description: str | None
    license: str | None
    parameters: int
    quantization: QuantizationType
    file_size: int


class Model:
    """A model's file; use `from_file`.  To run it, give its path to `Engine.load_model`."""

    def __init__(self, path: Path, inspection: Inspection) -> None:
        self.path = path
        self._inspection = inspection
        self._vocabulary: Vocabulary | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Model:
        """
        Read a file's headers.

        Args:
            path: of a GGUF or safetensors file, or a name that Quintet knows.

        Raises:
            ModelNotFound: there is none.
            ModelLoadFailed: it breaks its format.
        """
        from quintet.hub.resolve import resolve
        from quintet.tools.inspect import inspect_model

        with translated():
            found = resolve(path)
            return cls(found, inspect_model(found))

    def metadata(self) -> ModelMetadata:
        """What the file says of the model.

        Raises:
            ModelLoadFailed: most of it is in a number format without a name here.
        """
        values, totals = self._inspection.metadata, self._inspection.totals()
        kind = totals[0].type if totals else "F32"
        if kind not in QuantizationType.__members__:
            raise ModelLoadFailed(f"unknown number format {kind}")
        return ModelMetadata(
            name=_text(values.get("general.name")) or self.path.stem,
            author=_text(values.get("general.author")),
            description=_text(values.get("general.description")),
            license=_text(values.get("general.license")),
            parameters=self._inspection.num_parameters,
            quantization=QuantizationType[kind],
            file_size=self._inspection.num_file_bytes,
        )

    def architecture(self) -> Architecture:
        """The model's family."""
        values = self._inspection.metadata
        return Architecture(values.get("general.architecture") or values.get("model_type") or "")

    def vocabulary(self) -> Vocabulary:
        """Its tokens.

        Raises:
            ModelLoadFailed: it has none that can be read.
        """
        if self._vocabulary is None:
            from quintet.tokenizer import Tokenizer

            with translated():
                tokenizer = Tokenizer.from_file(self.path)
            size = tokenizer.vocab_size
            self._vocabulary = Vocabulary([tokenizer.token_text(each) for each in range(size)])
        return self._vocabulary

    def validate(self) -> None:
        """
        Read every tensor, and the vocabulary.

        Raises:
            ModelLoadFailed: something is broken, or not a number.
        """
        import numpy as np

        from quintet.formats.gguf import GGUFFile
        from quintet.formats.safetensors import SafetensorsDir

        self.vocabulary()
        with translated():
            kind = GGUFFile if self._inspection.format.startswith("GGUF") else SafetensorsDir
            with kind.open(self.path) as file:
                for name in file.tensors:
                    if not np.isfinite(file.dequantized(name)).all():
                        raise ModelLoadFailed(
                            f"{self.path}, {name}: expected numbers, found NaN or infinity"
                        )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
