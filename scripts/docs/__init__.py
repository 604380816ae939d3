"""The documentation site: pages under docs/, and a reference that is made from the code.

python -m scripts.docs        as `make docs`: build/site, which needs no network to build or to read
"""
