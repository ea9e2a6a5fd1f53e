# make demo   set up, run experiments/demo_tmtf.toml, render its report
# make test   set up, run the tests        make lint      ruff, mypy, import contracts
# make science  every experiment in its quick profile, thresholds against human data; prints the total time
# make bench / bench-peers  timings
# make docs   build the documentation site into site/
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint science bench bench-peers docs reports clean

# One stamp per set of extras: a set is installed again only when the metadata change.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing psysim ($*) into $(VENV) ..."
	@$(PIP_INSTALL) -e $(if $(filter base,$*),.,".[$*]")
	@touch $@

demo: $(VENV)/.installed-base
	@test -e runs/demo_tmtf.zarr || $(BIN)/psysim run experiments/demo_tmtf.toml --out runs/demo_tmtf.zarr --resume
	@$(BIN)/psysim report runs/demo_tmtf.zarr --out runs/demo_tmtf.html

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not science and not gpu" -n $(WORKERS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

science: $(VENV)/.installed-test
	$(BIN)/psysim suite experiments/*.toml --profile quick --out runs/science --resume
	$(BIN)/python -m pytest -m science

bench: $(VENV)/.installed-test
	@for name in ops models nerve loudness networks procedures stimuli experiment; do \
	    $(BIN)/python benchmarks/bench_$$name.py --json benchmarks/results/$$name.json || exit 1; done

bench-peers: $(VENV)/.installed-test
	$(BIN)/python benchmarks/bench_peers.py
	$(BIN)/python benchmarks/peer_questplus.py time --peer-python .venv-peers/bin/python \
	    --json benchmarks/results/peer_questplus.json
	$(BIN)/python benchmarks/peer_psignifit.py

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict

# The reference reports, from the experiments in full (about 90 minutes on two cores)
reports: $(VENV)/.installed-base
	$(BIN)/python reports/drnl_input_output.py
	$(BIN)/python reports/speech_material.py
	$(BIN)/python reports/loudness.py
	$(BIN)/python reports/trained_observers.py
	@for name in demo_tmtf tmtf_broadband tmtf_narrowband tmtf_tone intensity_jnd absolute_threshold absolute_threshold_loudness \
	    intensity_discrimination_tone intensity_discrimination_noise tone_in_notched_noise tone_in_noise_duration \
	    spectral_masking forward_masking_delay forward_masking_growth tmtf_broadband_casp tmtf_narrowband_casp \
	    tmtf_tone_casp fm_detection_500hz fm_detection_5khz fm_detection_am_masker equal_loudness_contours \
	    spectral_loudness_summation temporal_integration_loudness tone_in_noise_network f0_discrimination_phase_locking \
	    speech_reception_network; do \
	    $(BIN)/psysim run experiments/$$name.toml --resume && \
	    $(BIN)/psysim report runs/$$name.zarr --out reports/$$name.html || exit 1; done

clean:
	rm -rf runs site .pytest_cache .mypy_cache .ruff_cache .hypothesis
