"""The one command, edgerm: a file per subject, imported when it is used."""
