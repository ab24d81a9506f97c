# `make demo` and `make test` need only make and Python 3.11 or newer: the first one sets up .venv.

# 3.11 comes first: requirements.lock was tested with it.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: base demo test notebook lint format lock clean gpu-check trackers audit attack attack-kills attack-disks fuzz soak

# Pre-train the weights in the package again: about three quarters of an hour on one core.
base: $(READY)
	$(BIN)/r1kit run tiny-base
	rm -rf src/r1kit/tiny/base src/r1kit/tiny/half
	cp -r "$$(ls -td runs/tiny-base/pretrain-*/model | head -n 1)" src/r1kit/tiny/base
	cp -r "$$(ls -td runs/tiny-base/half-*/model | head -n 1)" src/r1kit/tiny/half

demo: $(READY)
	$(BIN)/r1kit run r1 --scale tiny

# Parts of the recipe r1, each with all that it needs; finished stages are reused. SCALE=smollm2 for a real model.
SCALE ?= tiny
PART_sft-train := dev1
PART_rl-train-reasoning := dev2
PART_generate-synthetic := mix
PART_sft-train-expanded := dev3
PART_rl-train-utility := r1
PART_distill := student-rl,student-sft,student-logits
PART_evaluate := report
PARTS := sft-train rl-train-reasoning generate-synthetic sft-train-expanded rl-train-utility distill evaluate
.PHONY: $(PARTS)
$(PARTS): $(READY)
	$(BIN)/r1kit run r1 --scale $(SCALE) --until $(PART_$@) $(ARGS)

# One torch thread per worker: more threads than cores slow each other down. Three workers on two cores, because some
# tests only wait.
test: export OMP_NUM_THREADS = 1
test: lint
	$(BIN)/python -m pytest -n 3 --dist worksteal

# Needs a GPU and a torch with CUDA; less than eight minutes, no network. Elsewhere: ARGS="--device cpu --shapes tiny".
gpu-check: $(READY)
	$(BIN)/python benchmarks/gpu_check.py $(ARGS)

# The notebook in full, in a Jupyter kernel of a new environment with the package alone.
notebook:
	$(PYTHON) -m venv --clear build/notebook
	build/notebook/bin/python -m pip install -qq "$$(grep -E '^torch==' requirements.lock)"
	build/notebook/bin/python -m pip install -qq -c requirements.lock . nbclient ipykernel
	rm -rf build/notebook-run && mkdir -p build/notebook-run && cp examples/r1_zero.ipynb build/notebook-run
	build/notebook/bin/jupyter execute build/notebook-run/r1_zero.ipynb --output=done.ipynb
	@grep -q 'image/svg+xml' build/notebook-run/done.ipynb || { echo "the notebook drew no curves" >&2; exit 1; }
	@echo "build/notebook-run/done.ipynb"

# All trackers, which the suite leaves out because of what they bring: some minutes and 0.5 GB for .venv-trackers.
trackers: $(READY)
	$(BIN)/python -m venv .venv-trackers
	echo "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" > "$$(.venv-trackers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/project.pth"
	.venv-trackers/bin/python -m pip --disable-pip-version-check install -q 'trackio>=0.43' 'tensorboard>=2.20' 'wandb>=0.31' 'mlflow>=3.10'
	PYTHONPATH=src .venv-trackers/bin/python -m pytest -q tests/test_tracking.py
	PYTHONPATH=src .venv-trackers/bin/python benchmarks/trackers.py

# Known vulnerabilities in the tested versions; asks the database of PyPI, and fails where it cannot.
audit:
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip --disable-pip-version-check install -q pip-audit
	.venv-audit/bin/python benchmarks/audit.py

# The attacks on runs, readers and servers. The short forms are in `make test`; these print figures.
KILLS ?= 100
DISKS ?= 40
attack: attack-kills attack-disks
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/sandbox_load.py

attack-kills: $(READY)
	$(BIN)/python benchmarks/attack_runs.py kills --times $(KILLS)

attack-disks: $(READY)
	$(BIN)/python benchmarks/attack_runs.py disks --times $(DISKS)

# Every reader of outside data on damaged inputs, guided by coverage where atheris is installed.
SECONDS_EACH ?= 60
fuzz: $(READY)
	$(BIN)/python benchmarks/fuzz_readers.py --seconds $(SECONDS_EACH)

# 3,000 steps of RL: do memory, handles, disk and the time of a step grow? About an hour on one core.
soak: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/soak.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Torch first: a requirement without a version would take the newest torch, with gigabytes of CUDA.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv was found: install one, or run make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up $(VENV) with $(PYTHON) (once; some minutes)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -qq "$$(grep -E '^torch==' requirements.lock)"
	$(PIP) install -qq -r requirements.lock
	$(PIP) install -qq --no-deps -e .
	@touch $@

# The packages of this environment, without r1kit itself and those that torch picks for the machine.
LOCK_FROM ?= $(BIN)/python
lock:
	@$(LOCK_FROM) -m pip --disable-pip-version-check freeze --exclude-editable --exclude r1kit \
		| grep -viE '^(nvidia-|cuda-|triton==|-e )| @ ' | sed -E 's/\+(cpu|cu[0-9]+)$$//' > requirements.lock.new
	@grep -qE '^torch==' requirements.lock.new || { rm requirements.lock.new; echo "$(LOCK_FROM) has no torch: run make test first" >&2; exit 1; }
	@mv requirements.lock.new requirements.lock
	@echo "requirements.lock: $$(wc -l < requirements.lock) packages"

clean:
	rm -rf $(VENV) .venv-trackers .venv-audit .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
