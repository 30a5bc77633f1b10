"""Machinery of models: bundles, configuration, template fitting."""

from cardiogen.engine.bundle import Bundle, default_bundle_path, read_bundle, write_bundle

__all__ = ["Bundle", "default_bundle_path", "read_bundle", "write_bundle"]
