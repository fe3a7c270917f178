# Every target calls dev.py, which needs only python3. Pass arguments on with ARGS: make test ARGS="-k timers"
PYTHON ?= python3
ARGS ?=

.DEFAULT_GOAL := help
TARGETS := test demo bench check lint types fmt postgres replay-proof torture lock setup doctor clean
.PHONY: help $(TARGETS)

help: ## Show this list
	@$(PYTHON) dev.py help

$(TARGETS):
	@$(PYTHON) dev.py $@ $(ARGS)
