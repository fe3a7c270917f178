"""Values to JSON text and back, by declared type.

`encode` writes, a `Decoder` reads, `recode` does both at once so that a live flow sees what a replay will see.
`digest` fingerprints arguments; `hints_of` finds the declared types of a function.
"""

from ergon.core.codec.decode import MISSING, Decoder, Missing, decoder_for, recode
from ergon.core.codec.digest import digest
from ergon.core.codec.encode import PAYLOAD_BYTES_MAX, encode
from ergon.core.codec.hints import Hints, hints_of

__all__ = [
    "MISSING",
    "PAYLOAD_BYTES_MAX",
    "Decoder",
    "Hints",
    "Missing",
    "decoder_for",
    "digest",
    "encode",
    "hints_of",
    "recode",
]
