"""Compare finished runs: one table with spread over seeds, paired differences, ranks and costs.

Import `compare_runs` from `ktfast.report.comparison.compare`. `cells` reads run folders, `parts`
separates what cannot be compared, `table` ranks, and `text`, `files` and `page` write the table.
"""
