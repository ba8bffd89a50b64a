# Two commands for a newcomer: `make demo` does the main job, `make test` runs the tests. Both set up .venv by themselves.
# Needs python3.11 or newer with pip, and make. Everything is installed into .venv and nowhere else.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.premortem-ready
LAYERS := agent tools interp prompts
TYPES := build/types/premortem
# Processes that run tests side by side, a thread each: much of a test is Python that one core waits on.
WORKERS ?= 2

export HF_HUB_DISABLE_TELEMETRY := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint layers types wheel bench-encode bench-plants bench-real bench-kill bench-skill bench-forecast bench-agent bench-wishes clean

help:
	@echo "make demo          read the demo's pairs, find what they would teach, fix it, write a report and the new dataset"
	@echo "make test          all tests, those with the embedded model included"
	@echo "make check         format, lint, import layers, types, the wheel and its clean install"
	@echo "make bench-encode  how fast pairs go through the lens on this machine"
	@echo "make bench-plants  what is found of behaviours planted in real pairs; PAIRS names their folder"
	@echo "make bench-real    what runs find in four real files, each with a spec; PAIRS names their folder"
	@echo "make bench-kill    whether a run that is killed and given again exports the same bytes"
	@echo "make bench-skill   whether real DPO does what the forecast says; PAIRS names the folder; hours"
	@echo "make bench-forecast  what today's forecaster says of the trainings made; PAIRS names the folder; half an hour"
	@echo "make bench-wishes  what the lens learns of a wish from six sentences; PAIRS names their folder"
	@echo "make bench-agent   whether the LLM agent is worth its tokens; PAIRS names the folder, LLM the model; hours"
	@echo "make clean         remove what builds and tests left behind (.venv and runs/ stay)"

# A .venv without pip, or of an older Python, is what a failed try left behind: it is made anew.
USABLE := import sys; assert sys.version_info >= (3, 11)
define MAKE_VENV
"$(PYTHON)" -c '$(USABLE)' 2> /dev/null || { \
	echo "needs python3.11 or newer, and $(or $(PYTHON),python3) is none: make PYTHON=/path/to/python3.11" >&2; exit 1; }; \
"$(PYTHON)" -m venv $$(test ! -e $(VENV)/pyvenv.cfg || echo --clear) $(VENV) || { \
	echo "$(PYTHON) could not make $(VENV); on Debian and Ubuntu: apt install python3.11-venv (the version of your python), then make again" >&2; \
	exit 1; }
endef

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once; some minutes, most of them downloads)"
	@$(BIN)/python -c '$(USABLE); import pip' 2> /dev/null || { $(MAKE_VENV); }
	@$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,validate]"
	@touch $@

demo: $(READY)
	$(BIN)/agent models fetch
	$(BIN)/agent run --spec runs/demo/spec.md
	$(BIN)/agent report last
	@out="$$(mktemp -d)/pairs.debugged.jsonl" && set -x && $(BIN)/agent export last -o "$$out"
	@echo
	@echo "Done. Open the report named above in a browser. Then: $(BIN)/agent review last"

test: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not wheel" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: lint layers types wheel

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

layers: $(READY)
	$(BIN)/lint-imports --no-logo

# mypy reads the sources under the names they are installed by; the links give it that view.
types: $(READY)
	@mkdir -p $(TYPES)
	@for layer in $(LAYERS); do ln -sfn "$(CURDIR)/$$layer" $(TYPES)/$$layer; done
	MYPYPATH=build/types $(BIN)/mypy $(foreach layer,$(LAYERS),-p premortem.$(layer))

wheel: $(READY)
	$(BIN)/python -m pytest -m wheel

bench-encode: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_encode.py --json tests/bench/results/encode.json \
		$(if $(PAIRS),--many "$(PAIRS)/hh-harmless.jsonl")

bench-plants: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_plants.py --pairs "$(PAIRS)" --json tests/bench/results/plants.json

bench-real: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_real.py --pairs "$(PAIRS)"

bench-wishes: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_wishes.py --pairs "$(PAIRS)"

bench-kill: $(READY)
	$(BIN)/agent models fetch
	$(BIN)/python tests/bench/bench_kill.py --json tests/bench/results/kill.json

bench-skill: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_skill.py --pairs "$(PAIRS)"
	$(BIN)/python tests/bench/read_skill.py

bench-forecast: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/forecast_again.py --pairs "$(PAIRS)"
	$(BIN)/python tests/bench/read_skill.py

bench-agent: $(READY)
	$(BIN)/agent models fetch
	HF_HUB_OFFLINE=1 $(BIN)/python tests/bench/bench_agent.py --pairs "$(PAIRS)" --llm "$(LLM)"
	$(BIN)/python tests/bench/read_agent.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find $(LAYERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
