"""The market file: read, checked and compared, its versions kept. A library for steps; it imports none."""
