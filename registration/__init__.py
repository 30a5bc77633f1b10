"""registration: motion tracking in cine MR and general image registration."""
