"""Reports of measurements: data records and generated pages."""
