"""Take a JSON object apart without decoding its values: each may have a type of its own."""

from __future__ import annotations

from typing import Any

import msgspec

from ergon.errors import DecodingError

_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(dict[str, msgspec.Raw])


def split_object(text: str) -> dict[str, str]:
    """The members of a JSON object, each as JSON text. Raises `DecodingError` when it is no object."""
    try:
        return {name: bytes(raw).decode() for name, raw in _decoder.decode(text).items()}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodingError(f"stored text is not a JSON object: {error}") from None
