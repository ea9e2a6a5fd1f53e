"""Scripts that made reference data are no tests: they need the software they compare with."""

collect_ignore = ["make_phaselocknet_keras.py"]
