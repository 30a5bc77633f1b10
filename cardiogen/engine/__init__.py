"""Machinery of models: bundles, configuration, template fitting."""

from cardiogen.engine.bundle import (
    Bundle,
    default_bundle_path,
    find_bundle,
    read_bundle,
    write_bundle,
)

__all__ = ["Bundle", "default_bundle_path", "find_bundle", "read_bundle", "write_bundle"]
