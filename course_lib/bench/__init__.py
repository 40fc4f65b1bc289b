"""How fast networks and reading are on a device, as a record: `course bench`, or `python -m course_lib.bench` where
little but torch is installed. `measure` times networks, `reading` decodes, `record` keeps the parts,
`table` prints them."""
