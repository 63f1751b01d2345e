"""Writers of formats: one file per format."""
