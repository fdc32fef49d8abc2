"""Methods that turn one edit into one artifact, each behind the contract in base.py."""
