"""Steps that several stages share. A stage never imports another stage."""
