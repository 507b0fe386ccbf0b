"""Steps: work that several stages share. No stage imports another stage."""
