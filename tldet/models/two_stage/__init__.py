"""Stages of two-stage detectors: region proposals, box branch, mask branch, and their losses."""
