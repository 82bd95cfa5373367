"""From a hospital's own extract to MIMIC-IV-style tables, by what its YAML file says and by nothing else.

config      the words of the YAML file
staging     files and databases become Parquet copies of the columns that are read
relations   staged copies are joined, filtered, unpivoted and pivoted into the rows that the mappings read
tables      rows become patients, admissions, stays, diagnoses, prescriptions, cultures and notes
events      rows become chart, laboratory, input and output events, by code and unit
report      what was mapped, what was not, and what looks wrong
"""
