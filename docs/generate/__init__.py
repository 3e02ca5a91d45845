"""Pages that are written from code and protos, a file per subject; `docs/build.py` puts them into the site."""
