# make setup   the environment .venv: pinned dependencies, Detectron2, this package
#              PYTHON=python3.12    another interpreter, of Python 3.11 to 3.13
#              TORCH=default        (default) PyTorch as the package index has it: on Linux with CUDA 13.0
#              TORCH=cpu            without CUDA: 4 GB less
#              TORCH=cu126, cu130   with this CUDA; cu126 for drivers before 580 and for GPUs up to Volta
#              DETECTRON2=wheel     (default) the hash-pinned wheel of requirements-detectron2.txt
#              DETECTRON2=official  the official repository at a pinned commit, built from source (needs git)
#              DEV=no               without the tools that test and lint
# make demo    synthetic data, LENS trained on four datasets, evaluation: everything under output/demo
# make test    the tests (PYTEST_ARGS="-k name" picks some, PYTEST_WORKERS=1 runs them in one process); make coverage: the same, with coverage measured
# make lint    ruff, mypy on the public modules (alone: make typecheck) and hadolint; make format rewrites what
#              ruff can; make hooks has git run the same before every commit
# make docs    the documentation and the API as pages: build/docs/index.html
# make clean   caches and build leftovers; make distclean: the environment and the demo's output too
#
# Every command makes the environment where it is missing or older than a requirements file.

PYTHON ?= python3
VENV ?= .venv
DEMO_OUTPUT ?= output/demo
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
DEV ?= yes

DETECTRON2_REPOSITORY ?= https://github.com/facebookresearch/detectron2
DETECTRON2_COMMIT := a59f05630a8f205756064244bf5beb8661f96180
TORCH_INDEX ?= https://download.pytorch.org/whl/$(TORCH)

# A stamp tells which kinds of Detectron2 and PyTorch are installed; they stay until others are asked for.
INSTALLED := $(subst -, ,$(patsubst $(VENV)/installed-%,%,$(firstword $(wildcard $(VENV)/installed-*))))
DETECTRON2 ?= $(or $(word 1,$(INSTALLED)),wheel)
TORCH ?= $(or $(word 2,$(INSTALLED)),default)
ifeq ($(filter wheel official,$(DETECTRON2)),)
$(error DETECTRON2 is "wheel" or "official", not "$(DETECTRON2)")
endif
ifeq ($(filter default cpu cu126 cu130,$(TORCH)),)
$(error TORCH is "default", "cpu", "cu126" or "cu130", not "$(TORCH)")
endif
STAMP := $(VENV)/installed-$(DETECTRON2)-$(TORCH)
INSTALL_FILES := requirements.txt requirements-dev.txt requirements-detectron2.txt constraints.txt setup.py

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check $(if $(CI),--quiet)
# Conflicts are not shown: the metadata of Detectron2's wheel asks for numpy<2 and black, and it needs neither.
INSTALL := $(PIP) install --no-warn-conflicts

.PHONY: setup demo test coverage docs lint typecheck format hooks constraints clean distclean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): $(INSTALL_FILES)
	@test -x $(BIN)/pip || $(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null || { \
	    echo "make: '$(PYTHON)' is not Python 3.11, 3.12 or 3.13: install one (Debian and Ubuntu: python3 python3-venv) or name it with PYTHON=/path/to/python3" >&2; exit 2; }
	@rm -f $(VENV)/installed-*
	@echo "Installing into $(VENV): $(if $(filter cpu,$(TORCH)),about 2 GB,about 6 GB, most of it the CUDA libraries of torch)"
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(if $(filter default,$(TORCH)),,$(INSTALL) -c constraints.txt --index-url $(TORCH_INDEX) torch torchvision)
	$(INSTALL) -c constraints.txt -r requirements.txt $(if $(filter no,$(DEV)),,-r requirements-dev.txt)
	$(PIP) -qq uninstall --yes detectron2 sal-detectron2
	$(install-$(DETECTRON2))
	$(INSTALL) --no-deps --no-build-isolation -e .
	@$(BIN)/python -W ignore -c "import detectron2, lens_d2.config; print('lens_d2', lens_d2.__version__, 'with detectron2', detectron2.__version__)"
	@touch $@

define install-wheel
$(BIN)/python -m lens_d2 setup
endef

define install-official
@command -v git > /dev/null || { echo "make: building Detectron2 needs git: install it, or use DETECTRON2=wheel" >&2; exit 2; }
$(INSTALL) -c constraints.txt ninja
$(INSTALL) --no-deps --no-build-isolation "detectron2 @ git+$(DETECTRON2_REPOSITORY)@$(DETECTRON2_COMMIT)"
endef

demo: $(STAMP)
	$(BIN)/python tools/demo.py --output $(DEMO_OUTPUT)

test: $(STAMP)
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

coverage: $(STAMP)
	$(BIN)/python -m pytest --cov=lens_d2 --cov-report=term-missing:skip-covered $(PYTEST_ARGS)

docs: $(STAMP)
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

lint: $(STAMP) typecheck
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if [ -x $(BIN)/hadolint ]; then echo "$(BIN)/hadolint Dockerfile"; $(BIN)/hadolint Dockerfile; \
	    else echo "hadolint: no wheel for this machine, Dockerfile not linted"; fi

typecheck: $(STAMP)
	$(BIN)/mypy

hooks: $(STAMP)
	$(BIN)/pre-commit install

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# After a change of the requirements files: the versions now installed become the pinned ones.
constraints: $(STAMP)
	@{ echo "# The exact versions that the tests ran with; written by \`make constraints\`."; \
	    $(BIN)/python -m pip freeze --all --exclude-editable | grep -Ev '^(pip|detectron2|sal-detectron2|lens_d2)\b'; \
	} > constraints.tmp && mv constraints.tmp constraints.txt
	@touch $(STAMP)

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov constraints.tmp
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) $(DEMO_OUTPUT)
