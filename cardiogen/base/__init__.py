"""What every floor needs and no torch: errors, files, keyed randomness, progress."""

from cardiogen.base.errors import CardiogenError, Exit, Note
from cardiogen.base.files import atomic_folder, atomic_write, read_bounded, sha256_file, write_json
from cardiogen.base.progress import progress
from cardiogen.base.random import keyed_rng, keyed_seed

__all__ = [
    "CardiogenError",
    "Exit",
    "Note",
    "atomic_folder",
    "atomic_write",
    "keyed_rng",
    "keyed_seed",
    "progress",
    "read_bounded",
    "sha256_file",
    "write_json",
]
