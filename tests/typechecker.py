"""The run-time type checker that pytest puts behind every annotation of the package."""

from beartype import BeartypeConf, beartype

# Python's numeric tower: an int is welcome where a float is asked for.
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
