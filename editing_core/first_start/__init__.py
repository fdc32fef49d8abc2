"""What is measured of a backbone before its first edit, so that nothing need be trained."""
