"""Which Ergon this is; kept here so that telling it costs no look into installed packages."""

from typing import Final

VERSION: Final = "0.1.0"
