"""Fetching Kinetics: which archives CVDF has (cvdf), over HTTP (http), out of tar.gz (archive), in one (kinetics)."""
