"""`ktfast bench SUBJECT`: measurements of ktfast beside other libraries on this machine."""
