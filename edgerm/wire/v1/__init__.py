"""Generated from `proto/edgerm/wire/v1` by `make proto`; never edited by hand."""
